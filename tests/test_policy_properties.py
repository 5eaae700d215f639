"""Properties of what policies say together: utility is monotone in price, latency and quality; order means nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from gateway import Ask, Chat, ModelCard, Need, Price, Shape, Veto
from gateway.clock import seeded
from gateway.router import Router

sys.path.insert(0, str(Path(__file__).parent))
from routed import ASKED, Full, Taste, World, any_need, asks, card, card_lists, events, facts, settings_of_policy

history = st.lists(st.tuples(st.sampled_from(["answer", "failure", "feedback", "load"]), st.integers(0, 9), st.floats(0, 1)))


def utility(
    one: ModelCard, happened: list[tuple[str, int, float]], input_tokens: int, output_tokens: int | None, then: str = ""
) -> float:
    """What a model with this card is worth, a minute after this has happened to it, and `then` one thing more."""
    world = World([replace(one, context=None, max_output=None)])
    for kind, which, number in happened:
        world.happen(kind, which * 2, number)  # an even one: the first token has been measured
    world.now += 60.0
    if then == "load":
        world["m"].in_flight += 1
    elif then == "failure":
        world["m"].failed(world.now)
        world["m"].breaker.succeeded(world.now)  # not shut, so that there is a utility
    return world.utility("m", replace(asked_of(), input_tokens=input_tokens, output_tokens=output_tokens))


def asked_of() -> Ask:
    return Ask(shape=Shape(task=Chat, need=Need()))


def not_above(worse: float, better: float) -> bool:
    return worse <= better + 1e-12 * (1 + abs(better))


@limits(max_examples=60, deadline=None)
@given(facts, history, st.integers(0, 5000), st.none() | st.integers(0, 5000), st.floats(0, 50),
       st.sampled_from(["input", "output", "request"]))  # fmt: skip
def test_a_higher_price_never_raises_the_utility(
    fact: dict[str, Any], happened: list[Any], inward: int, outward: int | None, more: float, which: str
) -> None:
    price = fact["price"] or Price()
    cheap = card(**{**fact, "price": price})
    dear = card(**{**fact, "price": replace(price, **{which: getattr(price, which) + more})})
    assert not_above(utility(dear, happened, inward, outward), utility(cheap, happened, inward, outward))


@limits(max_examples=60, deadline=None)
@given(facts, history, st.integers(0, 5000), st.none() | st.integers(0, 5000), st.floats(0, 50),
       st.sampled_from(["first_token_s", "per_token_s"]))  # fmt: skip
def test_a_slower_model_is_never_worth_more(
    fact: dict[str, Any], happened: list[Any], inward: int, outward: int | None, more: float, which: str
) -> None:
    fast = card(**{**fact, which: fact[which] or 0.01})
    slow = card(**{**fact, which: (fact[which] or 0.01) + more})
    assert not_above(utility(slow, happened, inward, outward), utility(fast, happened, inward, outward))


@limits(max_examples=60, deadline=None)
@given(facts, history, st.integers(0, 5000), st.none() | st.integers(0, 5000), st.floats(0, 1), st.floats(0, 1))
def test_a_better_model_is_never_worth_less(
    fact: dict[str, Any], happened: list[Any], inward: int, outward: int | None, one: float, other: float
) -> None:
    worse, better = (card(**{**fact, "quality": quality}) for quality in sorted((one, other)))
    assert not_above(utility(worse, happened, inward, outward), utility(better, happened, inward, outward))


@limits(max_examples=60, deadline=None)
@given(facts, history, st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_larger_request_is_never_worth_more(
    fact: dict[str, Any], happened: list[Any], inward: int, more_in: int, outward: int, more_out: int
) -> None:
    one = card(**fact)
    assert not_above(utility(one, happened, inward + more_in, outward + more_out), utility(one, happened, inward, outward))


@limits(max_examples=60, deadline=None)
@given(facts, history, st.integers(0, 5000), st.none() | st.integers(0, 5000), st.sampled_from(["failure", "load"]))
def test_failing_once_more_or_more_load_is_never_worth_more(
    fact: dict[str, Any], happened: list[Any], inward: int, outward: int | None, kind: str
) -> None:
    one = card(**fact)
    assert not_above(utility(one, happened, inward, outward, kind), utility(one, happened, inward, outward))


@limits(max_examples=60, deadline=None)
@given(card_lists, asks, st.lists(events(), max_size=20), settings_of_policy, st.randoms(use_true_random=False))
def test_the_order_of_policies_and_of_services_changes_nothing(
    cards: list[ModelCard], asked: Ask, happened: list[tuple[str, int, float]], settings: dict[str, Any], random: Any
) -> None:
    world = World(cards, Full(), Taste(), **settings)
    policies, entries = list(world.policies), list(world.entries)
    random.shuffle(policies)
    random.shuffle(entries)
    other = Router(policies, random=seeded(1), config=world.config, knowledge=world.knowledge)
    tried: dict[str, Veto] = {}
    for event in [*happened, ("time", 1, 0.0), ("time", 1, 0.0)]:
        world.happen(*event)
        now = replace(asked, now=world.now)
        first, second = world.decide(asked, tried), other.decide(now, entries, 1, tried)
        assert first.chosen == second.chosen
        assert first.to_json() == second.to_json()
        if first.chosen is not None and event[0] == "failure":
            tried[first.chosen] = ASKED


@limits(max_examples=60, deadline=None)
@given(facts, any_need, st.lists(events(), max_size=10), asks)
def test_a_policy_asked_twice_says_the_same(
    fact: dict[str, Any], need: Need, happened: list[tuple[str, int, float]], asked: Ask
) -> None:
    world = World([card(**fact)])
    for event in happened:
        world.happen(*event)
    live, one = world["m"].read("chat", world.now), world.entries[0].card
    assert one is not None
    for policy in world.policies:
        assert policy.admit(asked.shape, one) == policy.admit(asked.shape, one)
        assert policy.admit_live(asked, one, live) == policy.admit_live(asked, one, live)
        assert policy.score(asked, one, live) == policy.score(asked, one, live)


@limits(max_examples=60, deadline=None)
@given(facts, asks, st.lists(events(), max_size=10))
def test_the_utility_is_the_sum_of_the_scores(fact: dict[str, Any], asked: Ask, happened: list[Any]) -> None:
    world = World([card(**fact)], Taste())
    for event in happened:
        world.happen(*event)
    candidate = world.decide(asked).candidates[0]
    if candidate.utility is not None:
        assert candidate.utility == pytest.approx(sum(score.usd for score in candidate.scores.values()), abs=1e-12)
