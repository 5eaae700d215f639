"""The seam to the network: (method, url, headers, body) -> status, headers, a stream of bytes. Link: one API's connections.

`over_asyncio.py` is what is used; `over_httpx.py` carries any `httpx.AsyncBaseTransport`, and HTTP/2. httpx is imported only
when that is asked for.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from gateway import BadReply, ConfigError, Patience, ServiceError, Unreachable

if TYPE_CHECKING:
    import httpx

KEEP_ALIVE_S = 30.0
SPARE = 100
MAX_BODY_BYTES = 256 << 20
MAX_ERROR_BODY_BYTES = 256 << 10
ERROR_BODY_S = 5.0
"""How long the body of an error is waited for: its status alone says the most."""
CERTIFICATE = {10: "has expired", 62: "is for another name", 64: "is for another name"}
"""What is wrong with a certificate, by OpenSSL's number (X509_V_ERR_CERT_HAS_EXPIRED and its like)."""


class Lost(Exception):
    """What a transport raises: the phase in which a call failed, and why, in fixed words. Nothing of the library's own text.

    Phases: "connect" (nothing was sent), "write", "read"; "reply" is a body that cannot be decoded, "request" one that cannot
    be sent. `final`: asking again would meet the same. Raise it outside of the `except` that found the cause: a library's error
    may quote a header, and must not come along as the context.
    """

    def __init__(
        self, phase: Literal["connect", "write", "read", "reply", "request"], why: str, *, final: bool = False
    ) -> None:
        super().__init__(why)
        self.phase, self.why, self.final = phase, why, final


class Incoming(Protocol):
    """The start of an answer: its body is read piece by piece."""

    status: int
    headers: Mapping[str, str]
    """By name, in any case."""
    raw_headers: Sequence[tuple[bytes, bytes]]

    async def read(self) -> bytes:
        """The next piece of the body, whatever its size; b"" at its end."""

    async def aclose(self) -> None:
        """Give the connection back when the body was read to its end, else close it at once. Once."""


class Transport(Protocol):
    """Sends requests. Cancelling `send` closes the connection that it had begun to use, at once."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Incoming:
        """The start of an answer, whatever its status; redirects are not followed, and nothing is sent twice."""

    async def aclose(self) -> None:
        """Close every connection, those in use too."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """How an API is reached: the proxy's URL, and who is trusted. `proxy` "" means none, None as the environment says."""

    connect_s: float
    proxy: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    http2: bool = False

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL, from here or from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. It may hold a password."""
        if self.proxy is not None:
            return self.proxy or None
        parts = urlsplit(url)
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(parts.netloc):  # which knows what to do with a port
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def ssl(self) -> ssl.SSLContext:
        """Who is trusted: the certificate authorities of `ca_file`, or else the system's (SSL_CERT_FILE, SSL_CERT_DIR)."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file and str(Path(self.ca_file).expanduser()))
        except OSError as error:
            why = "it holds no certificates as PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(f"ca_file {self.ca_file!r} cannot be used: {why}") from None
        context.set_alpn_protocols(["h2", "http/1.1"] if self.http2 else ["http/1.1"])
        return context


def open_transport(network: Network, url: str) -> Transport:
    """Connections to the API at a URL. Blocks while it imports and reads the authorities; called once a model."""
    proxy = network.proxy_for(url)
    if proxy is not None and not _is_http_url(proxy):
        # The URL of a proxy may hold a password: it is not repeated.
        raise ConfigError(f"the proxy for {urlsplit(url).scheme} cannot be used: give an http:// or https:// URL")
    context = network.ssl() if url.startswith("https:") or (proxy or "").startswith("https:") else None
    if network.http2:
        from gateway_remote.over_httpx import http2

        return http2(network, proxy, context)
    from gateway_remote.over_asyncio import OverAsyncio

    return OverAsyncio(network, url, proxy, context)


