"""Span: where in a text something was found, of what type, how surely, and why; which of overlapping ones stay."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """What lies from character `start` to `end`. `type` is such as EMAIL; `score` is 0 to 1; `why` names the rule and what
    spoke for it, such as ``us.ssn: check, context``, and never holds text. `rank` decides between overlapping spans: 2 a
    checksum that is right, 1 a model's, 0 a shape."""

    start: int
    end: int
    type: str
    score: float
    why: str
    rank: int = 0


def resolved(spans: Iterable[Span], *, least: float = 0.0) -> list[Span]:
    """The spans of at least this score, none overlapping another, in order of place.

    Where some overlap, the one of higher rank stays, then the higher score, then the longer one, then the first.
    """
    found = sorted([span for span in spans if span.score >= least], key=_place)
    if all(one.end <= other.start for one, other in pairwise(found)):
        return found  # as nearly always
    kept: list[Span] = []
    for span in sorted(found, key=_order):
        at = bisect_left(kept, span)
        if (at == 0 or kept[at - 1].end <= span.start) and (at == len(kept) or span.end <= kept[at].start):
            kept.insert(at, span)
    return kept


def covering(text: str, spans: Sequence[Span], *, least: float = 0.0) -> list[Span]:
    """The spans as `resolved`, and what is left of each that had to give way: all that was found in the text is covered.

    A model's "Anna Schmidt" must not let go of "Schmidt" because a pattern was surer of "Anna".
    """
    kept = resolved(spans, least=least)
    enough = [span for span in spans if span.score >= least]
    if len(kept) == len(enough):
        return kept
    for span in sorted(enough, key=_order):
        at = span.start
        while at < span.end:
            place = bisect_right(kept, at, key=_end)
            stop = min(kept[place].start, span.end) if place < len(kept) else span.end
            if (rest := _trimmed(text, at, stop)) is not None:
                kept.insert(place, replace(span, start=rest[0], end=rest[1]))
                place += 1
            at = kept[place].end if place < len(kept) else span.end
    return kept


def _end(span: Span) -> int:
    return span.end


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """What lies between two places from its first letter or digit to its last."""
    inside = [at for at in range(start, end) if text[at].isalnum()]
    return (inside[0], inside[-1] + 1) if inside else None


def _place(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _order(span: Span) -> tuple[int, float, int, int, str]:
    return -span.rank, -span.score, span.start - span.end, span.start, span.type
