"""The transport that is used: HTTP/1.1 over asyncio's own connections, kept alive, directly or through a proxy.

It is here because no client that was measured (benchmarks/remote.py) is quick and closes what it should: pyreqwest 0.15 goes on
with a call that was cancelled until its answer has come, made and billed to its end; wreq 0.13 leaves connections open when it
is closed; aiohttp and httpx take two and ten times as much CPU for a call as this does.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from aiohappyeyeballs import start_connection

from gateway_remote.http11 import MAX_HEAD_BYTES, Connection
from gateway_remote.incoming import FromConnection
from gateway_remote.transport import KEEP_ALIVE_S, Lost, Network, refused_by_proxy, untrusted

KEEP_ALIVE_CONNECTIONS = 100
READ_BYTES = 64 << 10
"""The most that is read from a socket at once."""
HAPPY_EYEBALLS_S = 0.25
"""When one address of a host does not answer, the next is tried after so long (RFC 8305)."""
LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")


class OverAsyncio:
    """Connections to one origin, as many as are needed; the one used last is taken first.

    One that nobody has needed for long is closed when the next call ends, or when the server closes it.

    `check` is told each address before a connection goes to one of them, and raises an OSError to forbid it.
    """

    def __init__(
        self,
        network: Network,
        url: str,
        proxy: str | None,
        context: ssl.SSLContext | None,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self._network, self._context, self._check = network, context, check
        self._origin = urlsplit(url)
        self._proxy = urlsplit(proxy) if proxy is not None else None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._idle: deque[tuple[float, Connection]] = deque()
        self._all: set[Connection] = set()
        self._heads: dict[tuple[str, str, int], tuple[Mapping[str, str], Head]] = {}
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FromConnection:
        """See Transport."""
        head = self._head(method, url, headers)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        now_s = self._loop.time()
        connection = self._take(now_s) or await self._dial()
        try:
            await connection.ask(head, body if body or method == "POST" else None)
        except BaseException:
            self._drop(connection)
            raise
        return FromConnection(connection, self.give_back)

    async def aclose(self) -> None:
        """See Transport."""
        self._closed = True
        for connection in list(self._all):
            self._drop(connection)
        self._idle.clear()
        # A turn of the loop: sockets are closed by callbacks.
        await asyncio.sleep(0)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call, and close those that nobody has needed for long."""
        if self._closed or self._loop is None or not connection.whole:
            self._drop(connection)
            return
        now_s = self._loop.time()
        self._idle.append((now_s, connection))
        while len(self._idle) > KEEP_ALIVE_CONNECTIONS or self._idle[0][0] < now_s - KEEP_ALIVE_S:
            self._drop(self._idle.popleft()[1])

    def _take(self, now_s: float) -> Connection | None:
        oldest_s = now_s - KEEP_ALIVE_S
        while self._idle:
            since_s, connection = self._idle.pop()
            if since_s >= oldest_s and connection.reusable():
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.abort()

    def _head(self, method: str, url: str, headers: Mapping[str, str]) -> Head:
        """The request's head but for its length, made once for each set of headers."""
        key = method, url, id(headers)
        known = self._heads.get(key)
        if known is None or known[0] is not headers:
            if len(self._heads) > 1000:
                self._heads.clear()
            known = self._heads[key] = headers, self._written(method, urlsplit(url), headers)
        return known[1]

    def _written(self, method: str, url: SplitResult, headers: Mapping[str, str]) -> Head:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        through = self._proxy is not None and url.scheme == "http"
        target = f"http://{url.netloc}{path}" if through else path
        fields = {"host": url.netloc, **headers, **(_proxy_key(self._proxy) if through else {})}
        text = "\n".join([f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), ""])
        if not text.isascii() or text.count("\n") != len(fields) + 1 or not text.replace("\n", "").isprintable():
            raise Lost("request", "a header or the path holds characters that HTTP cannot carry")
        return Head(text.replace("\n", "\r\n").encode())

    async def _dial(self) -> Connection:
        """A new connection. Lost says why there is none."""
        if self._closed:
            raise Lost("request", "closed")
        try:
            async with asyncio.timeout(self._network.connect_s):
                connection = await (self._direct() if self._proxy is None else self._proxied(self._proxy))
        except OSError as error:  # TimeoutError and what TLS raises are some
            broken = why_not(error)
        else:
            if not self._closed:
                self._all.add(connection)
                return connection
            connection.abort()
            broken = Lost("request", "closed")
        raise broken

    async def _direct(self) -> Connection:
        connection: Connection
        _, connection = await self._connect(self._new, self._origin)
        return connection

    def _new(self) -> Connection:
        return Connection(self._buffer)

    async def _connect(self, protocol: Callable[[], Any], to: SplitResult) -> tuple[Any, Any]:
        """A connection to a host, by the first of its addresses that answers; with TLS where the URL says https."""
        host, tls, loop = to.hostname or "", to.scheme == "https", asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(host, to.port or (443 if tls else 80), type=socket.SOCK_STREAM)
        if self._check is not None:
            for *_, address in addresses:
                self._check(str(address[0]))
        sock = await start_connection(addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_S)
        # From its first step on the socket is asyncio's, which closes it when this is cancelled: to close it here as well would
        # take its number from under the loop. With TLS at once it would be left open: so that is laid over it afterwards.
        transport, made = await loop.create_connection(protocol, sock=sock)
        return await self._secured(transport, made, host) if tls else transport, made

    async def _secured(self, transport: asyncio.Transport, protocol: Any, host: str) -> asyncio.Transport:
        """TLS over a connection. Whatever comes between, the connection is closed."""
        try:
            assert self._context is not None
            loop = asyncio.get_running_loop()
            over = await loop.start_tls(transport, protocol, self._context, server_hostname=host)
            if over is None:  # closed meanwhile
                raise ConnectionResetError
        except BaseException:  # asyncio has closed it by itself, but for that
            transport.abort()
            raise
        protocol.connection_made(over)
        return over

    async def _proxied(self, proxy: SplitResult) -> Connection:
        """Through a proxy: to an http origin as it is, to an https one by a tunnel (RFC 9110, 9.3.6)."""
        if self._origin.scheme == "http":
            plain: Connection
            _, plain = await self._connect(self._new, proxy)
            return plain
        transport, tunnel = await self._connect(Tunnel, proxy)
        try:
            host = f"{_bracketed(self._origin)}:{self._origin.port or 443}"
            fields = {"host": host, **_proxy_key(proxy)}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            transport.write(f"CONNECT {host} HTTP/1.1\r\n{head}\r\n".encode())
            status = await tunnel.answer
            if status // 100 != 2:
                raise refused_by_proxy(status)
        except BaseException:
            transport.abort()
            raise
        connection = self._new()
        transport.set_protocol(connection)
        await self._secured(transport, connection, self._origin.hostname or "")
        return connection


