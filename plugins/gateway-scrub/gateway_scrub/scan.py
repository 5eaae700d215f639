"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, and the letters before it, say which few rules could begin there, and only those are tried, at that place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from string import ascii_letters

from gateway_scrub import finders
from gateway_scrub.fold import EAST, Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved

DIGITS = re.compile("[0-9]+")
BEFORE, AFTER = 60, 20
"""How far from a find its context words may be."""
LEAD_CAP = 8


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
        self._numbers: dict[int, list[list[Rule]]] = {}  # by the length of the run, then by its first digit
        self._codes: dict[tuple[int, int], list[Rule]] = {}
        anchored: dict[tuple[str, bool], list[Rule]] = {}
        self._finders: list[tuple[finders.Finder, Rule]] = []
        for rule in self.rules:
            for length in rule.first:
                for letters in rule.lead:
                    self._codes.setdefault((letters, length), []).append(rule)
                if not rule.lead:
                    for digit in rule.begin or "0123456789":
                        self._numbers.setdefault(length, [[] for _ in range(10)])[int(digit)].append(rule)
            for anchor in rule.anchors:
                anchored.setdefault((anchor.lower() if rule.fold else anchor, rule.fold), []).append(rule)
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))
        self._coded = {length for _, length in self._codes}
        self._anchored = [(anchor, fold, tried) for (anchor, fold), tried in anchored.items()]
        self._western = [row for row in self._anchored if not EAST.search(row[0])]

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
        numbers, codes, coded = self._numbers, self._codes, self._coded
        for match in DIGITS.finditer(text):
            start, end = match.span()
            length = end - start
            before = text[start - 1] if start else " "
            if not (before.isascii() and before.isalpha()):
                for rule in numbers[length][ord(text[start]) - 48] if length in numbers else ():
                    if rule.back or rule.regex.match(text, start) is not None:  # most fail: before a generator is made
                        yield from self._at(rule, folded, start - rule.back, start)
                if length in coded and before in " -./" and start > 1:
                    lead = _letters(text, start - 1)
                    for rule in codes.get((lead, length), ()) if lead else ():
                        yield from self._at(rule, folded, start - 1 - lead, start)
            elif length in coded:
                lead = _letters(text, start)
                for rule in codes.get((lead, length), ()):
                    yield from self._at(rule, folded, start - lead, start)
        for anchor, fold, tried in self._anchored if folded.east else self._western:
            where = folded.lower if fold else text
            at = where.find(anchor)
            while at >= 0:
                for rule in tried:
                    yield from self._at(rule, folded, at - rule.back, at)
                at = where.find(anchor, at + len(anchor))
        for finder, rule in self._finders:
            for start, end in finder(text, folded.lower):
                yield self._span(rule, folded, start, end)

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


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    piece = text[max(end - LEAD_CAP - 1, 0) : end]
    letters = len(piece) - len(piece.rstrip(ascii_letters))
    return letters if letters <= LEAD_CAP else 0


Found = Sequence[Span]
Detect = Callable[[str], Found]
"""What finds spans in a text."""
