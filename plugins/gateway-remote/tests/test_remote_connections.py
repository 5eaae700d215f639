"""Connections: cancelled, many at once, refused, and those of a transport of the user's own."""

import asyncio
import contextlib
import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from gateway_remote.service import RemoteModel
from remote_case import HELLO, started, streamed, with_model

from gateway import Chat, ChatResponse, Overloaded, ServiceError, Text, Unreachable
from gateway.testing import Fault, LoopbackServer, resources

PROMPT = "Quetzalcoatlus"


def sockets() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith("socket:")}


def test_a_server_that_is_not_there_is_unreachable() -> None:
    async def whole() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{closed.getsockname()[1]}"
            async with started(f"http://{where}/v1") as model:
                for call in (model.run(HELLO), streamed(model), model.check(resources())):
                    with pytest.raises(Unreachable) as caught:
                        await call
                    assert caught.value.phase == "connect" and caught.value.retryable
                    assert str(caught.value) == f"model 'loopback': no connection to {where} (refused)"

    asyncio.run(whole())


def test_a_server_that_speaks_no_tls_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def plain() -> None:
            with listening.accept()[0] as connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                with contextlib.suppress(ConnectionError):
                    while connection.recv(4096):
                        pass

        async def whole() -> None:
            where = f"127.0.0.1:{listening.getsockname()[1]}"
            async with started(f"https://{where}/v1") as model:
                answering = asyncio.create_task(asyncio.to_thread(plain))
                with pytest.raises(Unreachable) as caught:
                    await model.run(HELLO)
                assert str(caught.value) == f"model 'loopback': no connection to {where} (TLS failed)"
                await answering

        asyncio.run(whole())


