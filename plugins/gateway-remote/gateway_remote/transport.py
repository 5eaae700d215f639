"""The seam to the network: (method, url, headers, body) -> status, headers, a stream of bytes. Link: one API's connections.

`over_aiohttp.py` is what is used; `over_httpx.py` carries any `httpx.AsyncBaseTransport`, and HTTP/2. Neither library is
imported before a model is started.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from gateway import BadReply, ConfigError, Patience, ServiceError, Unreachable

if TYPE_CHECKING:
    import httpx

KEEP_ALIVE_S = 30.0
MAX_BODY_BYTES = 256 << 20
MAX_ERROR_BODY_BYTES = 256 << 10
ERROR_BODY_S = 5.0
"""How long the body of an error is waited for: its status alone says the most."""
UNTRUSTED = "TLS failed: its certificate is not trusted"


class Lost(Exception):
    """What a transport raises: the phase in which a call failed, and why, in fixed words. Nothing of the library's own text.

    Phases: "connect" (nothing was sent), "write", "read"; "reply" is a body that cannot be decoded, "request" one that cannot
    be sent.
    """

    def __init__(self, phase: Literal["connect", "write", "read", "reply", "request"], why: str) -> None:
        super().__init__(why)
        self.phase, self.why = phase, why


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
    proxy: str | None = None
    ca_file: str | None = None
    http2: bool = False

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL, from here or from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. It may hold a password."""
        if self.proxy is not None:
            return self.proxy or None
        parts = urlsplit(url)
        proxies = urllib.request.getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def ssl(self) -> ssl.SSLContext:
        """Who is trusted: the certificate authorities of `ca_file`, or else the system's (SSL_CERT_FILE, SSL_CERT_DIR)."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file and str(Path(self.ca_file).expanduser()))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file {self.ca_file!r} cannot be used: {type(error).__name__}") from None
        context.set_alpn_protocols(["h2", "http/1.1"] if self.http2 else ["http/1.1"])
        return context


def open_transport(network: Network, url: str) -> Transport:
    """Connections to the API at a URL. Blocks while it imports and reads the authorities; called once a model."""
    proxy = network.proxy_for(url)
    if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
        # The URL of a proxy may hold a password: it is not repeated.
        raise ConfigError(f"the proxy for {urlsplit(url).scheme} cannot be used: give an http:// or https:// URL")
    context = network.ssl() if url.startswith("https:") or (proxy or "").startswith("https:") else None
    if network.http2:
        from gateway_remote.over_httpx import http2

        return http2(network, proxy, context)
    from gateway_remote.over_aiohttp import OverAiohttp

    return OverAiohttp(network, proxy, context)


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

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, limit_s: float) -> Answer:
        """The start of an answer, which must be closed. Unreachable says in which phase it failed.

        TimeoutError when it does not come within `limit_s`, which begin once there is room for one more call.
        """
        await self._slots.acquire()
        sent_s = asyncio.get_running_loop().time()
        patience = Patience()
        try:
            with patience.until(sent_s + limit_s):
                incoming = await self._transport.send(method, self._base_url + path, headers, body)
        except BaseException as error:
            self._slots.release()
            if isinstance(error, Lost):
                raise self.lost(error) from None
            raise
        finally:
            patience.close()
        return Answer(incoming, self, sent_s)

    async def aclose(self) -> None:
        """Close every connection that this link has made."""
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
        # Nothing has been delivered: asking again is safe, and may help but against a certificate.
        message = f"model {model!r}: {what} ({why})"
        return Unreachable(message, model=model, phase=error.phase, retryable=why != UNTRUSTED)

    def freed(self) -> None:
        """A call is over."""
        self._slots.release()

    def too_long(self) -> BadReply:
        """The error for a body that does not end."""
        return BadReply(f"model {self._model!r}: a reply of more than {MAX_BODY_BYTES} bytes", model=self._model)


class Answer:
    """An answer whose body is read piece by piece."""

    def __init__(self, incoming: Incoming, link: Link, sent_s: float) -> None:
        self.sent_s = sent_s
        """When there was room for the call, in the loop's time."""
        self.status = incoming.status
        self.ok = incoming.status // 100 == 2
        self.headers = incoming.headers
        self.raw_headers = incoming.raw_headers
        self._incoming, self._link = incoming, link
        self._open = True

    async def read(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        try:
            return await self._incoming.read()
        except Lost as error:
            raise self._link.lost(error) from None

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
            raise self._link.too_long()
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Give the connection back when the body was read to its end, else close it at once."""
        if self._open:
            self._open = False
            try:
                await self._incoming.aclose()
            finally:
                self._link.freed()


def _where(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
