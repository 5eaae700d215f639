"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, the letters before it, and how many digits it makes up with the runs after it, say which few rules could begin
there, and only those are tried, at that place; those that need a word of context, only where such a word stands near.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from string import ascii_letters
from typing import Any

from gateway_scrub import finders
from gateway_scrub.fold import Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved
from gateway_scrub.words import Words

DIGITS = re.compile("[0-9]+")
SEPARATORS = frozenset(" .-/()")
TEN = frozenset("0123456789")
RUNS = re.compile(r"[0-9]+(?:[ .\-/()]{1,2}[0-9]+){1,7}")
BEFORE, AFTER = 60, 20
"""How far from a find its context words may be."""
LEAD_CAP = 8
FEW = 3
"""So many rules are tried sooner than their words are looked for."""
LETTERS = frozenset(ascii_letters)
Begins = Callable[[str, int], "re.Match[str] | None"]


class Group:
    """Rules that begin alike: those always tried, and those only where one of their words is near."""

    __slots__ = ("always", "spoken")

    def __init__(self) -> None:
        self.always: list[tuple[Begins, Rule]] = []
        self.spoken: list[tuple[int, Begins, Rule]] = []


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
        self._apart: dict[tuple[int, int], Group] = {}
        self._anchored: list[tuple[str, bool, Rule]] = []
        self._finders: list[tuple[finders.Finder, Rule]] = []
        self._words = Words({at: rule.context for at, rule in enumerate(self.rules) if rule.needs_context})
        for number, rule in enumerate(self.rules):
            for length in rule.first:
                for letters in rule.lead:
                    _put(self._codes, (letters, length), number, rule)
                    if not rule.joined:
                        _put(self._apart, (letters, length), number, rule)
                if not rule.lead and (not rule.digits or length in rule.digits):
                    _put(self._numbers, length, number, rule)
                for total in rule.digits:
                    if total > length:
                        _put(self._totals.setdefault(length, {}), total, number, rule)
            self._anchored += [(anchor.lower() if rule.fold else anchor, rule.fold, rule) for anchor in rule.anchors]
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))
        self._coded = {length for _, length in self._codes}

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            Span(*folded.span(span.start, span.end), span.type, span.score, span.why, span.rank) for span in self._found(folded)
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        text = folded.text
        numbers, totals, codes, coded = self._numbers, self._totals, self._codes, self._coded
        for match in DIGITS.finditer(text):
            start, end = match.span()
            length = end - start
            before = text[start - 1] if start else " "
            if before not in LETTERS:
                if length in numbers:
                    yield from self._tried(numbers[length], folded, start, start)
                after = text[end : end + 3]
                if length in totals and after[:1] in SEPARATORS and not TEN.isdisjoint(after):
                    for group in _reached(text, start, length, totals[length]):
                        yield from self._tried(group, folded, start, start)
                if length not in coded or before not in " -./" or start < 2 or not text[start - 2].isupper():
                    continue
                ahead, tables = start - 1, self._apart
            elif length in coded:
                ahead, tables = start, codes
            else:
                continue
            lead = _letters(text, ahead)
            if lead and (lead, length) in tables:
                yield from self._tried(tables[lead, length], folded, ahead - lead, start)
        for anchor, fold, rule in self._anchored:
            where = folded.lower if fold else text
            at = where.find(anchor)
            while at >= 0:
                yield from self._at(rule, folded, at - rule.back if rule.back else at, at)
                at = where.find(anchor, at + len(anchor))
        for finder, rule in self._finders:
            for start, end in finder(text, folded.lower):
                yield from self._span(rule, folded, start, end)

    def _tried(self, group: Group, folded: Folded, begin: int, trigger: int) -> Iterator[Span]:
        """What the rules of a group find that begins at a place, or their `back` before it."""
        text = folded.text
        for begins, rule in group.always:
            if rule.back or begins(text, begin):
                yield from self._at(rule, folded, begin - rule.back, trigger)
        if group.spoken:
            few = len(group.spoken) <= FEW
            heard = () if few else self._words.near(folded.lower[max(begin - BEFORE - LEAD_CAP, 0) : trigger + BEFORE])
            for number, begins, rule in group.spoken if few or heard else ():
                if (few or number in heard) and (rule.back or begins(text, begin)):
                    yield from self._at(rule, folded, begin - rule.back, trigger)

    def _at(self, rule: Rule, folded: Folded, earliest: int, trigger: int) -> Iterator[Span]:
        """The match of a rule that begins between `earliest` and the trigger and holds the trigger, if there is one."""
        for begin in range(max(earliest, 0), trigger + 1):
            match = rule.regex.match(folded.text, begin)
            if match is not None and match.end() > trigger:
                start, end = match.span("v") if "v" in rule.regex.groupindex else match.span()
                if start < end:
                    yield from self._span(rule, folded, start, end)
                return

    def _span(self, rule: Rule, folded: Folded, start: int, end: int) -> Iterator[Span]:
        """The find as a span, if it is sure enough."""

        def near() -> str:
            return folded.lower[max(start - BEFORE, 0) : start] + "\n" + folded.lower[end : end + AFTER]

        score, why, rank = rule.scored(folded.text[start:end], near, self.threshold)
        if score >= self.threshold:
            yield Span(start, end, rule.type, score, why, rank)


def _reached(text: str, start: int, length: int, totals: dict[int, Group]) -> Iterator[Group]:
    """The groups of the numbers of digits that the run at a place makes up with those after it."""
    runs = RUNS.match(text, start)
    total = 0
    for run in DIGITS.findall(runs.group()) if runs is not None else ():
        total += len(run)
        if total > length and total in totals:
            yield totals[total]


def _put(groups: dict[Any, Group], key: Hashable, number: int, rule: Rule) -> None:
    group = groups.setdefault(key, Group())
    if rule.needs_context:
        group.spoken.append((number, rule.regex.match, rule))
    else:
        group.always.append((rule.regex.match, rule))


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    at, least = end, max(end - LEAD_CAP - 1, 0)
    while at > least and text[at - 1] in LETTERS:
        at -= 1
    return end - at if end - at <= LEAD_CAP else 0


Found = Sequence[Span]
Detect = Callable[[str], Found]
"""What finds spans in a text."""