def test_a_tls_handshake_that_stalls_is_a_connection_that_does_not_come_up() -> None:
    async def whole() -> None:
        with socket.socket() as mute:  # connections wait in its backlog: nobody answers
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            async with started(f"https://127.0.0.1:{mute.getsockname()[1]}", limits={"connect_s": 0.1}) as model:
                with pytest.raises(Unreachable, match=r"\(still connecting after 0\.1 s\)") as caught:
                    await streamed(model)
                assert caught.value.phase == "connect"

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("cause", "url", "words"),
    [
        (socket.gaierror(-2, PROMPT), "https://api.example.com/v1", "api.example.com:443 (no such host)"),
        (ConnectionRefusedError(111, PROMPT), "http://[::1]/v1", "[::1]:80 (refused)"),
        (ssl.SSLCertVerificationError(1, PROMPT), "https://x:8443", "x:8443 (TLS failed: its certificate is not trusted)"),
        (OSError(PROMPT), "http://x:1/v1", "x:1 (ConnectError)"),
    ],
)
def test_why_there_is_no_connection_is_told_in_fixed_words(cause: Exception, url: str, words: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        try:
            raise OSError("of httpcore") from cause
        except OSError:
            raise httpx.ConnectError(PROMPT)  # noqa: B904 - either way of chaining is followed

    async def whole() -> None:
        async with started(url, transport=httpx.MockTransport(answer)) as model:
            with pytest.raises(Unreachable) as caught:
                await model.run(HELLO)
            assert str(caught.value) == f"model 'loopback': no connection to {words}"
            assert caught.value.retryable is ("not trusted" not in words)

    asyncio.run(whole())


def test_what_an_earlier_call_met_is_not_taken_for_the_cause() -> None:
    kinds = iter([ConnectionRefusedError(), EOFError()])

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(PROMPT) from next(kinds)

    async def whole() -> None:
        async with started("http://x/v1", transport=httpx.MockTransport(answer)) as model:
            try:
                await model.run(HELLO)
            except Unreachable:
                with pytest.raises(Unreachable, match=r"\(ConnectError\)"):
                    await model.run(HELLO)

    asyncio.run(whole())


def test_a_proxy_of_the_environment_is_named_when_it_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    async def whole() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("http_proxy", f"http://user:{PROMPT}@127.0.0.1:{closed.getsockname()[1]}")
            monkeypatch.setenv("no_proxy", "")
            async with started("http://api.example.com/v1") as model:
                with pytest.raises(Unreachable) as caught:
                    await model.run(HELLO)
                assert "api.example.com:80, through the proxy that the environment names (refused)" in str(caught.value)
                assert PROMPT not in str(caught.value)

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
@pytest.mark.parametrize("fault", [Fault(delay_s=60), Fault(first_chunk_delay_s=60), Fault(stall_after=3)])
def test_cancelling_closes_the_connection_at_once(server: LoopbackServer, fault: Fault, stream: bool) -> None:
    if not stream and fault.stall_after:
        fault = Fault(stall_after=0)

    async def test(model: RemoteModel) -> None:
        server.script(fault)
        call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
        await server.wait_for(lambda s: s.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.wait_for(lambda s: s.connections == 0 and s.disconnects == 1)
        await model.run(HELLO)

    with_model(server, test)


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_cancelling_while_the_connection_comes_up_closes_its_socket(stream: bool) -> None:
    async def whole() -> None:
        with socket.socket() as full:  # its backlog is taken: nobody answers who would connect
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with contextlib.ExitStack() as waiting:
                for _ in range(3):
                    filler = waiting.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(full.getsockname())
                async with started(f"http://127.0.0.1:{full.getsockname()[1]}") as model:
                    before = sockets()
                    call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
                    while sockets() == before:
                        await asyncio.sleep(0)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    assert sockets() == before

    asyncio.run(whole())


@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_cancelling_a_tls_handshake_closes_its_socket(stream: bool) -> None:
    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            async with started(f"https://127.0.0.1:{mute.getsockname()[1]}") as model:
                call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
                connection, _ = await asyncio.to_thread(mute.accept)
                with connection:
                    connection.settimeout(5)
                    assert await asyncio.to_thread(connection.recv, 1)  # it has said hello
                    gc.disable()  # what is only collected some time is not closed
                    try:
                        call.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await call
                        while await asyncio.to_thread(connection.recv, 4096):
                            pass
                    finally:
                        gc.enable()

    asyncio.run(whole())


def test_a_call_after_one_that_failed_can_be_cancelled_as_well(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        async def twice() -> None:
            with pytest.raises(Overloaded):
                await model.run(HELLO)
            await streamed(model)

        server.script(Fault(status=503), Fault(stall_after=3))
        call = asyncio.create_task(twice())
        await server.wait_for(lambda s: len(s.requests) == 2 and s.in_flight == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.wait_for(lambda s: s.connections == 0 and s.disconnects == 1)

    with_model(server, test)


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(*[Fault(hang_up=True)] * 4)
        for at in range(4):
            await (streamed(model) if at % 2 else model.run(HELLO))
            await server.wait_for(lambda s: s.connections == 0)
        assert len(server.requests) == 4  # each was sent once

    with_model(server, test)


def test_nothing_is_sent_a_second_time(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        for fault in (Fault(reset=True), Fault(close=True), Fault(status=503, retry_after=0), Fault(empty=True)):
            await model.run(HELLO)  # over a connection that is kept alive, too
            server.clear()
            server.script(fault)
            with pytest.raises(ServiceError) as caught:
                await model.run(HELLO)
            assert caught.value.retryable and len(server.requests) == 1

    with_model(server, test)


def test_leaving_a_stream_closes_the_connection_at_once(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(Fault(stall_after=3))
        stream = model.stream(HELLO)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        await server.wait_for(lambda s: s.connections == 0 and s.disconnects == 1)

    with_model(server, test, max_connections=1)


def test_a_call_that_waits_for_a_connection_can_be_cancelled(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(Fault(delay_s=60))
        first = asyncio.create_task(model.run(HELLO))
        await server.wait_for(lambda s: s.in_flight == 1)
        second = asyncio.create_task(model.run(HELLO))
        await asyncio.sleep(0)
        for call in (second, first):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await model.run(HELLO)
        assert len(server.requests) == 2

    with_model(server, test, max_connections=1)


@pytest.mark.parametrize("most", [1000, 50])
def test_a_thousand_calls_at_once_are_all_answered(server: LoopbackServer, most: int) -> None:
    async def test(model: RemoteModel) -> None:
        asks = [Chat.ask(f"number {at}") for at in range(1000)]
        replies = await asyncio.gather(*(streamed(model, ask) if at % 2 else model.run(ask) for at, ask in enumerate(asks)))
        texts = [reply[1] if isinstance(reply, tuple) else reply for reply in replies]
        assert [text.text for text in texts] == [f"You said: number {at}" for at in range(1000)]  # type: ignore[union-attr]

    with_model(server, test, max_connections=most)


def test_waiting_for_room_is_not_counted_as_the_model_s_silence(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.always(Fault(delay_s=0.06))
        await asyncio.gather(*(model.run(HELLO) for _ in range(20)))

    with_model(server, test, max_connections=1, limits={"reply_s": 1})


def test_closing_the_model_ends_the_calls_under_way(server: LoopbackServer) -> None:
    async def test(model: RemoteModel) -> None:
        server.script(*[Fault(delay_s=60)] * 2)
        server.always(Fault(stall_after=3))
        waiting = [asyncio.create_task(model.run(HELLO)) for _ in range(2)]
        await server.wait_for(lambda s: s.in_flight == 2)
        calls = [*waiting, *(asyncio.create_task(streamed(model)) for _ in range(3))]
        await server.wait_for(lambda s: s.in_flight == 5)
        await model.aclose()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, Unreachable)

    with_model(server, test)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.closed = pieces, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def aclose(self) -> None:
        self.closed = True


def test_a_transport_of_one_s_own_is_used_and_left_open() -> None:
    events = [{"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}]
    body = Pieces(*(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))

    def answer(request: httpx.Request) -> httpx.Response:
        if b'"stream"' in request.content:
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
        message = {"content": f"You asked at {request.url.path}"}
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "stop"}]})

    async def whole() -> None:
        async with started("http://nowhere.example/v1", transport=httpx.MockTransport(answer)) as model:
            reply = await model.run(HELLO)
            assert isinstance(reply, ChatResponse) and reply.text == "You asked at /v1/chat/completions"
            _, reply = await streamed(model)
            assert isinstance(reply, ChatResponse) and reply.parts == (Text("Hi"),) and body.closed

    asyncio.run(whole())


def test_whatever_a_transport_raises_is_told_as_an_error_without_its_words() -> None:
    kinds = {
        httpx.ConnectTimeout: "connect",
        httpx.WriteError: "write",
        httpx.ReadError: "read",
        httpx.RemoteProtocolError: "read",
    }

    async def whole() -> None:
        for kind, phase in kinds.items():

            def answer(request: httpx.Request, kind: type[httpx.TransportError] = kind) -> httpx.Response:
                raise kind(f"secret {PROMPT}")

            async with started("http://nowhere.example/v1", transport=httpx.MockTransport(answer)) as model:
                with pytest.raises(Unreachable) as caught:
                    await model.run(HELLO)
                assert caught.value.phase == phase and caught.value.retryable and PROMPT not in str(caught.value)
                assert caught.value.__cause__ is None

    asyncio.run(whole())


def test_a_stream_asked_for_and_answered_whole_is_taken() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})

    async def whole() -> None:
        async with started("http://nowhere.example/v1", transport=httpx.MockTransport(answer)) as model:
            deltas, reply = await streamed(model)
            assert isinstance(reply, ChatResponse) and reply.text == "Hi" and len(deltas) == 1

    asyncio.run(whole())
