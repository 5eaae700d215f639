"""The only file that imports httpx: sends bytes to one API, and tells how a connection failed.

It uses httpx's transports without its client: a client's cookies, redirects and hooks are not wanted here,
and a transport alone takes less time per call.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import httpx

from gateway import BadReply, ConfigError, GatewayError, ServiceError, Unreachable

KEEP_ALIVE_CONNECTIONS = 100
KEEP_ALIVE_S = 30.0
MAX_BODY_BYTES = 256 << 20
MAX_ERROR_BODY_BYTES = 256 << 10
ERROR_BODY_S = 5.0
"""How long the body of an error is waited for: its status alone says the most."""
# Of errors of the TLS layer httpx lets some through as they are: they are OSErrors.
BROKEN = (httpx.HTTPError, OSError)
UNTRUSTED = "TLS failed: its certificate is not trusted"
# Why there is no connection, by the first of these that is found behind httpx's error. Its own text is not shown.
CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "no such host"),
    (ConnectionRefusedError, "refused"),
    (ssl.SSLCertVerificationError, UNTRUSTED),
    (ssl.SSLError, "TLS failed"),
)


class Link:
    """Connections to one API. `transport` is the caller's own, which the caller closes.

    Proxies are taken from the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), as are SSL_CERT_FILE
    and SSL_CERT_DIR. At most `max_connections` calls are under way; more wait, as long as their caller lets
    them.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        headers: Mapping[str, str],
        connect_s: float,
        max_connections: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url, self._model = base_url, model
        self._urls: dict[str, httpx.URL] = {}
        self._headers = httpx.Headers({"user-agent": "gateway-remote", "accept-encoding": "identity", **headers})
        # Silence after the connection is up is timed by the service, which can tell a keepalive from a token.
        self._timeout = {"connect": connect_s, "read": None, "write": None, "pool": None}
        self._slots = asyncio.Semaphore(max_connections)
        self._given = transport
        self._ways = None if transport else Ways(base_url)
        self._handshakes = self._ways is not None and (base_url.startswith("https:") or self._ways.proxied)
        self._where = _where(httpx.URL(base_url))
        if self._ways is not None and self._ways.proxied:
            self._where += ", through the proxy that the environment names"

    async def send(self, method: str, path: str, body: bytes = b"", *, limit_s: float) -> Answer:
        """The start of an answer, which must be closed. Unreachable says in which phase it failed.

        TimeoutError when it does not come within `limit_s`, which begin once there is room for one more call.
        """
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(self._base_url + path)
        await self._slots.acquire()
        sent_s = asyncio.get_running_loop().time()
        way = self._given
        extensions: dict[str, Any] = {"timeout": self._timeout}
        connected: list[Any] = []
        if self._handshakes:
            extensions["trace"] = _collect(connected)
        try:
            if self._ways is not None:
                way = self._ways.take()
            assert way is not None
            request = httpx.Request(
                method,
                url,
                headers=self._headers,
                content=body or None,
                extensions=extensions,
            )
            async with asyncio.timeout_at(sent_s + limit_s):
                response = await way.handle_async_request(request)
        except BaseException as error:
            # httpcore forgets a connection whose handshake is cancelled: it would stay open until it is collected.
            try:
                for stream in connected:
                    await stream.aclose()
            finally:
                await self._free(way)
            if isinstance(error, BROKEN) and not isinstance(error, TimeoutError):
                raise _failed(error, self._model, self._where, self._timeout["connect"]) from None
            raise
        return Answer(response, partial(self._free, way), model=self._model, sent_s=sent_s)

    async def aclose(self) -> None:
        """Close every connection that this link has made."""
        if self._ways is not None:
            await self._ways.aclose()

    async def _free(self, way: httpx.AsyncBaseTransport | None) -> None:
        try:
            if self._ways is not None and isinstance(way, httpx.AsyncHTTPTransport):
                await self._ways.give_back(way)
        finally:
            self._slots.release()


