"""Restoring: every known placeholder and surrogate becomes its value again, in a whole text or in the pieces of a stream.

Whole and stream are one way: what is found in the text so far is passed on up to where what comes next could still change it.
A value is never looked into: what was put in is not read again.
"""

from __future__ import annotations

import json as _json
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from gateway_scrub.tokens import Hit

CONTEXT = 4
"""Characters before a hit that decide whether it is one."""

# A JSON escape (RFC 8259, section 7); one that the text's end cut short; a backslash that begins none.
_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/bfnrt])|(u[0-9A-Fa-f]{0,3}\Z|\Z)|)')
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

Piece = tuple[str, bool]
"""Some text, and whether it is a value that was put in."""


class Finder(Protocol):
    """What knows what stands for what."""

    def find(self, text: str, at: int, *, final: bool) -> tuple[list[Hit], int]:
        """The hits from `at` on, none overlapping, in order; and up to where what follows the text cannot change them."""


class Restorer:
    """An incremental decoder: `feed` gives what is certain, `flush` the rest. Their sum is what the whole gives, for every way
    of cutting it. One for each stream of text: a choice, a part, a tool call's arguments. Not for several threads at once."""

    def __init__(self, finders: Sequence[Finder], *, json: bool = False) -> None:
        self._stages = [_Stage(finder, json) for finder in finders]

    def feed(self, text: str) -> str:
        """What can be passed on now."""
        return self._through(text, final=False)

    def flush(self) -> str:
        """What was held back, at the end."""
        return self._through("", final=True)

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return sum(len(stage.held) for stage in self._stages)

    def _through(self, text: str, *, final: bool) -> str:
        if len(self._stages) == 1:
            pieces = self._stages[0].feed(text, final=final)
            return pieces[0][0] if len(pieces) == 1 else "".join([text for text, _ in pieces])
        pieces = [(text, False)]
        for stage in self._stages:
            done: list[Piece] = []
            for text, value in pieces:
                done += [*stage.feed("", final=True), (text, True)] if value else stage.feed(text, final=False)
            if final:
                done += stage.feed("", final=True)
            pieces = done
        return "".join([text for text, _ in pieces])


def restored(text: str, finders: Sequence[Finder], *, json: bool = False) -> str:
    """The whole text with its values. `json`: it is JSON, in which values stand escaped."""
    restorer = Restorer(finders, json=json)
    return restorer.feed(text) + restorer.flush()


class _Stage:
    """One finder over one stream."""

    def __init__(self, finder: Finder, json: bool) -> None:
        self.held = ""
        self._finder, self._json = finder, json
        self._before = ""
        """The last characters that were passed on, as they came, with JSON's escapes decoded."""

    def feed(self, raw: str, *, final: bool) -> list[Piece]:
        """The next pieces, the end of the text being here if `final`."""
        raw = self.held + raw
        escapes = _Escapes(raw, final) if self._json and "\\" in raw else None
        text = self._before + (raw if escapes is None else escapes.text)
        skip = len(self._before)
        hits, settled = self._finder.find(text, skip, final=final)
        pieces: list[Piece] = []
        at = 0
        for start, end, value in hits:
            start, end = start - skip, end - skip
            if escapes is not None:
                start, end = escapes.place(start), escapes.place(end)
            if start > at:
                pieces.append((raw[at:start], False))
            pieces.append((_inside(value) if self._json else value, True))
            at = end
        cut = settled - skip if escapes is None else escapes.place(settled - skip)
        if cut > at:
            pieces.append((raw[at:cut], False))
        self.held = raw[cut:]
        self._before = "" if final else text[settled - CONTEXT : settled] if settled >= CONTEXT else text[:settled]
        return pieces


def _inside(value: str) -> str:
    """A value as it stands in a string of JSON; half of a pair of surrogates, which cannot be sent, as an escape."""
    sendable = value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    return _json.dumps(value, ensure_ascii=not sendable)[1:-1]


class _Escapes:
    """JSON text with its escapes decoded, and where each character stood. An escape that is cut short is left out, but at the
    end. Outside of strings there are none."""

    def __init__(self, raw: str, final: bool) -> None:
        self._at: list[int] = []  # where in the decoded text a character stands that was an escape
        self._longer: list[int] = [0]  # by how much the escapes before were longer than what they mean
        parts: list[str] = []
        done = size = 0
        for found in _ESCAPE.finditer(raw):
            code, simple, short = found.groups()
            parts.append(raw[done : found.start()])
            size += len(parts[-1])
            done = found.end()
            if short is not None and not final:
                break
            if code is None and simple is None:
                char = found[0]  # no escape, and so no JSON
            else:
                char = chr(int(code, 16)) if code is not None else _SIMPLE.get(simple, simple)
            parts.append(char)
            self._at.append(size)
            self._longer.append(self._longer[-1] + len(found[0]) - len(char))
            size += len(char)
        else:
            parts.append(raw[done:])
        self.text = "".join(parts)

    def place(self, at: int) -> int:
        """Where in the JSON text the character stands that is at `at` in the decoded one."""
        return at + self._longer[bisect_left(self._at, at)]
