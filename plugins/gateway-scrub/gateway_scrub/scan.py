"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, the letters before it, and how many digits it makes up with the runs after it, say which few rules could begin
there, and only those are tried, at that place; those that need a word of context, only where such a word stands near.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from gateway_scrub import finders
from gateway_scrub.fold import Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved
from gateway_scrub.words import Words

DIGITS = re.compile("[0-9]+")
RUNS = re.compile(r"[0-9]+(?:[ .\-/()]{1,2}[0-9]+){1,7}")
BEFORE, AFTER = 60, 20
"""How far from a find its context words may be."""
LEAD_CAP = 8


class Group:
    """Rules that begin alike: those always tried, and those only where one of their words is near."""

    __slots__ = ("always", "spoken")

    def __init__(self) -> None:
        self.always: list[Rule] = []
        self.spoken: list[tuple[int, Rule]] = []


class Scanner:
    """Finds spans in texts. `rules` are all there are, by default those of the package; `more` are added, or replace one of the
    same name. `types` limits what is looked for. Only what scores at least `threshold` is told, and nothing that overlaps."""

    def __init__(
        self,
        rules: Iterable[Rule] | None = None,
        *,
        more: Iterable[Rule] = (),
        types: Iterable[str] | None = None,
        threshold: float = 0.5,
    ) -> None:
        wanted = None if types is None else set(types)
        chosen = by_name([*(builtin_rules() if rules is None else rules), *more])
        self.rules = tuple(rule for rule in chosen.values() if wanted is None or rule.type in wanted)
        self.threshold = threshold
        self._numbers: dict[int, Group] = {}
        self._totals: dict[int, dict[int, Group]] = {}
        self._codes: dict[tuple[int, int], Group] = {}
        self._anchored: list[tuple[str, bool, Rule]] = []
        self._finders: list[tuple[finders.Finder, Rule]] = []
        self._words = Words({at: rule.context for at, rule in enumerate(self.rules) if rule.needs_context})
        for number, rule in enumerate(self.rules):
            for length in rule.first:
                for letters in rule.lead:
                    _put(self._codes, (letters, length), number, rule)
                for total in rule.digits:
                    _put(self._totals.setdefault(length, {}), total, number, rule)
                if not rule.lead and not rule.digits:
                    _put(self._numbers, length, number, rule)
            self._anchored += [(anchor.lower() if rule.fold else anchor, rule.fold, rule) for anchor in rule.anchors]
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            Span(*folded.span(span.start, span.end), span.type, span.score, span.why, span.rank)
            for span in self._found(folded)
            if span.score >= self.threshold
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        text = folded.text
        codes = self._codes
        for match in DIGITS.finditer(text):
            start, end = match.span()
            before = text[start - 1] if start else " "
            if not (before.isascii() and before.isalpha()):
                for rule in self._beginning(folded, start, end):
                    yield from self._at(rule, folded, start - rule.back, start)
                if before in " -./" and start > 1 and codes:
                    lead = _letters(text, start - 1)
                    group = codes.get((lead, end - start)) if lead else None
                    if group is not None:
                        for rule in self._tried([group], folded, start):
                            yield from self._at(rule, folded, start - 1 - lead - rule.back, start)
            elif codes:
                lead = _letters(text, start)
                group = codes.get((lead, end - start))
                if group is not None:
                    for rule in self._tried([group], folded, start):
                        yield from self._at(rule, folded, start - lead - rule.back, start)
        for anchor, fold, rule in self._anchored:
            where = folded.lower if fold else text
            at = where.find(anchor)
            while at >= 0:
                yield from self._at(rule, folded, at - rule.back if rule.back else at, at)
                at = where.find(anchor, at + len(anchor))
        for finder, rule in self._finders:
            for start, end in finder(text, folded.lower):
                yield self._span(rule, folded, start, end)

    def _beginning(self, folded: Folded, start: int, end: int) -> Sequence[Rule]:
        """The rules that may begin with the run of digits at a place."""
        length = end - start
        group = self._numbers.get(length)
        groups = [] if group is None else [group]
        totals = self._totals.get(length)
        if totals is not None:
            if length in totals:
                groups.append(totals[length])
            runs = RUNS.match(folded.text, start)
            if runs is not None:
                total = 0
                for run in DIGITS.findall(runs.group()):
                    total += len(run)
                    if total > length and total in totals:
                        groups.append(totals[total])
        return self._tried(groups, folded, start) if groups else ()

    def _tried(self, groups: list[Group], folded: Folded, at: int) -> list[Rule]:
        """The rules of groups, less those of whose words none is near."""
        rules = [rule for group in groups for rule in group.always]
        if any(group.spoken for group in groups):
            heard = self._words.near(folded.lower[max(at - BEFORE - LEAD_CAP, 0) : at + BEFORE])
            if heard:
                rules += [rule for group in groups for number, rule in group.spoken if number in heard]
        return rules

    def _at(self, rule: Rule, folded: Folded, earliest: int, trigger: int) -> Iterator[Span]:
        """The match of a rule that begins between `earliest` and the trigger and holds the trigger, if there is one."""
        for begin in range(max(earliest, 0), trigger + 1):
            match = rule.regex.match(folded.text, begin)
            if match is not None and match.end() > trigger:
                start, end = match.span("v") if "v" in rule.regex.groupindex else match.span()
                if start < end:
                    yield self._span(rule, folded, start, end)
                return

    @staticmethod
    def _span(rule: Rule, folded: Folded, start: int, end: int) -> Span:
        def near() -> str:
            return folded.lower[max(start - BEFORE, 0) : start] + "\n" + folded.lower[end : end + AFTER]

        score, why, rank = rule.scored(folded.text[start:end], near)
        return Span(start, end, rule.type, score, why, rank)


def _put(groups: dict[Any, Group], key: Hashable, number: int, rule: Rule) -> None:
    group = groups.setdefault(key, Group())
    if rule.needs_context:
        group.spoken.append((number, rule))
    else:
        group.always.append(rule)


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    at = end
    while at > 0 and end - at <= LEAD_CAP and text[at - 1].isascii() and text[at - 1].isalpha():
        at -= 1
    return end - at if end - at <= LEAD_CAP else 0


Found = Sequence[Span]
Detect = Callable[[str], Found]
"""What finds spans in a text."""
