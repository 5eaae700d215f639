"""Escapes: a text as who reads it understands it, where it holds JSON's, a URL's or HTML's escapes: ada\\u0040example.org.

Detectors look at both forms. What they find in the plain one is covered in the text as it stands.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from gateway_scrub.spans import Span

_ESCAPE = re.compile(
    r"(?P<json>(?:\\{1,8}(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}))+)"
    r"|(?P<url>(?:%[0-9A-Fa-f]{2})+)"
    r"|(?P<html>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|commat|period|lowbar|colon|sol|num|hyphen);)"
)
_CODE = re.compile(r"[ux]([0-9A-Fa-f]+)")
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True)
class Decoded:
    """A text with its escapes undone, and the way back."""

    raw: str = field(repr=False)
    text: str = field(repr=False)
    ends: tuple[int, ...] = field(repr=False)
    """Where in `text` each run of what was escaped ends."""
    places: tuple[tuple[int, int, int, int], ...] = field(repr=False)
    """Of each run: where it begins and ends in `text`, and in `raw`."""

    def back(self, spans: Iterable[Span]) -> list[Span]:
        """Spans of `text` as those of `raw`. A run of escapes that one begins or ends in is covered whole."""
        return [replace(span, start=self._to(span.start, 0), end=self._to(span.end, 1)) for span in spans]

    def _to(self, at: int, end: int) -> int:
        """A place in `raw`; at an edge of a run, the one that leaves it out."""
        run = bisect_left(self.ends, at if end else at + 1)
        if run < len(self.places):
            begin, _, raw_begin, raw_end = self.places[run]
            if begin < at or (begin == at and not end):
                return raw_end if end else raw_begin
        if run == 0:
            return at
        _, stop, _, raw_stop = self.places[run - 1]
        return raw_stop + at - stop


def decoded(text: str) -> Decoded | None:
    """The text with its escapes undone; None if it has none."""
    if "\\" not in text and "%" not in text and "&" not in text:
        return None
    parts: list[str] = []
    places: list[tuple[int, int, int, int]] = []
    at = size = 0
    for found in _ESCAPE.finditer(text):
        made = _plain(found)
        parts += [text[at : found.start()], made]
        size += found.start() - at
        places.append((size, size + len(made), found.start(), found.end()))
        at, size = found.end(), size + len(made)
    if not places:
        return None
    parts.append(text[at:])
    return Decoded(text, "".join(parts), tuple(stop for _, stop, _, _ in places), tuple(places))


def _plain(found: re.Match[str]) -> str:
    if found["url"]:
        return unquote(found[0])
    if found["html"]:
        return html.unescape(found[0])
    made = "".join(chr(int(code, 16)) for code in _CODE.findall(found[0]))
    return _HALVES.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), made)
