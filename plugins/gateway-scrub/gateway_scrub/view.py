"""What `gateway scrub` shows of its finds: a line of JSON for each, or the lines that change, before and after."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from gateway_scrub.stretches import Change, Stretch

AROUND = 60
"""Characters of a long line that are shown before and after a find."""
CONTROLS = {
    code: "\ufffd" for code in (*range(32), *range(127, 160), *range(0x200B, 0x2010), *range(0x202A, 0x202F)) if code != 9
}
"""What a file must not do to a terminal."""
OLD, NEW, QUIET = "31", "32", "2"


def on_terminal(stream: IO[str]) -> bool:
    """Whether lines are seen by somebody, who may be shown colours and bars."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: IO[str]) -> bool:
    """Whether escape codes may be written (no-color.org)."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


def spans_of(stretch: Stretch, *, show: bool) -> Iterator[str]:
    """A line of JSON for each find: `show` says the text, too."""
    for change, line, offset, length in stretch.places():
        span = change.span
        told = {
            "offset": offset,
            "length": length,
            "line": line,
            "type": span.type,
            "score": round(span.score, 3),
            "why": span.why,
        }
        if show:
            told["text"] = stretch.text[span.start : span.end]
        yield json.dumps(told, ensure_ascii=False)


class Diff:
    """Shows the lines that change: what they were, what they become, and the types of what was found."""

    def __init__(self) -> None:
        self._colours = coloured(sys.stdout)

    def lines(self, stretch: Stretch) -> Iterator[str]:
        """What is shown of a stretch."""
        for number, row in _rows(stretch):
            types = ", ".join(dict.fromkeys(change.span.type for change in row.changes))
            head = f"{number:>6}"
            yield f"{self._dim(head)} {self._in(OLD, '-')} {''.join(self._old(row))}"
            yield f"{'':6} {self._in(NEW, '+')} {''.join(self._new(row))}  {self._dim(types)}"

    def _old(self, row: _Row) -> Iterator[str]:
        for text, change in row.pieces():
            yield _safe(text) if change is None else self._in(f"1;{OLD}", _safe(text))

    def _new(self, row: _Row) -> Iterator[str]:
        for text, change in row.pieces():
            yield _safe(text) if change is None else self._in(f"1;{NEW}", _safe(change.made))

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and text else text

    def _dim(self, text: str) -> str:
        return self._in(QUIET, text)


@dataclass(frozen=True)
class _Row:
    """A line with its changes, which are places in the stretch that it begins at `start` of and ends at `end` of."""

    stretch: Stretch
    start: int
    end: int
    changes: Sequence[Change]

    def pieces(self) -> Iterator[tuple[str, Change | None]]:
        """Its text, cut at the finds; of what is long between them, the ends."""
        at = self.start
        for change in self.changes:
            start = max(change.span.start, self.start)
            yield _short(self.stretch.text[at:start], first=at == self.start), None
            yield self.stretch.text[start : change.span.end], change
            at = change.span.end
        yield _short(self.stretch.text[at : self.end], last=True), None


def _rows(stretch: Stretch) -> Iterator[tuple[int, _Row]]:
    """The lines with changes. A find over several lines makes one row of them."""
    rows: list[tuple[int, int, int, list[Change]]] = []
    for change, line, _, _ in stretch.places():
        start = stretch.text.rfind("\n", 0, change.span.start) + 1
        end = stretch.text.find("\n", change.span.end - 1)
        end = len(stretch.text) if end < 0 else end
        if rows and start < rows[-1][2]:
            rows[-1][3].append(change)
            rows[-1] = (*rows[-1][:2], max(end, rows[-1][2]), rows[-1][3])
        else:
            rows.append((line, start, end, [change]))
    for line, start, end, changes in rows:
        yield line, _Row(stretch, start, end, changes)


def _short(text: str, *, first: bool = False, last: bool = False) -> str:
    if len(text) <= 2 * AROUND:
        return text
    return ("" if first else text[:AROUND]) + "…" + ("" if last else text[-AROUND:])


def _safe(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip("\r").replace("\n", "⏎").translate(CONTROLS)


def told(counts: Iterable[tuple[str, int]]) -> str:
    """The line of counts at the end."""
    rows = sorted(counts, key=lambda row: (-row[1], row[0]))
    if not rows:
        return "found nothing"
    return f"found {sum(number for _, number in rows):,}: {', '.join(f'{kind} {number:,}' for kind, number in rows)}"
