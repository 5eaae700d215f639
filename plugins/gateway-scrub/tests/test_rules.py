"""Every rule of the tables finds its cases, and nothing in its near misses."""

from __future__ import annotations

import pytest
from gateway_scrub.rules import Rule, builtin_rules
from gateway_scrub.scan import Scanner

RULES = builtin_rules()
SCANNER = Scanner()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_finds_its_cases_and_not_its_near_misses(rule: Rule) -> None:
    assert rule.cases, "a rule needs cases"
    assert rule.near, "a rule needs near misses"
    for case in rule.cases:
        text = case.replace("«", "").replace("»", "")
        wanted, at = [], 0
        for piece in case.split("«")[1:]:
            at = case.index("«", at) + 1
            wanted.append(piece.partition("»")[0])
        found = [text[span.start : span.end] for span in SCANNER.find(text) if span.type == rule.type]
        assert found == wanted, case
    for miss in rule.near:
        found = [miss[span.start : span.end] for span in SCANNER.find(miss) if span.why.startswith(f"{rule.name}:")]
        assert not found, miss


def test_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
