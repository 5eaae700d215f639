"""Chinese, Japanese and Korean names, by labels and cues before them, titles after them, and surnames within them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from gateway_scrub import names_latin
from gateway_scrub.finders_asia import SOFT, places
from gateway_scrub.spans import Span
from gateway_scrub.tables import words

HAN = "一-鿿"
IS_HAN = re.compile(f"[{HAN}]")
LABEL = re.compile(
    "(?:(?:姓名|名字|联系人|聯繫人|聯絡人|联络人|收件人|收货人|寄件人|负责人|代表人|申请人|申請人|患者|病人|经办人|签名|签字|户名|戶名|持卡人|投保人"
    "|被保险人|监护人|氏名)(?:姓名|名字|名称)?(?:是|叫|为|:|：)[: \t「【《]{0,3}|(?:姓名|氏名)[ \t]{1,3}"
    "|(?:姓名|联系人|收件人)(?=[一-鿿]{2,4}(?:电话|手机|,|，|性别|男|女)))"
)
LABELS = re.compile(
    "姓名|名字|系人|繫人|絡人|络人|件人|货人|责人|代表人|请人|請人|患者|病人|办人|签名|签字|户名|戶名|持卡人|保人|保险人|监护人|氏名"
)
I_AM = re.compile("我(?:的名字)?(?:叫做?|名叫|的名字是|姓名是)[ :：]?")
CALLED = re.compile("(?:名叫|叫做|名为|名為|本名|真名|化名)(?:叫|是)?")
TITLE = re.compile(
    "先生|女士|小姐|老师|老師|医生|醫生|大夫|经理|經理|教授|律师|律師|主任|同学|同學|师傅|師傅|局长|处长|科长|院长|校长|书记"
    "|部长|市长|县长|董事|总监|总裁|博士|护士|会计|法官|检察官|警官|阿姨|叔叔|太太|夫人"
)
BOSS = re.compile(r"总(?=[说好您的在请那这也让,，。!！?？:：\s]|\Z)")
LEFT_OK = frozenset("的和与跟找请问给向让叫对由是被把及位见约到在为以有说听等看帮陪因而但那这是了约派同即系爱谢嘿喂着称小老")
NOT_ALONE = frozenset("和向从连位时成包单当应任关解查管何边左路房车古项")
NEXT_LABEL = re.compile(
    "性别|年龄|电话|手机|身份证|民族|出生|住址|地址|邮箱|微信|职务|职业|男|女|联系|学号|工号|部门|单位|今年|来自|是|也|的|和|在|说|住|很|想|要|刚|毕业|现在|，"
)
SAN = re.compile("様|さん|氏(?![名族])|と申します|です")
KOREAN = re.compile("씨(?![앗름족줄])|님|입니다")
KOREAN_NAME = re.compile("[가-힣]{3} ?\\Z")
KOREAN_LABEL = re.compile(
    "(?:이름|성명|성함|예금주|수취인|보호자|환자명|담당자)(?:은|는|이)?[ ]?[:：]?[ ]{0,2}"
    "(?P<v>[가-힣]{2,4})(?=[ ,.\n)/]|입니다|이고|이며|\\Z)"
)
KOREAN_TITLE = re.compile(
    "(?:교수|사장|부장|과장|대리|팀장|원장|선생|작가|감독|기사|회장|고객|손님|하나|부모|주인"
    "|장인|공주|왕자|도련|스승|의사|이모) ?\\Z"
)
"""What comes before a word of respect and is no name."""
COMPANY = re.compile("有限责任公司|股份有限公司|有限公司|集团公司|股份公司|事务所|株式会社")


def people(text: str) -> Iterator[Span]:
    """Names, some of which may overlap."""
    for label in LABELS.finditer(text):
        at = label.start()
        match = LABEL.match(text, at) or LABEL.match(text, max(at - 1, 0)) or LABEL.match(text, max(at - 2, 0))
        if match is not None:
            yield from _labelled(text, match.end(), 0.9, "label")
    for anchor in ("我叫", "我的名字", "我名叫"):
        for at in _each(text, anchor):
            match = I_AM.match(text, at)
            if match is not None:
                yield from _labelled(text, match.end(), 0.85, "called")
    for anchor in ("名叫", "叫做", "名为", "名為"):
        for at in _each(text, anchor):
            match = CALLED.match(text, at)
            if match is not None:
                yield from _labelled(text, match.end(), 0.7, "called", careful=True)
    for at in _each(text, "我是"):
        yield from _labelled(text, at + 2, 0.65, "I am", careful=True, bounded=True)
    yield from _titled(text)
    for dot in "·・•‧":
        for at in _each(text, dot):
            yield from _foreign(text, at)
    if re.search("[ぁ-ヶ]", text):
        yield from _japanese(text)
    if re.search("[가-힣]", text):
        yield from _korean(text)


def organisations(text: str) -> Iterator[Span]:
    """Companies, by their legal form, from where a place is named or after a word that comes before one."""
    for match in COMPANY.finditer(text):
        begin = match.start()
        while begin > 0 and match.start() - begin < 24 and (IS_HAN.match(text[begin - 1]) or text[begin - 1] in "()（）"):
            begin -= 1
        known = places().search(text, begin, match.start())
        starts = [begin, *(soft.end() for soft in SOFT.finditer(text, begin, match.start()))]
        begin = known.start() if known is not None and text[known.start() - 1 : known.start()] != "(" else starts[-1]
        if match.start() - begin >= 2 and text[begin] not in "本该贵某这那":
            yield Span(begin, match.end(), "ORGANIZATION", 0.7, "names: legal form")


def _labelled(text: str, at: int, score: float, cue: str, *, careful: bool = False, bounded: bool = False) -> Iterator[Span]:
    """The name that begins here. `careful`: every character must be one of names; `bounded`: it must end where words end."""
    known = _known()
    if text[at : at + 1].isascii():
        end, count = names_latin.read(text, at)
        if count and not careful and text[at - 1] not in "是":
            yield Span(at, end, "PERSON", score - 0.1, f"names: {cue}")
        return
    family = _family(text, at)
    if not family or (careful and text[at] in known.rare):
        foreign = 0
        while foreign < 8 and text[at + foreign : at + foreign + 1] in known.foreign and text[at + foreign : at + foreign + 1]:
            foreign += 1
        if foreign >= 3 and not careful and not IS_HAN.match(text[at + foreign : at + foreign + 1]):
            yield Span(at, at + foreign, "PERSON", 0.6, f"names: {cue}, foreign")
        return
    for given in (2, 1):
        end = at + family + given
        rest = text[at + family : end]
        if len(rest) < given or not all(IS_HAN.match(char) for char in rest):
            continue
        apt = all(char in known.given_cn for char in rest)
        ends = not IS_HAN.match(text[end : end + 1])
        if not apt and (careful or (cue == "called" and text[at] in known.rare)):
            continue
        if text[at:end] in known.never_cn or text[at : at + 2] in known.never_cn:
            continue
        if ends or (not bounded and (NEXT_LABEL.match(text, end) or (apt and given == 2) or (apt and family == 2))):
            yield Span(at, end, "PERSON", score, f"names: {cue}")
            return
    if bounded or careful:
        return
    if text[at + family : at + family + 1] in known.given_cn and text[at : at + 2] not in known.never_cn:
        yield Span(at, at + family + 1, "PERSON", score - 0.2, f"names: {cue}")


def _titled(text: str) -> Iterator[Span]:
    known = _known()
    for match in TITLE.finditer(text):
        begin = _before_title(text, match.start())
        if begin is not None:
            alone = match.start() - begin == 1
            yield Span(begin, match.start(), "PERSON", 0.75 if alone else 0.85, "names: title")
    for match in BOSS.finditer(text):
        at = match.start() - 1
        apart = at >= 0 and text[at] in known.family and text[at] not in NOT_ALONE and _apart(text, at)
        if apart and (text[at] not in known.rare or at == 0 or not IS_HAN.match(text[at - 1])):
            yield Span(at, at + 1, "PERSON", 0.65, "names: title")


def _before_title(text: str, end: int) -> int | None:
    """Where the name begins that ends here, before a title; None when there is none."""
    known = _known()
    for length in (4, 3):
        if text[max(end - length, 0) : end][:2] in known.double and end >= length:
            return end - length
    if end >= 3 and text[end - 3] in known.family and all(char in known.given_cn for char in text[end - 2 : end]):
        whole = text[end - 3 : end]
        if known.never_cn.isdisjoint((whole, whole[:2], whole[1:])):
            return end - 3
    if end >= 2 and text[end - 2 : end] in known.double:
        return end - 2
    if end >= 2 and text[end - 2] in known.family and text[end - 1] in known.given_cn:
        if text[end - 2 : end] not in known.never_cn and (text[end - 2] not in known.rare or _apart(text, end - 2)):
            return end - 2
    elif end >= 1 and text[end - 1] in known.family and text[end - 1] not in NOT_ALONE and _apart(text, end - 1):
        return None if text[max(end - 2, 0) : end] in known.never_cn else end - 1
    return None


def _apart(text: str, at: int) -> bool:
    """Whether a name may begin here: not within a word, as far as the character before tells."""
    return at == 0 or not IS_HAN.match(text[at - 1]) or text[at - 1] in LEFT_OK


def _foreign(text: str, dot: int) -> Iterator[Span]:
    """A name that is written with the characters for foreign sounds, around a dot."""
    known = _known()
    begin, end = dot, dot + 1
    while begin > 0 and dot - begin < 6 and text[begin - 1] in known.foreign:
        begin -= 1
    while end < len(text) and end - dot < 26 and (text[end] in known.foreign or text[end] in "·•"):
        end += 1
    while text[end - 1] in "·•":
        end -= 1
    if dot - begin >= 1 and end - dot >= 2 and end - begin >= 5:
        yield Span(begin, end, "PERSON", 0.75, "names: foreign")


def _japanese(text: str) -> Iterator[Span]:
    known = _known()
    for match in SAN.finditer(text):
        for length in range(7, 1, -1):
            begin = match.start() - length
            if begin < 0 or (begin and IS_HAN.match(text[begin - 1])):
                continue
            piece = text[begin : match.start()].rstrip(" ")
            family = next((piece[:cut] for cut in (5, 4, 3, 2) if piece[:cut] in known.japanese and len(piece) - cut <= 4), "")
            rest = piece[len(family) :].strip(" ")
            if (
                not family
                or len(rest) > 3
                or not re.fullmatch("[一-鿿ぁ-んァ-ヶ]*", rest)
                or (match.group() == "です" and not text[:begin].endswith("は"))
            ):
                continue
            if rest and not (re.fullmatch("[一-鿿]+", rest) or re.fullmatch("[ぁ-ん]{2,3}|[ァ-ヶ]{2,3}", rest)):
                continue
            yield Span(begin, begin + len(piece), "PERSON", 0.8, "names: title")
            break


def _korean(text: str) -> Iterator[Span]:
    known = _known()
    for match in KOREAN_LABEL.finditer(text):
        if match["v"][0] in known.korean and not KOREAN_TITLE.search(match["v"]):
            yield Span(match.start("v"), match.end("v"), "PERSON", 0.85, "names: label")
    for match in KOREAN.finditer(text):
        name = KOREAN_NAME.search(text, max(match.start() - 4, 0), match.start())
        if name is None or text[name.start()] not in known.korean or KOREAN_TITLE.search(name.group()):
            continue
        begin = name.start()
        if begin and "가" <= text[begin - 1] <= "힣":
            continue
        if match.group() == "입니다" and not text[:begin].rstrip(" ").endswith(("저는", "제 이름은", "이름은")):
            continue
        yield Span(begin, begin + 3, "PERSON", 0.75, "names: title")


def _family(text: str, at: int) -> int:
    """Of how many characters the surname is that begins here; 0 when there is none."""
    known = _known()
    if text[at : at + 2] in known.double:
        return 2
    return int(text[at : at + 1] in known.family)


class Known:
    """The words of rules/names.txt, as sets."""

    def __init__(self) -> None:
        self.family = frozenset(words("names", "surnames_cn"))
        self.rare = frozenset(words("names", "surnames_cn_rare"))
        self.double = frozenset(words("names", "surnames_cn_double"))
        self.given_cn = frozenset(words("names", "given_cn"))
        self.foreign = frozenset(words("names", "foreign_cn"))
        self.japanese = frozenset(words("names", "surnames_jp"))
        self.korean = frozenset(words("names", "surnames_kr"))
        self.never_cn = frozenset(words("names", "never_cn"))


@lru_cache(maxsize=1)
def _known() -> Known:
    return Known()


def _each(text: str, literal: str) -> Iterator[int]:
    at = text.find(literal)
    while at >= 0:
        yield at
        at = text.find(literal, at + len(literal))
