"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, the letters before it and the character after it say which few rules could begin there, and only those are
tried, at that place. Keys and tokens are long runs, of which ordinary text has few: they are found as one shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from gateway_scrub import finders
from gateway_scrub.fold import EAST, Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved

DIGITS = re.compile("[0-9]+")
LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
LEAD_CAP = 9
JOINED = ".+/~"
WIDE_CAP = 64
SHAPE = bytes(97 if chr(code).isalnum() or chr(code) in "_-" else 32 for code in range(128)) + b" " * 128
LONG = b"a" * 16


Begins = Callable[[str, int], re.Match[str] | None]
Tried = tuple[Begins, Rule]


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
        numbers: dict[int, list[list[Rule]]] = {}  # by the length of the run, then by its first digit
        codes: dict[int, list[Rule]] = {}
        apart: dict[int, list[Rule]] = {}
        self._anchored: dict[tuple[str, bool], list[Tried]] = {}
        self._starts: dict[str, list[tuple[str, Begins, Rule]]] = {}
        self._finders: list[tuple[finders.Finder, Rule]] = []
        for rule in self.rules:
            for length in rule.first:
                if not rule.lead:
                    for digit in rule.begin or "0123456789":
                        numbers.setdefault(length, [[] for _ in range(10)])[int(digit)].append(rule)
                    continue
                codes.setdefault(length, []).append(rule)
                if not rule.joined:
                    apart.setdefault(length, []).append(rule)
            for anchor in rule.anchors:
                self._anchored.setdefault((anchor.lower() if rule.fold else anchor, rule.fold), []).append(
                    (rule.regex.match, rule)
                )
            for start in rule.starts:
                self._starts.setdefault(start[:1], []).append((start, rule.regex.match, rule))
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))
        self._numbers = {length: [_by_next(tried) for tried in each] for length, each in numbers.items()}
        self._western = {row: tried for row, tried in self._anchored.items() if not EAST.search(row[0])}
        self._codes = {length: _by_next(tried) for length, tried in codes.items()}
        self._apart = {length: _by_next(tried) for length, tried in apart.items()}

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            Span(*folded.span(span.start, span.end), span.type, span.score, span.why, span.rank) for span in self._found(folded)
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        text, span = folded.text, self._span
        for digits in DIGITS.finditer(text):
            start, end = digits.span()
            length = end - start
            before = text[start - 1] if start else " "
            if before not in LETTERS:
                if length in self._numbers:
                    table = self._numbers[length][ord(text[start]) - 48]
                    for begins, rule in table.get(text[end : end + 1], table[""]):
                        match = _earliest(begins, text, start - rule.back, start) if rule.back else begins(text, start)
                        if match is not None and (found := span(rule, folded, match, start)):
                            yield found
                if before not in " -./" or start < 2:
                    continue
                ahead, tables = start - 1, self._apart
            else:
                ahead, tables = start, self._codes
            if length in tables:
                table = tables[length]
                tried = table.get(text[end : end + 1], table[""])
                lead = _letters(text, ahead) if tried else 0
                for begins, rule in tried if lead else ():
                    match = begins(text, ahead - lead) if lead in rule.lead else None
                    if match is not None and (found := span(rule, folded, match, start)):
                        yield found
        if self._starts:
            anything = self._starts.get("", ())
            for start in _long_runs(text):
                for literal, begins, rule in (*self._starts.get(text[start], ()), *anything):
                    match = begins(text, start) if text.startswith(literal, start) else None
                    if match is not None and (found := span(rule, folded, match, start)):
                        yield found
        for (anchor, fold), rules in (self._anchored if folded.east else self._western).items():
            where = folded.lower if fold else text
            at = where.find(anchor)
            while at >= 0:
                for begins, rule in rules:
                    match = _earliest(begins, text, at - rule.back, at) if rule.back else begins(text, at)
                    if match is not None and (found := span(rule, folded, match, at)):
                        yield found
                at = where.find(anchor, at + len(anchor))
        for finder, rule in self._finders:
            for start, end in finder(text, folded.lower):
                if found := self._scored(rule, folded, start, end):
                    yield found

    def _span(self, rule: Rule, folded: Folded, match: re.Match[str], trigger: int) -> Span | None:
        """A match as a span, if it goes beyond the trigger and is sure enough."""
        if match.end() <= trigger:
            return None
        return self._scored(rule, folded, *match.span(rule.group))

    def _scored(self, rule: Rule, folded: Folded, start: int, end: int) -> Span | None:
        if start >= end:
            return None
        context = rule.context != () and rule.spoken_for(folded.words, start, end)
        if not context and rule.most < self.threshold:
            return None  # so its check need not run
        score, why, rank = rule.scored(folded.text[start:end], context)
        return Span(start, end, rule.type, score, why, rank) if score >= self.threshold else None


def _earliest(begins: Begins, text: str, earliest: int, trigger: int) -> re.Match[str] | None:
    """The first match that begins from `earliest` to the trigger and goes beyond it."""
    for at in range(max(earliest, 0), trigger + 1):
        match = begins(text, at)
        if match is not None and match.end() > trigger:
            return match
    return None


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    at, least = end, max(end - LEAD_CAP - 1, 0)
    while at > least and text[at - 1] in LETTERS:
        at -= 1
    return end - at if end - at <= LEAD_CAP else 0


def _by_next(rules: Sequence[Rule]) -> dict[str, list[Tried]]:
    """Rules by the character after a run of digits; under "" those that any may follow."""
    special = {char for rule in rules for char in rule.then}
    return {
        char: [(rule.regex.match, rule) for rule in rules if not rule.then or (char and char in rule.then)]
        for char in (*special, "")
    }


def _long_runs(text: str) -> Iterator[int]:
    """Where runs of 16 or more ASCII letters, digits, underscores and hyphens begin, and what is joined to their front."""
    shape = text.encode("latin-1", "replace").translate(SHAPE)
    at = shape.find(LONG)
    while at >= 0:
        end = shape.find(b" ", at)
        before = text[at - 1] if at else " "
        if before in JOINED:
            wide = at
            while wide > 0 and at - wide < WIDE_CAP and (shape[wide - 1] == 97 or text[wide - 1] in JOINED):
                wide -= 1
            while text[wide] in JOINED:
                wide += 1
            if wide < at:
                yield wide
            yield at
        else:
            yield at + {"\\": 1, "%": 2}.get(before, 0)  # the letters of an escape, as in \n or %3D, are no part of it
        at = shape.find(LONG, end) if end >= 0 else -1


Found = Sequence[Span]
Detect = Callable[[str], Found]
"""What finds spans in a text."""
