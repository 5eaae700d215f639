"""Which of the good ones is asked: load is shared, who fails is left alone, exploring and conversations have their limits."""

from __future__ import annotations

import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from gateway.breaker import FIRST_S, LONGEST_S, STREAK

sys.path.insert(0, str(Path(__file__).parent))
from routed import ASKED, World, ask, card


@given(st.sampled_from([2, 3, 4, 8, 9, 20, 40]), st.integers(0, 100))
@limits(max_examples=10, deadline=None)
def test_models_of_equal_utility_share_the_requests(count: int, seed: int) -> None:
    world = World([card(f"m{n:02}") for n in range(count)], seed=seed)
    chosen, flying = Counter[str](), list[str]()
    for _ in range(50 * count):
        name = str(world.chosen())
        chosen[name] += 1
        world[name].in_flight += 1
        flying.append(name)
        if len(flying) > count // 2:
            world[flying.pop(0)].in_flight -= 1
    assert len(chosen) == count, "nobody is left out"
    assert max(chosen.values()) <= 4 * 50


@pytest.mark.parametrize("count", [4, 20, 500])
def test_a_burst_within_one_order_is_not_sent_to_a_few(count: int) -> None:
    loads = burst(World([card(f"m{n:03}", place="hosted") for n in range(count)]), 4 * count)
    assert len(loads) >= min(count, 64)
    assert max(loads.values()) <= 6 * 4 + 2


def test_a_burst_is_balanced_over_all_that_are_equally_good() -> None:
    loads = burst(World([card(f"m{n:03}", place="hosted") for n in range(64)]), 4 * 64)
    assert max(loads.values()) <= 12, loads.most_common(4)


def burst(world: World, requests: int) -> Counter[str]:
    """How many requests each model has in flight when so many have come at once."""
    for _ in range(requests):
        name = world.chosen()
        assert name is not None
        world[name].in_flight += 1
    return Counter({entry.name: world[entry.name].in_flight for entry in world.entries if world[entry.name].in_flight})


def test_the_less_busy_of_two_equals_is_asked() -> None:
    world = World([card("a"), card("b")])
    world["a"].in_flight = 3
    assert {world.chosen() for _ in range(50)} == {"b"}
    world["a"].in_flight, world["b"].in_flight = 0, 3
    assert {world.chosen() for _ in range(50)} == {"a"}, "though the order is an old one"


def test_what_a_decision_says_is_by_the_loads_that_it_was_made_with() -> None:
    world = World([card("a"), card("b")])
    before = world.decide()
    assert before.candidate("b").utility == before.candidate("a").utility
    world["b"].in_flight = 3
    decision = world.decide()
    world["b"].in_flight = 0
    busy, idle = decision.candidate("b").utility, decision.candidate("a").utility
    assert busy is not None
    assert idle is not None
    assert busy < idle
    assert decision.ranked == ("a", "b")


def rounds(world: World, seconds: float, *, every_s: float, busy: Any = None) -> tuple[Counter[str], float]:
    """1,000 requests to "good", which answers in so many seconds, and "bad", which fails at once.

    How often each was asked first, and how far the utility of "bad" was ever above that of "good"."""
    first, above, asked = Counter[str](), -math.inf, ask(output_tokens=1)
    good, bad = world["good"], world["bad"]
    good.state = bad.state = "ready"
    for n in range(1000):
        world.now += every_s
        good.in_flight = busy(n) if busy else 0
        decision = world.decide(asked)
        first[str(decision.chosen)] += 1
        if n and not any(decision.candidate(name).vetoes for name in ("good", "bad")):
            above = max(above, (decision.candidate("bad").utility or 0.0) - (decision.candidate("good").utility or 0.0))
        if decision.chosen == "bad":
            bad.failed(world.now, "Unreachable", 0.5, probe=bad.asked(world.now))
        good.succeeded("chat", seconds, seconds, 1, world.now)
    return first, above


def probes(seconds: float) -> int:
    """How often a breaker lets one request through in so long, when each fails at once."""
    waits, count = FIRST_S, 0
    while seconds > 0:
        seconds -= 0.75 * waits
        waits, count = min(LONGEST_S, 2 * waits), count + 1
    return count


def twins(provider: str = "") -> World:
    return World([card("bad", place="hosted", provider=provider), card("good", place="hosted")])


