"""A service with a spare key: asked again at once with that, and not to blame; and a request that is wrong by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import (
    AllModelsFailed,
    AsyncGateway,
    Chat,
    ChatResponse,
    Denied,
    InvalidRequest,
    Meta,
    ModelService,
    Overloaded,
    Price,
    RateLimited,
    Restart,
    ServiceError,
    UnknownModel,
)
from gateway.config import load_config
from gateway.testing import FakeClock, Recorder, Scripted, Step

ASK = Chat.ask("Hello")
HOSTED: dict[str, Any] = {"place": "hosted", "key": "env:BIG_KEY"}


def gateway(*models: ModelService, clock: FakeClock | None = None, recorder: Recorder | None = None, **config: Any) -> Any:
    observers = [recorder] if recorder else []
    return AsyncGateway(models, clock=clock or FakeClock(), observers=observers, config=load_config(config))


def limited(kind: type[ServiceError] = RateLimited, **facts: Any) -> ServiceError:
    return kind("one key has to rest", status=401 if kind is Denied else 429, spare_key=True, retryable=True, **facts)


async def asked(gw: AsyncGateway, *, stream: bool, meta: Meta | None = None) -> ChatResponse:
    if not stream:
        return await gw.run(ASK, meta=meta)
    async with gw.stream(ASK, meta=meta) as answer:
        return await answer.result()


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("kind", [RateLimited, Denied])
def test_a_model_with_a_spare_key_is_asked_again_at_once_and_not_blamed(kind: type[ServiceError], stream: bool) -> None:
    async def whole() -> None:
        clock, recorder = FakeClock(), Recorder()
        best = Scripted("best", limited(kind), "Hello", quality=0.9, **HOSTED)
        other = Scripted("other", quality=0.1, **HOSTED)
        async with gateway(best, other, clock=clock, recorder=recorder) as gw:
            reply = await asked(gw, stream=stream)
            assert (reply.text, reply.model, reply.trace.cost_usd) == ("Hello", "best", None)
            found = [(one.model, one.error) for one in reply.trace.attempts]
            assert found == [("best", kind.__name__), ("best", "")]
            assert "one key has to rest" in reply.trace.attempts[0].message
            assert clock.monotonic() == 0.0  # nobody waited
            statuses = {status.name: status for status in await gw.models()}
            assert all((one.success, one.shut) == (1.0, "") for one in statuses.values())
        assert [event.error for event in recorder.events if event.kind == "attempt"] == [kind.__name__, ""]

    asyncio.run(whole())


def test_a_spare_key_counts_as_one_of_the_attempts_that_a_model_has() -> None:
    async def whole() -> None:
        best = Scripted("best", quality=0.9, otherwise=limited(), **HOSTED)
        async with gateway(best, Scripted("other", "Hi", quality=0.1), retry={"attempts": 4}) as gw:
            reply = await gw.run(ASK)
            assert [one.model for one in reply.trace.attempts] == ["best"] * 4 + ["other"]
            assert len(best.asked) == 4
        alone = Scripted("alone", otherwise=limited(), **HOSTED)
        async with gateway(alone, retry={"attempts": 2}) as gw:
            with pytest.raises(RateLimited) as caught:
                await gw.run(ASK)
            assert len(caught.value.attempts) == len(alone.asked) == 2 and caught.value.spare_key
            assert (await gw.models())[0].success == 1.0

    asyncio.run(whole())


def test_spare_keys_are_asked_within_the_budget_of_retries() -> None:
    async def whole() -> None:
        best = Scripted("best", quality=0.9, otherwise=limited(), **HOSTED)
        other = Scripted("other", quality=0.1, otherwise="Hi")
        async with gateway(best, other, retry={"share": 0.25}) as gw:
            for _ in range(100):
                assert (await gw.run(ASK)).model == "other"
            assert len(best.asked) == 100 + 10 + 25  # each once; and what the budget began with, and has earned

    asyncio.run(whole())


def test_one_key_s_trouble_rules_out_nobody_who_has_the_same_keys() -> None:
    async def whole() -> None:
        best = Scripted("best", quality=0.9, otherwise=limited(Denied), **HOSTED)
        other = Scripted("other", "Hi", quality=0.1, **HOSTED)
        async with gateway(best, other) as gw:
            assert (await gw.run(ASK)).model == "other"
        best = Scripted("best", Denied("no", status=401), quality=0.9, **HOSTED)  # of all its keys: that does
        async with gateway(best, Scripted("other", "Hi", quality=0.1, **HOSTED)) as gw:
            with pytest.raises(Denied):
                await gw.run(ASK)

    asyncio.run(whole())


def test_a_probe_that_finds_one_key_resting_leaves_the_breaker_to_the_next() -> None:
    async def whole() -> None:
        clock = FakeClock()
        steps = [Overloaded("busy", retryable=False)] * 5
        model = Scripted("model", *steps, limited(), "Hello", **HOSTED)
        async with gateway(model, clock=clock) as gw:
            for _ in steps:
                with pytest.raises(Overloaded):
                    await gw.run(ASK)
            assert (await gw.models())[0].shut
            clock.advance(8.0)
            reply = await gw.run(ASK)
            assert [one.error for one in reply.trace.attempts] == ["RateLimited", ""]
            assert not (await gw.models())[0].shut

    asyncio.run(whole())


def test_in_mid_stream_a_spare_key_begins_again_only_where_the_caller_allows_it() -> None:
    async def whole() -> None:
        broken = Step(answer="One two three", error=limited(), after_deltas=1)
        async with gateway(Scripted("model", broken, **HOSTED)) as gw:
            with pytest.raises(RateLimited) as caught:
                await asked(gw, stream=True)
            assert caught.value.partial == "One" and caught.value.in_stream
        async with gateway(Scripted("model", broken, "One two", **HOSTED)) as gw:
            async with gw.stream(ASK, meta=Meta(restart=True)) as stream:
                items = [item async for item in stream]
            assert [isinstance(item, Restart) for item in items] == [False, True, False, False]
            assert stream.response.text == "One two" and (await gw.models())[0].success > 0.99

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_request_that_a_service_finds_wrong_by_itself_is_the_caller_s_to_mend(stream: bool) -> None:
    async def whole() -> None:
        recorder = Recorder()
        wrong = InvalidRequest("image: its url cannot be fetched", field="image.url")
        best = Scripted("best", wrong, wrong, "Hi", quality=0.9, price=Price(input=1e6), place="hosted")
        other = Scripted("other", quality=0.1, place="hosted")
        limit = [{"unit": "requests", "max": 1, "per": "day"}]
        async with gateway(best, other, recorder=recorder, limit=limit, policy={"worth": 1e9}) as gw:
            for _ in range(2):  # nothing was sent, so that nothing is counted
                with pytest.raises(InvalidRequest, match="cannot be fetched") as caught:
                    await asked(gw, stream=stream)
                assert caught.value.field == "image.url" and type(caught.value) is InvalidRequest
            assert all((one.success, one.shut, one.in_flight) == (1.0, "", 0) for one in await gw.models())
            assert [(event.error, event.usage.cost_usd) for event in recorder.events if event.kind == "request"] == [
                ("InvalidRequest", 0.0)
            ] * 2
            assert (await asked(gw, stream=stream)).model == "best"
        assert not other.asked

    asyncio.run(whole())


@pytest.mark.parametrize("error", [InvalidRequest("inner"), UnknownModel("inner", field="need.model")])
def test_what_is_wrong_with_a_request_of_the_service_s_own_is_its_own_failure(error: InvalidRequest) -> None:
    async def whole() -> None:
        best = Scripted("best", error, quality=0.9, place="hosted")
        async with gateway(best, Scripted("other", "Hi", quality=0.1)) as gw:
            reply = await gw.run(ASK)
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("best", "ServiceCrashed"), ("other", "")]

    asyncio.run(whole())


def test_what_a_service_finds_wrong_when_it_starts_is_no_fault_of_the_request() -> None:
    async def whole() -> None:
        best = Scripted("best", quality=0.9, fail_start=InvalidRequest("x", field="y"), place="hosted")
        async with gateway(best, Scripted("other", "Hi", quality=0.1)) as gw:
            assert (await gw.run(ASK)).model == "other"
        async with gateway(best, Scripted("other", otherwise=Overloaded("busy", retryable=False))) as gw:
            with pytest.raises(AllModelsFailed, match="ServiceCrashed"):
                await gw.run(ASK)

    asyncio.run(whole())
