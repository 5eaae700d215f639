"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, the letters before it, and how many digits it makes up with the runs after it, say which few rules could begin
there, and only those are tried, at that place; those that need a word of context, only where such a word stands near.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from string import ascii_letters

from gateway_scrub import finders
from gateway_scrub.fold import Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved
from gateway_scrub.words import Words

DIGITS = re.compile("[0-9]+")
SEPARATORS = frozenset(" .-/()")
TEN = frozenset("0123456789")
RUNS = re.compile(r"[0-9]+(?:[ .\-/()]{1,2}[0-9]+)+")
BEFORE, AFTER = 60, 20
"""How far from a find its context words may be."""
LEAD_CAP = 8
MOST_RUNS = 8
FEW = 3
"""So many rules are tried sooner than their words are looked for."""
PIECE, REACH = 128, 40
"""The words of a text are looked at by pieces of it; a find with context words is no longer than its reach, nor begins further
before its trigger."""
LETTERS = frozenset(ascii_letters)
Begins = Callable[[str, int], "re.Match[str] | None"]
Row = tuple[int, Begins, Rule]


class Group:
    """Rules that begin alike: those always tried, and those only where one of their words is near."""

    __slots__ = ("always", "spoken")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.always: list[Row] = []
        self.spoken: list[Row] = []
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        (self.spoken if row[2].needs_context else self.always).append(row)

    def all(self) -> list[Row]:
        return [*self.always, *self.spoken]


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
        self._apart_small: dict[tuple[int, int], Group] = {}
        self._anchored: list[tuple[str, bool, Rule]] = []
        self._finders: list[tuple[finders.Finder, Rule]] = []
        self._words = Words({at: rule.context for at, rule in enumerate(self.rules) if rule.needs_context})
        for number, rule in enumerate(self.rules):
            row = number, rule.regex.match, rule
            for length in rule.first:
                for letters in rule.lead:
                    self._codes.setdefault((letters, length), Group()).add(row)
                    if not rule.joined:
                        self._apart.setdefault((letters, length), Group()).add(row)
                        if not rule.capital:
                            self._apart_small.setdefault((letters, length), Group()).add(row)
                if not rule.lead and (not rule.digits or length in rule.digits):
                    self._numbers.setdefault(length, Group()).add(row)
                for total in rule.digits:
                    if total > length:
                        self._totals.setdefault(length, {}).setdefault(total, Group()).add(row)
            self._anchored += [(anchor.lower() if rule.fold else anchor, rule.fold, rule) for anchor in rule.anchors]
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))
        self._coded = {length for _, length in self._codes}
        self._coded_apart = {length for _, length in self._apart}
        self._thens = {char for rule in self.rules for char in rule.then}
        self._together = lru_cache(maxsize=4096)(self._merged)

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            Span(*folded.span(span.start, span.end), span.type, span.score, span.why, span.rank) for span in self._found(folded)
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        text = folded.text
        numbers, thens, together = self._numbers, self._thens, self._together
        codes, coded, apart = self._codes, self._coded, self._coded_apart
        joined, sizes, place = 0, [0], 0
        for match in DIGITS.finditer(text):
            start, end = match.span()
            length = end - start
            before = text[start - 1] if start else " "
            if start < joined:
                place += 1
            elif text[end : end + 1] in SEPARATORS and not TEN.isdisjoint(text[end + 1 : end + 3]):
                joined, sizes = _joined(text, start)
                place = 0
            if before not in LETTERS:
                if start < joined:
                    after = text[end : end + 1]
                    reached = tuple(accumulate(sizes[place : place + MOST_RUNS]))[1:]
                    group = together(length, text[start], after if after in thens else "", reached)
                else:
                    group = numbers.get(length)
                if group is not None:
                    yield from self._tried(group, folded, start, start)
                if length not in apart or before not in " -./" or start < 2:
                    continue
                ahead, tables = start - 1, self._apart
            elif length in coded:
                ahead, tables = start, codes
            else:
                continue
            lead = _letters(text, ahead)
            if tables is not codes and text[ahead - lead].islower():
                tables = self._apart_small
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

    def _merged(self, length: int, first: str, after: str, reached: tuple[int, ...]) -> Group | None:
        """The rules that may begin with a run of a length and a first digit, before a character, that makes up one of these
        numbers of digits with others; None without any."""
        groups = [self._numbers.get(length), *(self._totals.get(length, {}).get(total) for total in reached)]
        rows = {number: (number, rule.regex.match, rule) for group in groups if group for number, _, rule in group.all()}
        fit = [
            (number, begins, rule)
            for number, begins, rule in rows.values()
            if first in (rule.begin or first) and (not rule.then or (after and after in rule.then))
        ]
        return Group(fit) if fit else None

    def _tried(self, group: Group, folded: Folded, begin: int, trigger: int) -> Iterator[Span]:
        """What the rules of a group find that begins at a place, or their `back` before it."""
        text = folded.text
        for _, begins, rule in group.always:
            if rule.back or begins(text, begin):
                yield from self._at(rule, folded, begin - rule.back, trigger)
        if group.spoken:
            few = len(group.spoken) <= FEW
            heard = None if few else self._heard(folded, trigger // PIECE)
            for number, begins, rule in group.spoken if few or heard else ():
                if (heard is None or number in heard) and (rule.back or begins(text, begin)):
                    yield from self._at(rule, folded, begin - rule.back, trigger)

    def _heard(self, folded: Folded, piece: int) -> set[int]:
        """The numbers of the rules of which a word may be near a place in a piece of the text."""
        heard = folded.heard.get(piece)
        if heard is None:
            start, end = piece * PIECE - BEFORE - REACH, (piece + 1) * PIECE + REACH + AFTER
            heard = folded.heard[piece] = self._words.near(folded.lower[max(start, 0) : end])
        return heard

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


def _joined(text: str, start: int) -> tuple[int, list[int]]:
    """Where the last of the runs of digits that are joined to one ends, and how long each of them is."""
    runs = RUNS.match(text, start)
    return (runs.end(), [*map(len, DIGITS.findall(runs.group()))]) if runs is not None else (start, [])


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    piece = text[max(end - LEAD_CAP - 1, 0) : end]
    letters = len(piece) - len(piece.rstrip(ascii_letters))
    return letters if letters <= LEAD_CAP else 0


Found = Sequence[Span]
Detect = Callable[[str], Found]
"""What finds spans in a text."""
