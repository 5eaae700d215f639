"""MemoryState: windows, leases and refusals, with a clock that only moves when told."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway import Lease, Limit, Refusal
from gateway.state import LEASE_TTL_S, MemoryState, StateStore, Unit
from gateway.testing import FakeClock
from gateway.testing.contract import StateStoreContract

ALL = Limit("all", "requests", 3, 60.0)
DAY = Limit("all", "tokens", 100, 86_400.0)


class TestMemoryState(StateStoreContract):
    @pytest.fixture
    def state(self, clock: FakeClock) -> MemoryState:
        return MemoryState(clock)


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    with pytest.raises(StopIteration) as stopped:
        work.send(None)
    return stopped.value.value


def reserve(state: StateStore, amounts: dict[Unit, float], *limits: Limit) -> Any:
    return done(state.reserve(amounts, limits))


def settle(state: StateStore, lease: Lease, actual: dict[Unit, float]) -> None:
    done(state.settle(lease, actual))


def test_a_refusal_says_what_is_used_and_when_the_window_ends() -> None:
    clock = FakeClock(120.0 + 15.0)
    state = MemoryState(clock)
    reserve(state, {"requests": 3}, ALL)
    assert reserve(state, {"requests": 1}, ALL) == Refusal(ALL, 3.0, 45.0)
    clock.advance(45.0)
    assert isinstance(reserve(state, {"requests": 1}, ALL), Lease)


def test_more_than_a_limit_never_fits() -> None:
    refusal = reserve(MemoryState(FakeClock()), {"requests": 4}, ALL)
    assert isinstance(refusal, Refusal) and refusal.frees_in_s == math.inf


@pytest.mark.parametrize("amount", [math.nan, math.inf])
def test_an_amount_that_is_no_finite_number_is_refused(amount: float) -> None:
    assert isinstance(reserve(MemoryState(FakeClock()), {"requests": amount}, ALL), Refusal)


@pytest.mark.parametrize("actual", [math.nan, math.inf, -math.inf, -5.0])
def test_a_usage_that_cannot_be_true_is_settled_as_what_was_reserved(actual: float) -> None:
    state = MemoryState(FakeClock())
    settle(state, reserve(state, {"tokens": 60}, DAY), {"tokens": actual})
    refusal = reserve(state, {"tokens": 50}, DAY)
    assert isinstance(refusal, Refusal) and refusal.used == 60


def test_a_limit_that_is_listed_twice_is_counted_once() -> None:
    state = MemoryState(FakeClock())
    lower = Limit("all", "requests", 2, 60.0)
    for _ in range(2):
        assert isinstance(reserve(state, {"requests": 1}, ALL, ALL, lower), Lease)
    assert reserve(state, {"requests": 1}, ALL, lower).limit == lower


def test_what_a_call_used_counts_in_the_window_in_which_it_ended() -> None:
    clock = FakeClock(119.0)
    state = MemoryState(clock)
    lease = reserve(state, {"requests": 3}, ALL)
    clock.advance(2.0)
    settle(state, lease, {"requests": 3})
    assert reserve(state, {"requests": 1}, ALL).used == 3


def test_a_lease_lapses_in_the_window_in_which_it_was_taken_however_the_floats_round() -> None:
    # 59.99999999999999 + 900 - 900 is 60.0: another window.
    clock = FakeClock(math.nextafter(60.0, 0.0))
    state = MemoryState(clock)
    lease = reserve(state, {"requests": 3}, ALL)
    settle(state, lease, {"requests": 0})
    assert isinstance(reserve(state, {"requests": 3}, ALL), Lease)


def test_memory_is_bounded_by_what_is_in_use() -> None:
    clock = FakeClock()
    state = MemoryState(clock)
    for tenant in range(500):
        reserve(state, {"requests": 1}, Limit(f"tenant:{tenant}", "requests", 3, 60.0))
        clock.advance(LEASE_TTL_S)
    assert len(state._used) <= 2 and len(state._leases) <= 2


class NaiveModel(RuleBasedStateMachine):
    """MemoryState against a list of everything that was ever reserved."""

    limits = (Limit("a", "requests", 5, 60.0), Limit("a", "requests", 9, 60.0), Limit("b", "requests", 7, 3600.0), DAY)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1_728_000_000.0)
        self.state = MemoryState(self.clock)
        self.open: dict[int, tuple[float, Lease]] = {}
        self.used: list[tuple[float, tuple[Limit, ...], dict[Unit, float]]] = []
        self.leases: list[Lease] = []

    def count(self, limit: Limit) -> float:
        now = self.clock.now()
        live = [(at, lease.limits, lease.amounts) for at, lease in self.open.values() if now < at + LEASE_TTL_S]
        same = (limit.key, limit.unit, limit.window_s)
        return sum(
            amounts.get(limit.unit, 0)
            for at, limits, amounts in [*live, *self.used]
            if at // limit.window_s == now // limit.window_s and same in {(one.key, one.unit, one.window_s) for one in limits}
        )

    @rule(
        requests=st.integers(0, 6),
        tokens=st.integers(0, 60),
        limits=st.lists(st.sampled_from(limits), max_size=4).map(tuple),
    )
    def reserve(self, requests: int, tokens: int, limits: tuple[Limit, ...]) -> None:
        amounts: dict[Unit, float] = {"requests": requests, "tokens": tokens}
        full = [limit for limit in limits if self.count(limit) + amounts[limit.unit] > limit.max]
        outcome = reserve(self.state, amounts, *limits)
        if full:
            assert isinstance(outcome, Refusal)
            assert outcome.limit == full[0] and outcome.used == self.count(full[0]) and outcome.frees_in_s > 0
        else:
            assert isinstance(outcome, Lease)
            self.open[outcome.id] = (self.clock.now(), outcome)
            self.leases.append(outcome)

    @rule(data=st.data(), requests=st.integers(0, 9), tokens=st.integers(0, 90))
    def settle(self, data: st.DataObject, requests: int, tokens: int) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))  # settled before: then nothing may change; lapsed: then the use counts
        at, _ = self.open.pop(lease.id, (None, None))
        actual: dict[Unit, float] = {"requests": requests, "tokens": tokens}
        settle(self.state, lease, actual)
        if at is not None:
            self.used.append((self.clock.now(), lease.limits, actual))

    @rule(seconds=st.sampled_from([0.5, 7.0, 59.0, 60.0, 600.0, 901.0, 3600.0, 86_400.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        # A lease lapses when the store next looks: make it look now, so that the model need not guess.
        reserve(self.state, {})

    @invariant()
    def counts_agree_and_are_never_negative(self) -> None:
        for limit in self.limits:
            probe = reserve(self.state, {limit.unit: math.nan}, limit)
            assert isinstance(probe, Refusal) and probe.used == self.count(limit) >= 0


TestNaiveModel = NaiveModel.TestCase
TestNaiveModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
