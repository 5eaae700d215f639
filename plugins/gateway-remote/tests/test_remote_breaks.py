"""Connections that break, at every moment; that are kept, and closed at once."""

import asyncio
import contextlib
import socket
from typing import Any

import httpx
import pytest
from odd_case import (
    ANSWER,
    CLIENTS,
    EVENTS,
    STREAM,
    Step,
    answering,
    error_of,
    hang_up,
    http,
    play,
    reset,
    said,
    then,
)
from remote_case import HELLO, started

from gateway import Denied, Unreachable
from gateway.testing import resources

EARLY = {"reset": reset, "closed": hang_up, "half a head": then(b"HTTP/1.1 200 OK\r\ncontent-", hang_up)}
LATE = {
    "head, then reset": then(http(b"", length=1000), reset),
    "half a body, then closed": then(http(ANSWER[:20], length=len(ANSWER)), hang_up),
    "half a body, then reset": then(http(ANSWER[:20], length=len(ANSWER)), reset),
    "half a chunk": then(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{", hang_up
    ),
    "no last chunk": then(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n", hang_up
    ),
    "a chunk of no size": http(b"", "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"") + b"hunter2\r\n",
}


@CLIENTS
@STREAM
@pytest.mark.parametrize("step", [*EARLY.values(), *LATE.values()], ids=[*EARLY, *LATE])
def test_a_connection_that_breaks_may_be_asked_again(client: str, stream: bool, step: Step) -> None:
    async def test() -> None:
        async with answering(client, http(), step, http()) as (model, site):
            assert await said(model, stream) == "Hi"
            error = await error_of(model, stream)
            assert isinstance(error, Unreachable) and (error.phase, error.retryable) == ("read", True)
            assert str(error).startswith("model 'loopback': the connection broke before the reply was whole (")
            assert await said(model, stream) == "Hi"
            assert len(site.heads) == 3 and site.made == 2  # nothing was sent twice

    play(test)


@CLIENTS
def test_a_stream_that_breaks_says_what_has_come(client: str) -> None:
    async def test() -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        first = EVENTS[: EVENTS.index(b"\n\n") + 2]
        chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(first), first)
        for end in (hang_up, reset):
            async with answering(client, then(chunked, end)) as (model, _):
                error = await error_of(model, stream=True)
                assert isinstance(error, Unreachable) and error.in_stream and error.partial == "Hi"
        async with answering(client, then(head + b"\r\n" + EVENTS, hang_up)) as (model, _):  # until the connection ends
            assert await said(model, stream=True) == "Hi"

    play(test)


@CLIENTS
def test_a_stream_that_is_left_leaves_nothing_of_it_to_the_next_call(client: str) -> None:
    first = EVENTS.index(b"\n\n") + 2

    async def test() -> None:
        left = asyncio.Event()

        async def in_two(writer: asyncio.StreamWriter) -> None:
            writer.write(http(EVENTS[:first], kind="text/event-stream", length=len(EVENTS)))
            await left.wait()
            writer.write(EVENTS[first:])
            await writer.drain()

        async with answering(client, in_two, http()) as (model, _):
            stream = model.stream(HELLO)
            async for _ in stream:
                left.set()
                await asyncio.sleep(0.02)  # the rest is there, and nobody has read it
                break
            await stream.aclose()  # type: ignore[attr-defined]
            assert await said(model) == "Hi" and await said(model, stream=True) == "Hi"

    play(test)


@CLIENTS
def test_a_connection_that_the_server_wants_closed_is_not_used_again(client: str) -> None:
    async def test() -> None:
        old = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER
        async with answering(client, http(ANSWER, "connection: close"), then(old, hang_up), http()) as (model, site):
            assert [await said(model) for _ in range(4)] == ["Hi"] * 4
            assert site.made == 3

    play(test)


@CLIENTS
def test_a_connection_is_kept_after_errors_and_streams_too(client: str) -> None:
    async def test() -> None:
        kept = http(b"{}", status="401 Unauthorized")
        async with answering(client, http(), kept, http(EVENTS, kind="text/event-stream"), http()) as (model, site):
            assert await said(model) == "Hi"
            assert isinstance(await error_of(model), Denied)
            assert await said(model, stream=True) == "Hi"
            assert await said(model) == "Hi"
            assert site.made == 1

    play(test)


@CLIENTS
@STREAM
@pytest.mark.parametrize(
    "begun",
    [
        b"", b"HTTP/1.1 200 OK\r\ncontent-", http(ANSWER[:9], length=99),
        http(EVENTS[:60], length=999, kind="text/event-stream"),
    ],
    ids=["nothing", "half a head", "half a body", "half a stream"],
)  # fmt: skip
def test_cancelling_at_any_moment_closes_the_connection_at_once(client: str, stream: bool, begun: bytes) -> None:
    async def test() -> None:
        reached = asyncio.Event()

        async def stall(writer: asyncio.StreamWriter) -> None:
            writer.write(begun)
            await writer.drain()
            reached.set()  # and then it waits for the next request, which never comes

        async with answering(client, http(), stall, http()) as (model, site):
            assert await said(model) == "Hi"
            call = asyncio.create_task(said(model, stream))
            await reached.wait()
            await asyncio.sleep(0.01)  # so that it has been read, where there is something to read
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait(site.tasks, timeout=5)
            assert not site.tasks
            assert await said(model, stream) == "Hi"

    play(test)


@CLIENTS
def test_cancelling_while_a_long_request_is_sent_closes_the_connection_at_once(client: str) -> None:
    from gateway import Chat

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with contextlib.AsyncExitStack() as stack:
                facts: dict[str, Any] = {"http2": True} if client == "httpx" else {}
                if client == "own":
                    facts["transport"] = await stack.enter_async_context(httpx.AsyncHTTPTransport())
                model = await stack.enter_async_context(started(f"http://127.0.0.1:{listening.getsockname()[1]}", **facts))
                call = asyncio.create_task(model.run(Chat.ask("x" * 30_000_000)))  # more than the buffers hold
                connection, _ = await asyncio.to_thread(listening.accept)
                with connection:
                    connection.settimeout(5)
                    assert await asyncio.to_thread(connection.recv, 1000)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    with contextlib.suppress(ConnectionResetError):
                        while await asyncio.to_thread(connection.recv, 1 << 20):
                            pass

    play(test)


@CLIENTS
@STREAM
def test_a_name_that_nobody_has_is_told_as_such(client: str, stream: bool) -> None:
    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            facts: dict[str, Any] = {"http2": True} if client == "httpx" else {}
            if client == "own":
                facts["transport"] = await stack.enter_async_context(httpx.AsyncHTTPTransport())
            model = await stack.enter_async_context(started("https://api.nobody.invalid/v1", **facts))
            error = await error_of(model, stream)
            assert isinstance(error, Unreachable) and (error.phase, error.retryable) == ("connect", True)
            assert str(error) == "model 'loopback': no connection to api.nobody.invalid:443 (no such host)"
            with pytest.raises(Unreachable, match="no such host"):
                await model.check(resources())

    play(test)
