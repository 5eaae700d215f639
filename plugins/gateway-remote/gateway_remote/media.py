"""Fetching media by URL, for a request that says ``fetch=True``: within a size, and never from a private address.

Server-side request forgery (OWASP, CWE-918): a URL in a request may be a stranger's. So only http and https; the name is
resolved once, every address that it has must be public, and the connection goes to one of these; a redirect is checked in the
same way. No header of the configuration goes along, and no proxy is used: it would resolve the name by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from gateway import Audio, Chat, File, Image, InvalidRequest, Media, Message, Request
from gateway_remote.formats.blocks import media_of

TIMEOUT_S = 30.0
REDIRECTS = 3
KINDS: Mapping[type[Media], tuple[str, ...]] = {Image: ("image/",), Audio: ("audio/", "video/"), File: ("",)}


async def fetched(request: Request[Any], *, most_bytes: int) -> Any:
    """The request with bytes in the place of each URL that the gateway is to fetch. InvalidRequest when one cannot be had."""
    wanted = list(dict.fromkeys(part for part in media_of(request) if part.fetch))
    got = dict(zip(wanted, await asyncio.gather(*(fetch(part, most_bytes=most_bytes) for part in wanted)), strict=True))
    if isinstance(request, Chat):
        return replace(request, messages=tuple(_filled(message, got) for message in request.messages))
    changed: dict[str, Any] = {f.name: got[value] for f in fields(request) if (value := getattr(request, f.name)) in wanted}
    return replace(request, **changed)


def _filled(message: Message, got: Mapping[Media, Media]) -> Message:
    if not any(part in got for part in message.parts if isinstance(part, (Image, Audio, File))):
        return message
    parts = tuple(got.get(part, part) if isinstance(part, (Image, Audio, File)) else part for part in message.parts)
    return replace(message, parts=parts)


async def fetch(part: Media, *, most_bytes: int) -> Media:
    """The same media as bytes. InvalidRequest says why not; it does not repeat the URL, which may hold a secret."""
    name = part.type
    connector = aiohttp.TCPConnector(resolver=Public(), use_dns_cache=False)
    limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as session:
            url = part.url or ""
            for _ in range(REDIRECTS + 1):
                check_url(url, name)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                        url = str(response.url.join(URL(response.headers["location"])))
                        continue
                    return await _read(response, part, most_bytes)
            raise _refused(name, f"it redirects more than {REDIRECTS} times")
    except Forbidden as error:
        raise _refused(name, str(error)) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, InvalidRequest):
            raise
        cause = error.__cause__ or error.__context__
        if isinstance(cause, Forbidden):
            raise _refused(name, str(cause)) from None
        why = f"it does not come within {TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else type(error).__name__
        raise _refused(name, why) from None


async def _read(response: Any, part: Media, most_bytes: int) -> Media:
    if response.status != 200:
        raise _refused(part.type, f"its server answers {response.status}")
    kind = response.content_type
    if not kind.startswith(KINDS[type(part)]):
        raise _refused(part.type, f"it is no {part.type}")
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > most_bytes:
            raise _refused(part.type, f"it has more than {most_bytes} bytes (max_media_bytes)")
    stated = part.media_type if isinstance(part, File) and kind == "application/octet-stream" else kind
    return replace(part, data=bytes(data), url=None, fetch=False, media_type=stated)


class Forbidden(OSError):
    """An address that is not public."""


def check_url(url: str, name: str) -> None:
    """InvalidRequest unless it is an http or https URL whose host, where that is an address, is public."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise _refused(name, "it is no http:// or https:// URL")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if not public(address):
        raise _refused(name, "its address is not public")


def public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True for an address of the public internet (IANA's special-purpose registries), also within an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(inner)
    return address.is_global and not address.is_multicast


NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Public(AbstractResolver):
    """A resolver of aiohttp's that gives public addresses only: the connection goes to exactly those."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Every address of a host. Forbidden when one of them is not public."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        out: list[ResolveResult] = []
        for kind, _, proto, _, address in found:
            if not public(ipaddress.ip_address(str(address[0]).partition("%")[0])):
                raise Forbidden("its address is not public")
            out.append({"hostname": host, "host": str(address[0]), "port": port, "family": kind, "proto": proto,
                        "flags": socket.AI_NUMERICHOST})  # fmt: skip
        return out

    async def close(self) -> None:
        """Nothing is kept."""


def _refused(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: its url cannot be fetched: {why}", field=f"{name}.url")
