"""Replay: a decision made again from its record is the same byte for byte; any other record is one clear error."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from gateway import Ask, Chat, ConfigError, Decision, Embed, Generate, Live, ModelCard, Need, Policy, Quota, Score
from gateway.policies import LatencyPolicy, builtin_policies
from gateway.record import text
from gateway.replay import replay, same

sys.path.insert(0, str(Path(__file__).parent))
from routed import (
    ASKED,
    EVENTS,
    STILL,
    Full,
    Taste,
    World,
    ask,
    card,
    card_lists,
    decisions,
    settings_of_policy,
    steps,
    three_asks,
)

TASKS: Any = {"chat": Chat, "embed": Embed, "generate": Generate}


def kept(decision: Decision) -> Any:
    """The record, as it is read from a file."""
    return json.loads(json.dumps(decision.record()))


def again(world: World, decision: Decision) -> Decision:
    return replay(kept(decision), world.policies, TASKS)


def replays(world: World, decision: Decision) -> bool:
    record = kept(decision)
    made = replay(record, world.policies, TASKS)
    return same(record, made) and text(record["decision"]) == text(made.to_json())


def check(data: st.DataObject, kinds: Sequence[str], *, talk: bool) -> None:
    """Two worlds where the same happens; one makes its records at once, the other when all has happened."""
    cards, three, happened = data.draw(card_lists), data.draw(three_asks), data.draw(steps(kinds))
    three = three if talk else [replace(asked, conversation="") for asked in three]
    policy, seed = data.draw(settings_of_policy), data.draw(st.integers(0, 1000))
    world, other = (World(cards, Full(), Taste(), seed=seed, **policy) for _ in range(2))
    later = [decision for _, decision, _ in decisions(world, three, happened)]
    at_once = [kept(decision) for _, decision, _ in decisions(other, three, happened)]
    for decision, early in zip(later, at_once, strict=True):
        record = kept(decision)
        made = replay(record, world.policies, TASKS)
        assert made.chosen == decision.chosen
        assert text(made.to_json()) == text(decision.to_json())
        assert same(record, made)
        assert text(record) == text(early)


@limits(max_examples=80, deadline=None, phases=set(Phase) - {Phase.explain})
@given(st.data())
def test_every_decision_replays_byte_for_byte_and_its_record_does_not_change_when_more_is_learnt(data: st.DataObject) -> None:
    check(data, STILL, talk=False)


@limits(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
@given(st.data())
def test_so_it_does_when_loads_quotas_and_waits_change_between_decisions(data: st.DataObject) -> None:
    check(data, EVENTS, talk=True)


def pair(**settings: Any) -> World:
    return World([card("a", quality=0.9), card("b", quality=0.8999)], Full(), Taste(), **settings)


def test_after_a_hop_that_failed() -> None:
    world = pair()
    first = world.decide()
    assert replays(world, world.decide(tried={str(first.chosen): ASKED}))
    nobody = world.decide(tried={"a": ASKED, "b": ASKED})
    assert nobody.chosen is None
    assert replays(world, nobody)


def test_with_a_model_that_is_shut() -> None:
    world = pair()
    world["a"].failed(world.now, "Unreachable", 0.5, at_once=True)
    decision = world.decide()
    assert [veto.rule for veto in decision.candidate("a").vetoes] == ["breaker"]
    assert replays(world, decision)


def test_with_a_waived_deadline() -> None:
    world = pair()
    decision = world.decide(ask(deadline_s=1e-6))
    assert decision.candidate(str(decision.chosen)).waived
    assert replays(world, decision)


def test_with_a_last_resort_passed_over_and_waived() -> None:
    world = World([card("real", place="hosted"), card("toy", quality=1.0, last_resort=True)])
    for tried in ({}, {"real": ASKED}):
        decision = world.decide(tried=tried)
        assert decision.chosen == ("toy" if tried else "real")
        assert replays(world, decision)


def test_exploring_and_staying_with_a_conversation_and_dry() -> None:
    world = World([card("a", quality=0.9), card("b", quality=0.85), card("c", quality=0.2)], explore=0.5)
    for _ in range(20):
        world["a"].succeeded("chat", 0.1, 0.1, 1, world.now)
    asked = ask(output_tokens=1)
    explored = [world.decide(asked) for _ in range(40)]
    assert {decision.chosen for decision in explored} == {"a", "b"}
    assert all(replays(world, decision) for decision in explored)
    talk = ask(conversation="one")
    world.router.answered(talk, "b")
    warm = world.decide(talk)
    assert warm.basis.warm == "b"
    assert replays(world, warm)
    assert replays(world, world.decide(talk, dry=True))


def test_chance_among_equals_is_kept() -> None:
    world = World([card(f"m{n:02}") for n in range(40)])
    made = []
    for _ in range(60):
        decision = world.decide()
        made.append(decision)
        world[str(decision.chosen)].in_flight += 1
    assert len({decision.chosen for decision in made}) > 10
    assert all(again(world, decision).chosen == decision.chosen for decision in made)


def test_with_loads_that_have_changed_since_the_order_was_made() -> None:
    world = pair()
    world.decide()
    world["b"].in_flight = 3
    assert replays(world, world.decide())


def test_making_a_record_does_not_change_what_a_decision_says() -> None:
    worlds = [pair(), pair()]
    made = []
    for world in worlds:
        world.decide()
        world["b"].in_flight = 3
        made.append(world.decide())
    made[0].record()
    assert made[0].to_json() == made[1].to_json()


def test_with_models_that_are_refused_or_not_described_and_notes() -> None:
    world = World([card("a"), card("b", place="hosted"), card("c")])
    world.entries[2].card = None
    world.router.notes = ("transform 'scrub' is installed but left out",)
    decision = world.decide(ask(need=Need(place="local", within=(("a", "b"), ("*",)), avoid="z*")))
    assert decision.notes == world.router.notes
    assert replays(world, decision)


def test_a_record_holds_no_tenants_name_or_text() -> None:
    world = pair()
    record = json.dumps(world.decide(ask(Chat.ask("a secret plan"))).record())
    assert "secret plan" not in record


def test_with_a_model_whose_quota_is_used_up() -> None:
    world = pair()
    world["a"].allowed(Quota(tokens=0, tokens_reset_s=9.0), world.now)
    decision = world.decide(ask(input_tokens=50))
    assert decision.chosen == "b"
    assert replays(world, decision)


def _probe(world: World) -> None:
    world["a"].failed(world.now, "x", 0.0, at_once=True)
    world["b"].failed(world.now, "x")
    world.now += 9.0
    assert world.chosen() == "a"
    assert world["a"].breaker.asked(world.now)


def _wait(world: World) -> None:
    world.decide()
    world["a"].breaker.wait(world.now + 5.0, world.now, "busy")


def _warm(world: World) -> None:
    world.decide()
    world.router.answered(ask(conversation="one"), "a")
    world["a"].breaker.wait(world.now + 5.0, world.now, "busy")


def _failed(world: World) -> None:
    world.router.answered(ask(conversation="one"), "a")
    world["a"].failed(world.now, "Unreachable", 0.5, at_once=True)


@pytest.mark.parametrize("shut", [_probe, _wait, _warm, _failed])
def test_with_a_model_that_is_passed_over_since_it_is_shut(shut: Any) -> None:
    world = World([card("a", quality=0.9), card("b", quality=0.8999)], band=0.0, affinity=0.1)
    shut(world)
    decision = world.decide(ask(conversation="one"))
    assert decision.chosen == "b"
    assert again(world, decision).chosen == "b"
    assert decision.candidate("a").vetoes


def test_with_a_policy_that_scores_by_the_predicted_latency() -> None:
    class Slow(Policy):
        name = "slow"

        def score(self, ask: Ask, card: ModelCard, live: Live) -> Score:
            return Score(-0.001 * live.latency_s(100.0))

    world = World([card("a"), card("b")], Slow())
    world["a"].in_flight = 9
    assert replays(world, world.decide())


def test_with_a_model_that_states_that_it_has_no_language() -> None:
    world = World([card("a", languages=frozenset())])
    assert replays(world, world.decide(ask(need=Need(languages=frozenset({"de"})))))


@pytest.mark.parametrize(
    "cards", [[], [card("a")], [card("a", tasks=frozenset({Chat, Embed, Generate}), quality={"chat": 0.5})]]
)
def test_with_few_models_and_every_kind_of_fact(cards: list[ModelCard]) -> None:
    world = World(cards)
    assert replays(world, world.decide())
    assert replays(world, world.decide(ask(Embed(texts=("a",)))))


class Fast(LatencyPolicy):
    """Another policy of a built-in one's name."""


