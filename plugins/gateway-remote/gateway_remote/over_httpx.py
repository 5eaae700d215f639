"""Any `httpx.AsyncBaseTransport` as a transport, such as one of the user's own; and HTTP/2. The only file that imports httpx.

httpx's transports are used without its client: a client's cookies, redirects and hooks are not wanted here, and a
transport alone takes less time per call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio
import httpx

from gateway import ConfigError, GatewayError
from gateway_remote.transport import KEEP_ALIVE_S, Lost, Network, refused_by_proxy, untrusted

CANCEL = 8
"""Why a stream is reset: nobody needs it any more (RFC 9113, section 7)."""
# Of errors of the layers below httpx lets some through as they are.
BROKEN: tuple[type[Exception], ...] = (
    httpx.HTTPError, OSError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError,
)  # fmt: skip
if find_spec("h2") is not None:
    BROKEN += (import_module("h2.exceptions").H2Error,)
# Why there is no connection, by the first of these that is found behind httpx's error. Its own text is not shown.
CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "no such host"),
    (ConnectionRefusedError, "refused"),
    (ssl.SSLError, "TLS failed"),
)


def http2(network: Network, proxy: str | None, context: ssl.SSLContext | None) -> OverHttpx:
    """A transport that speaks HTTP/2 where the server offers it, many calls over one connection."""
    if find_spec("h2") is None:
        raise ConfigError("http2 needs the package h2: pip install 'gateway-remote[http2]'")
    for name in ("hpack.hpack", "hpack.table"):
        logging.getLogger(name).addFilter(_no_header)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEP_ALIVE_S)
    through = None
    if proxy is not None:
        # To a proxy httpx speaks HTTP/1.1 alone.
        of_proxy = replace(network, http2=False).ssl() if proxy.startswith("https:") else None
        through = httpx.Proxy(proxy, ssl_context=of_proxy)
    transport = httpx.AsyncHTTPTransport(verify=context or True, proxy=through, limits=limits, http2=True)
    return OverHttpx(transport, network)


class OverHttpx:
    """Calls over an httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport, network: Network) -> None:
        self._transport, self._connect_s = transport, network.connect_s
        # Silence after the connection is up is timed by the service, which can tell a keepalive from a token.
        self._timeout = {"connect": network.connect_s, "read": None, "write": None, "pool": None}
        self._urls: dict[str, httpx.URL] = {}
        self._notices: set[asyncio.Task[None]] = set()

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FromHttpx:
        """See Transport."""
        target = self._urls.get(url)
        if target is None:
            target = self._urls[url] = httpx.URL(url)
        call = Call(self._transport, self._connect_s, self._notices)
        extensions = {"timeout": self._timeout, "trace": call.trace}
        try:
            async with call.connecting:
                request = httpx.Request(method, target, headers=dict(headers), content=body or None, extensions=extensions)
                response = await self._transport.handle_async_request(request)
        except BaseException as error:
            await call.abandon()
            if isinstance(error, TimeoutError):
                if not call.connecting.expired():
                    raise
                broken = Lost("connect", "")
            elif isinstance(error, BROKEN):
                broken = lost(error)
            else:
                raise
        else:
            return FromHttpx(response, call)
        raise broken

    async def aclose(self) -> None:
        """See Transport."""
        for notice in self._notices:
            notice.cancel()
        await self._transport.aclose()


