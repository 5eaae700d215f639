"""Whatever a provider does, the caller gets a whole answer or one clear error: over real sockets, with the real clock."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fault_cancel import MOMENTS, Moment, give_up, give_up_loading, leave
from fault_play import (
    ASK,
    CLOCK,
    QUESTION,
    Host,
    Outcome,
    Provider,
    Scenario,
    Way,
    ask,
    at_work,
    expected,
    laws,
    play,
    played,
    whole,
)  # fmt: skip
from fault_recovery import OUTAGES, RECOVERED_S, recover
from fault_table import DOWN_UP, HEDGED, PATIENT, SCENARIOS, SLOW
from fault_wires import WIRES

from gateway import AsyncGateway, Attempt, Chat, ChatResponse, Meta, Overloaded, Request, Response, Trace
from gateway.testing import FakeClock, Fault, Scripted

ROWS = [pytest.param(row, id=row.name) for row in SCENARIOS]
GIVEN_UP = [(moment, way) for moment in MOMENTS for way in moment.ways]


@pytest.mark.parametrize("scenario", ROWS)
def test_a_fault_is_met_as_the_table_says(scenario: Scenario) -> None:
    with ThreadPoolExecutor(len(scenario.ways)) as threads:  # by run and by stream at once: most of the time is waiting
        wrong = threads.map(lambda way: expected(scenario, played(play(scenario, way))), scenario.ways)
        assert dict(zip(scenario.ways, wrong, strict=True)) == {way: [] for way in scenario.ways}


@pytest.mark.parametrize("scenario", ROWS)
def test_a_fault_is_met_alike_in_every_format(scenario: Scenario) -> None:
    steps = [step for provider in scenario.providers for step in (*provider.steps, provider.then)]
    played_over = [wire for wire in WIRES[1:] if all(map(wire.knows, steps))]
    assert played_over or scenario.name.startswith("prefill")
    ways = [(wire, way) for wire in played_over for way in scenario.ways]
    with ThreadPoolExecutor(len(ways)) as threads:
        wrong = threads.map(lambda each: expected(scenario, played(play(scenario, each[1], each[0]))), ways)
        seen = {f"{wire.api}, {way}": faults for (wire, way), faults in zip(ways, wrong, strict=True)}
    assert seen == {each: [] for each in seen}


@pytest.mark.parametrize(("moment", "way"), GIVEN_UP, ids=[f"{moment.name}-{way}" for moment, way in GIVEN_UP])
def test_giving_up_frees_the_slot_and_closes_the_socket(moment: Moment, way: Way) -> None:
    played(give_up(moment, way))


@pytest.mark.parametrize("way", ["run", "stream"])
def test_giving_up_while_a_model_is_loaded_frees_its_slot(way: Way) -> None:
    played(give_up_loading(way))


def test_leaving_a_stream_frees_the_slot_and_closes_the_socket() -> None:
    played(leave(1))


@pytest.mark.parametrize("way", ["run", "stream"])
def test_the_loser_of_two_hedged_requests_is_closed_at_once_and_billed(way: Way) -> None:
    async def hedged() -> Outcome:
        async with at_work((SLOW, Provider(facts=PATIENT)), HEDGED["config"], warm=HEDGED["warm"]) as (gw, hosts):
            outcome = await ask(gw, way, ASK, Meta())
            await hosts["one"].server.wait_for(lambda server: server.connections == 0)
            assert hosts["one"].server.disconnects == 1
            return outcome

    loser, winner = played(hedged()).attempts
    assert (loser.error, loser.hedge, winner.hedge) == ("Hedged", False, True)
    assert 0 < loser.cost_usd < winner.cost_usd


def test_a_provider_that_flaps_costs_no_request_when_another_one_is_up() -> None:
    async def flap() -> list[str]:
        wrong = []
        async with at_work((Provider(steps=DOWN_UP), Provider()), {}) as (gw, hosts):
            for _ in range(20):
                before = {name: len(host.asked_at) for name, host in hosts.items()}
                outcome = await ask(gw, "run", ASK, Meta())
                outcome.counted = {name: len(host.asked_at) - before[name] for name, host in hosts.items()}
                wrong += [str(outcome)] * (outcome.reply is None) + laws(outcome, hosts, before)
            assert hosts["one"].asked_at, "the flapping one was never asked"
        return wrong

    assert played(flap()) == []


def test_one_request_probes_a_silent_provider_while_the_others_go_elsewhere() -> None:
    async def burst() -> None:
        worse = Provider(facts={"quality": 0.2})
        async with at_work((Provider(then=Fault(delay_s=15)), worse), {}) as (gw, hosts):
            asked_at = hosts["one"].asked_at
            await gw.run(ASK)
            opened = CLOCK.monotonic()
            while len(asked_at) < 2 and CLOCK.monotonic() < opened + 5:
                replies = await asyncio.gather(*[gw.run(ASK) for _ in range(10)])
                assert {reply.model for reply in replies} == {"two"}
                await CLOCK.sleep(0.05)
            assert len(asked_at) == 2, "of ten at once, one asks"

    played(burst())


def test_a_provider_that_comes_back_is_used_again_within_ten_seconds() -> None:
    with ThreadPoolExecutor(len(OUTAGES)) as threads:
        seen = list(threads.map(lambda outage: played(recover(outage)), OUTAGES))
    for outage, recovery in zip(OUTAGES, seen, strict=True):
        assert recovery.broken == []
        assert recovery.asked_while_down > 0
        assert recovery.seconds is not None and recovery.seconds < RECOVERED_S, outage.name
        assert not recovery.unanswered or len(outage.providers) == 1, outage.name


class FullAtFirst(Scripted):
    """Has no room until time passes."""

    def __init__(self, name: str, clock: FakeClock, **facts: Any) -> None:
        super().__init__(name, otherwise="yes", **facts)
        self._clock = clock

    async def run(self, request: Request[Any], /) -> Response:
        if self._clock.monotonic() == 0:
            await asyncio.sleep(0)
            raise Overloaded("full")
        return await super().run(request)


async def used_again(failures: int, other: float) -> bool:
    """Whether a model that failed in so many requests at once is asked in the ten seconds after, beside one of that quality."""
    clock = FakeClock()
    best = FullAtFirst("best", clock, quality=0.9)
    async with AsyncGateway([best, Scripted("other", otherwise="yes", quality=other)], clock=clock) as gw:
        await asyncio.gather(*[gw.run(Chat.ask("hello")) for _ in range(failures)])
        for _ in range(100):
            clock.advance(RECOVERED_S / 100)
            if (await gw.run(Chat.ask("hello"))).model == "best":
                return True
    return False


def test_one_failure_does_not_give_a_model_up_for_one_that_is_nearly_as_good() -> None:
    assert asyncio.run(used_again(1, 0.8))


def test_a_burst_of_failures_does_not_give_a_model_up_for_one_that_is_worse() -> None:
    assert asyncio.run(used_again(20, 0.5))


def test_a_few_failures_do_not_give_a_model_up_for_one_that_is_worse() -> None:
    assert asyncio.run(used_again(2, 0.5))


def test_a_row_that_is_not_so_is_told() -> None:
    row = Scenario(name="not so", providers=(Provider(then=Fault(status=503)), Provider()), answer="one", attempts={"one": 1},
                   errors=("",), least_s=9)  # fmt: skip
    outcome = played(play(row, "run"))
    assert [line.split(":")[0] for line in expected(row, outcome)][:3] == ["answer", "attempts", "errors"]
    assert len(expected(row, outcome)) == 4


def test_every_law_can_be_broken(tmp_path: Path) -> None:
    host = Host(0, Provider(), tmp_path)
    host.asked_at += [0.0, 0.4, 1.4]
    silent = [Attempt(model="one", at_s=at, error="AttemptTimeout") for at in (0.0, 0.4, 1.4)]
    trace = Trace(model="two", attempts=tuple(silent), cost_usd=1.0)
    cut = ChatResponse.of(whole("one")[:-1], model="one", trace=trace)
    error = Overloaded(f"no answer to {QUESTION}", partial="I am")
    told = []
    for outcome in (Outcome(reply=cut, text="I", attempts=trace.attempts), Outcome(error=error)):
        outcome.counted = {"one": 2}
        told += laws(outcome, {"one": host}, {"one": 0})
    for law in ("truncated", "alone answered", "add up", "does not list", "partial text", "holds the prompt", "its server of",
                "within 1.5 s", "was silent"):  # fmt: skip
        assert any(law in line for line in told), law