class Link:
    """Calls to one API, of which at most `max_connections` are under way; more wait, as long as their callers let them.

    `transport` is the caller's own, which the caller closes.
    """

    def __init__(
        self,
        base_url: str,
        network: Network,
        *,
        model: str,
        max_connections: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url, self._model, self._connect_s = base_url, model, network.connect_s
        self._slots = asyncio.Semaphore(max_connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spare: list[Patience] = []  # with their timers, which outlast a call: to set one for each costs more
        self._where = _where(base_url)
        self._own = transport is None
        if transport is None:
            self._transport = open_transport(network, base_url)
            if network.proxy_for(base_url) is not None:
                whose = "the environment" if network.proxy is None else "the configuration"
                self._where += f", through the proxy that {whose} names"
        else:
            from gateway_remote.over_httpx import OverHttpx

            self._transport = OverHttpx(transport, network)

    async def room(self) -> float:
        """Wait until one more call may be under way, which is `send`'s to end; the time of the loop then."""
        await self._slots.acquire()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The start of an answer, which must be closed, once there is `room`. Unreachable says in which phase it failed."""
        try:
            incoming = await self._transport.send(method, self._base_url + path, headers, body)
            if incoming.status == 407:  # of a proxy: no API has this answer
                await incoming.aclose()
                raise refused_by_proxy(407)
        except BaseException as error:
            self._slots.release()
            if isinstance(error, Lost):
                raise self.lost(error) from None
            raise
        return Answer(incoming, self)

    def patience(self) -> Patience:
        """The timer of one call; give it back with `rest`."""
        return self._spare.pop() if self._spare else Patience()

    def rest(self, patience: Patience) -> None:
        """A timer that is not needed any more."""
        if len(self._spare) < SPARE:
            self._spare.append(patience)
        else:
            patience.close()

    async def aclose(self) -> None:
        """Close every connection that this link has made."""
        for patience in self._spare:
            patience.close()
        self._spare.clear()
        if self._own:
            await self._transport.aclose()

    def lost(self, error: Lost) -> ServiceError:
        """What a failed call means. The cause is not chained: its text can quote a header."""
        model, why = self._model, error.why
        match error.phase:
            case "connect":
                what = f"no connection to {self._where}"
                why = why or f"still connecting after {self._connect_s:g} s"
            case "write":
                what = "the connection broke while the request was sent"
            case "read":
                what = "the connection broke before the reply was whole"
            case "reply":
                return BadReply(f"model {model!r}: the reply's {why}", model=model, retryable=True)
            case "request":
                return ServiceError(f"model {model!r}: the request cannot be sent ({why})", model=model)
        # Nothing has been delivered: asking again is safe.
        message = f"model {model!r}: {what} ({why})"
        return Unreachable(message, model=model, phase=error.phase, retryable=not error.final)

    def freed(self) -> None:
        """A call is over."""
        self._slots.release()

    def too_long(self) -> BadReply:
        """The error for a body that does not end."""
        return BadReply(f"model {self._model!r}: a reply of more than {MAX_BODY_BYTES} bytes", model=self._model)


class Answer:
    """An answer whose body is read piece by piece."""

    def __init__(self, incoming: Incoming, link: Link) -> None:
        self.status = incoming.status
        self.ok = incoming.status // 100 == 2
        self.raw_headers = incoming.raw_headers
        self._incoming, self._link = incoming, link
        self._open = True
        self._size = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        return self._incoming.headers

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end. BadReply when it does not end."""
        try:
            piece = await self._incoming.read()
        except Lost as error:
            raise self._link.lost(error) from None
        self._size += len(piece)
        if self._size > MAX_BODY_BYTES:
            raise self._link.too_long()
        return piece

    async def read_all(self) -> bytes:
        """The rest of the body."""
        pieces: list[bytes] = []
        while piece := await self.read():
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_error(self) -> bytes:
        """Of an error's body what comes soon, and only the beginning: it never fails."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(ERROR_BODY_S):
                while size <= MAX_ERROR_BODY_BYTES and (chunk := await self.read()):
                    pieces.append(chunk)
                    size += len(chunk)
        except (TimeoutError, ServiceError):
            pass
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Give the connection back when the body was read to its end, else close it at once."""
        if self._open:
            self._open = False
            try:
                await self._incoming.aclose()
            finally:
                self._link.freed()


def untrusted(error: BaseException | None) -> Lost:
    """What is wrong with a certificate."""
    why = CERTIFICATE.get(getattr(error, "verify_code", 0), "is not trusted")
    return Lost("connect", f"TLS failed: its certificate {why}", final=True)


def refused_by_proxy(status: int) -> Lost:
    """A proxy that does not let the call through."""
    what = "wants another user or password" if status == 407 else f"answered {status}"
    return Lost("connect", f"the proxy {what}", final=400 <= status < 500 and status not in (408, 425, 429))


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return good and all(32 < ord(c) < 127 for c in url)
    except ValueError:
        return False


def _where(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
