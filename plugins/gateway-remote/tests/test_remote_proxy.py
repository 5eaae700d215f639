"""Proxies: of the configuration and of the environment, for http and https, with and without a password."""

import asyncio
import contextlib
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from gateway_remote.service import RemoteModel
from proxy_case import Proxy, proxy
from remote_case import HELLO, started, streamed

from gateway import AsyncGateway, ServiceError, Unreachable
from gateway.testing import Fault, LoopbackServer, resources

CLIENTS = pytest.mark.parametrize("client", [{}, {"http2": True}], ids=["ours", "httpx"])
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["run", "stream"])
SECRET = "hunter2"
HOST = "api.example.invalid"  # nobody but the proxy knows where that is


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("API_KEY", f"sk-{SECRET}")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def tls_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def apis(authority: trustme.CA) -> Iterator[dict[str, LoopbackServer]]:
    """What is asked for through the proxy, over http and over https."""
    with LoopbackServer() as plain, LoopbackServer(tls=tls_of(authority, HOST), host=HOST) as secure:
        yield {"http": plain, "https": secure}


def url(api: LoopbackServer, scheme: str) -> str:
    return f"{scheme}://{HOST}:{port(api)}/v1"


def port(api: LoopbackServer) -> int:
    return int(api.origin.rpartition(":")[2])


@contextlib.asynccontextmanager
async def reached(api: LoopbackServer, scheme: str, made: Proxy, ca_file: str, **facts: Any) -> AsyncIterator[RemoteModel]:
    made.hosts[HOST] = port(api)
    async with started(url(api, scheme), ca_file=ca_file, api_key="env:API_KEY", **facts) as model:
        yield model


async def failed(model: RemoteModel, stream: bool) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await (streamed(model) if stream else model.run(HELLO))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error}{error!r}{error.args}"
        error = error.__cause__ or error.__context__
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


@CLIENTS
@SCHEMES
def test_calls_go_through_the_proxy_of_the_configuration(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any]
) -> None:
    async def whole() -> None:
        async with proxy() as made, reached(apis[scheme], scheme, made, ca_file, proxy=made.url(), **client) as model:
            for _ in range(2):
                await model.run(HELLO)
                await streamed(model)
            await model.check(resources())
            assert len(apis[scheme].requests) == 5
            assert apis[scheme].requests[0].headers["authorization"] == f"Bearer sk-{SECRET}"
            where = f"{HOST}:{port(apis[scheme])}"
            if scheme == "http":
                assert made.lines == [f"POST http://{where}/v1/chat/completions HTTP/1.1"] * 4 + [
                    f"GET http://{where}/v1/models HTTP/1.1"
                ]
            else:  # one tunnel, in which the proxy sees nothing
                assert made.lines == [f"CONNECT {where} HTTP/1.1"]
                assert not {"authorization", "x-team"} & made.asked[0][1].keys()
                assert SECRET.encode() not in made.seen and b"chat" not in made.seen

    asyncio.run(whole())


@CLIENTS
@SCHEMES
@pytest.mark.parametrize("user", ["me:pass word", f"me:{SECRET}", "mé:wörd€", "me:", "a%b:c/d@e"])
def test_a_proxy_s_password_goes_to_the_proxy_with_every_call_and_no_further(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any], user: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from urllib.parse import quote

    async def whole() -> None:
        async with proxy(user=user) as made:
            name, _, password = user.partition(":")
            monkeypatch.setenv("PROXY", made.url(f"{quote(name, safe='')}:{quote(password, safe='')}"))
            async with reached(apis[scheme], scheme, made, ca_file, proxy="env:PROXY", **client) as model:
                for _ in range(2):
                    await model.run(HELLO)
                    await streamed(model)
                assert len(apis[scheme].requests) == 4
                assert not any("proxy-authorization" in request.headers for request in apis[scheme].requests)

    asyncio.run(whole())


