"""Several keys of one model: used in turn, left alone while they have to rest, and shared between rows."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from gateway_remote.hooks import gateway_models
from gateway_remote.key_ring import DENIED_S, WAIT_S
from gateway_remote.service import RemoteModel
from remote_case import FEATURES, HELLO, row, streamed, with_model

from gateway import (
    AsyncGateway,
    Denied,
    MissingSecret,
    Need,
    Quota,
    RateLimited,
    ServiceError,
)
from gateway.config import load_config
from gateway.testing import Echo, FakeClock, Fault, LoopbackServer, Reply, resources

ONE, TWO, THREE = REFS = ("env:KEY_ONE", "env:KEY_TWO", "env:KEY_THREE")
VALUES = {ONE: "sk-one", TWO: "sk-two", THREE: "sk-three"}
DENIED = Fault(status=401)
OUT = Fault(status=429, body={"error": {"code": "insufficient_quota"}})


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for ref, value in VALUES.items():
        monkeypatch.setenv(ref.removeprefix("env:"), value)


def with_key(ref: str) -> Callable[[Any], bool]:
    return lambda request: request.headers.get("authorization") == f"Bearer {VALUES[ref]}"


def used(server: LoopbackServer) -> list[str]:
    """The key of each request so far, by its reference."""
    named = {f"Bearer {value}": ref for ref, value in VALUES.items()}
    return [named.get(request.headers.get("authorization", ""), "") for request in server.requests]


@contextlib.asynccontextmanager
async def gateway(
    *rows: dict[str, Any], clock: FakeClock | None = None, others: tuple[Echo, ...] = (), **config: Any
) -> AsyncIterator[tuple[AsyncGateway, FakeClock]]:
    clock = clock or FakeClock()
    models = [*gateway_models({"models": list(rows)}), *others]
    async with AsyncGateway(models, clock=clock, config=load_config(config)) as gw:
        yield gw, clock


async def ask(gw: AsyncGateway, stream: bool, need: Need | None = None) -> Any:
    if not stream:
        return await gw.run(HELLO, need)
    async with gw.stream(HELLO, need) as answer:
        return await answer.result()


def test_keys_are_used_in_turn(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        for at in range(6):
            await (streamed(model) if at % 2 else model.run(HELLO))
        assert used(server) == [*REFS, *REFS]

    with_model(server, test, api_key=list(REFS))


def test_a_single_key_may_stand_alone_or_in_a_list(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        assert model.card.key == ONE
        await model.run(HELLO)
        assert used(server) == [ONE]

    with_model(server, test, api_key=ONE)
    server.clear()
    with_model(server, test, api_key=[ONE])


def test_a_key_goes_into_the_header_that_the_row_names(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        await model.run(HELLO)
        assert server.requests[-1].headers["x-key"] == VALUES[ONE]
        assert "authorization" not in server.requests[-1].headers

    with_model(server, test, api_key=ONE, key_header="X-Key")


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize(
    ("fault", "kind", "rest_s"),
    [
        (Fault(status=429), "RateLimited", WAIT_S),
        (Fault(status=429, retry_after=33), "RateLimited", 33.0),
        (DENIED, "Denied", DENIED_S),
        (OUT, "OutOfQuota", DENIED_S),
        (Fault(status=402), "OutOfQuota", DENIED_S),
    ],
    ids=["429", "retry-after", "401", "quota", "402"],
)
def test_a_key_that_is_refused_rests_while_another_answers(
    server: LoopbackServer, fault: Fault, kind: str, rest_s: float, stream: bool
) -> None:
    async def whole() -> None:
        server.always(fault, when=with_key(ONE))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, clock):
            reply = await ask(gw, stream)
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("loopback", kind), ("loopback", "")]
            assert clock.monotonic() == 0.0  # at once
            [status] = await gw.models()
            assert (status.success, status.shut) == (1.0, "")
            for _ in range(3):
                assert len((await ask(gw, stream)).trace.attempts) == 1
            assert used(server) == [ONE, TWO, TWO, TWO, TWO]
            clock.advance(rest_s - 0.01)
            await ask(gw, stream)
            assert used(server)[5:] == [TWO]
            server.clear()  # it has been mended
            clock.advance(0.02)
            assert len((await ask(gw, stream)).trace.attempts) == 1
            assert used(server) == [ONE]

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize(
    "fault", [Fault(status=403), Fault(status=500), Fault(status=503), Fault(status=400), Fault(reset=True)]
)
def test_what_is_no_fault_of_the_key_s_makes_none_rest(server: LoopbackServer, fault: Fault, stream: bool) -> None:
    async def test(model: RemoteModel) -> None:
        server.always(fault, when=with_key(ONE))
        for at in range(4):
            if at % 2:
                await (streamed(model) if stream else model.run(HELLO))
                continue
            with pytest.raises(ServiceError) as caught:
                await (streamed(model) if stream else model.run(HELLO))
            assert not caught.value.spare_key
        assert used(server) == [ONE, TWO] * 2

    with_model(server, test, api_key=[ONE, TWO])


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_when_every_key_rests_nothing_is_sent_and_the_wait_is_told(server: LoopbackServer, stream: bool) -> None:
    async def whole() -> None:
        server.always(Fault(status=429, retry_after=40), when=with_key(ONE))
        server.always(Fault(status=429, retry_after=20), when=with_key(TWO))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, clock):
            with pytest.raises(RateLimited) as caught:
                await ask(gw, stream)
            assert (caught.value.retry_after_s, caught.value.spare_key) == (20.0, False)
            assert len(caught.value.attempts) == len(server.requests) == 2
            for _ in range(3):
                with pytest.raises(RateLimited) as caught:
                    await ask(gw, stream)
                assert caught.value.retry_after_s == 20.0
            assert len(server.requests) == 2
            clock.advance(20.0)
            server.clear()
            await ask(gw, stream)
            assert used(server) == [TWO]

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_the_gateway_waits_for_a_key_that_wakes_soon(server: LoopbackServer, stream: bool) -> None:
    async def whole() -> None:
        server.script(Fault(status=429, retry_after=3), when=with_key(ONE))
        server.script(DENIED, when=with_key(TWO))  # the last one tells nothing of when the first wakes
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, clock):
            reply = await ask(gw, stream)
            assert [one.error for one in reply.trace.attempts] == ["RateLimited", "Denied", ""]
            assert used(server) == [ONE, TWO, ONE] and 3.0 <= clock.monotonic() < 4.0

    asyncio.run(whole())


def test_all_keys_wrong_is_told_as_such_and_falls_back(server: LoopbackServer) -> None:
    async def whole() -> None:
        server.always(DENIED)
        other = Echo("other", place="hosted", quality=0.1)
        async with gateway(row(server.url, api_key=[ONE, TWO], quality=0.9), others=(other,)) as (gw, clock):
            reply = await gw.run(HELLO)
            assert [(one.model, one.error) for one in reply.trace.attempts] == [
                ("loopback", "Denied"), ("loopback", "Denied"), ("other", "")
            ]  # fmt: skip
            with pytest.raises(ServiceError) as caught:
                await gw.run(HELLO, Need(model=("loopback",)))
            assert len(server.requests) == 2 and "Denied" in str(caught.value)
            clock.advance(DENIED_S)
            server.clear()
            assert (await gw.run(HELLO, Need(model=("loopback",)))).model == "loopback"

    asyncio.run(whole())


def test_a_service_alone_says_which_error_all_of_its_keys_met(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.always(DENIED)
        for spare in (True, False):
            with pytest.raises(Denied) as caught:
                await model.run(HELLO)
            assert caught.value.spare_key is spare
        with pytest.raises(Denied, match=r"each of its 2 keys has to rest, the first for \d+\.\d s more") as caught:
            await model.run(HELLO)
        assert caught.value.status == 401 and caught.value.model == "loopback" and 59 < (caught.value.retry_after_s or 0) < 60
        assert len(server.requests) == 2

    with_model(server, test, api_key=[ONE, TWO])


def test_rows_that_use_the_same_key_share_what_is_known_of_it(server: LoopbackServer) -> None:
    async def whole() -> None:
        server.always(Fault(status=429, retry_after=30), when=with_key(ONE))
        rows = [row(server.url, api_key=[ONE, TWO]), {**row(server.url, api_key=[ONE, THREE]), "name": "second"}]
        async with gateway(*rows) as (gw, _):
            await gw.run(HELLO, Need(model=("loopback",)))
            await gw.run(HELLO, Need(model=("second",)))
            assert used(server) == [ONE, TWO, THREE]
        async with gateway(*rows) as (gw, _):  # another gateway has learnt nothing of it
            await gw.run(HELLO, Need(model=("second",)))
            assert used(server)[3:] == [ONE, THREE]
        server.clear()
        server.always(Fault(status=429, retry_after=30), when=with_key(ONE))
        async with gateway({**rows[0], "api_key": ONE}, rows[1]) as (gw, _):
            with pytest.raises(RateLimited):
                await gw.run(HELLO, Need(model=("loopback",)))
            await gw.run(HELLO, Need(model=("second",)))
            assert used(server) == [ONE, THREE]

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_used_up_quota_rests_the_key_and_not_the_model(server: LoopbackServer, stream: bool) -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}

    async def whole() -> None:
        server.always(Reply(text="Hi", headers=spent), when=with_key(ONE))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, clock):
            for _ in range(3):
                assert (await ask(gw, stream)).text in ("Hi", "You said: Hello there, everybody")
            assert used(server) == [ONE, TWO, TWO] and not (await gw.models())[0].shut
            clock.advance(30)
            await ask(gw, stream)
            assert used(server)[3:] == [ONE]
            server.always(Reply(text="Hi", headers=spent), when=with_key(TWO))
            await ask(gw, stream)
            [status] = await gw.models()  # all rest: that is the model's, and nobody runs into it
            assert status.shut and status.success == 1.0
            with pytest.raises(RateLimited) as caught:
                await ask(gw, stream)
            assert caught.value.retry_after_s == 30.0 and not caught.value.attempts and len(server.requests) == 5

    asyncio.run(whole())


def test_the_quota_of_a_single_key_is_the_model_s(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(Reply(text="Hi", headers={"x-ratelimit-remaining-requests": "7"}))
        reply: Any = await model.run(HELLO)
        assert reply.quota == Quota(requests=7)

    with_model(server, test, api_key=ONE)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_key_s_trouble_that_is_told_with_status_200_counts_too(server: LoopbackServer, stream: bool) -> None:
    error = {"error": {"code": "rate_limit_exceeded", "message": "slow down", "retry_after": 50}}

    async def whole() -> None:
        kind = Fault(status=200, body=error, headers={"content-type": "application/json"})
        server.always(Reply(chunks=[{"choices": [], **error}]) if stream else kind, when=with_key(ONE))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, clock):
            reply = await ask(gw, stream)
            assert [one.error for one in reply.trace.attempts] == ["RateLimited", ""]
            clock.advance(49.9)
            await ask(gw, stream)
            assert used(server) == [ONE, TWO, TWO]
            clock.advance(0.2)
            await ask(gw, stream)
            assert used(server)[3:] == [ONE, TWO]

    asyncio.run(whole())


@pytest.mark.parametrize("wrong", ["", None])
def test_a_key_that_is_missing_among_several_is_passed_over(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, wrong: str | None
) -> None:
    for name in ("KEY_ONE", "KEY_THREE"):
        monkeypatch.setenv(name, "") if wrong == "" else monkeypatch.delenv(name)

    async def test(model: RemoteModel) -> None:
        for _ in range(3):
            await model.run(HELLO)
        assert used(server) == [TWO] * 3

    with_model(server, test, api_key=list(REFS))


def test_a_check_before_anything_is_started_uses_a_key_that_is_there(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_ONE")

    async def whole() -> None:
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, _):
            found = (await gw.check())["loopback"]
            assert isinstance(found, str) and found.endswith("; env:KEY_ONE is not there")
        assert used(server) == [TWO]
        async with gateway(row(server.url, api_key=TWO)) as (gw, _):
            assert "not there" not in str((await gw.check())["loopback"])

    asyncio.run(whole())


def test_the_trouble_of_a_key_is_seen_by_a_check_too(server: LoopbackServer) -> None:
    async def whole() -> None:
        server.always(DENIED, when=with_key(ONE))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, _):
            assert isinstance((await gw.check())["loopback"], Denied)
            await gw.run(HELLO)
            assert used(server) == [ONE, TWO]

    asyncio.run(whole())


def test_when_every_key_is_missing_the_model_is_refused_with_the_name_of_one(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEY_ONE", "KEY_TWO"):
        monkeypatch.delenv(name)

    async def whole() -> None:
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, _):
            [status] = await gw.models()
            assert isinstance(status.error, MissingSecret) and status.error.ref in (ONE, TWO)
            assert not server.requests

    asyncio.run(whole())


def test_two_hundred_calls_at_once_share_three_keys_evenly(server: LoopbackServer) -> None:
    async def whole() -> None:
        async with gateway(row(server.url, api_key=list(REFS))) as (gw, _):  # at one and the same instant, as it thinks
            replies = await asyncio.gather(*(ask(gw, bool(at % 2)) for at in range(200)))
            assert all(len(reply.trace.attempts) == 1 for reply in replies)
        assert sorted(Counter(used(server)).values()) == [66, 67, 67]

    asyncio.run(whole())


def test_of_two_hundred_calls_at_once_none_is_lost_to_a_wrong_key(server: LoopbackServer) -> None:
    async def whole() -> None:
        server.always(DENIED, when=with_key(TWO))
        async with gateway(row(server.url, api_key=list(REFS)), retry={"share": 1.0}) as (gw, _):
            replies = await asyncio.gather(*(ask(gw, bool(at % 2)) for at in range(200)))
            failed = sum(len(reply.trace.attempts) - 1 for reply in replies)
            counts = Counter(used(server))
            assert counts[TWO] == failed <= 67 and counts[ONE] + counts[THREE] == 200
            [status] = await gw.models()
            assert (status.success, status.shut) == (1.0, "")
            for _ in range(10):
                await gw.run(HELLO)
            assert Counter(used(server))[TWO] == failed  # it rests

    asyncio.run(whole())


def test_a_call_that_waits_does_not_keep_its_key_from_others(server: LoopbackServer) -> None:
    async def whole() -> None:
        server.always(Fault(stall_after=0), when=with_key(ONE))
        async with gateway(row(server.url, api_key=[ONE, TWO])) as (gw, _):
            stuck = asyncio.create_task(gw.run(HELLO))
            await server.wait_for(lambda s: s.in_flight == 1)
            assert (await gw.run(HELLO)).text
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
        assert used(server) == [ONE, TWO]

    asyncio.run(whole())


def test_the_models_that_a_key_may_list_are_asked_for_with_it(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        assert [card.name for card in await model.offered(resources())] == ["loopback"]
        assert used(server) == [ONE]

    with_model(server, test, api_key=[ONE, TWO], features=FEATURES)
