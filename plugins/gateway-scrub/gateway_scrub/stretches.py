"""A text of any size, scrubbed a stretch at a time, in constant memory. What lies across an edge is found all the same.

What is looked at is a window: the stretch, what came before it, for the words that speak for a find, and what comes after it.
A stretch ends at the end of a line where there is one, and never within a find.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway_scrub.conversation import MASK, Conversation
from gateway_scrub.scrubber import Blocked, Scrubber
from gateway_scrub.spans import Span
from gateway_scrub.tokens import tail_of

WINDOW = 1 << 20
"""Characters of a stretch, about."""
AHEAD = 1 << 16
"""Characters that are looked at beyond a stretch: a find of up to so many is never cut."""
BEFORE = 1 << 12
"""And before it."""
ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")


@dataclass(frozen=True, slots=True)
class Change:
    """A find in a stretch, and what is put there."""

    span: Span
    made: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the input, in order, whose `changes` are to be made. It begins on this `line`, the first of which is 1, after
    so many characters of the input. `raw`: it is the inside of a JSON string, which is written so."""

    text: str = field(repr=False)
    changes: Sequence[Change]
    line: int = 1
    offset: int = 0
    raw: str | None = field(default=None, repr=False)

    @property
    def made(self) -> str:
        """The text, changed."""
        out, at = [], 0
        for change in self.changes:
            out += [self.text[at : change.span.start], change.made]
            at = change.span.end
        return "".join((*out, self.text[at:]))

    def places(self) -> Iterator[tuple[Change, int, int, int]]:
        """Each change with its line, and its offset and length in characters of the input."""
        line, at = self.line, 0
        ends, longer = self._escapes()
        for change in self.changes:
            start, end = change.span.start, change.span.end
            if self.raw is None:
                line, at = line + self.text.count("\n", at, start), start
            begin, stop = (place + longer[bisect_right(ends, place)] for place in (start, end))
            yield change, line, self.offset + begin, stop - begin

    def _escapes(self) -> tuple[list[int], list[int]]:
        """After which characters of the text the JSON string is longer than the text, and by how much."""
        ends, longer = [], [0]
        if self.raw is not None and "\\" in self.raw:
            for found in ESCAPE.finditer(self.raw):
                longer.append(longer[-1] + found.end() - found.start() - 1)
                ends.append(found.end() - longer[-1])
        return ends, longer


class Changes:
    """What is put in the place of finds, one way: a placeholder is the type and a mark of the value, the same all through.

    So nothing has to be remembered, however large the input is; only surrogates are. The mark comes of a random key: it tells
    nothing of the value. `counts` has the changes by type.
    """

    def __init__(self, scrubber: Scrubber) -> None:
        self.counts: Counter[str] = Counter()
        self._scrubber = scrubber
        self._key = os.urandom(32)
        self._conversation = Conversation(max_tokens=1 << 40)

    def find(self, text: str, label: str = "") -> list[Span]:
        """What is to be changed in a text."""
        return [span for span in self._scrubber.find(text, label) if self._scrubber.action(span.type) != "keep"]

    def of(self, text: str, spans: Sequence[Span], line: int, *, lines: bool = True, key: bool = False) -> list[Change]:
        """The changes of spans. `lines`: the text's lines are the input's. `key`: it is one of an object, and stays another
        than its neighbours even where it is masked. Blocked: one of them may not be passed on."""
        out, at = [], 0
        for span in spans:
            if lines:
                line, at = line + text.count("\n", at, span.start), span.start
            value = text[span.start : span.end]
            made = self._made(span.type, value, line)
            out.append(Change(span, self._mark(span.type, value) if key and made in ("", MASK) else made))
            self.counts[span.type] += 1
        return out

    def _made(self, kind: str, text: str, line: int) -> str:
        match self._scrubber.action(kind):
            case "block":
                raise Blocked.of([(kind, f"line {line:,}")])
            case "mask":
                return MASK
            case "drop":
                return ""
            case "surrogate":
                return self._conversation.cover(text, [Span(0, len(text), kind, 1.0, "")], lambda _: "surrogate")
            case _:
                return self._mark(kind, text)

    def _mark(self, kind: str, text: str) -> str:
        return f"<{kind}:{tail_of(self._key, kind, text)}>"


Look = Callable[[str], list[Span]]


class Windows:
    """Cuts a text that comes in pieces into stretches, each with its finds, as places in it."""

    def __init__(self, look: Look, *, window: int = WINDOW, ahead: int = AHEAD, before: int = BEFORE) -> None:
        self._look, self._window, self._ahead, self._reach = look, window, ahead, before
        self._pieces: list[str] = []
        self._held = 0
        self._before = ""

    def feed(self, text: str) -> Iterator[tuple[str, list[Span]]]:
        """The stretches that are ready."""
        self._pieces.append(text)
        self._held += len(text)
        while self._held >= self._window + self._ahead:
            yield self._next(final=False)

    def flush(self) -> Iterator[tuple[str, list[Span]]]:
        """The rest."""
        if self._held:
            yield self._next(final=True)

    def _next(self, *, final: bool) -> tuple[str, list[Span]]:
        held = "".join(self._pieces)
        most = len(held) if final else self._window + self._ahead
        shift = len(self._before)
        text = self._before + held[:most]
        spans = [span for span in self._look(text) if span.end > shift]
        cut = len(text) if final else self._cut(text, spans, shift)
        done = [_moved(span, -shift) for span in spans if span.end <= cut]
        self._before = text[max(cut - self._reach, 0) : cut]
        rest = held[cut - shift :]
        self._pieces, self._held = [rest], len(rest)
        return text[shift:cut], done

    def _cut(self, text: str, spans: Sequence[Span], shift: int) -> int:
        """Where the stretch ends: the end of a line, or a space, or anywhere, but in no find."""
        limit = max(len(text) - self._ahead, shift + 1)
        for end in ("\n", " "):
            found = text.rfind(end, shift, limit)
            if found >= 0 and (end == "\n" or limit - found < self._ahead):
                limit = found + 1
                break
        for span in spans:
            if span.start < limit < span.end:
                return span.start if span.start > shift else span.end
        return limit


def _moved(span: Span, by: int) -> Span:
    return Span(max(span.start + by, 0), span.end + by, span.type, span.score, span.why, span.rank)


class TextFile:
    """The stretches of a text file."""

    def __init__(self, changes: Changes, *, window: int = WINDOW, ahead: int = AHEAD) -> None:
        self._changes = changes
        self._windows = Windows(changes.find, window=window, ahead=ahead)
        self._line, self._offset = 1, 0

    def feed(self, text: str) -> Iterator[Stretch]:
        """The stretches that are ready."""
        return map(self._stretch, self._windows.feed(text))

    def flush(self) -> Iterator[Stretch]:
        """The rest."""
        return map(self._stretch, self._windows.flush())

    def _stretch(self, found: tuple[str, list[Span]]) -> Stretch:
        text, spans = found
        made = Stretch(text, self._changes.of(text, spans, self._line), self._line, self._offset)
        self._line += text.count("\n")
        self._offset += len(text)
        return made