class Call:
    """One call as httpcore's extension "trace" tells of it, so that it can be ended at once. Other transports tell nothing.

    httpcore times each step of connecting, and a proxy's answer not at all: `connecting` is the limit for all of them together.
    """

    def __init__(self, transport: Any, connect_s: float, notices: set[asyncio.Task[None]]) -> None:
        self.connecting = asyncio.timeout(None)
        self._transport, self._connect_s, self._notices = transport, connect_s, notices
        self._sockets: list[Any] = []
        self._stream: tuple[Any, int, list[Any], Any] | None = None
        """In HTTP/2: the connection, the stream on it, what has come of the stream and was not read, and the request."""

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore."""
        step, _, when = event.rpartition(".")
        if step.endswith("connect_tcp"):
            if when == "started":
                self.connecting.reschedule(asyncio.get_running_loop().time() + self._connect_s)
            elif when == "complete":
                self._sockets.append(info["return_value"])
        elif step.endswith("send_request_headers") and when == "started" and info["request"].method != b"CONNECT":
            if self.connecting.when() is not None:
                self.connecting.reschedule(None)
            if step.startswith("http2."):
                self._sockets.clear()  # other calls share it from now on
                self._shares(info["stream_id"], info["request"])

    async def abandon(self) -> None:
        """Close what the call alone has used; on a connection that others use, tell the server that nobody listens any more."""
        # httpcore forgets a connection whose handshake is cancelled: it would be open until it is collected. One of HTTP/2 that
        # is cancelled before its first headers keeps a wrong count of its streams, and others wait for it: better they lose it
        # now, which they may try again, than get an error of httpcore's own later.
        for each in self._sockets:
            await each.aclose()
        if self._stream is None:
            return
        connection, stream_id, unread, request = self._stream
        self._stream = None
        # httpcore does neither: the model would go on to the end of its answer, and what has come of it would count for ever
        # against what the connection may carry.
        with contextlib.suppress(Exception):  # the stream has ended, or the connection
            for event in unread:
                if size := getattr(event, "flow_controlled_length", 0):
                    connection._h2_state.acknowledge_received_data(size, stream_id)
            connection._h2_state.reset_stream(stream_id, CANCEL)
        # In a task of its own: a server that does not read would keep waiting who has given up.
        notice = asyncio.get_running_loop().create_task(_told(connection, request))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    def _shares(self, stream_id: int, request: Any) -> None:
        """Find the connection on which a stream is about to begin: httpcore does not tell."""
        pool = getattr(self._transport, "_pool", None)
        for each in getattr(pool, "connections", ()):
            connection = getattr(each, "_connection", None)
            events, state = getattr(connection, "_events", {}), getattr(connection, "_h2_state", None)
            if state is not None and stream_id in events and stream_id not in state.streams:
                self._stream = connection, stream_id, events[stream_id], request


class FromHttpx:
    """See Incoming."""

    def __init__(self, response: httpx.Response, call: Call) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Sequence[tuple[bytes, bytes]] = response.headers.raw
        self._response, self._call = response, call
        self._chunks: AsyncIterator[bytes] | None = None
        self._whole = False

    async def read(self) -> bytes:
        """See Incoming."""
        if self._chunks is None:
            decoded = "content-encoding" in self._response.headers or self._response.is_stream_consumed
            stream = self._response.stream
            plain = isinstance(stream, httpx.AsyncByteStream) and not decoded
            self._chunks = aiter(stream) if plain else self._response.aiter_bytes()  # type: ignore[arg-type]
        try:
            async for chunk in self._chunks:
                if chunk:
                    return chunk
        except BROKEN as error:
            broken = lost(error)
        else:
            self._whole = True
            return b""
        raise broken

    async def aclose(self) -> None:
        """See Incoming."""
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()  # now, not when it is collected
        await self._response.aclose()
        if not self._whole:
            await self._call.abandon()


def lost(error: Exception) -> Lost:
    """The phase and the cause of a failure."""
    match error:
        case httpx.ConnectTimeout():  # of the TLS handshake too
            return Lost("connect", "")
        case httpx.ProxyError() if status := re.match(r"[1-5][0-9][0-9]\b", str(error)):
            return refused_by_proxy(int(status[0]))
        case httpx.ConnectError() | httpx.ProxyError() | httpx.PoolTimeout():
            return _unconnected(error)
        case httpx.WriteError() | httpx.WriteTimeout():
            return Lost("write", type(error).__name__)
        case httpx.DecodingError():
            return Lost("reply", "content-encoding is broken")
        case httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
            return Lost("request", type(error).__name__)
    return Lost("read", type(error).__name__)


async def _told(connection: Any, request: Any) -> None:
    with contextlib.suppress(Exception):  # there is nobody any more to tell
        await connection._write_outgoing_data(request)


def _no_header(record: logging.LogRecord) -> bool:
    """False for what HTTP/2's compressor of headers logs while debugging: every header, and so the key."""
    return record.levelno >= logging.INFO


def _unconnected(error: Exception) -> Lost:
    """Why there is no connection, in fixed words."""
    cause: BaseException | None = error
    # Behind an error of ours lies what an earlier call met, when this one was made while that was handled.
    while cause is not None and not isinstance(cause, GatewayError):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(cause)
        for kind, words in CAUSES:
            if isinstance(cause, kind):
                return Lost("connect", words)
        cause = cause.__cause__ or cause.__context__
    return Lost("connect", type(error).__name__)