class Ways:
    """Ways to one host, each an httpx transport of a single connection; the one used last is taken first.

    httpx's own pool looks at every connection, down to its socket, for each request and again when it ends: at
    a hundred connections that is most of a call's time. Here a call costs the same at any number.
    """

    def __init__(self, base_url: str) -> None:
        url = httpx.URL(base_url)
        self._proxy = _proxy(url)
        # Reading the certificate authorities takes 20 ms: once for all, and not for a plain connection.
        self.proxied = self._proxy is not None
        self._ssl = httpx.create_ssl_context(verify=url.scheme == "https" or self._proxy is not None)
        self._idle: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        self._all: set[httpx.AsyncHTTPTransport] = set()

    def take(self) -> httpx.AsyncHTTPTransport:
        """A way that nobody uses."""
        if self._idle:
            return self._idle.pop()[1]
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
        way = httpx.AsyncHTTPTransport(verify=self._ssl, proxy=self._proxy, limits=limits)
        self._all.add(way)
        return way

    async def give_back(self, way: httpx.AsyncHTTPTransport) -> None:
        """Keep a way for the next call, and close those that nobody has needed for long."""
        if way not in self._all:  # closed meanwhile
            await way.aclose()
            return
        now_s = asyncio.get_running_loop().time()
        self._idle.append((now_s, way))
        while len(self._idle) > KEEP_ALIVE_CONNECTIONS or self._idle[0][0] < now_s - KEEP_ALIVE_S:
            _, old = self._idle.popleft()
            self._all.discard(old)
            await old.aclose()

    async def aclose(self) -> None:
        """Close all of them, those in use too."""
        ways, self._all = self._all, set()
        self._idle.clear()
        for way in ways:
            await way.aclose()


class Answer:
    """An answer whose body is read piece by piece."""

    def __init__(self, response: httpx.Response, free: Callable[[], Awaitable[None]], *, model: str, sent_s: float) -> None:
        self.sent_s = sent_s
        """When there was room for the call, in the loop's time."""
        self.ok = response.status_code // 100 == 2
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Sequence[tuple[bytes, bytes]] = response.headers.raw
        self._response, self._free, self._model = response, free, model
        self._open = True
        self._chunks: AsyncIterator[bytes] | None = None

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end."""
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
            raise _failed(error, self._model) from None
        return b""

    async def read_all(self) -> bytes:
        """The rest of the body. Of an error's body what comes soon, and only the beginning: it never fails."""
        limit = MAX_BODY_BYTES if self.ok else MAX_ERROR_BODY_BYTES
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(None if self.ok else ERROR_BODY_S):
                while size <= limit and (chunk := await self.read()):
                    pieces.append(chunk)
                    size += len(chunk)
        except (TimeoutError, ServiceError):
            if self.ok:
                raise
        if self.ok and size > limit:
            raise BadReply(f"model {self._model!r}: a reply of more than {limit} bytes", model=self._model)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Give the connection back when the body was read to its end, else close it at once."""
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                await self._free()


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.host):
        return None
    try:
        return httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")
    except (ValueError, httpx.InvalidURL):
        # The URL of a proxy may hold a password: it is not repeated.
        raise ConfigError(f"the proxy for {url.scheme} in the environment cannot be used") from None


def _collect(connected: list[Any]) -> Callable[[str, Mapping[str, Any]], Awaitable[None]]:
    """An observer of one call, as httpcore's extension "trace" takes it, that keeps each connection that is made."""

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            connected.append(info["return_value"])

    return trace


def _where(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _failed(error: Exception, model: str, where: str = "the server", connect_s: float | None = None) -> ServiceError:
    """What a failure of the connection means. The cause is not chained: its text can quote a header."""
    name = type(error).__name__
    match error:
        case httpx.ConnectTimeout():  # of the TLS handshake too
            what, phase = f"no connection to {where}", "connect"
            name = "still connecting" if connect_s is None else f"still connecting after {connect_s:g} s"
        case httpx.ConnectError() | httpx.ProxyError() | httpx.PoolTimeout():
            what, phase, name = f"no connection to {where}", "connect", _cause(error)
        case httpx.WriteError() | httpx.WriteTimeout():
            what, phase = "the connection broke while the request was sent", "write"
        case httpx.DecodingError():
            return BadReply(f"model {model!r}: the reply's content-encoding is broken", model=model, retryable=True)
        case httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
            return ServiceError(f"model {model!r}: the request cannot be sent ({name})", model=model)
        case _:
            what, phase = "the connection broke before the reply was whole", "read"
    # Nothing has been delivered: asking again is safe, and may help but against a certificate.
    return Unreachable(f"model {model!r}: {what} ({name})", model=model, phase=phase, retryable=name != UNTRUSTED)


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
