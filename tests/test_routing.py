"""The built-in policies: what each refuses, what it admits, what it prefers. How the router uses them: test_router.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gateway import Ask, Audio, Chat, Decision, Embed, Generate, Image, ModelCard, Need, Price, Shape, Tool
from gateway.policies import builtin_policies

sys.path.insert(0, str(Path(__file__).parent))
from routed import World, ask, card


def decide(cards: list[ModelCard], asked: Ask) -> Decision:
    return World(cards).decide(asked)


PNG = Image(data=b"x")
TOOL = Tool(name="look")
EMBED = frozenset({Embed})


@pytest.mark.parametrize(
    ("facts", "request_", "need", "rule"),
    [
        ({}, Generate(prompt="x"), Need(), "task"),
        ({"place": "hosted"}, None, Need(place="local"), "need.place"),
        ({"place": "private"}, None, Need(place=("hosted", "process")), "need.place"),
        ({"params": 9_000_000_000}, None, Need(max_params=8e9), "need.max_params"),
        ({"params": 1_000}, None, Need(min_params=1e9), "need.min_params"),
        ({}, None, Need(max_params=8e9), "need.params"),
        ({"bytes": 100}, None, Need(max_bytes=99), "need.max_bytes"),
        ({}, None, Need(max_bytes=99), "need.bytes"),
        ({"context": 1000}, None, Need(context=2000), "need.context"),
        ({}, None, Need(context=2000), "need.context"),
        ({"context": 10}, Chat.ask("word " * 100), Need(), "context"),
        ({"context": 100}, Chat.ask("hello", max_tokens=100), Need(), "context"),
        ({"context": 10, "tasks": EMBED}, Embed(texts=("a", "word " * 100)), Need(), "context"),
        ({"max_output": 10}, Chat.ask("hello", max_tokens=11), Need(), "max_output"),
        ({}, Chat.ask("hello", tools=(TOOL,)), Need(), "features"),
        ({}, Chat.ask("hello", response_format={"type": "object"}), Need(), "features"),
        ({}, Chat.ask("hello", seed=1), Need(), "features"),
        ({}, None, Need(features=frozenset({"logprobs"})), "features"),
        ({}, Chat.ask("hello", PNG), Need(), "modalities"),
        ({"modalities": {"text", "image"}}, Chat.ask("hello", PNG, Audio(data=b"x")), Need(), "modalities"),
        ({}, None, Need(languages=frozenset({"de"})), "need.languages"),
        ({"languages": {"en"}}, None, Need(languages=frozenset({"de"})), "need.languages"),
        ({"place": "hosted"}, None, Need(max_cost_usd=1.0), "need.max_cost_usd"),
        ({"price": Price(request=2.0)}, None, Need(max_cost_usd=1.0), "need.max_cost_usd"),
        ({"first_token_s": 3.0}, None, Need(max_first_token_s=2.0), "need.max_first_token_s"),
        ({"per_token_s": 1.0}, Chat.ask("hello", max_tokens=10), Need(max_latency_s=5.0), "need.max_latency_s"),
        ({"quality": 0.4}, None, Need(min_quality=0.5), "need.min_quality"),
        ({}, None, Need(min_quality=0.5), "need.min_quality"),
        ({"quality": {"embed": 0.9}}, None, Need(min_quality=0.5), "need.min_quality"),
        ({}, None, Need(model="other*"), "need.model"),
        ({}, None, Need(avoid="m"), "need.avoid"),
    ],
)
def test_each_built_in_rule_refuses_what_it_should(facts: Any, request_: Any, need: Need, rule: str) -> None:
    decision = decide([card("m", **facts)], ask(request_, need))
    assert decision.chosen is None
    assert [veto.rule for veto in decision.candidate("m").vetoes] == [rule]
    for veto in decision.candidate("m").vetoes:
        assert veto.seen
        assert veto.allowed
        assert veto.policy


@pytest.mark.parametrize(
    ("facts", "request_", "need"),
    [
        ({"place": "host"}, None, Need(place="local")),
        ({"params": 8_000_000_000, "bytes": 99}, None, Need(max_params=8e9, min_params=8e9, max_bytes=99)),
        ({"context": 2000}, None, Need(context=2000)),
        ({"context": 10, "tasks": EMBED}, Embed(texts=("a word",) * 1000), Need()),
        ({"context": 10, "tasks": EMBED, "features": {"any_length"}}, Embed(texts=("word " * 100,)), Need()),
        ({"features": {"tools", "seed"}}, Chat.ask("hi", tools=(TOOL,), seed=1), Need()),
        ({"modalities": {"text", "image"}}, Chat.ask("hi", PNG), Need()),
        ({"languages": {"de", "en"}}, None, Need(languages=frozenset({"de"}))),
        ({}, None, Need(max_cost_usd=0.0)),
        ({"quality": {"chat": 0.9}}, None, Need(min_quality=0.9)),
        ({}, None, Need(model=("x", "m"))),
        ({}, None, Need(model="*")),
    ],
)
def test_what_fits_the_need_is_admitted(facts: Any, request_: Any, need: Need) -> None:
    assert decide([card("m", **facts)], ask(request_, need)).chosen == "m"


def test_cheaper_faster_and_better_each_win_when_all_else_is_equal() -> None:
    same = {"price": Price(output=10.0), "per_token_s": 0.01, "quality": 0.5}
    for better in ({"price": Price(output=5.0)}, {"per_token_s": 0.005}, {"quality": 0.6}, {"first_token_s": 0.01}):
        assert decide([card("same", **same), card("better", **{**same, **better})], ask()).chosen == "better"


def test_an_unknown_price_is_ranked_as_dear_not_as_free() -> None:
    known = card("known", place="hosted", price=Price(input=1.0, output=3.0))
    assert decide([card("unknown", place="hosted"), known], ask()).chosen == "known"


def test_embedding_is_judged_without_an_answer_to_wait_for() -> None:
    slow = card("slow", tasks=frozenset({Embed}), per_token_s=100.0, first_token_s=0.1)
    assert decide([slow], ask(Embed(texts=("a",)), Need(max_latency_s=1.0))).chosen == "slow"


def test_a_model_must_be_named_by_every_group_of_names() -> None:
    cards = [card("big"), card("big-local"), card("small-local")]
    assert decide(cards, ask(need=Need(model="big*", within=(("*-local",),)))).ranked == ("big-local",)


def test_a_higher_percentile_refuses_who_is_quick_enough_only_usually() -> None:
    one = card(first_token_s=1.0)
    assert decide([one], ask(need=Need(max_first_token_s=2.0))).chosen == "m"
    refused = decide([one], ask(need=Need(max_first_token_s=2.0, percentile=0.95)))
    assert [veto.rule for veto in refused.candidate("m").vetoes] == ["need.max_first_token_s"]


def test_feedback_can_take_a_model_below_the_needs_quality() -> None:
    world = World([card(quality=0.9)])
    asked = ask(need=Need(min_quality=0.8))
    assert world.chosen(asked) == "m"
    for _ in range(20):
        world["m"].scored("chat", 0.0)
    world.now += 10.0
    assert world.chosen(asked) is None


def test_data_classes_that_stay_here_are_refused_elsewhere() -> None:
    world = World([card("here"), card("there", place="hosted", quality=1.0)], local_data_classes=["health"])
    asked = ask()
    asked.shape = Shape(task=Chat, need=Need(), data_classes=frozenset({"health"}))
    decision = world.decide(asked)
    assert decision.ranked == ("here",)
    assert [veto.rule for veto in decision.candidate("there").vetoes] == ["local_data_classes"]
    asked.shape = Shape(task=Chat, need=Need(), data_classes=frozenset({"weather"}))
    assert world.chosen(asked) == "there"


def test_every_built_in_policy_has_a_name_of_its_own() -> None:
    names = [policy.name for policy in builtin_policies(World([]).config)]
    assert all(names)
    assert len(set(names)) == len(names)
