"""Batcher: which texts of which requests are encoded together. Pure.

Texts of like length go together, so that little is padding, and no batch takes more padded tokens than the budget. Between
requests it is fair: the one that has had the least so far says how long the batch is, and the others fill it (fair queueing;
Demers, Keshav and Shenker, SIGCOMM 1989). So one with thousands of texts holds up no short one, and is not starved.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

from gateway import Response

BUDGET_TOKENS = 1024
"""Tokens a batch, padding included. Measured on a small CPU: more waste cache, fewer waste calls."""
LEAST_FULL = 0.5
"""A text that is shorter than this share of the longest beside it waits for another batch, rather than be mostly padding."""


@dataclass(slots=True)
class Row:
    """One text as the model reads it: its tokens, and of a pair of texts which token is of which."""

    ids: Sequence[int]
    types: Sequence[int] | None = None


class Job:
    """The texts of one request. `prepare` makes them, so many at a time; `finish` makes the response of the outputs."""

    def __init__(self, prepare: Callable[[], Iterable[Sequence[Row]]], finish: Callable[[Sequence[Any]], Response]) -> None:
        self.prepare, self.finish = prepare, finish
        self.rows: list[Row] = []
        self.left: list[tuple[int, int]] = []
        """(length, place) of each text that is there and not done, the shortest first."""
        self.had = 0.0
        """How many padded tokens it has had."""
        self.begun = False
        self._more: Iterator[Sequence[Row]] | None = None
        self._outputs: list[Any] = []
        self._missing = 0

    def grow(self, now: float) -> None:
        """Make the next of its texts. When it is new, it joins those that have had so much."""
        if not self.begun:
            self.begun, self.had, self._more = True, now, iter(self.prepare())
        if self._more is None:
            return
        rows = next(self._more, None)
        if rows is None:
            self._more = None
            return
        at = len(self.rows)
        self.rows += rows
        self._outputs += [None] * len(rows)
        self._missing += len(rows)
        self.left = sorted([*self.left, *((len(row.ids), at + place) for place, row in enumerate(rows))])

    @property
    def whole(self) -> bool:
        """True when every text is done."""
        return self.begun and self._more is None and not self._missing

    def take(self, place: int, output: Any) -> None:
        """One text is done."""
        self._outputs[place] = output
        self._missing -= 1

    def response(self) -> Response:
        """What the request is answered."""
        return self.finish(self._outputs)


class Batcher:
    """Chooses batches; see above."""

    def __init__(self, budget_tokens: int = BUDGET_TOKENS) -> None:
        self._budget = budget_tokens
        self.now = 0.0
        """What each of those who wait should have had by now: newcomers begin with it."""

    def next(self, jobs: Sequence[Job]) -> list[tuple[Job, int]]:
        """The next batch, as requests and places in them, the longest text first; it is taken off them. [] when all is done."""
        waiting = [job for job in jobs if job.left]
        if not waiting:
            return []
        first = min(waiting, key=lambda job: job.had)
        longest, batch = first.left[-1][0], list[tuple[Job, int]]()
        ends = []  # of each request the longest text that fits, as (-length, had, order, request, place in `left`)
        for order, job in enumerate(waiting):
            if (at := bisect_right(job.left, (longest, sys.maxsize)) - 1) >= 0:
                ends.append((-job.left[at][0], job.had, order, job, at))
        heapify(ends)
        while ends and (not batch or longest * (len(batch) + 1) <= self._budget):
            length, _, order, job, at = heappop(ends)
            if batch and -length < longest * LEAST_FULL:
                break
            batch.append((job, job.left.pop(at)[1]))
            job.had += longest
            if at:
                heappush(ends, (-job.left[at - 1][0], job.had, order, job, at - 1))
        self.now += longest * len(batch) / len(waiting)
        for job in waiting:  # who has filled up others' batches is not to wait for ever for that
            job.had = min(job.had, self.now + self._budget)
        return batch
