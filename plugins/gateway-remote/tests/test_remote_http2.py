"""HTTP/2: many calls over one connection, of which each can be ended without the others."""

import asyncio
import contextlib
import logging
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from gateway_remote.service import RemoteModel
from h2_case import Answer, Http2Server, Stream, echo, http2_server
from remote_case import HELLO, started, streamed

from gateway import Chat, ChatResponse, Overloaded, Unreachable
from gateway.testing import LoopbackServer, resources

CANCEL = 8
SECRET = "sk-hunter2"
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def play(authority: trustme.CA, tmp_path: Path) -> Callable[..., None]:
    """Run a test with a server and a started model; afterwards no connection is open and no task is left."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    def run(
        test: Callable[[RemoteModel, Http2Server], Awaitable[None]], answer: Answer = echo, own: bool = False, **facts: Any
    ) -> None:
        async def whole() -> None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("localhost").configure_cert(tls)
            async with http2_server(tls, answer) as server, contextlib.AsyncExitStack() as stack:
                if own:
                    trusted = ssl.create_default_context(cafile=str(ca_file))
                    facts["transport"] = await stack.enter_async_context(httpx.AsyncHTTPTransport(verify=trusted, http2=True))
                async with started(server.url, http2=True, ca_file=str(ca_file), **facts) as model:
                    await test(model, server)
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=5)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(whole())

    return run


async def said(model: RemoteModel, text: str, stream: bool) -> str:
    reply = (await streamed(model, Chat.ask(text)))[1] if stream else await model.run(Chat.ask(text))
    assert isinstance(reply, ChatResponse)
    return reply.text


def stalled(count: int) -> Callable[[Http2Server], bool]:
    return lambda server: sum(request.text.startswith("stall") for request in server.requests) == count


async def given_up(call: "asyncio.Task[Any]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("own", [False, True], ids=["ours", "one's own"])
def test_many_calls_at_once_share_one_connection(play: Callable[..., None], own: bool) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        replies = await asyncio.gather(*(said(model, str(at), bool(at % 2)) for at in range(90)))
        assert replies == [f"You said: {at}" for at in range(90)]
        assert server.made == 1 and len(server.requests) == 90 and not server.resets
        assert await model.check(resources())
        deltas, _ = await streamed(model)
        assert len(deltas) == 5 and server.made == 1

    play(test, own=own)


@STREAM
def test_the_key_and_the_body_arrive(play: Callable[..., None], stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2_KEY", SECRET)

    async def test(model: RemoteModel, server: Http2Server) -> None:
        text = "long " * 100_000  # many frames, and more than one window
        assert await said(model, text, stream) == f"You said: {text}"
        [request] = server.requests
        assert request.headers["authorization"] == f"Bearer {SECRET}" and request.headers[":method"] == "POST"

    play(test, api_key="env:H2_KEY")


@pytest.mark.parametrize("own", [False, True], ids=["ours", "one's own"])
@STREAM
@pytest.mark.parametrize("first", [True, False], ids=["the first", "a later one"])
def test_cancelling_one_call_tells_the_server_and_leaves_the_others_alone(
    play: Callable[..., None], stream: bool, first: bool, own: bool
) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        if not first:
            await model.run(HELLO)
        one = asyncio.create_task(said(model, "stall", stream))
        await server.wait_for(stalled(1))
        others = [asyncio.create_task(said(model, "stall", bool(at % 2))) for at in range(5)]
        await server.wait_for(stalled(6))
        await given_up(one)
        await server.wait_for(lambda s: len(s.resets) == 1)
        assert server.resets[0].reset == CANCEL
        for request in server.requests:  # the others go on
            request.gone.set()
        assert await asyncio.gather(*others) == ["You said: stall"] * 5
        assert await said(model, "again", stream) == "You said: again"
        assert server.made == 1 and len(server.resets) == 1

    play(test, own=own)


@pytest.mark.parametrize("way", ["close", "cancel"])
def test_leaving_a_stream_tells_the_server_and_leaves_the_others_alone(play: Callable[..., None], way: str) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        other = asyncio.create_task(said(model, "stall later", True))
        await server.wait_for(stalled(1))
        began = asyncio.Event()

        async def read() -> None:
            stream = model.stream(Chat.ask("stall later"))
            async for _ in stream:
                began.set()
                if way == "close":
                    break
            await stream.aclose()  # type: ignore[attr-defined]

        reading = asyncio.create_task(read())
        await began.wait()
        await (given_up(reading) if way == "cancel" else reading)
        await server.wait_for(lambda s: len(s.resets) == 1)
        assert server.resets[0] is server.requests[1] and server.resets[0].reset == CANCEL
        server.requests[0].gone.set()
        assert await other == "You said: stall later"
        assert server.made == 1

    play(test)


def test_a_call_whose_time_is_up_is_ended_too(play: Callable[..., None]) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        from gateway import AttemptTimeout

        for stream in (False, True):
            with pytest.raises(AttemptTimeout):
                await said(model, "stall", stream)
        await server.wait_for(lambda s: len(s.resets) == 2)
        assert await said(model, "Hi", False) and server.made == 1

    play(test, limits={"reply_s": 0.1, "first_token_s": 0.1})


def test_calls_that_are_given_up_cost_the_connection_nothing(play: Callable[..., None]) -> None:
    """More of them than a connection may have streams, and with more data than it may have under way: 44 MB."""

    async def flood(stream: Stream) -> None:
        if stream.text != "flood":
            return await echo(stream)
        await stream.begin(content_type="text/event-stream")
        choice = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
        await stream.send(choice + b": " + b"y" * 200_000 + b"\n")
        await stream.gone.wait()

    async def test(model: RemoteModel, server: Http2Server) -> None:
        async def one() -> None:
            stream = model.stream(Chat.ask("flood"))
            async for _ in stream:
                break
            await stream.aclose()  # type: ignore[attr-defined]

        for at in range(220):
            await one()
            if at % 20 == 0:
                assert await said(model, "Hi", bool(at % 40)) == "You said: Hi"
        await server.wait_for(lambda s: len(s.resets) == 220)
        assert server.made == 1

    play(test, flood)


def test_what_the_server_resets_is_a_connection_that_broke(play: Callable[..., None]) -> None:
    async def resets(stream: Stream) -> None:
        if not stream.headers[":path"].endswith("/chat/completions") or stream.text == "Hi":
            return await echo(stream)
        if stream.text == "later":
            await stream.begin(content_type="text/event-stream")
            await stream.send(b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n')
        stream.connection.h2.reset_stream(stream.id, 2)
        stream.connection.flush()

    async def test(model: RemoteModel, server: Http2Server) -> None:
        for text, stream in (("now", False), ("now", True), ("later", True)):
            with pytest.raises(Unreachable) as caught:
                await said(model, text, stream)
            assert (caught.value.phase, caught.value.retryable) == ("read", True)
            assert caught.value.partial == ("x" if text == "later" else "")
        assert await said(model, "Hi", True) and server.made == 1

    play(test, resets)


def test_a_connection_that_the_server_closes_is_made_anew(play: Callable[..., None]) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        await model.run(HELLO)
        [connection] = server.open
        connection.h2.close_connection()  # GOAWAY
        connection.flush()
        connection.transport.abort()
        await server.wait_for(lambda s: not s.open)
        # Whether it is seen in time is chance: what is sent into it breaks, and may be asked again.
        try:
            await model.run(HELLO)
        except Unreachable as error:
            assert error.retryable
            await model.run(HELLO)
        assert server.made == 2

    play(test)


def test_calls_under_way_end_when_the_server_goes_away(play: Callable[..., None]) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        calls = [asyncio.create_task(said(model, "stall later" if at % 2 else "stall", bool(at % 2))) for at in range(6)]
        await server.wait_for(stalled(6))
        [connection] = server.open
        connection.transport.abort()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, Unreachable) and outcome.phase == "read"
        assert await said(model, "Hi", False) == "You said: Hi"

    play(test)


def test_closing_the_model_ends_the_calls_under_way(play: Callable[..., None]) -> None:
    async def test(model: RemoteModel, server: Http2Server) -> None:
        calls = [asyncio.create_task(said(model, "stall later" if at % 2 else "stall", bool(at % 2))) for at in range(6)]
        await server.wait_for(stalled(6))
        await model.aclose()
        async with asyncio.timeout(5):
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, Unreachable)
        await server.wait_for(lambda s: not s.open)

    play(test)


def test_an_error_is_read_and_the_connection_kept(play: Callable[..., None]) -> None:
    async def busy(stream: Stream) -> None:
        await stream.begin(503, retry_after="3")
        await stream.send(b'{"error": {"message": "busy"}}', end=True)

    async def test(model: RemoteModel, server: Http2Server) -> None:
        for stream in (False, True):
            with pytest.raises(Overloaded) as caught:
                await said(model, "Hi", stream)
            assert caught.value.retry_after_s == 3
        assert server.made == 1 and not server.resets

    play(test, busy)


def test_without_tls_http_1_is_spoken(server: LoopbackServer) -> None:
    async def whole() -> None:
        async with started(server.url, http2=True) as model:
            await asyncio.gather(*(model.run(HELLO) for _ in range(3)))
        await server.wait_for(lambda s: s.connections == 0)

    asyncio.run(whole())


def test_no_log_shows_the_key(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("H2_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    for name in ("hpack", "hpack.hpack", "hpack.table", "h2", "httpcore", "httpx"):
        caplog.set_level(logging.DEBUG, logger=name)

    async def test(model: RemoteModel, server: Http2Server) -> None:
        await model.run(HELLO)
        await streamed(model)

    play(test, api_key="env:H2_KEY")
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    assert SECRET not in "\n".join(f"{record.name} {record.getMessage()} {record.args}" for record in caplog.records)


def test_without_the_package_h2_it_is_told_what_to_install() -> None:
    program = """
import asyncio, sys
sys.modules["h2"] = None  # as if it were not installed
from gateway import ConfigError
from gateway.testing import resources
from gateway_remote.service import RemoteModel
model = RemoteModel({"name": "m", "base_url": "https://api.example.com/v1", "http2": True})
try:
    asyncio.run(model.start(resources()))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "model 'm': http2 needs the package h2: pip install 'gateway-remote[http2]'"
