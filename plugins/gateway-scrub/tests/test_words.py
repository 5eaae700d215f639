"""Words of context, and rules that are only tried where there are some, or enough digits."""

from __future__ import annotations

import pytest
from gateway_scrub.rules import Rule
from gateway_scrub.scan import Scanner
from gateway_scrub.words import Phrases, Words

from gateway import ConfigError


@pytest.mark.parametrize(
    ("phrases", "text", "stands"),
    [
        (["tel"], "my tel: 12", True),
        (["tel"], "hotel 12", False),
        (["тел"], "мой тел. 12", True),
        (["тел"], "учитель 12", False),
        (["tax id"], "the tax id is", True),
        (["tax id"], "tax and id", False),
        (["p.iva"], "la p.iva è", True),
        (["手机"], "我的手机号", True),
        (["pesel"], "号码pesel：", True),
        (["ssn"], "my_ssn_is", True),
        (["هاتف"], "رقم الهاتف", True),
    ],
)
def test_words_stand_whole_and_those_of_scripts_without_spaces_anywhere(phrases: list[str], text: str, stands: bool) -> None:
    assert Phrases(phrases).stand_in(text) is stands
    if stands:
        assert Words({7: phrases, 8: ["elsewhere"]}).near(text) == {7}


def test_of_words_that_begin_alike_all_are_told() -> None:
    assert Words({1: ["电话"], 2: ["电话号码"], 3: ["号码"]}).near("我的电话号码") == {1, 2, 3}


def rule(**more: object) -> Rule:
    return Rule(**({"name": "r", "type": "R", "first": (3,), "pattern": "{D}[0-9]{3}-?[0-9]{4}{E}", "score": 0.6} | more))  # type: ignore[arg-type]


def test_a_rule_with_digits_is_tried_only_where_runs_make_up_so_many() -> None:
    scanner = Scanner([rule(digits=(7,))])
    assert [span.start for span in scanner.find("555-1234, 555 and 555-12345")] == [0]
    assert Scanner([rule(digits=(8,))]).find("555-1234") == []


def test_a_rule_that_needs_words_is_tried_only_where_one_is_near() -> None:
    others = [rule(name=f"r{number}", needs_context=True, context=(f"w{number}",)) for number in range(9)]
    scanner = Scanner([rule(needs_context=True, context=("code",)), *others])
    assert scanner.find("555-1234") == []
    assert len(scanner.find("code 555-1234")) == 1
    assert scanner.find("code" + " " * 100 + "555-1234") == []


def test_letters_before_a_run_may_stand_apart_unless_joined_or_small_where_a_capital_is_asked_for() -> None:
    plate = {"first": (4,), "lead": (2,), "pattern": "{B}[A-Za-z]{2}[ -]?[0-9]{4}{E}"}
    text = "in 2004 AB 2004 ab2004"
    assert [span.start for span in Scanner([rule(**plate)]).find(text)] == [0, 8, 16]
    assert [span.start for span in Scanner([rule(**plate, capital=True)]).find(text)] == [8, 16]
    assert [span.start for span in Scanner([rule(**plate, joined=True)]).find(text)] == [16]


@pytest.mark.parametrize(
    "more", [{"first": (), "anchors": ("a",), "digits": (7,)}, {"lead": (2,), "digits": (7,)}, {"needs_context": True}]
)
def test_what_contradicts_itself_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="with first"):
        rule(**more)