@pytest.mark.parametrize("change", ["more", "fewer", "another of that name", "settings", "digest"])
def test_a_record_made_with_other_policies_or_settings_is_one_error(change: str) -> None:
    world = World([card()], Full())
    record, policies = kept(world.decide()), list(world.policies)
    match change:
        case "more":
            policies.append(Taste())
        case "fewer":
            policies.pop()
        case "another of that name":
            policies = [Fast(0.002) if policy.name == "latency" else policy for policy in policies]
        case "settings":
            record["policy"]["worth"] = 3.0
        case "digest":
            record["digest"] = "0" * 64
    with pytest.raises(ConfigError, match="other policies"):
        replay(record, policies, TASKS)


def test_the_order_of_policies_and_of_facts_in_the_file_means_nothing() -> None:
    world = pair()
    record = kept(world.decide())
    shuffled = json.loads(json.dumps(record, sort_keys=True))
    assert same(shuffled, replay(shuffled, world.policies[::-1], TASKS))


@pytest.mark.parametrize("record", [None, [], 3, "x", {}, {"record": 2}, {"record": "1"}])
def test_what_is_no_record_is_one_error(record: Any) -> None:
    with pytest.raises(ConfigError, match="not a decision's record"):
        replay(record, builtin_policies(World([]).config), TASKS)


