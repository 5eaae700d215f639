"""Retries: who may be asked again, and when; RetryBudget: retries never outgrow their share of the requests."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import AttemptTimeout, Overloaded, RateLimited, Rejected, ServiceError, Unreachable
from gateway.config import RetryConfig
from gateway.retry import BEGIN, MOST, PER_SECOND, Retries, RetryBudget
from gateway.testing import FakeClock

chances = st.floats(0, 1, exclude_max=True)
waits = st.none() | st.floats(0, 30)
errors = st.one_of(
    waits.map(lambda s: RateLimited("busy", retry_after_s=s)),
    waits.map(lambda s: Overloaded("busy", retry_after_s=s)),
    st.just(Unreachable("down")),
)


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.sampled_from(["request", "retry", "retry", "time"]), st.floats(0, 5)), max_size=200),
)
def test_the_budget_never_gives_more_than_it_earned(share: float, happened: list[tuple[str, float]]) -> None:
    clock = FakeClock()
    budget, requests, retries = RetryBudget(clock, share), 0, 0
    for kind, seconds in happened:
        match kind:
            case "request":
                budget.earn()
                requests += 1
            case "retry":
                retries += budget.take()
            case "time":
                clock.advance(seconds)
        assert retries <= BEGIN + share * requests + PER_SECOND * clock.monotonic() + 1e-6


@given(st.floats(0, 1e7), st.integers(0, 3000))
def test_what_is_saved_up_has_an_end(idle_s: float, requests: int) -> None:
    clock = FakeClock()
    budget = RetryBudget(clock, 1.0)
    clock.advance(idle_s)
    for _ in range(requests):
        budget.earn()
    assert sum(budget.take() for _ in range(3000)) <= MOST


def test_a_budget_without_share_or_beginning_fills_by_time_alone() -> None:
    clock = FakeClock()
    budget = RetryBudget(clock, 0.0, begin=0.0, per_second=0.5)
    for _ in range(100):
        budget.earn()
    assert not budget.take()
    clock.advance(2.0)
    assert budget.take()
    assert not budget.take()


def test_a_provider_that_is_down_is_sent_at_most_its_share_more() -> None:
    clock = FakeClock()
    budget, retries = RetryBudget(clock, 0.2, begin=0.0), 0
    for _ in range(1000):
        clock.advance(0.001)
        budget.earn()
        retries += budget.take() + budget.take()
    assert 150 <= retries <= 201


@given(st.lists(st.tuples(errors, chances, st.floats(0, 1)), min_size=1, max_size=12), st.integers(1, 8))
def test_never_three_attempts_within_a_second_and_a_half(each: list[tuple[ServiceError, float, float]], most: int) -> None:
    retries, now, asked = Retries(RetryConfig(attempts=most)), 0.0, list[float]()
    for error, chance, later in each:
        asked.append(now)
        retries.failed("m", error, now, chance)
        if "m" not in retries.due:
            break
        due = retries.due.pop("m")
        assert due >= now + (error.retry_after_s or 0.0), "what it asks for is kept to"
        now = due + later
    assert len(asked) <= most
    assert all(third - first > 1.5 for first, third in zip(asked, asked[2:], strict=False))
    assert asked == sorted(asked)


@given(st.lists(errors, max_size=2), chances)
def test_who_was_silent_is_not_waited_for_again(before: list[ServiceError], chance: float) -> None:
    retries, now = Retries(RetryConfig(attempts=9)), 0.0
    for error in before:
        retries.failed("m", error, now, chance)
        now = retries.due.pop("m")
    silent = AttemptTimeout("silent", retryable=True, retry_after_s=0.0)
    retries.failed("m", silent, now, chance)
    assert retries.due == {}


def test_what_cannot_be_cured_by_asking_again_is_never_due() -> None:
    retries = Retries(RetryConfig())
    retries.failed("m", Rejected("no", retryable=False, retry_after_s=1.0), 0.0, 0.5)
    assert retries.due == {}


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_a_model_is_asked_as_often_as_configured(attempts: int) -> None:
    retries, asked, now = Retries(RetryConfig(attempts=attempts)), 0, 0.0
    while True:
        asked += 1
        retries.failed("m", Unreachable("down"), now, 0.0)
        if "m" not in retries.due:
            break
        now = retries.due.pop("m")
    assert asked == attempts


def test_the_third_attempt_waits_longest_even_without_jitter() -> None:
    retries, asked = Retries(RetryConfig(attempts=4)), [0.0]
    for _ in range(3):
        retries.failed("m", Unreachable("down"), asked[-1], 0.0)
        asked.append(retries.due.pop("m"))
    assert [later - sooner for sooner, later in pairwise(asked)] == [0.25, 1.5, 3.0]
    assert asked[2] - asked[0] > 1.5


def test_each_model_is_counted_on_its_own_and_chance_spreads_them_out() -> None:
    retries = Retries(RetryConfig(attempts=2))
    retries.failed("a", Unreachable("down"), 10.0, 0.0)
    retries.failed("b", Unreachable("down"), 10.0, 0.5)
    assert 10.0 < retries.due["a"] < retries.due["b"] < 11.0
