"""The transport that is used: aiohttp. The only file that imports it.

Of the well-kept clients that close a connection at once when its call is cancelled it takes the least CPU (see
benchmarks/remote.py): a third of httpx's for a call, half for a stream.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from gateway_remote.transport import KEEP_ALIVE_S, UNTRUSTED, Lost, Network

AUTOMATIC = ("accept", "accept-encoding", "user-agent", "content-type")
BROKEN = (aiohttp.ClientError, OSError)


class OverAiohttp:
    """Connections kept alive for half a minute, as many as are needed; made on the running loop when first used."""

    def __init__(self, network: Network, proxy: str | None, context: ssl.SSLContext | None) -> None:
        self._network, self._proxy = network, proxy
        self._context: ssl.SSLContext | bool = context or True
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._open: set[aiohttp.ClientResponse] = set()
        self._closed = False

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FromAiohttp:
        """See Transport."""
        session = self._session or self._begin()
        target = self._urls.get(url)
        if target is None:
            target = self._urls[url] = URL(url, encoded=True)
        try:
            response = await session.request(
                method,
                target,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                proxy=self._proxy,
            )
        except BROKEN as error:
            raise lost(error) from None
        self._open.add(response)
        return FromAiohttp(response, self._open)

    async def aclose(self) -> None:
        """See Transport."""
        self._closed = True
        session, self._session = self._session, None
        for response in self._open:  # who reads one is told: closing the session alone would leave them waiting
            response.close()
        if session is not None:
            await session.close()

    def _begin(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Lost("request", "closed")
        # Silence after the connection is up is timed by the service, which can tell a keepalive from a token.
        waiting = aiohttp.ClientTimeout(total=None, connect=self._network.connect_s, ceil_threshold=math.inf)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._context, keepalive_timeout=KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=waiting,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTOMATIC,
            max_line_size=65_536,
            max_field_size=65_536,
        )
        return self._session


class FromAiohttp:
    """See Incoming."""

    def __init__(self, response: aiohttp.ClientResponse, among: set[aiohttp.ClientResponse]) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.raw_headers: Sequence[tuple[bytes, bytes]] = response.raw_headers
        self._response, self._among = response, among

    async def read(self) -> bytes:
        """See Incoming."""
        try:
            return await self._response.content.readany()
        except BROKEN as error:
            raise lost(error) from None

    async def aclose(self) -> None:
        """See Incoming."""
        self._among.discard(self._response)
        self._response.close()  # which leaves a connection alone that was given back at the body's end


def lost(error: Exception) -> Lost:
    """The phase and the cause of a failure."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Lost("connect", "")
        case aiohttp.ClientConnectorDNSError():
            return Lost("connect", "no such host")
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return Lost("connect", UNTRUSTED)
        case aiohttp.ClientSSLError():
            return Lost("connect", "TLS failed")
        case aiohttp.ClientConnectorError():
            refused = isinstance(error.os_error, ConnectionRefusedError)
            return Lost("connect", "refused" if refused else type(error.os_error).__name__)
        case aiohttp.ClientHttpProxyError():
            return Lost("connect", f"the proxy answered {error.status}")
        case aiohttp.ClientConnectionResetError():
            return Lost("write", "reset")
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, aiohttp.http_exceptions.ContentEncodingError):
            return Lost("reply", "content-encoding is broken")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return Lost("request", type(error).__name__)
        case asyncio.TimeoutError():
            return Lost("read", "TimeoutError")
    return Lost("read", type(error).__name__)
