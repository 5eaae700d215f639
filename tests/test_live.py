"""Live and Vitals: estimates move to what is measured, failures never make a service look fast, and memory is bounded."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Live, ModelCard, Quota
from gateway.card import PLACES, Place
from gateway.live import OUTPUT_TOKENS
from gateway.tasks import Chat
from gateway.vitals import FAILURE_HALF_LIFE_S, TASKS_KEPT, Knowledge, Vitals

gaps = st.lists(st.floats(0, 1000), max_size=50)
times = st.floats(1e-3, 1e4)


def vitals(place: Place = "hosted", **facts: Any) -> Vitals:
    return Vitals(card(place=place, **facts))


def card(name: str = "m", **facts: Any) -> ModelCard:
    return ModelCard(name=name, tasks=frozenset({Chat}), **facts)


def forecast(live: Live) -> list[float]:
    """All that the predictions are made of."""
    return [live.first_token_s, live.first_token_p95_s, live.per_token_s, live.per_token_p95_s, live.output_tokens,
            live.output_tokens_p90]  # fmt: skip


@given(gaps, st.floats(0, 1e6), st.sampled_from(PLACES))
def test_no_sequence_of_failures_changes_the_predicted_latency(waits: list[float], tokens: float, place: Place) -> None:
    service, now = vitals(place), 0.0
    before = service.read("chat", now)
    for wait in waits:
        now += wait
        service.failed(now)
        assert 0.0 < service.success(now) < 1.0
    after = service.read("chat", now)
    assert after.latency_s(tokens) == before.latency_s(tokens)
    assert forecast(after) == forecast(before)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e5)), max_size=60), st.floats(0, 1e9))
def test_success_stays_in_0_to_1_whatever_happens(happened: list[tuple[bool, float]], later: float) -> None:
    service, now = vitals(), 0.0
    for failed, wait in happened:
        now += wait
        if failed:
            service.failed(now)
        else:
            service.succeeded("chat", 1.0, None, 10, now)
        assert 0.0 < service.success(now) <= 1.0
        assert service.read("chat", now).success == service.success(now)
    assert service.success(now) <= service.success(now + later) <= 1.0


def test_a_failure_halves_the_chance_and_fades_with_its_half_life() -> None:
    service = vitals()
    assert service.success(0.0) == 1.0
    service.failed(0.0)
    assert service.success(0.0) == pytest.approx(0.5)
    assert service.success(FAILURE_HALF_LIFE_S) == pytest.approx(1 / 1.5)
    service.succeeded("chat", 1.0, None, 5, 0.0)
    assert 0.5 < service.success(0.0) < 1.0, "an answer forgives some of it"


@given(times, times, st.integers(1, 60))
def test_a_forecast_moves_towards_its_measurements_and_never_past_them(stated: float, seen: float, count: int) -> None:
    service = vitals(first_token_s=stated)
    before = abs(math.log(stated / seen))
    for _ in range(count):
        service.succeeded("chat", seen, seen, 1, 0.0)
        distance = abs(math.log(service.read("chat", 0.0).first_token_s / seen))
        assert distance <= before + 0.04  # the width of a bucket
        before = distance
    assert distance <= abs(math.log(stated / seen)) * 0.5 / (0.5 + count) + 0.04


def test_a_forecast_forgets() -> None:
    service = vitals()
    for seconds in (100.0, 1.0):
        for _ in range(300):
            service.succeeded("chat", seconds, seconds, 1, 0.0)
    live = service.read("chat", 0.0)
    assert live.first_token_s == pytest.approx(1.0, rel=0.05)
    assert live.first_token_p95_s < 2.0


@given(times, times, st.integers(2, 10_000))
def test_first_token_and_time_per_token_are_measured_apart(first: float, rest: float, tokens: int) -> None:
    service, quick = vitals(), vitals()
    service.succeeded("chat", first + rest, first, tokens, 0.0)
    quick.succeeded("chat", first, first, 1, 0.0)
    live = service.read("chat", 0.0)
    assert live.first_token_s == quick.read("chat", 0.0).first_token_s
    assert live.per_token_s >= 0
    assert math.isfinite(live.per_token_s)
    assert quick.per_token.count == 0


@given(st.floats(0.01, 1e3), st.integers(0, 1000))
def test_without_a_first_token_both_times_move_by_one_factor(seconds: float, tokens: int) -> None:
    service = vitals()
    service.state = "ready"
    before = service.read("chat", 0.0)
    service.succeeded("chat", seconds, None, tokens, 0.0)
    after = service.read("chat", 0.0)
    gap = abs(math.log(before.service_s(tokens) / seconds))
    assert abs(math.log(after.service_s(tokens) / seconds)) <= gap + 0.04
    if tokens:
        assert after.first_token_s / before.first_token_s == pytest.approx(after.per_token_s / before.per_token_s, rel=0.1)


@pytest.mark.parametrize("seconds", [0.0, 1e-12, 1e12, math.inf, math.nan, -1.0])
@pytest.mark.parametrize("first", [None, 0.0, math.nan, math.inf, -1.0])
@pytest.mark.parametrize("tokens", [3, 0, -5, -(10**9)])
def test_what_cannot_be_true_harms_no_forecast(seconds: float, first: float | None, tokens: int) -> None:
    service = vitals("process", first_token_s=0.0, per_token_s=0.0)
    for state in ("cold", "ready"):
        service.state = state  # type: ignore[assignment]
        for _ in range(3):
            service.succeeded("chat", seconds, first, tokens, 0.0)
        live = service.read("chat", 0.0)
        assert all(math.isfinite(value) and value > 0 for value in forecast(live))
        assert live.latency_s(100, 0.999) > 0


@pytest.mark.parametrize("tokens", [0, -5, -(10**9)])
def test_an_answer_without_tokens_says_nothing_of_how_long_answers_are(tokens: int) -> None:
    service = vitals("process")
    service.succeeded("chat", 1.0, None, tokens, 0.0)
    service.succeeded("chat", 1.0, 0.5, tokens, 0.0)
    assert service.read("chat", 0.0).expected_tokens(None) == OUTPUT_TOKENS


def test_the_length_of_an_answer_is_learnt_by_task_and_capped_by_the_caller() -> None:
    service = vitals()
    live = service.read("chat", 0.0)
    assert live.expected_tokens(None) == OUTPUT_TOKENS
    assert live.expected_tokens(5) == live.expected_tokens(5, high=True) == 5.0
    for _ in range(100):
        service.succeeded("chat", 1.0, None, 10, 0.0)
    live = service.read("chat", 0.0)
    assert live.expected_tokens(5000) == pytest.approx(10, rel=0.2)
    assert live.expected_tokens(5000) <= live.expected_tokens(5000, high=True) < 20
    assert service.read("embed", 0.0).expected_tokens(None) == OUTPUT_TOKENS


def test_loading_counts_until_the_service_is_ready() -> None:
    service = vitals("process", first_token_s=0.25, bytes=3_000_000_000)
    assert service.read("chat", 0.0).latency_s(0) == pytest.approx(3.25)
    service.state = "ready"
    assert service.read("chat", 0.0).latency_s(0) == pytest.approx(0.25)


@given(st.integers(0, 100), st.integers(1, 64), st.floats(0, 1000))
def test_each_request_in_flight_makes_the_next_wait_longer(in_flight: int, concurrency: int, tokens: float) -> None:
    service = vitals(concurrency=concurrency)
    service.in_flight = in_flight
    busy = service.read("chat", 0.0)
    service.in_flight += 1
    busier = service.read("chat", 0.0)
    assert (busy.in_flight, busier.in_flight) == (in_flight, in_flight + 1)
    assert busier.latency_s(tokens) > busy.latency_s(tokens)
    assert busier.first_s() > busy.first_s()


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), times, times)
def test_a_higher_percentile_is_never_sooner(one: float, other: float, first: float, later: float) -> None:
    service = vitals()
    service.succeeded("chat", first + later, first, 50, 0.0)
    live, (low, high) = service.read("chat", 0.0), sorted((one, other))
    assert live.first_s(low) <= live.first_s(high) * (1 + 1e-9)
    assert live.latency_s(100, low) <= live.latency_s(100, high) * (1 + 1e-9)
    assert live.first_s(0.5) == pytest.approx(live.first_s())
    assert live.first_s(0.95) == pytest.approx(live.first_token_p95_s)


@given(st.none() | st.floats(0, 1), st.lists(st.floats(0, 1), max_size=200))
def test_quality_starts_as_stated_and_moves_with_feedback_between_0_and_1(stated: float | None, scores: list[float]) -> None:
    service = vitals(quality=stated)
    assert service.read("chat", 0.0).quality == stated
    for score in scores:
        before = service.read("chat", 0.0).quality
        service.scored("chat", score)
        after = service.read("chat", 0.0).quality
        assert after is not None
        assert 0.0 <= after <= 1.0
        if score in (0.0, 1.0):
            assert abs(after - score) <= abs((0.5 if before is None else before) - score) + 1e-9
    assert service.read("embed", 0.0).quality == stated


def test_old_feedback_fades() -> None:
    service = vitals(quality=0.5)
    for score in (0.0, 1.0):
        for _ in range(300):
            service.scored("chat", score)
    quality = service.read("chat", 0.0).quality
    assert quality is not None
    assert quality > 0.9


def test_a_reading_is_the_callers_own() -> None:
    service = vitals()
    live = service.read("chat", 0.0)
    live.first_token_s = live.quality = 77.0
    assert service.read("chat", 0.0).first_token_s != 77.0


def test_a_quota_that_is_used_up_is_waited_for() -> None:
    service = vitals()
    service.allowed(Quota(requests=0, requests_reset_s=7.0, tokens=500, tokens_reset_s=3.0), 10.0)
    assert service.breaker.shut_until == 17.0
    assert (service.tokens_left, service.tokens_until) == (500.0, 13.0)
    service.allowed(Quota(requests=5), 11.0)
    assert service.breaker.shut_until == 17.0, "a standing wait is kept to"
    assert service.tokens_left == 500.0, "what is not said changes nothing"


def test_an_absurd_quota_of_tokens_is_not_believed() -> None:
    service = vitals()
    service.allowed(Quota(tokens=0, tokens_reset_s=1.7e9), 0.0)  # a date where a duration was meant: asked never again
    assert service.tokens_until <= 3600.0


def test_what_one_model_shows_is_believed_of_its_providers_others_but_not_of_another_provider() -> None:
    knowledge = Knowledge()
    names = {"seen": "one", "sister": "one", "stranger": "two"}
    known = {name: knowledge.of(card(name, place="hosted", provider=of)) for name, of in names.items()}
    before = known["stranger"].read("chat", 0.0)
    for _ in range(20):
        known["seen"].succeeded("chat", 9.0, 5.0, 5, 0.0)
    assert known["sister"].read("chat", 0.0).first_token_s == pytest.approx(5.0, rel=0.15)
    assert known["stranger"].read("chat", 0.0) == before


def test_what_one_model_shows_is_believed_of_others_that_were_looked_at_before() -> None:
    knowledge = Knowledge()
    seen, sister = (knowledge.of(card(name, place="hosted", provider="one")) for name in ("seen", "sister"))
    sister.read("chat", 0.0)
    for _ in range(20):
        seen.succeeded("chat", 9.0, 5.0, 5, 0.0)
    assert sister.read("chat", 0.0).first_token_s == pytest.approx(5.0, rel=0.15)


def test_what_is_learnt_stays_as_long_as_the_card_does() -> None:
    knowledge = Knowledge()
    first = knowledge.of(card())
    assert knowledge.of(card()) is first
    assert knowledge.of(card(context=5)) is not first


def test_a_refused_key_shuts_all_who_use_it_and_nobody_else() -> None:
    knowledge = Knowledge()
    keys = {"a": "env:ONE", "b": "env:ONE", "c": "env:TWO", "d": ""}
    known = {name: knowledge.of(card(name, key=key)) for name, key in keys.items()}
    knowledge.denied(known["a"], 5.0, "Denied", 0.0)
    assert [name for name, one in known.items() if one.breaker.refusal(5.0)] == ["b"], "'a' itself has failed already"
    veto = known["b"].breaker.refusal(5.0)
    assert veto is not None
    assert "'a'" in veto.seen
    assert "ONE" not in veto.seen
    knowledge.denied(known["d"], 5.0, "Denied", 0.0)
    assert known["c"].breaker.refusal(5.0) is None


@given(st.lists(st.tuples(times, times, st.integers(0, 1000), st.floats(0, 1)), max_size=30))
def test_what_is_kept_is_taken_up_again(happened: list[tuple[float, float, int, float]]) -> None:
    service, later = vitals(), vitals()
    service.state = later.state = "ready"
    for first, rest, tokens, score in happened:
        service.succeeded("chat", first + rest, first, tokens, 0.0)
        service.scored("chat", score)
    later.recall(json.loads(json.dumps(service.to_json())))
    assert forecast(later.read("chat", 0.0)) == pytest.approx(forecast(service.read("chat", 0.0)))
    assert later.read("chat", 0.0).quality == service.read("chat", 0.0).quality
    assert later.to_json() == service.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: None,
        lambda kept: {},
        lambda kept: kept | {"first_token": 3},
        lambda kept: kept | {"outputs": []},
        lambda kept: kept | {"outputs": {"chat": None}},
        lambda kept: kept | {"scores": {"chat": [math.nan, 1.0]}},
        lambda kept: kept | {"scores": {"chat": [-1.0, 1.0]}},
        lambda kept: kept | {"scores": {"chat": [1.0]}},
    ],
)
def test_what_was_kept_and_is_damaged_changes_nothing(damage: Any) -> None:
    service = vitals()
    service.succeeded("chat", 3.0, 1.0, 50, 0.0)
    service.scored("chat", 0.3)
    before = service.to_json()
    with pytest.raises(ValueError, match=r"stored histogram|what was kept"):
        service.recall(damage(before))
    assert service.to_json() == before


def test_memory_is_bounded_whatever_tasks_and_providers_arrive() -> None:
    service = vitals()
    for n in range(500):
        service.succeeded(f"task {n}", 1.0, None, 10, 0.0)
        service.scored(f"task {n}", 0.5)
        service.read(f"task {n}", 0.0)
        service.read(f"reading {n}", 0.0)
    kept = service.to_json()
    assert max(len(kept["outputs"]), len(kept["scores"]), len(service._readings)) <= TASKS_KEPT + 1
    knowledge = Knowledge()
    for n in range(500):
        knowledge.of(card("m", provider=f"provider {n}"))
    assert len(knowledge._pools) <= TASKS_KEPT + 1
    assert len(knowledge.vitals) == 1
