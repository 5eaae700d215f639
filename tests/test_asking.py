"""Limits of time on one attempt, and hedging: the first to begin is kept, the other is cancelled, billed and told of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import (
    AsyncGateway,
    AttemptConfig,
    AttemptTimeout,
    Chat,
    ChatResponse,
    ContentFiltered,
    Delta,
    Meta,
    ModelCard,
    ModelService,
    Need,
    Overloaded,
    Price,
    Request,
    Response,
    Restart,
    Usage,
)
from gateway.config import load_config
from gateway.testing import Echo

ASK = Chat.ask("hello " * 40)
FOREVER = 1e6


class Waits(ModelService):
    """Begins when it is let go, or at once; fails instead, if told so. Counts how it was cancelled."""

    def __init__(
        self, name: str, *, provider: str = "", held: bool = False, error: Exception | None = None, **facts: Any
    ) -> None:
        facts = {"place": "hosted", "price": Price(input=10.0, output=20.0), "quality": 0.5, **facts}
        self.card = ModelCard(name=name, tasks=frozenset({Chat}), provider=provider, context=10_000, **facts)
        self.held, self.error = held, error
        self.running = self.cancelled = self.calls = 0
        self.go = asyncio.Event()

    async def run(self, request: Request[Any], /) -> Response:
        return [item async for item in self.stream(request)][-1]  # type: ignore[return-value]

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        self.running += 1
        self.calls += 1
        try:
            if self.held:
                await self.go.wait()
            else:
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            yield Delta(self.card.name)
            yield ChatResponse.of(self.card.name, usage=Usage(input_tokens=60, output_tokens=1))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


def gateway(*models: ModelService, **config: Any) -> AsyncGateway:
    return AsyncGateway(models, config=load_config(config))


HEDGE = {"share": 1.0, "percentile": 0.5}


def quick(name: str, provider: str, **facts: Any) -> Waits:
    return Waits(name, provider=provider, first_token_s=0.01, per_token_s=1e-6, **facts)


async def both_loaded(gw: AsyncGateway, *models: Waits) -> None:
    """Only a loaded model is asked beside another: let each answer once."""
    for model in models:
        held, model.held, error, model.error = model.held, False, model.error, None
        await gw.run(ASK, Need(model=model.card.name))
        model.held, model.error = held, error


@pytest.mark.parametrize("streamed", [False, True])
def test_the_first_to_begin_is_kept_and_the_other_is_cancelled_billed_and_told_of(streamed: bool) -> None:
    async def main() -> None:
        slow, spare = quick("slow", "one", held=True, quality=0.9), quick("spare", "two")
        async with gateway(slow, spare, hedge=HEDGE) as gw:
            await both_loaded(gw, slow, spare)
            if streamed:
                async with gw.stream(ASK) as stream:
                    assert [delta.text async for delta in stream] == ["spare"]
                reply = stream.response
            else:
                reply = await gw.run(ASK)
            assert (reply.text, reply.model) == ("spare", "spare")
            assert slow.cancelled == 1 and slow.running == 0
            assert reply.trace is not None
            lost, won = reply.trace.attempts
            assert (lost.model, lost.error, lost.hedge) == ("slow", "Hedged", False)
            assert (won.model, won.error, won.hedge) == ("spare", "", True)
            assert lost.cost_usd > 0 and reply.usage.cost_usd == pytest.approx(lost.cost_usd + won.cost_usd)
            assert all(status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_first_one_that_begins_in_time_is_asked_alone(streamed: bool) -> None:
    async def main() -> None:
        best, spare = Waits("best", provider="one", quality=0.9, first_token_s=60.0), quick("spare", "two", quality=0.0)
        async with gateway(best, spare, hedge=HEDGE, policy={"time": 0.0}) as gw:
            await both_loaded(gw, best, spare)
            if streamed:
                async with gw.stream(ASK) as stream:
                    reply = await stream.result()
            else:
                reply = await gw.run(ASK)
            assert reply.model == "best" and reply.trace is not None and len(reply.trace.attempts) == 1

    asyncio.run(main())


def test_a_hedge_goes_to_another_provider_that_is_loaded_and_only_if_it_may_be_spent() -> None:
    async def main() -> None:
        slow, twin = quick("slow", "one", held=True, quality=0.9), quick("twin", "one")
        cold = quick("cold", "two", place="process")
        async with gateway(slow, twin, cold, hedge=HEDGE) as gw:
            await both_loaded(gw, slow, twin)
            asked = asyncio.create_task(gw.run(ASK))
            while not slow.running:
                await asyncio.sleep(0)
            await asyncio.sleep(0.2)  # twenty times as long as a hedge waits
            assert twin.running == cold.running == 0
            slow.go.set()
            reply = await asked
            assert reply.model == "slow" and reply.trace is not None and len(reply.trace.attempts) == 1

    asyncio.run(main())


def test_a_hedge_that_fails_leaves_the_first_one_alone() -> None:
    async def main() -> None:
        slow = quick("slow", "one", held=True, quality=0.9)
        bad = quick("bad", "two", error=ContentFiltered("no"))
        async with gateway(slow, bad, hedge=HEDGE) as gw:
            await both_loaded(gw, slow, bad)
            asked = asyncio.create_task(gw.run(ASK))
            while bad.calls < 2:
                await asyncio.sleep(0.005)
            slow.go.set()
            reply = await asked
            assert reply.model == "slow" and reply.trace is not None
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("bad", "ContentFiltered"), ("slow", "")]

    asyncio.run(main())


def test_when_the_first_fails_while_a_hedge_runs_the_hedge_answers() -> None:
    async def main() -> None:
        slow = quick("slow", "one", held=True, quality=0.9, error=Overloaded("no room"))
        spare = quick("spare", "two", held=True)
        async with gateway(slow, spare, hedge=HEDGE) as gw:
            await both_loaded(gw, slow, spare)
            asked = asyncio.create_task(gw.run(ASK))
            while not (slow.running and spare.running):
                await asyncio.sleep(0.005)
            slow.go.set()
            while slow.running:
                await asyncio.sleep(0)
            spare.go.set()
            reply = await asked
            assert reply.trace is not None
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("slow", "Overloaded"), ("spare", "")]

    asyncio.run(main())


@pytest.mark.parametrize("streamed", [False, True])
def test_who_gives_up_while_two_are_asked_stops_both(streamed: bool) -> None:
    async def main() -> None:
        slow, spare = quick("slow", "one", held=True, quality=0.9), quick("spare", "two", held=True)
        async with gateway(slow, spare, hedge=HEDGE) as gw:
            await both_loaded(gw, slow, spare)

            async def read() -> None:
                async with gw.stream(ASK) as stream:
                    await stream.result()

            asked = asyncio.create_task(read() if streamed else gw.run(ASK))
            while not (slow.running and spare.running):
                await asyncio.sleep(0.005)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert slow.running == spare.running == 0
            assert slow.cancelled == spare.cancelled == 1
            assert all(status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())


def test_hedges_stay_within_their_share() -> None:
    async def main() -> None:
        slow, spare = quick("slow", "one", quality=0.9), quick("spare", "two")
        async with gateway(slow, spare, hedge={"share": 0.1, "percentile": 0.5}) as gw:
            await both_loaded(gw, slow, spare)
            hedged = 0
            for _ in range(50):
                slow.held, slow.go = True, asyncio.Event()
                asyncio.get_running_loop().call_later(0.03, slow.go.set)
                reply = await gw.run(ASK)
                assert reply.trace is not None
                hedged += any(one.hedge for one in reply.trace.attempts)
            assert 0 < hedged <= 1 + 0.1 * 52

    asyncio.run(main())


def test_a_silent_model_is_left_for_another_and_not_asked_twice() -> None:
    async def main() -> None:
        silent, spare = Waits("silent", held=True, quality=0.9), Waits("spare")
        async with gateway(silent, spare, attempt={"reply_s": 0.05, "first_token_s": 0.05}) as gw:
            reply = await gw.run(ASK)
            assert reply.trace is not None
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("silent", "AttemptTimeout"), ("spare", "")]
            assert silent.cancelled == 1
        async with gateway(Waits("silent", held=True), attempt={"reply_s": 0.05}) as gw:
            with pytest.raises(AttemptTimeout, match=r"silent for 0.05 s without a reply") as timeout:
                await gw.run(ASK)
            assert len(timeout.value.attempts) == 1

    asyncio.run(main())


class Stalls(ModelService):
    """Stops in mid-stream."""

    card = ModelCard(name="stalls", tasks=frozenset({Chat}))

    async def run(self, request: Request[Any], /) -> Response:
        raise NotImplementedError

    async def stream(self, request: Request[Any], /) -> AsyncIterator[Delta | Restart | Response]:
        yield Delta("half")
        await asyncio.sleep(FOREVER)


def test_a_stream_that_stalls_ends_with_what_was_delivered_or_begins_again_when_that_was_asked_for() -> None:
    async def main() -> None:
        async with gateway(Stalls(), Echo("spare", quality=0.1), attempt={"between_s": 0.05}, policy={"time": 0.0}) as gw:
            async with gw.stream(Chat.ask("whole answer")) as stream:
                with pytest.raises(AttemptTimeout, match="between two deltas") as error:
                    await stream.result()
            assert error.value.partial == "half" and error.value.in_stream
        async with gateway(Stalls(), Echo("spare", quality=0.1), attempt={"between_s": 0.05}, policy={"time": 0.0}) as gw:
            async with gw.stream(Chat.ask("whole answer"), meta=Meta(restart=True)) as stream:
                came = [delta async for delta in stream]
            at = next(n for n, delta in enumerate(came) if isinstance(delta, Restart))
            assert came[at] == Restart("spare")
            assert "".join(delta.text for delta in came[:at]) == "half"
            assert "".join(delta.text for delta in came[at:]) == "whole answer" == stream.response.text

    asyncio.run(main())


def test_a_reader_who_takes_long_over_a_delta_is_no_silence_of_the_models() -> None:
    async def main() -> None:
        async with gateway(Echo("m"), attempt={"between_s": 0.02, "first_token_s": 0.5}) as gw:
            async with gw.stream(Chat.ask("one two three")) as stream:
                async for _ in stream:
                    await asyncio.sleep(0.05)
            assert stream.response.text == "one two three"

    asyncio.run(main())


def test_a_service_may_state_its_own_limits() -> None:
    async def main() -> None:
        patient = Waits("patient", held=True)
        patient.limits = AttemptConfig(reply_s=None)
        async with gateway(patient, attempt={"reply_s": 0.01}) as gw:
            asked = asyncio.create_task(gw.run(ASK))
            await asyncio.sleep(0.05)
            patient.go.set()
            assert (await asked).text == "patient"

    asyncio.run(main())


def test_with_a_deadline_a_silent_model_leaves_time_for_another() -> None:
    async def main() -> None:
        silent, spare = quick("silent", "one", held=True, quality=0.9), quick("spare", "two")
        async with gateway(silent, spare) as gw:
            async with gw.stream(ASK, meta=Meta(deadline_s=1.0)) as stream:
                reply = await stream.result()
            assert reply.model == "spare" and reply.trace is not None
            assert [one.error for one in reply.trace.attempts] == ["AttemptTimeout", ""]

    asyncio.run(main())