def test_a_task_that_is_not_known_here_is_named() -> None:
    world = pair()
    with pytest.raises(ConfigError, match="'chat'"):
        replay(kept(world.decide()), world.policies, {})


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to every value in a record."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in items for found in ((*path, key), *places(one, (*path, key)))]


def damaged(record: Any, path: tuple[Any, ...], value: Any) -> Any:
    out = inner = copy.deepcopy(record)
    for key in path[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return out


def whole() -> tuple[World, Any]:
    world = World([card("a", quality=0.9), card("b", place="hosted"), card("c")], Full())
    world["c"].failed(world.now, "x", 0.0, at_once=True)
    asked = ask(need=Need(place="local", percentile=0.5, max_latency_s=50.0), conversation="one", deadline_s=5.0)
    return world, kept(world.decide(asked, {"a": ASKED}))


WORLD, RECORD = whole()
WAYS = [path for path in places(RECORD) if path[0] not in ("decision", "record")]


@limits(max_examples=300, deadline=None)
@given(st.sampled_from(WAYS),
       st.sampled_from([KeyError, None, -1, 1e308, "x", [], {}, [[]], True, float("nan")]))  # fmt: skip
def test_a_damaged_record_is_one_error_or_another_decision_and_nothing_else(path: tuple[Any, ...], value: Any) -> None:
    try:
        assert isinstance(replay(damaged(RECORD, path, value), WORLD.policies, TASKS), Decision)
    except ConfigError as error:
        assert str(error)


def test_a_damaged_need_is_that_error_too() -> None:
    with pytest.raises(ConfigError):
        replay(damaged(RECORD, ("ask", "need", "percentile"), 7), WORLD.policies, TASKS)


def test_a_changed_outcome_is_not_the_same() -> None:
    world = pair()
    record = kept(world.decide())
    made = replay(record, world.policies, TASKS)
    assert same(record, made)
    for path in places(record["decision"]):
        assert not same({"decision": damaged(record["decision"], path, "changed")}, made), path


def test_a_decision_from_another_process_has_no_record() -> None:
    with pytest.raises(ValueError, match="only the process that made it"):
        Decision("chat", "a").record()
