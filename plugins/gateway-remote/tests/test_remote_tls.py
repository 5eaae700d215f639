"""TLS: who is trusted, and what is told of a server that is not."""

import asyncio
import contextlib
import datetime
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from gateway_remote.service import RemoteModel
from odd_case import ANSWER
from remote_case import HELLO, row, started, streamed, with_model

from gateway import AsyncGateway, ConfigError, Unreachable
from gateway.testing import Echo, LoopbackServer, resources

# The same over either client: with HTTP/2 asked for and not offered, httpx's speaks HTTP/1.1.
CLIENTS = pytest.mark.parametrize("client", [{}, {"http2": True}], ids=["ours", "httpx"])
CALLS: Any = pytest.mark.parametrize(
    "call", [lambda model: model.run(HELLO), streamed, lambda model: model.check(resources())], ids=["run", "stream", "check"]
)
Call = Callable[[RemoteModel], Awaitable[Any]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@contextlib.contextmanager
def serving(by: trustme.CA, *names: str, host: str = "localhost", **validity: Any) -> Iterator[LoopbackServer]:
    """A server with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by.issue_cert(*names, **validity).configure_cert(context)
    with LoopbackServer(tls=context, host=host) as server:
        yield server


@CLIENTS
def test_a_certificate_of_one_s_own_authority_is_trusted(
    authority: trustme.CA, ca_file: str, client: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(model: RemoteModel) -> None:
        for _ in range(3):
            await model.run(HELLO)
            await streamed(model)
        assert await model.check(resources()) and "tls" not in repr(model)

    with serving(authority, "localhost") as server:
        assert server.url.startswith("https://localhost:")
        with_model(server, test, ca_file=ca_file, **client)
        monkeypatch.setenv("SSL_CERT_FILE", ca_file)  # what the system trusts
        with_model(server, test, **client)
    with serving(authority, "127.0.0.1", host="127.0.0.1") as server:
        with_model(server, test, ca_file=ca_file, **client)


@CLIENTS
def test_a_connection_that_is_up_is_used_again(authority: trustme.CA, ca_file: str, client: dict[str, Any]) -> None:
    async def test(model: RemoteModel) -> None:
        await model.run(HELLO)
        for at in range(6):
            await (streamed(model) if at % 2 else model.run(HELLO))
            await server.wait_for(lambda s: s.in_flight == 0)
            assert server.connections == 1
        assert server.disconnects == 0

    with serving(authority, "localhost") as server:
        with_model(server, test, ca_file=ca_file, **client)


def ago(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


@CLIENTS
@CALLS
@pytest.mark.parametrize(
    ("names", "validity", "trusted", "why"),
    [
        (["localhost"], {}, False, "is not trusted"),
        (["other.example"], {}, True, "is for another name"),
        (["127.0.0.1"], {}, True, "is for another name"),
        (["localhost"], {"not_before": ago(20), "not_after": ago(10)}, True, "has expired"),
        (["localhost"], {"not_before": ago(-10), "not_after": ago(-20)}, True, "is not trusted"),
    ],
    ids=["untrusted", "other name", "an address", "expired", "not yet"],
)
def test_a_certificate_that_cannot_be_believed_ends_it_before_anything_is_sent(
    authority: trustme.CA, ca_file: str, client: dict[str, Any], call: Call,
    names: list[str], validity: dict[str, Any], trusted: bool, why: str,
) -> None:  # fmt: skip
    async def test(model: RemoteModel) -> None:
        with pytest.raises(Unreachable) as caught:
            await call(model)
        error = caught.value
        assert (error.phase, error.retryable, error.fallbackable) == ("connect", False, True)
        where = server.origin.removeprefix("https://")
        assert str(error) == f"model 'loopback': no connection to {where} (TLS failed: its certificate {why})"
        assert not server.requests

    with serving(authority, *names, **validity) as server:
        with_model(server, test, **({"ca_file": ca_file} if trusted else {}), **client)


@CLIENTS
def test_an_address_that_the_certificate_does_not_name_is_another_name(
    authority: trustme.CA, ca_file: str, client: dict[str, Any]
) -> None:
    async def test(model: RemoteModel) -> None:
        with pytest.raises(Unreachable, match="its certificate is for another name"):
            await model.run(HELLO)

    with serving(authority, "localhost", host="127.0.0.1") as server:
        with_model(server, test, ca_file=ca_file, **client)


def test_a_model_that_cannot_be_believed_is_asked_once_and_another_answers(authority: trustme.CA) -> None:
    async def whole() -> None:
        best = RemoteModel(row(server.url, quality=0.9))
        async with AsyncGateway([best, Echo("other", quality=0.1)]) as gw:
            reply = await gw.run(HELLO)
            assert [(one.model, one.error) for one in reply.trace.attempts] == [("loopback", "Unreachable"), ("other", "")]

    with serving(authority, "localhost") as server:
        asyncio.run(whole())


@pytest.mark.parametrize(
    "content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    async def whole() -> None:
        with pytest.raises(ConfigError, match=f"ca_file '{path}' cannot be used"):
            async with started("https://localhost/v1", ca_file=str(path)):
                pass

    asyncio.run(whole())


def test_a_file_of_authorities_may_be_below_the_home_directory(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(ca_file).parent))

    async def test(model: RemoteModel) -> None:
        await model.run(HELLO)

    with serving(authority, "localhost") as server:
        with_model(server, test, ca_file="~/ca.pem")


@CLIENTS
@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_handshake_that_stalls_is_given_up_on_and_closed(client: dict[str, Any], stream: bool) -> None:
    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            where = f"127.0.0.1:{mute.getsockname()[1]}"
            async with started(f"https://{where}", limits={"connect_s": 0.2}, **client) as model:
                call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
                connection, _ = await asyncio.to_thread(mute.accept)
                with connection:
                    with pytest.raises(Unreachable) as caught:
                        await call
                    error = caught.value
                    assert (error.phase, error.retryable) == ("connect", True)
                    assert str(error) == f"model 'loopback': no connection to {where} (still connecting after 0.2 s)"
                    await until_closed(connection)

    asyncio.run(whole())


async def until_closed(connection: socket.socket) -> None:
    """Return once the other side has closed it, which no collection of garbage has helped with."""
    gc.disable()
    try:
        connection.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.to_thread(connection.recv, 4096):
                pass
    finally:
        gc.enable()


@CLIENTS
@pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
def test_a_handshake_that_is_cancelled_is_closed_at_once(client: dict[str, Any], stream: bool) -> None:
    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            async with started(f"https://127.0.0.1:{mute.getsockname()[1]}", **client) as model:
                call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
                connection, _ = await asyncio.to_thread(mute.accept)
                with connection:
                    assert await asyncio.to_thread(connection.recv, 1)  # it has said hello
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    await until_closed(connection)

    asyncio.run(whole())


def test_cancelling_a_handshake_at_any_moment_leaves_the_other_calls_alone(authority: trustme.CA, ca_file: str) -> None:
    """A socket that is closed while the loop still knows its number would be taken for the next one."""

    async def whole(url: str, turns: int) -> bool:
        async with started(url, ca_file=ca_file) as model:
            call = asyncio.create_task(model.run(HELLO))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            for _ in range(2):
                assert (await model.run(HELLO)).text
                _, writer = await asyncio.open_connection("localhost", int(url.rpartition(":")[2].partition("/")[0]))
                writer.close()
        return not call.cancelled()

    with serving(authority, "localhost") as server:
        turns = 0
        while not asyncio.run(whole(server.url, turns)):
            turns += 1
        assert turns > 10  # it was cut short at each turn of connecting, asking and reading


@pytest.mark.parametrize("told", [True, False])
def test_a_body_whose_end_tls_does_not_tell_is_cut_off(authority: trustme.CA, ca_file: str, told: bool) -> None:
    """RFC 9112, 9.8: without a close_notify anybody may have ended it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER)
        await writer.drain()
        if not told:
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            await reader.read()
        writer.close()

    async def whole() -> None:
        listening = await asyncio.start_server(cut, "localhost", 0, ssl=context, family=socket.AF_INET)
        async with listening, started(f"https://localhost:{listening.sockets[0].getsockname()[1]}", ca_file=ca_file) as model:
            if told:
                assert (await model.run(HELLO)).text == "Hi"
                return
            with pytest.raises(Unreachable) as caught:
                await model.run(HELLO)
            assert caught.value.phase == "read" and caught.value.retryable

    asyncio.run(whole())


@CLIENTS
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_a_handshake_that_breaks_is_no_connection(client: dict[str, Any], answer: bytes) -> None:
    """The server hangs up, speaks no TLS, or sends an alert (40, handshake_failure)."""

    def breaks(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(answer)

    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            where = f"127.0.0.1:{listening.getsockname()[1]}"
            async with started(f"https://{where}", **client) as model:
                breaking = asyncio.create_task(asyncio.to_thread(breaks, listening))
                with pytest.raises(Unreachable) as caught:
                    await model.run(HELLO)
                assert (caught.value.phase, caught.value.retryable) == ("connect", True)
                assert str(caught.value).startswith(f"model 'loopback': no connection to {where} (")
                await breaking

    asyncio.run(whole())


def test_closing_the_model_during_a_handshake_ends_the_call_and_sends_nothing() -> None:
    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            async with started(f"https://127.0.0.1:{mute.getsockname()[1]}", limits={"connect_s": 0.3}) as model:
                call = asyncio.create_task(model.run(HELLO))
                connection, _ = await asyncio.to_thread(mute.accept)
                with connection:
                    await model.aclose()
                    with pytest.raises(Unreachable):
                        await call
                    await until_closed(connection)

    asyncio.run(whole())
