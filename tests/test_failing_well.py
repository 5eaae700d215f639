"""What an attacker, or a provider gone mad, must not be able to do: shut a model to others, spend for nothing, leak, poison."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway import (
    Ask,
    AsyncGateway,
    BudgetExceeded,
    Chat,
    ChatResponse,
    ConfigError,
    DeadlineExceeded,
    Denied,
    Lease,
    Limit,
    Live,
    Meta,
    ModelCard,
    ModelService,
    Need,
    NoEligibleModel,
    Policy,
    Price,
    Quota,
    RateLimited,
    Refusal,
    Request,
    Response,
    Score,
    ServiceCrashed,
    Usage,
)
from gateway.clock import SystemClock
from gateway.config import load_config
from gateway.plugins import Plugins
from gateway.state import MemoryState, Unit
from gateway.testing import Echo, Scripted

ASK = Chat.ask("hello " * 400)


def gateway(*models: ModelService, plugins: Plugins | None = None, **config: Any) -> AsyncGateway:
    return AsyncGateway(models, config=load_config(config), plugins=plugins)


class Held(ModelService):
    """Answers when it is let go."""

    def __init__(self, name: str = "held", **facts: Any) -> None:
        self.card = ModelCard(name=name, tasks=frozenset({Chat}), **{"place": "hosted", "price": Price(input=5000.0), **facts})
        self.go, self.began = asyncio.Event(), asyncio.Event()
        self.calls = 0

    async def run(self, request: Request[Any], /) -> Response:
        self.calls += 1
        self.began.set()
        await self.go.wait()
        return ChatResponse.of("done", usage=Usage(input_tokens=600, output_tokens=1))


def test_one_callers_short_deadline_does_not_shut_a_model_to_the_others() -> None:
    async def main() -> None:
        model = Held()
        async with gateway(model) as gw:
            with pytest.raises(DeadlineExceeded):
                await gw.run(ASK, meta=Meta(deadline_s=0.05))
            assert not any(status.shut for status in await gw.models())
            model.go.set()
            assert (await gw.run(ASK)).text == "done"

    asyncio.run(main())


def test_who_gives_up_is_billed_for_what_the_model_has_read() -> None:
    async def main() -> None:
        model = Held()
        async with gateway(model, limit=[{"unit": "usd", "max": 10.0, "per": "day"}]) as gw:
            model.go.set()
            await gw.run(replace(ASK, max_tokens=1))
            spent, refused = 1, False
            for _ in range(6):
                model.go.clear()
                model.began.clear()
                asked = asyncio.create_task(gw.run(replace(ASK, max_tokens=1)))
                began = asyncio.create_task(model.began.wait())
                await asyncio.wait([asked, began], return_when=asyncio.FIRST_COMPLETED)
                began.cancel()
                if asked.done():
                    assert isinstance(asked.exception(), BudgetExceeded)
                    refused = True
                    break
                asked.cancel()
                await asyncio.wait([asked])
                spent += 1
            assert refused and spent <= 4

    asyncio.run(main())


class SlowState(MemoryState):
    """Takes a while to reserve, as a store on a disk does."""

    async def reserve(self, amounts: Mapping[Unit, float], limits: Sequence[Limit]) -> Lease | Refusal:
        await asyncio.sleep(0.02)
        return await super().reserve(amounts, limits)


def test_while_a_reservation_is_made_others_see_the_load_and_its_time_is_not_the_models() -> None:
    async def main() -> None:
        one, two = (Echo(name, concurrency=1, first_token_s=0.1) for name in ("one", "two"))
        plugins = Plugins(states=[("mine", SlowState(SystemClock()))])
        async with gateway(one, two, plugins=plugins, limit=[{"unit": "requests", "max": 1000, "per": "day"}], seed=1) as gw:
            replies = await asyncio.gather(*[gw.run(Chat.ask("hi")) for _ in range(40)])
            answered = [reply.model for reply in replies]
            assert 8 <= answered.count("one") <= 32
            assert all(reply.trace is not None and reply.trace.attempts[0].seconds < 0.02 for reply in replies)
            assert all(status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())


def test_cancelling_hedged_streams_at_any_moment_leaves_no_task_behind() -> None:
    async def main() -> None:
        slow = [Echo(name, provider=name, place="hosted", first_token_s=0.001, per_token_s=1e-6) for name in ("a", "b")]
        async with gateway(*slow, hedge={"share": 1.0, "percentile": 0.01}, retry={"share": 1.0}) as gw:
            for name in ("a", "b"):
                await gw.run(Chat.ask("hi"), Need(model=name))

            async def read() -> None:
                async with gw.stream(Chat.ask("one two three four five six")) as stream:
                    await stream.result()

            for ticks in range(60):
                task = asyncio.create_task(read())
                for _ in range(ticks % 20):
                    await asyncio.sleep(0.0005 if ticks % 3 == 0 else 0)
                task.cancel()
                await asyncio.wait([task])
            await asyncio.sleep(0.05)
            assert all(status.in_flight == 0 for status in await gw.models())
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(main())


def test_a_model_that_one_may_not_use_says_nothing_of_the_others_of_its_key() -> None:
    async def main() -> None:
        forbidden = Scripted("forbidden", Denied("not this one", status=403), otherwise="x", key="env:ONE", quality=0.9)
        async with gateway(forbidden, Scripted("same", otherwise="yes", key="env:ONE")) as gw:
            reply = await gw.run(ASK)
            assert reply.model == "same" and reply.trace is not None
            assert [one.error for one in reply.trace.attempts] == ["Denied", ""]

    asyncio.run(main())


class Exits(ModelService):
    """Raises what would end the process."""

    card = ModelCard(name="exits", tasks=frozenset({Chat}), quality=0.9, first_token_s=0.01)

    async def run(self, request: Request[Any], /) -> Response:
        raise SystemExit(3)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_service_that_exits_is_a_crash_of_its_own_with_hedging_too(streamed: bool) -> None:
    async def main() -> None:
        async with gateway(Exits(), hedge={"share": 1.0}) as gw:
            gw_more = gateway(Exits(), Echo("other"), hedge={"share": 1.0})
            with pytest.raises(ServiceCrashed):
                await gw.run(ASK)
            async with gw_more:
                if streamed:
                    async with gw_more.stream(Chat.ask("hi")) as stream:
                        assert (await stream.result()).model == "other"
                else:
                    assert (await gw_more.run(Chat.ask("hi"))).model == "other"

    asyncio.run(main())


@pytest.mark.parametrize("wait", ["5", 10**400, float("nan"), float("inf"), -3.0])
def test_a_senseless_retry_after_is_none(wait: Any) -> None:
    async def main() -> None:
        async with gateway(
            Scripted("mad", RateLimited("wait", retry_after_s=wait), otherwise="x", quality=0.9), Echo("spare")
        ) as gw:
            assert (await gw.run(Chat.ask("hi"))).model == "spare"

    asyncio.run(main())


class Boasts(Echo):
    """Reports a quota that cannot be."""

    async def run(self, request: Request[Any], /) -> Response:
        return replace(
            await super().run(request), quota=Quota(tokens=10**400, requests=-(10**400), tokens_reset_s=float("nan"))
        )


def test_a_senseless_quota_does_not_cost_a_paid_answer() -> None:
    async def main() -> None:
        async with gateway(Boasts("boasts")) as gw:
            assert (await gw.run(Chat.ask("hi"))).text == "hi"

    asyncio.run(main())


def test_more_cached_tokens_than_tokens_are_no_gain() -> None:
    assert Price(input=10.0, cached_input=1.0).usd(100, 0, cached_tokens=10**9) >= 0


def test_nobody_serves_less_than_one_request() -> None:
    with pytest.raises(ConfigError, match="concurrency must be at least 1"):
        ModelCard(name="m", tasks=frozenset({Chat}), concurrency=0)


def test_reading_a_stream_that_another_task_closes_is_one_clear_error() -> None:
    async def main() -> None:
        model = Held()
        async with gateway(model) as gw:
            stream = gw.stream(ASK)
            reader = asyncio.create_task(stream.result())
            await model.began.wait()
            with pytest.raises(RuntimeError, match="another task is reading this stream"):
                await stream.aclose()
            reader.cancel()
            await asyncio.wait([reader])
            assert all(status.in_flight == 0 for status in await gw.models())

    asyncio.run(main())


def test_a_limit_for_some_says_of_which_kind_they_are() -> None:
    with pytest.raises(ConfigError, match="only needs by"):
        load_config({"limit": [{"unit": "usd", "max": 1.0, "per": "day", "only": ["acme"]}]})
    with pytest.raises(ConfigError, match="attempts must be at least 1"):
        load_config({"retry": {"attempts": 0}})


@pytest.mark.parametrize("score", [Score("much"), Score(0.1, input_usd="a"), Score(0.1, busy_usd=None)])  # type: ignore[arg-type]
def test_a_score_that_is_no_number_refuses_the_model_and_breaks_nothing(score: Score) -> None:
    class Odd(Policy):
        name = "odd"

        def score(self, ask: Ask, card: ModelCard, live: Live) -> Score:
            return score

    async def main() -> None:
        async with AsyncGateway([Echo("m")], policies=[Odd()]) as gw:
            with pytest.raises(NoEligibleModel, match="the policy raised TypeError"):
                await gw.run(Chat.ask("hi"))
            assert "the policy raised TypeError" in str(await gw.explain(Chat.ask("hi")))

    asyncio.run(main())


def test_a_hosted_model_that_was_never_asked_is_a_hedge_all_the_same() -> None:
    async def main() -> None:
        slow = Held(quality=0.9, provider="one", first_token_s=0.01, per_token_s=1e-6, price=None)
        spare = Echo("spare", place="hosted", provider="two")
        async with gateway(slow, spare, hedge={"share": 1.0}) as gw:
            reply = await gw.run(Chat.ask("hi"))
            assert reply.model == "spare" and reply.trace is not None
            assert [one.error for one in reply.trace.attempts] == ["Hedged", ""]

    asyncio.run(main())
