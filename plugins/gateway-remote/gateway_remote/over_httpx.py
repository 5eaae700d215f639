"""Any `httpx.AsyncBaseTransport` as a transport, such as one of the user's own; and HTTP/2. The only file that imports httpx.

httpx's transports are used without its client: a client's cookies, redirects and hooks are not wanted here, and a
transport alone takes less time per call.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx

from gateway import ConfigError, GatewayError
from gateway_remote.transport import KEEP_ALIVE_S, UNTRUSTED, Lost, Network

# Of errors of the TLS layer httpx lets some through as they are: they are OSErrors.
BROKEN = (httpx.HTTPError, OSError)
# Why there is no connection, by the first of these that is found behind httpx's error. Its own text is not shown.
CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "no such host"),
    (ConnectionRefusedError, "refused"),
    (ssl.SSLCertVerificationError, UNTRUSTED),
    (ssl.SSLError, "TLS failed"),
)


def http2(network: Network, proxy: str | None, context: ssl.SSLContext | None) -> OverHttpx:
    """A transport that speaks HTTP/2 where the server offers it, many calls over one connection."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=KEEP_ALIVE_S)
    try:
        transport = httpx.AsyncHTTPTransport(verify=context or True, proxy=proxy, limits=limits, http2=True)
    except ImportError:
        raise ConfigError("http2 needs the package h2: pip install 'gateway-remote[http2]'") from None
    except (ValueError, httpx.InvalidURL):
        raise ConfigError("the proxy cannot be used: its URL is not valid") from None
    return OverHttpx(transport, network)


class OverHttpx:
    """Calls over an httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport, network: Network) -> None:
        self._transport = transport
        # Silence after the connection is up is timed by the service, which can tell a keepalive from a token.
        self._timeout = {"connect": network.connect_s, "read": None, "write": None, "pool": None}
        self._urls: dict[str, httpx.URL] = {}

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FromHttpx:
        """See Transport."""
        target = self._urls.get(url)
        if target is None:
            target = self._urls[url] = httpx.URL(url)
        connected: list[Any] = []
        extensions = {"timeout": self._timeout, "trace": _collect(connected)}
        try:
            request = httpx.Request(method, target, headers=dict(headers), content=body or None, extensions=extensions)
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            # httpcore forgets a connection whose handshake is cancelled: it would stay open until it is collected.
            for stream in connected:
                await stream.aclose()
            if isinstance(error, BROKEN) and not isinstance(error, TimeoutError):
                raise lost(error) from None
            raise
        return FromHttpx(response)

    async def aclose(self) -> None:
        """See Transport."""
        await self._transport.aclose()


class FromHttpx:
    """See Incoming."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Sequence[tuple[bytes, bytes]] = response.headers.raw
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None

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
            raise lost(error) from None
        return b""

    async def aclose(self) -> None:
        """See Incoming."""
        await self._response.aclose()


def lost(error: Exception) -> Lost:
    """The phase and the cause of a failure."""
    match error:
        case httpx.ConnectTimeout():  # of the TLS handshake too
            return Lost("connect", "")
        case httpx.ConnectError() | httpx.ProxyError() | httpx.PoolTimeout():
            return Lost("connect", _cause(error))
        case httpx.WriteError() | httpx.WriteTimeout():
            return Lost("write", type(error).__name__)
        case httpx.DecodingError():
            return Lost("reply", "content-encoding is broken")
        case httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
            return Lost("request", type(error).__name__)
    return Lost("read", type(error).__name__)


def _collect(connected: list[Any]) -> Callable[[str, Mapping[str, Any]], Any]:
    """An observer of one call, as httpcore's extension "trace" takes it, that keeps each connection that is made."""

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            connected.append(info["return_value"])

    return trace


def _cause(error: Exception) -> str:
    """Why there is no connection, in fixed words."""
    cause: BaseException | None = error
    # Behind an error of ours lies what an earlier call met, when this one was made while that was handled.
    while cause is not None and not isinstance(cause, GatewayError):
        for kind, words in CAUSES:
            if isinstance(cause, kind):
                return words
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
