"""Scanner: finds what the rules describe, in one pass over the digits of a text and a few over its literals.

Nearly all that is looked for holds a digit, an @, or a literal such as ``sk-``. Runs of digits are found by one expression; the
length of a run, the letters before it, and how many digits it makes up with the runs after it, say which few rules could begin
there, and only those are tried, at that place; those that need a word of context, only where such a word stands near. Keys and
tokens are long runs, of which ordinary text has few: they are found as one shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from string import ascii_letters

from gateway_scrub import finders
from gateway_scrub.fold import EAST, Folded
from gateway_scrub.rules import Rule, builtin_rules, by_name
from gateway_scrub.spans import Span, resolved
from gateway_scrub.words import Words

DIGITS = re.compile("[0-9]+")
SEPARATORS = frozenset(" .-/()")
TEN = frozenset("0123456789")
RUNS = re.compile(r"[0-9]+(?:[ .\-/()]{1,2}[0-9]+)+")
LEAD_CAP = 9
JOINED = ".+/~"
WIDE_CAP = 64
SHAPE = bytes(97 if chr(code).isalnum() or chr(code) in "_-" else 32 for code in range(128)) + b" " * 128
LONG = b"a" * 16
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

    __slots__ = ("always", "spoken", "then")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.always: list[Row] = []
        self.spoken: list[Row] = []
        self.then = False
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        (self.spoken if row[2].needs_context else self.always).append(row)
        self.then = self.then or row[2].then != ""

    def before(self, char: str) -> Group:
        """Those after which such a character may follow the run."""
        return Group(row for row in self.all() if not row[2].then or (char and char in row[2].then))

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
        self._anchored: dict[tuple[str, bool], list[tuple[Begins, Rule]]] = {}
        self._starts: dict[str, list[tuple[str, Begins, Rule]]] = {}
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
            for anchor in rule.anchors:
                literal = anchor.lower() if rule.fold else anchor
                self._anchored.setdefault((literal, rule.fold), []).append((rule.regex.match, rule))
            for start in rule.starts:
                self._starts.setdefault(start[:1], []).append((start, rule.regex.match, rule))
            if rule.finder:
                self._finders.append((finders.named(rule.finder), rule))
        self._western = {key: rows for key, rows in self._anchored.items() if not EAST.search(key[0])}
        self._coded = {length for _, length in self._codes}
        self._coded_apart = {length for _, length in self._apart}
        self._thens = {char for rule in self.rules for char in rule.then}
        self._reach = max((max(rule.reach) for rule in self.rules if rule.needs_context), default=0) + REACH
        self._together = lru_cache(maxsize=4096)(self._merged)

    def find(self, text: str) -> list[Span]:
        """What was found, in order of place."""
        folded = Folded(text)
        return resolved(
            Span(*folded.span(span.start, span.end), span.type, span.score, span.why, span.rank) for span in self._found(folded)
        )

    def _found(self, folded: Folded) -> Iterator[Span]:
        text, span = folded.text, self._span
        numbers, thens, together = self._numbers, self._thens, self._together
        codes, coded, apart = self._codes, self._coded, self._coded_apart
        joined, sizes, place = 0, [0], 0
        for run in DIGITS.finditer(text):
            start, end = run.span()
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
                elif length in numbers:
                    after = text[end : end + 1]
                    group = together(length, text[start], after if after in thens else "", ())
                else:
                    group = None
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
                group = tables[lead, length]
                if group.then:
                    group = group.before(text[end : end + 1])
                yield from self._tried(group, folded, ahead - lead, start)
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
        rows = group.always
        if group.spoken:
            if len(group.spoken) <= FEW:
                rows = group.all()
            elif heard := self._heard(folded, trigger // PIECE):
                rows = [*rows, *(row for row in group.spoken if row[0] in heard)]
        text = folded.text
        for _, begins, rule in rows:
            match = _earliest(begins, text, begin - rule.back, trigger) if rule.back else begins(text, begin)
            if match is not None and (found := self._span(rule, folded, match, trigger)):
                yield found

    def _heard(self, folded: Folded, piece: int) -> set[int]:
        """The numbers of the rules of which a word may be near a place in a piece of the text."""
        heard = folded.heard.get(piece)
        if heard is None:
            start, end = piece * PIECE - self._reach, (piece + 1) * PIECE + self._reach
            heard = folded.heard[piece] = self._words.near(folded.words[max(start, 0) : end])
        return heard

    def _span(self, rule: Rule, folded: Folded, match: re.Match[str], trigger: int) -> Span | None:
        """A match as a span, if it goes beyond the trigger and is sure enough."""
        if match.end() <= trigger:
            return None
        return self._scored(rule, folded, *match.span(rule.group))

    def _scored(self, rule: Rule, folded: Folded, start: int, end: int) -> Span | None:
        if start >= end:
            return None
        context = rule.context != () and rule.spoken_for(folded.words, start, end)
        if not context and (rule.needs_context or rule.most < self.threshold):
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


def _joined(text: str, start: int) -> tuple[int, list[int]]:
    """Where the last of the runs of digits that are joined to one ends, and how long each of them is."""
    runs = RUNS.match(text, start)
    return (runs.end(), [*map(len, DIGITS.findall(runs.group()))]) if runs is not None else (start, [])


def _letters(text: str, end: int) -> int:
    """How many ASCII letters stand before a place, in one piece; 0 when they are more than a code begins with."""
    piece = text[max(end - LEAD_CAP - 1, 0) : end]
    letters = len(piece) - len(piece.rstrip(ascii_letters))
    return letters if letters <= LEAD_CAP else 0


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
