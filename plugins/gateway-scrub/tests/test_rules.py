"""Every rule of the tables finds its cases, and nothing in its near misses."""

from __future__ import annotations

import pytest
from gateway_scrub.rules import Rule, builtin_rules
from gateway_scrub.scan import Scanner

RULES = builtin_rules()
SCANNER = Scanner()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_cases_and_not_its_near_misses(rule: Rule) -> None:
    """By itself it finds just the values; among all others they are covered, if perhaps by another rule."""
    assert rule.cases, "a rule needs cases"
    assert rule.near, "a rule needs near misses"
    alone = Scanner([rule])
    for case in rule.cases:
        text, wanted = unmarked(case)
        found = [(span.start, span.end) for span in alone.find(text)]
        assert [text[start:end] for start, end in found] == [text[start:end] for start, end in wanted], case
        spans = SCANNER.find(text)
        for start, end in wanted:
            assert all(any(span.start <= at < span.end for span in spans) for at in range(start, end)), case
    for miss in rule.near:
        assert not [miss[span.start : span.end] for span in alone.find(miss)], miss


def unmarked(case: str) -> tuple[str, list[tuple[int, int]]]:
    """A case without its marks, and the places that they marked."""
    text, places = "", []
    for number, piece in enumerate(case.replace("»", "«").split("«")):
        if number % 2:
            places.append((len(text), len(text) + len(piece)))
        text += piece
    return text, places


def test_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
