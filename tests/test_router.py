"""Router: hard limits hold at every hop, vetoes beat scores, the load is shared, nothing grows without bound."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from gateway import Ask, Chat, Decision, Live, ModelCard, Need, Policy, Price, Score, Shape, Veto
from gateway.gateway import AsyncGateway
from gateway.router import CONVERSATIONS_KEPT, FRESH_S, RANKINGS_KEPT, SETTLED_S, SHAPES_KEPT
from gateway.testing import Echo
from gateway.vitals import Vitals

sys.path.insert(0, str(Path(__file__).parent))
from routed import (
    ASKED,
    Full,
    Taste,
    World,
    ask,
    asks,
    card,
    card_lists,
    decisions,
    events,
    needs,
    settings_of_policy,
    steps,
    three_asks,
)


def facts_are_fresh(world: World, decision: Decision) -> None:
    """What was known of the chosen model is what is known now, or was known a moment ago."""
    row = decision.basis.row
    vitals = world[row.name]
    if vitals.news <= row.seen or world.now - world.changed_at[row.name] >= SETTLED_S + FRESH_S:
        now = vitals.read("chat", row.at)
        assert replace(row.live, in_flight=0) == replace(now, in_flight=0)


def keeps_to_the_limits(world: World, asked: Ask, decision: Decision, tried: dict[str, Veto]) -> None:
    """Nothing stands against the chosen model, with every policy asked directly; a deadline may, if all else is refused."""
    names = [entry.name for entry in world.entries]
    found = {name: world.against(asked, name, decision, tried) for name in names}
    for name, vetoes in found.items():
        if name == decision.chosen:
            assert all(veto.waivable for veto in vetoes), vetoes
        if decision.chosen is None:
            assert any(not veto.waivable for veto in vetoes), f"{name} could have been asked"
    if decision.chosen is None:
        return
    assert decision.chosen not in tried
    assert world[decision.chosen].breaker.shut_until <= world.now
    if found[decision.chosen]:
        assert all(found.values()), "a limit is waived only when nobody is left otherwise"
        assert decision.candidate(decision.chosen).waived
    facts_are_fresh(world, decision)


@limits(max_examples=120, deadline=None, phases=set(Phase) - {Phase.explain})
@given(card_lists, three_asks, steps(), settings_of_policy, st.integers(0, 1000))
def test_no_choice_breaks_a_hard_limit_at_any_hop_whatever_happens_between(
    cards: list[ModelCard], three: list[Ask], happened: list[tuple[str, int, float]], settings: dict[str, Any], seed: int
) -> None:
    world = World(cards, Full(), Taste(), seed=seed, **settings)
    for asked, decision, tried in decisions(world, three, happened):
        keeps_to_the_limits(world, asked, decision, tried)


@pytest.mark.parametrize("change", ["load", "breaker", "wait", "quota"])
@pytest.mark.parametrize("later", [0.0, 0.05, 0.1, 0.19])
def test_an_order_that_is_a_moment_old_lets_nobody_through_who_is_refused_now(change: str, later: float) -> None:
    world = World([card("best", quality=0.9), card("other", quality=0.1)], Full())
    asked = ask(input_tokens=100)
    assert world.chosen(asked) == "best"
    sheet = world.decide(asked).basis.ranking.sheet
    world.now += later
    best = world["best"]
    match change:
        case "load":
            best.in_flight = 8
        case "breaker":
            best.breaker.failed(world.now, "x", 0.0, at_once=True)
        case "wait":
            best.breaker.wait(world.now + 1.0, world.now, "busy")
        case "quota":
            best.tokens_left, best.tokens_until = 99.0, world.now + 1.0
    decision = world.decide(asked)
    assert decision.basis.ranking.sheet is sheet, "made anew: this test shows nothing"
    assert decision.chosen == "other"
    assert world.chosen(asked, {"other": ASKED}) is None


def test_an_order_is_used_for_a_moment_and_a_failure_ends_it_at_once() -> None:
    world = World([card("a"), card("b")])
    sheet = world.decide().basis.ranking.sheet
    for _ in range(3):
        world.now += 0.05
        world["b"].succeeded("chat", 1.0, 0.5, 10, world.now)
        assert world.decide().basis.ranking.sheet is sheet
    world["b"].failed(world.now)
    failed = world.decide().basis.ranking.sheet
    assert failed is not sheet
    world.now += FRESH_S
    assert world.decide().basis.ranking.sheet is not failed


def test_what_only_one_model_has_learnt_is_known_a_moment_later() -> None:
    world = World([card(quality=0.9)])
    asked = ask(need=Need(min_quality=0.8))
    for _ in range(40):
        world["m"].succeeded("chat", 1.0, 0.5, 10, world.now)  # settled: judged less often
    assert world.chosen(asked) == "m"
    for _ in range(20):
        world["m"].scored("chat", 0.0)
    world.now += SETTLED_S + FRESH_S
    assert world.chosen(asked) is None


def test_a_veto_beats_any_score() -> None:
    class Rich(Policy):
        name = "rich"

        def score(self, ask: Ask, card: ModelCard, live: Live) -> Score:
            return Score(1e9 if card.name == "refused" else 0.0)

    world = World([card("refused", place="hosted"), card()], Rich())
    assert world.chosen(ask(need=Need(place="local"))) == "m"


class Raises(Policy):
    """Fails in one step, or scores what cannot be."""

    name = "raises"

    def __init__(self, step: str) -> None:
        self.step = step

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        if self.step == "admit":
            raise ValueError("hunter2")
        return True if self.step == "admit wrongly" else None  # type: ignore[return-value]

    def admit_live(self, ask: Ask, card: ModelCard, live: Live) -> Veto | None:
        if self.step == "admit_live":
            raise ValueError("hunter2")
        return False if self.step == "admit_live wrongly" else None  # type: ignore[return-value]

    def score(self, ask: Ask, card: ModelCard, live: Live) -> Score | None:
        if self.step == "score":
            raise ValueError("hunter2")
        odd = {"score wrongly": 3.0, "nan": Score(math.nan), "inf": Score(math.inf), "by token": Score(0, input_usd=math.nan),
               "load as a gain": Score(0, busy_usd=1.0)}  # fmt: skip
        return odd.get(self.step)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "step",
    ["admit", "admit wrongly", "admit_live", "admit_live wrongly", "score", "score wrongly", "nan", "inf", "by token",
     "load as a gain"],
)  # fmt: skip
def test_a_policy_that_raises_or_judges_wrongly_refuses_the_model_and_leaks_nothing(step: str) -> None:
    decision = World([card()], Raises(step)).decide()
    assert decision.chosen is None
    assert decision.candidates[0].vetoes
    assert "hunter2" not in str(decision) + decision.json()


def test_static_judgements_are_cached_per_shape_and_dropped_when_cards_change() -> None:
    class Counts(Policy):
        name = "counts"
        asked = 0

        def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
            self.asked += 1
            return None

    counts = Counts()
    world = World([card()], counts)
    for text in ("a", "b" * 1000):
        world.decide(ask(Chat.ask(text)))
    assert counts.asked == 1
    world.decide(ask(need=Need(place="local")))
    assert counts.asked == 2
    world.router.decide(ask(), world.entries, 2)
    assert counts.asked == 3


def test_what_is_not_described_is_refused_and_says_why() -> None:
    world = World([card("a"), card("b")])
    world.entries[0].card = None
    decision = world.decide()
    assert decision.chosen == "b"
    assert [veto.rule for veto in decision.candidate("a").vetoes] == ["describe"]


def test_a_request_that_must_stay_here_stays_though_a_policy_says_nothing() -> None:
    world = World([card("here"), card("there", place="private", quality=1.0)])
    asked = Ask(shape=Shape(task=Chat, need=Need(), local_only="an inspection failed"))
    assert world.decide(asked).ranked == ("here",)
    assert world.chosen(asked, {"here": ASKED}) is None


@limits(max_examples=60, deadline=None)
@given(needs, card_lists)
def test_those_that_may_be_asked_are_told_best_first(need: Need, cards: list[ModelCard]) -> None:
    decision = World(cards).decide(ask(need=need))
    utilities = [decision.candidate(name).utility or 0.0 for name in decision.ranked[1:]]
    assert utilities == sorted(utilities, reverse=True)
    assert decision.chosen is None or decision.chosen == decision.ranked[0] or decision.candidate(decision.chosen).waived


def test_a_deadline_that_nobody_meets_is_waived_for_the_likeliest() -> None:
    world = World([card("slow", first_token_s=9.0, quality=1.0), card("less slow", first_token_s=5.0)])
    decision = world.decide(ask(deadline_s=0.1, output_tokens=0))
    assert decision.chosen == "less slow"
    assert [veto.rule for veto in decision.candidate("less slow").waived] == ["deadline"]
    assert [veto.rule for veto in decision.candidate("slow").vetoes] == ["deadline"]
    assert "no model is likely to meet the deadline" in decision.notes[0]
    assert world.chosen(ask(deadline_s=0.1, output_tokens=0), {"less slow": ASKED}) == "slow"


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"quality": 0.6},
        {"quality": 0.0},
        {"price": Price(input=1e6, output=1e6)},
        {"first_token_s": 1e4},
        {"provider": "one"},
    ],
)
@pytest.mark.parametrize("tokens", [1, 100_000])
def test_a_last_resort_is_asked_only_when_no_other_model_may_be(facts: Any, tokens: int) -> None:
    world = World([card("real", place="hosted", **facts), card("toy", quality=1.0, last_resort=True)], explore=1.0)
    asked = ask(input_tokens=tokens)
    for dry in (False, True):
        decision = world.decide(asked, dry=dry)
        assert decision.chosen == "real"
        assert [veto.rule for veto in decision.candidate("toy").vetoes] == ["last_resort"]
        assert "if it fails, last_resort is waived for toy" in str(decision)
    for need in (Need(place="local"), Need(model="toy"), Need(max_cost_usd=0.0)):
        alone = world.decide(ask(need=need))
        assert alone.chosen == "toy" and alone.notes == ()
        assert [veto.rule for veto in alone.candidate("toy").waived] == ["last_resort"]
        assert "waived for toy, since nobody else is left: last_resort: asked only when no other" in " ".join(
            str(alone).split()
        )
    assert world.chosen(asked, {"real": ASKED}) == "toy"
    world["real"].failed(world.now, "Unreachable", 0.5, at_once=True)
    assert world.chosen(asked) == "toy"
    assert world.chosen(asked, {"real": ASKED, "toy": ASKED}) is None


def test_a_conversation_that_a_last_resort_has_answered_goes_back_to_a_model_that_may_be_asked() -> None:
    world = World([card("real", place="hosted"), card("toy", quality=1.0, last_resort=True)], affinity=1.0)
    world.router.answered(talk := ask(conversation="one"), "toy")
    assert world.chosen(talk) == "real"


def test_who_may_be_late_is_asked_before_a_last_resort_and_of_last_resorts_the_best() -> None:
    toys = [card("poor", quality=0.1, first_token_s=0.01, last_resort=True), card("toy", quality=0.2, last_resort=True)]
    world = World([card("late", place="hosted", first_token_s=9.0), *toys])
    hurry = ask(deadline_s=1.0, output_tokens=0)
    decision = world.decide(hurry)
    assert decision.chosen == "late" and "no model is likely to meet the deadline" in decision.notes[0]
    assert world.chosen(hurry, {"late": ASKED}) == "toy"
    assert world.chosen(ask(need=Need(place="local"))) == "toy"


def test_a_last_resort_that_has_failed_takes_no_turn_of_another_that_has() -> None:
    world = World([card("real", place="hosted"), card("best", quality=1.0), card("toy", quality=1.0, last_resort=True)])
    for name in ("real", "toy"):
        world[name].failed(world.now, "Overloaded", 0.5)
    assert world.decide().basis.ranking.owed.name == "real"


class Reluctant(Policy):
    """An installed policy whose word on facts may be waived."""

    name = "reluctant"

    def admit(self, shape: Shape, card: ModelCard) -> Veto | None:
        return Veto("reluctant", card.name, waivable=True) if card.name != "best" else None


def test_what_an_installed_policy_has_against_facts_is_waived_too_when_it_says_so() -> None:
    world = World([card("best", place="hosted"), card("other", quality=1.0)], Reluctant())
    assert world.chosen() == "best"
    assert [veto.rule for veto in world.decide(tried={"best": ASKED}).candidate("other").waived] == ["reluctant"]
    far = world.decide(ask(need=Need(place="hosted", avoid="best")))
    assert [veto.rule for veto in far.candidate("other").vetoes] == ["need.place", "reluctant"]
    assert far.chosen is None


def known(vitals: Vitals) -> Any:
    slots = ("in_flight", "spent_usd", "tokens_left", "tokens_until", "changed", "alarmed", "_failures", "_failed_at", "state")
    breaker = {name: getattr(vitals.breaker, name) for name in vitals.breaker.__slots__}
    return vitals.to_json(), [getattr(vitals, name) for name in slots], breaker


@limits(max_examples=60, deadline=None)
@given(card_lists, st.lists(events(), max_size=15), asks, settings_of_policy)
def test_a_dry_run_draws_no_chance_and_teaches_nothing(
    cards: list[ModelCard], happened: list[tuple[str, int, float]], asked: Ask, settings: dict[str, Any]
) -> None:
    world = World(cards, Full(), **settings)
    for event in happened:
        world.happen(*event)

    def mark() -> Any:
        pulse, vitals = world.knowledge.pulse, world.knowledge.vitals.values()
        return world.random.getstate(), world.router._warm.copy(), pulse.changes, pulse.alarms, [known(one) for one in vitals]

    before = mark()
    first = world.decide(asked, dry=True).to_json()
    assert world.decide(asked, dry=True).to_json() == first
    assert mark() == before


def test_a_dry_run_changes_no_later_decision() -> None:
    def chosen(*, dry: bool) -> str | None:
        world = World([card("a", quality=0.9), card("b", quality=0.8)])
        world.decide()
        for _ in range(20):
            world["a"].scored("chat", 0.0)
        if dry:
            world.decide(dry=True)
        world.now += 0.1
        return world.chosen()

    assert chosen(dry=True) == chosen(dry=False)


def test_a_dry_run_shows_what_has_just_been_learnt() -> None:
    world = World([card("a", quality=0.9), card("b", quality=0.8)])
    assert world.decide(dry=True).chosen == "a"
    for _ in range(20):
        world["a"].scored("chat", 0.0)
    assert world.decide(dry=True).chosen == "b"


def test_the_caches_are_bounded_whatever_arrives() -> None:
    world = World([card(), card("n")])
    for n in range(SHAPES_KEPT + 500):
        world.decide(ask(need=Need(max_latency_s=float(n))))
    assert len(world.router._shapes) <= SHAPES_KEPT
    sizes = [0, *(4**n for n in range(20))]
    ranking = None
    for inward in sizes:
        for outward in (None, *sizes):
            ranking = world.decide(ask(input_tokens=inward, output_tokens=outward)).basis.ranking
    assert ranking is not None
    assert len(ranking.sheet.rankings) <= RANKINGS_KEPT
    for n in range(CONVERSATIONS_KEPT + 500):
        world.router.answered(ask(conversation=str(n), tenant=str(n % 7)), "m")
    assert len(world.router._warm) <= CONVERSATIONS_KEPT
    assert world.decide(ask(conversation=str(n), tenant=str(n % 7))).basis.warm == "m", "the latest is kept"


def test_explain_shows_every_model_with_each_score_and_each_reason() -> None:
    async def main() -> None:
        models = [Echo("small", params=2_000_000), Echo("big", params=70_000_000_000, place="hosted", price=Price(output=9.0))]
        async with AsyncGateway(models) as gw:
            decision = await gw.explain(Chat.ask("hello"), Need(max_params=8e9))
            table, page, data = str(decision), decision._repr_html_(), decision.to_json()
            for text in ("small", "big", "chosen", "refused", "latency", "quality",
                         "need.max_params: 70B (allowed: at most 8B)"):  # fmt: skip
                assert text in table
                assert text in page
            assert data["chosen"] == "small"
            assert {candidate["model"] for candidate in data["candidates"]} == {"small", "big"}
            assert all(status.state == "cold" for status in await gw.models()), "explaining starts nothing"

    asyncio.run(main())
