"""Batches: each text once, within the budget, of like length, fair between requests."""

from __future__ import annotations

from typing import Any

from gateway_local.batcher import LEAST_FULL, Batcher, Job, Row
from hypothesis import given
from hypothesis import strategies as st

from gateway import Response

LENGTHS = st.lists(st.integers(1, 2000), max_size=40)


def job(lengths: list[int], batcher: Batcher) -> Job:
    made = Job(lambda: [[Row([0] * length)] for length in lengths], lambda outputs: Response())
    for _ in range(len(lengths) + 1):  # its texts, and that there are no more
        made.grow(batcher.now)
    return made


def drained(batcher: Batcher, jobs: list[Job]) -> list[list[tuple[Job, int]]]:
    out = []
    while batch := batcher.next(jobs):
        out.append(batch)
    return out


def sizes(batch: list[tuple[Job, int]]) -> list[int]:
    return [len(job.rows[at].ids) for job, at in batch]


@given(st.lists(LENGTHS, max_size=5))
def test_batches_hold_each_text_once_keep_to_the_budget_and_are_half_full(requests: list[list[int]]) -> None:
    batcher = Batcher(1024)
    jobs = [job(lengths, batcher) for lengths in requests]
    made = drained(batcher, jobs)
    seen = [(jobs.index(one), at) for batch in made for one, at in batch]
    assert sorted(seen) == [(which, at) for which, lengths in enumerate(requests) for at in range(len(lengths))]
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(sizes(batch)) <= 1024
        assert min(sizes(batch)) >= max(sizes(batch)) * LEAST_FULL


def test_a_short_request_is_not_held_up_by_a_long_one_that_came_first() -> None:
    batcher = Batcher(100)
    long = job([50] * 1000, batcher)
    for _ in range(10):
        batcher.next([long])
    short = job([10], batcher)
    batches = [batcher.next([long, short]) for _ in range(2)]
    assert any(one is short for batch in batches for one, _ in batch)


def test_a_long_request_is_not_starved_by_short_ones_that_keep_coming() -> None:
    batcher = Batcher(100)
    long, served = job([50] * 40, batcher), 0
    for _ in range(60):
        others = [job([100], batcher) for _ in range(3)]
        for _ in range(2):
            served += sum(one is long for one, _ in batcher.next([long, *others]))
    assert served == 40


def test_who_has_filled_up_others_batches_does_not_wait_for_that_afterwards() -> None:
    batcher = Batcher(100)
    filler = job([5] * 3000, batcher)
    for _ in range(100):  # others say how long the batches are
        batcher.next([filler, *(job([50], batcher) for _ in range(5))])
        batcher.next([filler, job([10], batcher)])
    waited = 0
    while not any(one is filler for one, _ in batcher.next([filler, job([100], batcher)])):
        waited += 1
    assert waited <= 8


@given(st.lists(st.integers(1, 64), min_size=1, max_size=30), st.integers(2, 5))
def test_texts_of_several_requests_share_batches(lengths: list[int], count: int) -> None:
    alone, together = Batcher(1024), Batcher(1024)
    jobs = [job(lengths, together) for _ in range(count)]
    by_itself: list[Any] = [drained(alone, [job(lengths, alone)]) for _ in range(count)]
    assert len(drained(together, jobs)) <= sum(map(len, by_itself))
