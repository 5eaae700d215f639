"""Live: estimates move towards what is measured, and failures never make a service look fast."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Chat, Live, ModelCard
from gateway.card import PLACES, Place
from gateway.live import FAILURE_HALF_LIFE_S, OUTPUT_TOKENS, PRIOR_WEIGHT, Estimate

gaps = st.lists(st.floats(0, 1000), max_size=50)
times = st.floats(0, 1e4)


def live(place: Place = "hosted", first_token_s: float | None = None, bytes: int | None = None) -> Live:
    return Live(ModelCard(name="m", tasks=frozenset({Chat}), place=place, first_token_s=first_token_s, bytes=bytes))


@given(gaps, st.floats(0, 1e6), st.sampled_from(PLACES))
def test_no_sequence_of_failures_changes_the_predicted_latency(waits: list[float], tokens: float, place: Place) -> None:
    service, now = live(place), 0.0
    before = service.latency_s(tokens), service.expected_tokens("chat", None)
    for wait in waits:
        now += wait
        service.failed(now)
        assert 0.0 < service.success(now) < 1.0
    assert (service.latency_s(tokens), service.expected_tokens("chat", None)) == before


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e5)), max_size=60), st.floats(0, 1e9))
def test_success_stays_in_0_to_1_whatever_happens(happened: list[tuple[bool, float]], later: float) -> None:
    service, now = live(), 0.0
    for failed, wait in happened:
        now += wait
        if failed:
            service.failed(now)
        else:
            service.succeeded("chat", 1.0, None, 10)
        assert 0.0 < service.success(now) <= 1.0
    assert service.success(now) <= service.success(now + later) <= 1.0


def test_a_failure_halves_the_chance_and_fades_with_its_half_life() -> None:
    service = live()
    assert service.success(0.0) == 1.0
    service.failed(0.0)
    assert service.success(0.0) == pytest.approx(0.5)
    assert service.success(FAILURE_HALF_LIFE_S) == pytest.approx(1 / 1.5)
    service.succeeded("chat", 1.0, None, 5)
    assert service.success(0.0) == pytest.approx(1 / 1.5)


@given(st.floats(1e-6, 1e4), st.floats(1e-6, 1e4), st.integers(1, 60))
def test_an_estimate_moves_towards_its_measurements_and_never_past_them(prior: float, measured: float, times_seen: int) -> None:
    estimate, before = Estimate(prior), abs(prior - measured)
    for _ in range(times_seen):
        estimate.observe(measured)
        distance = abs(estimate.value - measured)
        assert distance <= before * (1 + 1e-9) + 1e-9
        before = distance
    assert distance <= abs(prior - measured) * PRIOR_WEIGHT / (PRIOR_WEIGHT + 1) + 1e-6


def test_an_estimate_forgets() -> None:
    estimate = Estimate(100.0)
    for _ in range(500):
        estimate.observe(1.0)
    assert estimate.value == pytest.approx(1.0, rel=1e-3)


@given(times, times, st.integers(2, 10_000))
def test_first_token_and_time_per_token_are_measured_apart(first: float, rest: float, tokens: int) -> None:
    service, other = live(), live()
    service.succeeded("chat", first + rest, first, tokens)
    other.first_token_s.observe(first)
    assert service.first_token_s.value == other.first_token_s.value
    assert service.per_token_s.value >= 0 and math.isfinite(service.per_token_s.value)


@given(st.floats(1e-3, 1e3), st.integers(0, 2000))
def test_without_a_first_token_both_estimates_move_by_one_factor(seconds: float, tokens: int) -> None:
    service = live()
    first, per_token = service.first_token_s.value, service.per_token_s.value
    predicted = first + tokens * per_token
    service.succeeded("chat", seconds, None, tokens)
    after = service.first_token_s.value + tokens * service.per_token_s.value
    assert abs(after - seconds) <= abs(predicted - seconds) + 1e-9
    if tokens:
        assert service.first_token_s.value / first == pytest.approx(service.per_token_s.value / per_token)


def test_an_instant_service_never_divides_by_zero() -> None:
    service = live()
    for _ in range(60_000):
        service.succeeded("chat", 0.0, None, 3)
    assert service.latency_s(100) > 0


@pytest.mark.parametrize("tokens", [0, -5, -(10**9)])
def test_a_token_count_that_cannot_be_true_harms_no_estimate(tokens: int) -> None:
    service = live("process")  # here -5 tokens would be expected to take exactly 0 s
    service.succeeded("chat", 1.0, None, tokens)
    service.succeeded("chat", 1.0, 0.5, tokens)
    assert service.first_token_s.value > 0 and service.per_token_s.value > 0
    assert service.expected_tokens("chat", None) == OUTPUT_TOKENS


def test_the_length_of_an_answer_is_learnt_by_task_and_capped_by_the_caller() -> None:
    service = live()
    assert service.expected_tokens("chat", None) == OUTPUT_TOKENS
    assert service.expected_tokens("chat", 5) == 5.0
    for _ in range(100):
        service.succeeded("chat", 1.0, None, 10)
    assert service.expected_tokens("chat", 5000) == pytest.approx(10, rel=0.2)
    assert service.expected_tokens("embed", None) == OUTPUT_TOKENS


def test_loading_counts_until_the_service_is_ready() -> None:
    service = live("process", first_token_s=0.25, bytes=3_000_000_000)
    assert service.latency_s(0) == pytest.approx(3.25)
    service.state = "ready"
    assert service.latency_s(0) == pytest.approx(0.25)