@CLIENTS
@SCHEMES
@STREAM
def test_a_wrong_password_is_told_as_such_and_not_tried_again(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any], stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def whole() -> None:
        async with proxy(user="me:right") as made:
            monkeypatch.setenv("PROXY", made.url(f"me:{SECRET}"))
            async with reached(apis[scheme], scheme, made, ca_file, proxy="env:PROXY", **client) as model:
                for _ in range(2):
                    error = await failed(model, stream)
                    assert isinstance(error, Unreachable) and (error.phase, error.retryable) == ("connect", False)
                    assert str(error).endswith(
                        f"no connection to {HOST}:{port(apis[scheme])}, through the proxy that the configuration names "
                        "(the proxy wants another user or password)"
                    )
                assert len(made.asked) == 2 and not apis[scheme].requests
            async with AsyncGateway([model]) as gw:
                with pytest.raises(Unreachable):
                    await gw.run(HELLO)
                assert len(made.asked) == 3  # once

    asyncio.run(whole())


@CLIENTS
@SCHEMES
def test_a_proxy_that_is_not_there_is_named_by_who_names_it(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def whole() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("PROXY", f"http://me:{SECRET}@127.0.0.1:{closed.getsockname()[1]}")
            where = f"no connection to {HOST}:{port(apis[scheme])}, through the proxy that the"
            facts: dict[str, Any] = {"ca_file": ca_file, "api_key": "env:API_KEY", **client}
            async with started(url(apis[scheme], scheme), proxy="env:PROXY", **facts) as model:
                error = await failed(model, False)
                assert isinstance(error, Unreachable) and (error.phase, error.retryable) == ("connect", True)
                assert f"{where} configuration names (refused)" in str(error)
            monkeypatch.setenv(f"{scheme}_proxy", f"http://me:{SECRET}@127.0.0.1:{closed.getsockname()[1]}")
            async with started(url(apis[scheme], scheme), **facts) as model:
                assert f"{where} environment names (refused)" in str(await failed(model, True))

    asyncio.run(whole())


@CLIENTS
@pytest.mark.parametrize(
    ("answer", "why", "retryable"),
    [
        (b"HTTP/1.1 403 Forbidden hunter2\r\ncontent-length: 7\r\n\r\nhunter2", "the proxy answered 403", False),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "the proxy answered 502", True),
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 0\r\n\r\n", "the proxy answered 429", True),
        (b"hunter2 is no HTTP\r\n\r\n", "", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", "", True),  # and no TLS: the connection ends
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_no_connection(
    apis: dict[str, LoopbackServer], ca_file: str, client: dict[str, Any], answer: bytes, why: str, retryable: bool
) -> None:
    async def whole() -> None:
        async with (
            proxy(answer=answer) as made,
            reached(apis["https"], "https", made, ca_file, proxy=made.url(), **client) as model,
        ):
            error = await failed(model, False)
            assert isinstance(error, Unreachable) and error.retryable is retryable and error.phase in ("connect", "read")
            assert why in str(error) and not apis["https"].requests

    asyncio.run(whole())


@CLIENTS
@STREAM
def test_a_proxy_that_is_silent_is_given_up_on(
    apis: dict[str, LoopbackServer], ca_file: str, client: dict[str, Any], stream: bool
) -> None:
    async def whole() -> None:
        limits = {"connect_s": 0.2}
        async with (
            proxy(answer=None) as made,
            reached(apis["https"], "https", made, ca_file, proxy=made.url(), limits=limits, **client) as model,
        ):
            error = await failed(model, stream)
            assert isinstance(error, Unreachable) and error.phase == "connect"
            assert "still connecting after 0.2 s" in str(error)
            await made.until(0)

    asyncio.run(whole())


@CLIENTS
@STREAM
def test_cancelling_while_the_proxy_connects_closes_the_connection_at_once(
    apis: dict[str, LoopbackServer], ca_file: str, client: dict[str, Any], stream: bool
) -> None:
    async def whole() -> None:
        async with (
            proxy(answer=None) as made,
            reached(apis["https"], "https", made, ca_file, proxy=made.url(), **client) as model,
        ):
            call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
            await made.until(1, asked=1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await made.until(0)

    asyncio.run(whole())


@CLIENTS
@STREAM
def test_cancelling_a_handshake_in_the_tunnel_closes_the_connection_at_once(
    ca_file: str, client: dict[str, Any], stream: bool
) -> None:
    async def whole() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            async with proxy() as made:
                made.hosts[HOST] = mute.getsockname()[1]
                async with started(f"https://{HOST}:1", ca_file=ca_file, proxy=made.url(), **client) as model:
                    call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
                    connection, _ = await asyncio.to_thread(mute.accept)
                    with connection:
                        assert await asyncio.to_thread(connection.recv, 1)  # it has said hello
                        call.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await call
                        await made.until(0)

    asyncio.run(whole())


@CLIENTS
@SCHEMES
@STREAM
def test_cancelling_a_call_through_a_proxy_closes_the_connection_at_once(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any], stream: bool
) -> None:
    async def whole() -> None:
        api = apis[scheme]
        api.script(Fault(stall_after=1 if stream else 0))
        async with proxy() as made, reached(api, scheme, made, ca_file, proxy=made.url(), **client) as model:
            call = asyncio.create_task(streamed(model) if stream else model.run(HELLO))
            await api.wait_for(lambda s: s.in_flight == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await made.until(0)
            await api.wait_for(lambda s: s.connections == 0)
            await model.run(HELLO)

    asyncio.run(whole())


@CLIENTS
@pytest.mark.parametrize("name", ["{}_proxy", "{}_PROXY", "all_proxy", "ALL_PROXY"])
@SCHEMES
def test_a_proxy_of_the_environment_is_used(
    apis: dict[str, LoopbackServer], ca_file: str, scheme: str, client: dict[str, Any], name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async def whole() -> None:
        for form in ("{}", "{}/"):
            async with proxy(user=f"me:{SECRET}") as made:
                name_here = name.format(scheme.upper() if "PROXY" in name else scheme)
                monkeypatch.setenv(name_here, form.format(made.url(f"me:{SECRET}")))
                async with reached(apis[scheme], scheme, made, ca_file, **client) as model:
                    await model.run(HELLO)
                    assert len(made.asked) == 1
            async with proxy() as made:
                monkeypatch.setenv(name_here, form.format(made.url()).removeprefix("http://"))
                async with reached(apis[scheme], scheme, made, ca_file, **client) as model:
                    await model.run(HELLO)
                    assert len(made.asked) == 1

    asyncio.run(whole())


@CLIENTS
def test_a_row_may_say_that_no_proxy_is_used(
    apis: dict[str, LoopbackServer], client: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:1")

    async def whole() -> None:
        async with started(apis["http"].url, proxy="", **client) as model:
            await model.run(HELLO)

    asyncio.run(whole())


@CLIENTS
def test_whom_no_proxy_names_is_asked_directly(
    apis: dict[str, LoopbackServer], client: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")

    async def whole() -> None:
        async with started(apis["http"].url, **client) as model:
            await model.run(HELLO)

    asyncio.run(whole())


@CLIENTS
@SCHEMES
def test_a_proxy_may_be_reached_over_tls(
    apis: dict[str, LoopbackServer], authority: trustme.CA, ca_file: str, scheme: str, client: dict[str, Any]
) -> None:
    async def whole() -> None:
        tls = tls_of(authority, "localhost")
        async with (
            proxy(tls, scheme="https", host="localhost") as made,
            reached(apis[scheme], scheme, made, ca_file, proxy=made.url(), **client) as model,
        ):
            await model.run(HELLO)
            await streamed(model)
            assert len(apis[scheme].requests) == 2
        async with proxy(tls, scheme="https", host="localhost") as made:
            made.hosts[HOST] = port(apis[scheme])
            async with started(url(apis[scheme], scheme), proxy=made.url(), **client) as model:
                error = await failed(model, False)
                assert isinstance(error, Unreachable) and "its certificate is not trusted" in str(error)

    asyncio.run(whole())