@given(st.floats(0.001, 0.75), st.floats(0.01, 0.2), st.sampled_from(["", "another"]))
@limits(max_examples=5, deadline=None)
def test_who_fails_at_once_is_never_worth_more_than_its_twin_that_answers(seconds: float, every_s: float, of: str) -> None:
    first, above = rounds(twins(of), seconds, every_s=every_s)
    assert above <= 1e-5, "but for the width of a histogram's bucket"
    assert first["bad"] <= STREAK + probes(1000 * every_s)


@given(st.floats(0.001, 100), st.floats(0.01, 0.5), st.integers(0, 40))
@limits(max_examples=5, deadline=None)
def test_who_fails_at_once_is_asked_no_more_than_its_breaker_probes(seconds: float, every_s: float, load: int) -> None:
    first, _ = rounds(twins("another"), seconds, every_s=every_s, busy=lambda n: load * (n % 3))
    assert first["bad"] <= STREAK + probes(1000 * every_s)


@given(st.floats(0, 1), st.integers(0, 100))
@limits(max_examples=10, deadline=None)
def test_exploration_keeps_to_its_share(share: float, seed: int) -> None:
    world = World([card(f"known {n}", quality=0.9) for n in range(3)] + [card("new", quality=0.85)], seed=seed, explore=share)
    for n in range(3):
        for _ in range(20):
            world[f"known {n}"].succeeded("chat", 0.1, 0.1, 1, world.now)
    asked, new = ask(output_tokens=1), 0
    for _ in range(400):
        new += world.chosen(asked) == "new"
        world.now += 0.07
    spread = 4 * math.sqrt(400 * share * (1 - share))
    assert 400 * share - spread - 1 <= new <= 400 * share + spread + 1


def test_exploration_keeps_to_its_share_when_one_model_is_left_in_the_order() -> None:
    world = World([card("known", quality=0.9), card("new", quality=0.85)], explore=0.01)
    for _ in range(20):
        world["known"].succeeded("chat", 0.1, 0.1, 1, world.now)
    asked = ask(output_tokens=1)
    world["new"].breaker.wait(world.now + 0.05, world.now, "busy")
    world.decide(asked)
    world.now += 0.06
    assert [world.chosen(asked) for _ in range(10)].count("new") <= 1


def test_what_is_dear_or_busy_or_failing_is_not_explored() -> None:
    world = World([card("known", quality=0.9), card("new", quality=0.85), card("bad", quality=0.1)], explore=1.0)
    for _ in range(20):
        world["known"].succeeded("chat", 0.1, 0.1, 1, world.now)
    asked = ask(output_tokens=1)
    assert {world.chosen(asked) for _ in range(100)} == {"known", "new"}, "'bad' is not nearly as good"
    world["new"].in_flight = 1
    assert {world.chosen(asked) for _ in range(100)} == {"known"}
    world["new"].in_flight = 0
    world["new"].failed(world.now)
    assert {world.chosen(asked) for _ in range(100)} == {"known"}


@limits(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=3), st.floats(0, 0.02), st.integers(0, 2), st.integers(0, 12))
def test_a_conversation_stays_while_its_model_is_nearly_the_best(
    qualities: list[float], affinity: float, warm: int, load: int
) -> None:
    world = World([card(f"m{n}", quality=quality) for n, quality in enumerate(qualities)], affinity=affinity, band=0.0)
    name = f"m{warm % len(qualities)}"
    asked = ask(conversation="one", tenant="t")
    world.router.answered(asked, name)
    world[name].in_flight = load
    utilities = {one.model: one.utility or 0.0 for one in world.decide(asked, dry=True).candidates}
    gap = max(utilities.values()) - utilities[name]
    if abs(gap - affinity) > 1e-9:
        expected = {name} if gap < affinity else {one for one, usd in utilities.items() if usd == max(utilities.values())}
        assert {world.chosen(asked) for _ in range(5)} <= expected
    other = replace(asked, tenant="another")
    assert utilities[str(world.chosen(other))] == max(utilities.values()), "another tenant's conversation of that name"


def test_a_conversation_leaves_a_model_that_is_refused_and_stays_where_it_went() -> None:
    world = World([card("a"), card("b")], affinity=0.1)
    asked = ask(conversation="one")
    world.router.answered(asked, "b")
    assert {world.chosen(asked) for _ in range(20)} == {"b"}
    world["b"].failed(world.now, at_once=True)
    assert {world.chosen(asked) for _ in range(20)} == {"a"}
    assert world.chosen(asked, {"a": ASKED}) is None
    world.router.answered(asked, "a")
    world.now += 100.0
    world["b"].asked(world.now)  # not owed a request now
    assert {world.chosen(asked) for _ in range(20)} == {"a"}
