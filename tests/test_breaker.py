"""Breaker: opens on failures, lets one probe through at a time, recovers within seconds, keeps to every wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.breaker import FIRST_S, LEAST, LONGEST_S, MOST_S, STREAK, Breaker

chances = st.floats(0, 1, exclude_max=True)
happenings = st.lists(
    st.tuples(
        st.sampled_from(["answer", "failure", "late failure", "denied", "request", "give up", "time", "time"]),
        st.floats(0, 20),
        chances,
    ),
    max_size=60,
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.failed(now, "Unreachable", 0.0, at_once=True)
    return breaker


def play(breaker: Breaker, happened: list[tuple[str, float, float]]) -> tuple[float, float]:
    """Lets all of it happen, each probe with an outcome; the time then, and that of the last failure."""
    now = last = 0.0
    for kind, number, chance in happened:
        match kind:
            case "time":
                now += number
            case "answer":
                breaker.succeeded(now)
            case "late failure" | "denied":
                breaker.failed(now, kind, chance, at_once=kind == "denied")
                last = now
            case "failure" | "request" | "give up" if now >= breaker.shut_until:
                probe = breaker.asked(now)
                if kind == "failure":
                    breaker.failed(now, kind, chance, probe=probe)
                    last = now
                elif probe:
                    breaker.left(now) if kind == "give up" else breaker.succeeded(now)
    return now, last


def test_it_opens_after_a_streak_of_failures_and_not_before() -> None:
    breaker = Breaker()
    for n in range(STREAK):
        assert breaker.shut_until == 0.0, f"after {n} failures"
        breaker.failed(1.0, "Unreachable", 0.0)
    assert breaker.open
    assert breaker.shut_until > 1.0
    veto = breaker.refusal(1.0)
    assert veto is not None
    assert veto.rule == "breaker"
    assert "5 failures in a row, the last one Unreachable" in veto.seen


def test_an_answer_between_ends_a_streak() -> None:
    breaker = Breaker()
    for _ in range(STREAK - 1):
        breaker.failed(0.0, "x", 0.0)
    breaker.succeeded(0.0)
    breaker.failed(0.0, "x", 0.0)
    assert not breaker.open


def test_it_opens_when_most_of_many_attempts_fail_without_a_streak() -> None:
    breaker, attempts = Breaker(), 0
    while not breaker.open:
        for failed in (True, True, False):
            attempts += 1
            breaker.failed(0.0, "x", 0.0) if failed else breaker.succeeded(0.0)
            if breaker.open:
                break
        assert attempts <= LEAST + 1
    assert attempts >= LEAST


def test_when_half_or_fewer_fail_it_stays_closed() -> None:
    breaker = Breaker()
    for n in range(200):
        breaker.succeeded(n * 0.01)
        breaker.failed(n * 0.01, "x", 0.0)
    assert not breaker.open


def test_old_failures_count_less_than_new_ones() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(2):
            breaker.failed(0.0, "x", 0.0)
        breaker.succeeded(0.0)
    for _ in range(3):
        breaker.succeeded(60.0)
    for _ in range(STREAK - 1):
        breaker.failed(60.0, "x", 0.0)
    assert not breaker.open, "10 of 16 have failed, but most of them a minute ago"


def test_some_failures_open_it_at_once() -> None:
    assert opened(3.0).shut_until == pytest.approx(3.0 + 0.75 * FIRST_S)


@given(st.lists(chances, min_size=1, max_size=30))
def test_each_probe_that_fails_doubles_the_time_up_to_the_longest(each: list[float]) -> None:
    breaker, now = Breaker(), 0.0
    for n, chance in enumerate(each):
        probe = breaker.asked(now)
        assert probe == (n > 0)
        breaker.failed(now, "x", chance, probe=probe, at_once=True)
        waits = min(LONGEST_S, FIRST_S * 2.0**n)
        assert 0.75 * waits - 1e-9 <= breaker.shut_until - now <= waits + 1e-9
        now = breaker.shut_until


def test_a_probe_that_is_answered_closes_it_and_the_next_opening_is_short_again() -> None:
    breaker = opened()
    for _ in range(5):
        now = breaker.shut_until
        breaker.failed(now, "x", 0.0, probe=breaker.asked(now))
    now = breaker.shut_until
    assert breaker.asked(now)
    breaker.succeeded(now)
    assert not breaker.open
    assert breaker.refusal(now) is None
    assert not breaker.asked(now)
    breaker.failed(now, "x", 0.0, at_once=True)
    assert breaker.shut_until <= now + FIRST_S


@given(happenings, st.floats(0, 20))
def test_while_a_probe_is_out_nobody_else_is_let_through(happened: list[tuple[str, float, float]], later: float) -> None:
    breaker = Breaker()
    now, _ = play(breaker, happened)
    now = max(now, breaker.shut_until)
    if breaker.asked(now):
        assert (breaker.refusal(now + later) is not None) == (later < LONGEST_S)


def test_a_probe_that_is_given_up_frees_the_next() -> None:
    breaker = opened()
    assert breaker.asked(5.0)
    assert breaker.refusal(5.1) is not None
    breaker.left(5.2)
    assert breaker.refusal(5.2) is None
    assert breaker.asked(5.2), "and that is the probe"


def test_giving_up_a_request_of_a_closed_one_changes_nothing() -> None:
    breaker = Breaker()
    breaker.wait(9.0, 0.0, "busy")
    breaker.left(1.0)
    assert breaker.shut_until == 9.0


def test_a_failure_of_a_request_sent_before_it_opened_prolongs_nothing() -> None:
    breaker = opened()
    until = breaker.shut_until
    for _ in range(50):
        breaker.failed(0.5, "x", 0.9)
    assert breaker.shut_until == until


@given(happenings, st.floats(0.1, 1000), st.lists(st.floats(0, 1000), max_size=5), happenings)
def test_a_standing_wait_is_never_shortened(
    before: list[tuple[str, float, float]], wait: float, others: list[float], after: list[tuple[str, float, float]]
) -> None:
    breaker = Breaker()
    now, _ = play(breaker, before)
    until = now + wait
    breaker.wait(until, now, "it asked to wait")
    for other in others:
        breaker.wait(now + other, now, "it asked again")
    for kind, _, chance in after:
        match kind:
            case "answer":
                breaker.succeeded(now)
            case "give up":
                breaker.left(now)
            case _:
                breaker.failed(now, kind, chance, at_once=kind == "denied", probe=kind == "failure" and breaker.open)
        assert breaker.shut_until >= until
        assert breaker.refusal(until - 0.01) is not None


def test_a_wait_needs_no_probe_and_an_absurd_one_is_not_believed() -> None:
    breaker = Breaker()
    breaker.wait(1e12, 50.0, "RateLimited: it asked to wait")
    assert breaker.shut_until == 50.0 + MOST_S
    veto = breaker.refusal(60.0)
    assert veto is not None
    assert veto.rule == "wait"
    assert "RateLimited" in veto.seen
    assert breaker.refusal(50.0 + MOST_S) is None
    assert not breaker.asked(50.0 + MOST_S)
    breaker.wait(float("nan"), 60.0, "nonsense")
    assert breaker.shut_until == 50.0 + MOST_S


@given(happenings)
def test_whatever_happened_it_is_asked_within_8_s_of_the_last_failure_and_one_answer_closes_it(
    happened: list[tuple[str, float, float]],
) -> None:
    breaker = Breaker()
    now, last = play(breaker, happened)
    assert breaker.shut_until <= last + LONGEST_S or breaker.shut_until <= now
    now = max(now, last + LONGEST_S)
    assert breaker.refusal(now) is None
    breaker.asked(now)
    breaker.succeeded(now)
    assert not breaker.open
    assert breaker.refusal(now) is None


@given(happenings)
def test_what_it_says_agrees_with_when_it_may_be_asked(happened: list[tuple[str, float, float]]) -> None:
    breaker = Breaker()
    now, _ = play(breaker, happened)
    for at in (now, now + 0.5, now + 10.0):
        assert (breaker.refusal(at) is None) == (at >= breaker.shut_until)
