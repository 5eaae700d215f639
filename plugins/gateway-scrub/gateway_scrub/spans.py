"""Span: where in a text something was found, of what type, how surely, and why; which of overlapping ones stay."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
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


def _place(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _order(span: Span) -> tuple[int, float, int, int, str]:
    return -span.rank, -span.score, span.start - span.end, span.start, span.type
