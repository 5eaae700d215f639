"""Names by context: what is found, and what looks like one and is none."""

from __future__ import annotations

import pytest
from gateway_scrub.names import NameRules

FOUND = [
    "Mr. «Smith» called.",
    "I spoke with Dr. «Maria González-Pérez», who",
    "Prof. Dr. «Müller» und Frau «Schmidt»",
    "Herr «von Braun» ist da",
    "Mme «Dubois» est là",
    "El Sr. «García» y la Sra. «Ruiz de la Torre»",
    "Mrs «O'Brien»'s house",
    "Ms. «King» and Mr. «Young» met",
    "MR. «JOHN SMITH»",
    "My name is «Inigo Montoya».",
    "my name is «peter» and i need help",
    "Hi, I am «John Carter» from Leeds",
    "I'm «Laura», nice to meet you",
    "Hello, this is «Kwame Mensah» calling about my bill",
    "Dear «Priya»,\nthank you",
    "Dear «Hamilton»,\n",
    "Hi «Anna»,\n\nsee below",
    "Name: «Tariq Aziz»\nAge: 31",
    "Full name: «Xiu Ying»",
    "first_name=«Oluwaseun»&x=1",
    "Patient name: «MARY JONES»",
    "From: «Jane Doe» <jane@example.com>",
    'To: "«Doe, Jane»" <jane@example.com>',
    "Author: «Grace Brewster» <g@x.org>",
    "Best regards,\n«Tom Ashworth»\nSales",
    "Thanks,\n«Julia»",
    "Signed, «Peter Novak»",
    "ich heiße «Jürgen Vogel»",
    "Mein Name ist «Annika Berg».",
    "je m'appelle «Benoît Lefèvre»",
    "me llamo «Lucía Fernández»",
    "mi chiamo «Giulia Conti».",
    "Meu nome é «João da Silva».",
    "Nachname: «Krämer»",
    "we asked «Jessica Wong» about it",
    "姓名：«张伟»，性别：男",
    "姓名:«欧阳娜娜»",
    "姓名：«张三»性别：男",
    "我叫«王小明»，今年18岁",
    "我叫«李雷»。",
    "大家好，我是«陈思远»，",
    "请联系«张»先生",
    "找«王»女士或者«李建国»医生",
    "«高»先生来了",
    "和«李»先生谈过",
    "小«王»老师",
    "«高»总在吗",
    "Ask Mr.«Smith» or President «Obama»",
    "«诸葛»老师说",
    "«司马文»老师",
    "«王»总，您好",
    "联系人：«刘洋»，电话13812345678",
    "收件人:«陳美玲»",
    "作家«列夫·托尔斯泰»写了",
    "«田中»様、お世話になっております",
    "«山田太郎»さんへ",
    "私は«佐藤»と申します",
    "이름: «김철수»",
    "«박지성»님 안녕하세요",
    "저는 «이영희»입니다",
]
NONE = [
    "Mr. President, thank you",
    "Dear Sir or Madam,",
    "Dear Customer Service,",
    "Dear Hiring Manager,",
    "Dear all,",
    "my name is on the list",
    "My name is written here",
    "I am happy",
    "I am German. I'm Catholic.",
    "I am Vice President of Sales",
    "I'm on it",
    "this is urgent",
    "Name: String",
    "name = Foo.bar()",
    "- name: Install Dependencies",
    "file name: README",
    "the class name is Scanner",
    "Support Team <help@example.com>",
    "Best regards,\nCustomer Support",
    "Thanks,\nPlease see below",
    "Victoria Park, San Diego Zoo, Martin Place",
    "Dr. Pepper and Ms. Universe",
    "Miss America",
    "Sir, please",
    "Herr der Ringe",
    "Frau Bundeskanzlerin",
    "The Dr said no",
    "Sr. Software Engineer",
    "signed by Apple Inc.",
    "a function named Foo",
    "first_name = StringField()",
    "王者荣耀很好玩",
    "高科技公司",
    "我是高兴的",
    "我是方便面",
    "我是江西人",
    "我是学生",
    "任何老师都可以",
    "向老师学习",
    "数学老师",
    "产品经理和项目经理",
    "老先生",
    "谢谢先生",
    "数据总和",
    "一位先生",
    "总是这样，总共三个",
    "姓名：性别：",
    "联系人：客服",
    "我叫他来",
    "我叫车去",
    "お客様、皆様、神様",
    "たくさんあります、お母さん",
    "오늘 날씨 좋다",
    "선생님, 고객님",
    "2·3",
]


@pytest.mark.parametrize("case", FOUND)
def test_a_name_is_found_by_what_stands_around_it(case: str) -> None:
    text = case.replace("«", "").replace("»", "")
    wanted = [piece.partition("»")[0] for piece in case.split("«")[1:]]
    assert [text[span.start : span.end] for span in NameRules().find(text)] == wanted


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_name_is_left(text: str) -> None:
    assert [text[span.start : span.end] for span in NameRules().find(text)] == []


def test_organisations_are_found_when_asked_for() -> None:
    text = "I work at Acme Widgets Ltd. and at 北京字节跳动科技有限公司 now; Müller & Söhne GmbH"
    found = [text[span.start : span.end] for span in NameRules(organisations=True).find(text)]
    assert found == ["Acme Widgets Ltd.", "北京字节跳动科技有限公司", "Müller & Söhne GmbH"]
    assert NameRules().find(text) == []


def test_places_are_those_of_the_original_text() -> None:
    text = "姓名\uff1a\u200b张\u200b伟\uff0c"
    (span,) = NameRules().find(text)
    assert text[span.start : span.end] == "张\u200b伟"
    assert "张" not in span.why
    assert NameRules(threshold=0.95).find(text) == []


@pytest.mark.parametrize(
    "unit",
    [
        "Mr. ",
        "A. ",
        "John ",
        "Mr. J. ",
        "张",
        "张先生",
        "·阿",
        "Name: ",
        "name: A",
        "様",
        "田中",
        "김씨",
        "I am ",
        "<a@",
        "Dear A",
        "A-b",
        "de la ",
        "\nThanks\n",
    ],
)
def test_no_repeated_text_takes_long(unit: str) -> None:
    text = unit * (10_000 // len(unit))
    assert all(span.end <= len(text) for span in NameRules(organisations=True).find(text))