class Head(bytes):
    """The head of a request, which holds the key: a traceback that shows variables does not show it."""

    def __repr__(self) -> str:
        return "<the head of a request>"


class Tunnel(asyncio.Protocol):
    """The first words with a proxy; `answer` is its status."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        """More of the proxy's head."""
        self._head += data
        found = LINE.match(self._head)
        if self.answer.done() or (b"\r\n\r\n" not in self._head and len(self._head) <= MAX_HEAD_BYTES):
            return
        if found is None:
            self.answer.set_exception(Lost("connect", "the proxy does not speak HTTP"))
        else:
            self.answer.set_result(int(found[1]))

    def connection_lost(self, error: Exception | None) -> None:
        """The proxy has hung up."""
        if not self.answer.done():
            self.answer.set_exception(Lost("connect", "the proxy hung up"))
            self.answer.exception()  # it may be that nobody waits any more


def why_not(error: OSError) -> Lost:
    """Why there is no connection, in fixed words."""
    match error:
        case TimeoutError():
            return Lost("connect", "")
        case socket.gaierror():
            return Lost("connect", "no such host")
        case ssl.SSLCertVerificationError():
            return untrusted(error)
        case ssl.SSLError():
            return Lost("connect", "TLS failed")
    return Lost("connect", "refused" if error.errno == errno.ECONNREFUSED else type(error).__name__)


def _proxy_key(proxy: SplitResult | None) -> dict[str, str]:
    """The header that proves to a proxy who asks (RFC 7617), from the user and password of its URL."""
    if proxy is None or proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _bracketed(url: SplitResult) -> str:
    host = url.hostname or ""
    return f"[{host}]" if ":" in host else host
