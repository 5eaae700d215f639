"""Batcher: which texts of which requests are encoded together. Pure.

Texts of like length go together, so that little is padding, and no batch takes more padded tokens than the budget. Between
requests it is fair: the one that has had the least so far says how long the batch is, and the others fill it (fair queueing;
Demers, Keshav and Shenker, SIGCOMM 1989). So one with thousands of texts holds up no short one, and is not starved.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """The texts of one request. `prepare` makes them when they are first looked at, `finish` the response of the outputs."""

    def __init__(self, prepare: Callable[[], Sequence[Row]], finish: Callable[[Sequence[Any]], Response]) -> None:
        self.prepare, self.finish = prepare, finish
        self.rows: Sequence[Row] | None = None
        self.left: list[tuple[int, int]] = []
        """(length, place) of each text that is not done, the shortest first."""
        self.had = 0.0
        """How many padded tokens it has had."""
        self._outputs: list[Any] = []
        self._missing = 0

    def begin(self, had: float) -> None:
        """Make the texts; the request joins those that have had so much."""
        self.rows = self.prepare()
        self._outputs, self._missing, self.had = [None] * len(self.rows), len(self.rows), had
        self.left = sorted((len(row.ids), at) for at, row in enumerate(self.rows))

    @property
    def whole(self) -> bool:
        """True when every text is done."""
        return self.rows is not None and not self._missing

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
        while not batch or longest * (len(batch) + 1) <= self._budget:
            found = []
            for job in waiting:
                fits = bisect_right(job.left, (longest, sys.maxsize)) - 1
                if fits >= 0:
                    found.append((job.left[fits][0], -job.had, job, fits))
            if not found:
                break
            length, _, job, at = max(found, key=lambda each: each[:2])
            if batch and length < longest * LEAST_FULL:
                break
            batch.append((job, job.left.pop(at)[1]))
            job.had += longest
        self.now += longest * len(batch) / len(waiting)
        return batch
