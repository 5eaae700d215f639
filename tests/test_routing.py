"""Router and the built-in policies: vetoes, scores, ranking, failing closed."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    Ask,
    Audio,
    Chat,
    Decision,
    Embed,
    Generate,
    Image,
    Live,
    ModelCard,
    Need,
    Policy,
    Price,
    Request,
    Score,
    Shape,
    Tool,
    Veto,
)
from gateway.clock import seeded
from gateway.config import PolicyConfig
from gateway.gateway import AsyncGateway
from gateway.live import Estimate
from gateway.policies import builtin_policies
from gateway.registry import Entry
from gateway.routing import Router
from gateway.testing import Echo

CHAT = frozenset({Chat})


def entry(name: str, **facts: Any) -> Entry:
    one = Entry(Echo(name), "test")
    one.card = ModelCard(name=name, **{"tasks": CHAT, **facts})
    one.live = Live(one.card)
    return one


def ask(request: Request[Any] | None = None, need: Need | None = None, **facts: Any) -> Ask:
    request = request or Chat.ask("hello")
    traits = request.traits()
    shape = Shape(task=type(request), need=need or Need(), features=traits.features, modalities=traits.modalities)
    sizes = {"input_bytes": traits.input_bytes, "input_tokens": traits.input_bytes // 4, "output_tokens": traits.output_tokens}
    return Ask(shape=shape, **{**sizes, **facts})


def router(*extra: Policy) -> Router:
    return Router([*builtin_policies(PolicyConfig()), *extra], random=seeded(1))


def decide(entries: list[Entry], asked: Ask, *extra: Policy) -> Decision:
    return router(*extra).decide(asked, entries, 1)


PNG = Image(data=b"x")
TOOL = Tool(name="look")


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
    decision = decide([entry("m", **facts)], ask(request_, need))
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
    assert decide([entry("m", **facts)], ask(request_, need)).chosen == "m"


def test_cheaper_faster_and_better_each_win_when_all_else_is_equal() -> None:
    same = {"price": Price(output=10.0), "per_token_s": 0.01, "quality": 0.5}
    for better in ({"price": Price(output=5.0)}, {"per_token_s": 0.005}, {"quality": 0.6}, {"first_token_s": 0.01}):
        assert decide([entry("same", **same), entry("better", **{**same, **better})], ask()).chosen == "better"


def test_an_unknown_price_is_ranked_as_dear_not_as_free() -> None:
    known = entry("known", place="hosted", price=Price(input=1.0, output=3.0))
    assert decide([entry("unknown", place="hosted"), known], ask()).chosen == "known"


def test_a_veto_beats_any_score() -> None:
    class Rich(Policy):
        name = "rich"

        def score(self, ask: Ask, card: ModelCard, live: Live) -> Score:
            return Score(1e9 if card.name == "refused" else 0.0)

    refused = entry("refused", place="hosted")
    assert decide([refused, entry("m")], ask(need=Need(place="local")), Rich()).chosen == "m"


def test_a_policy_that_raises_or_scores_no_number_refuses_the_model_and_leaks_nothing() -> None:
    class Raises(Policy):
        name = "raises"

        def __init__(self, step: str) -> None:
            setattr(self, "_" + step, True)

        def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
            if hasattr(self, "_admit"):
                raise ValueError("hunter2")
            return None

        def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
            if hasattr(self, "_admit_live"):
                raise ValueError("hunter2")
            return None

        def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
            if hasattr(self, "_score"):
                raise ValueError("hunter2")
            return Score(math.nan) if hasattr(self, "_nan") else None

    for step in ("admit", "admit_live", "score", "nan"):
        decision = decide([entry("m")], ask(), Raises(step))
        assert decision.chosen is None
        assert "hunter2" not in str(decision)


def test_static_judgements_are_cached_per_shape_and_dropped_when_cards_change() -> None:
    class Counts(Policy):
        name = "counts"
        asked = 0

        def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
            self.asked += 1
            return None

    counts = Counts()
    one = router(counts)
    entries = [entry("m")]
    for text in ("a", "b" * 1000):
        one.decide(ask(Chat.ask(text)), entries, 1)
    assert counts.asked == 1
    one.decide(ask(need=Need(place="local")), entries, 1)
    assert counts.asked == 2
    one.decide(ask(), entries, 2)
    assert counts.asked == 3


def test_the_cache_is_bounded_whatever_needs_arrive() -> None:
    one = router()
    for n in range(3000):
        one.decide(ask(need=Need(max_latency_s=float(n))), [entry("m")], 1)
    assert len(one._cache) <= 1024


def test_models_of_equal_utility_share_the_load() -> None:
    one = router()
    entries = [entry(name) for name in "abcd"]
    chosen = {one.decide(ask(), entries, 1).chosen for _ in range(100)}
    assert chosen == set("abcd")


needs = st.builds(
    Need,
    place=st.sampled_from([(), "local", "hosted", ("private", "host")]),
    max_params=st.none() | st.floats(0, 1e12),
    max_bytes=st.none() | st.floats(0, 1e12),
    context=st.none() | st.integers(0, 10_000),
    max_latency_s=st.none() | st.floats(0, 100),
    max_cost_usd=st.none() | st.floats(0, 1),
    min_quality=st.none() | st.floats(0, 1),
)
cards = st.fixed_dictionaries(
    {
        "place": st.sampled_from(["process", "host", "private", "hosted"]),
        "params": st.none() | st.integers(0, 10**12),
        "bytes": st.none() | st.integers(0, 10**12),
        "context": st.none() | st.integers(100, 10_000),
        "quality": st.none() | st.floats(0, 1),
        "price": st.none() | st.builds(Price, input=st.floats(0, 100), output=st.floats(0, 100)),
        "per_token_s": st.none() | st.floats(1e-4, 1),
    }
)


@given(needs, st.lists(cards, min_size=1, max_size=6), st.permutations(range(11)))
def test_what_is_chosen_keeps_every_hard_limit_and_the_order_of_policies_changes_nothing(
    need: Need, facts: list[dict[str, Any]], order: list[int]
) -> None:
    entries = [entry(f"m{n}", **fact) for n, fact in enumerate(facts)]
    asked = ask(need=need)
    policies = builtin_policies(PolicyConfig())
    first = Router(policies, random=seeded(1)).decide(asked, entries, 1)
    again = Router([policies[n] for n in order], random=seeded(1)).decide(asked, entries, 1)
    assert first.to_json() == again.to_json()
    by_name = {one.name: one.card for one in entries}
    for name in first.ranked:
        card = by_name[name]
        assert card is not None
        assert not need.places or card.place in need.places
        assert need.max_params is None or (card.params is not None and card.params <= need.max_params)
        assert need.max_bytes is None or (card.bytes is not None and card.bytes <= need.max_bytes)
        assert need.context is None or (card.context is not None and card.context >= need.context)
        quality = card.quality_for("chat")
        assert need.min_quality is None or (quality is not None and quality >= need.min_quality)
        assert need.max_cost_usd is None or card.price_or_free() is not None
    utilities = [first.candidate(name).utility for name in first.ranked]
    assert utilities == sorted(utilities, key=lambda value: -(value or 0.0))


def test_explain_shows_every_model_with_each_score_and_each_reason() -> None:
    async def main() -> None:
        models = [Echo("small", params=2_000_000), Echo("big", params=70_000_000_000, place="hosted", price=Price(output=9.0))]
        async with AsyncGateway(models) as gw:
            decision = await gw.explain(Chat.ask("hello"), Need(max_params=8e9))
            table, page, data = str(decision), decision._repr_html_(), decision.to_json()
            for text in (
                "small",
                "big",
                "chosen",
                "refused",
                "latency",
                "quality",
                "need.max_params: 70B (allowed: at most 8B)",
            ):
                assert text in table
                assert text in page
            assert data["chosen"] == "small"
            assert {candidate["model"] for candidate in data["candidates"]} == {"small", "big"}
            assert all(status.state == "cold" for status in await gw.models()), "explaining starts nothing"

    asyncio.run(main())


def test_embedding_is_judged_without_an_answer_to_wait_for() -> None:
    slow = entry("slow", tasks=frozenset({Embed}), per_token_s=100.0, first_token_s=0.1)
    assert decide([slow], ask(Embed(texts=("a",)), Need(max_latency_s=1.0))).chosen == "slow"


def test_an_estimate_starts_at_its_prior_and_moves_to_what_is_measured() -> None:
    estimate = Estimate(1.0)
    assert estimate.value == 1.0
    for _ in range(200):
        estimate.observe(3.0)
    assert estimate.value == pytest.approx(3.0, rel=0.05)
