"""Fetching media by URL, for a request that says ``fetch=True``: within a size, and never from a private address.

Server-side request forgery (OWASP, CWE-918): a URL in a request may be a stranger's. So only http and https; the name is
resolved once, every address that it has must be public, and the connection goes to one of these; a redirect is checked in the
same way. No header of the configuration goes along, and no proxy is used: it would resolve the name by itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from gateway import Audio, Chat, File, Image, InvalidRequest, Media, Message, Request
from gateway_remote.formats.blocks import media_of
from gateway_remote.incoming import FromConnection
from gateway_remote.over_asyncio import OverAsyncio
from gateway_remote.transport import Lost, Network

TIMEOUT_S = 30.0
"""How long one URL may take, its redirects included."""
REDIRECTS = 3
KINDS: Mapping[type[Media], tuple[str, ...]] = {Image: ("image/",), Audio: ("audio/", "video/"), File: ("",)}
HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "gateway-remote"}
"""What is sent: a name, and nothing that could tell who asks."""

MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
"""RFC 6838, 4.2. What a server says of its type goes on into a request: nothing else may be in it."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Allowed = Callable[[Address], bool]

# What IANA's special-purpose registries call globally reachable, and what else is not unicast on the internet. Stated here
# as well, because `is_global` differs between versions of Python.
NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
            "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
            "224.0.0.0/4", "240.0.0.0/4",
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",  # Teredo and 6to4 too: within, any address can hide
        ),
    )
)  # fmt: skip
UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that has been given out as global unicast (RFC 4291, 2.4; IANA, "IPv6 Global Unicast Address Assignments")."""
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 as a network that has IPv6 alone sees it (RFC 6052)."""


async def fetched(request: Request[Any], *, most_bytes: int, allowed: Allowed | None = None) -> Any:
    """The request with bytes in the place of each URL that the gateway is to fetch. InvalidRequest when one cannot be had.

    `allowed` says of an address whether it may be connected to; by default, whether it is `public`.
    """
    wanted = list(dict.fromkeys(part for part in media_of(request) if part.fetch))
    tasks = [asyncio.create_task(fetch(part, most_bytes=most_bytes, allowed=allowed or public)) for part in wanted]
    try:
        got = dict(zip(wanted, await asyncio.gather(*tasks), strict=True))
    finally:  # when one cannot be had, the others are given up
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(request, Chat):
        return replace(request, messages=tuple(_filled(message, got) for message in request.messages))
    changed: dict[str, Any] = {f.name: got[value] for f in fields(request) if (value := getattr(request, f.name)) in wanted}
    return replace(request, **changed)


def _filled(message: Message, got: Mapping[Media, Media]) -> Message:
    if not any(part in got for part in message.parts if isinstance(part, (Image, Audio, File))):
        return message
    parts = tuple(got.get(part, part) if isinstance(part, (Image, Audio, File)) else part for part in message.parts)
    return replace(message, parts=parts)


async def fetch(part: Media, *, most_bytes: int, allowed: Allowed) -> Media:
    """The same media as bytes. InvalidRequest says why not; it does not repeat the URL, which may hold a secret."""
    broken: OSError | Lost
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _followed(part, most_bytes, allowed)
    except (OSError, Lost) as error:
        broken = error
    raise _refused(part, _why(broken))


async def _followed(part: Media, most_bytes: int, allowed: Allowed) -> Media:
    """What is at the end of the redirects."""

    def check(text: str) -> None:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:  # in another spelling, which hides where it leads
            address = None
        if address is None or not allowed(address):
            raise Forbidden

    url = part.url or ""
    for _ in range(REDIRECTS + 1):
        parts = _parts(url, part)
        network = Network(connect_s=TIMEOUT_S, proxy="")
        context = await asyncio.to_thread(network.ssl) if parts.scheme == "https" else None
        transport = OverAsyncio(network, parts.geturl(), None, context, check)
        try:
            answer = await transport.send("GET", parts.geturl(), HEADERS, b"")
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return await _read(answer, part, most_bytes)
            where = answer.headers["location"].encode("latin-1").decode("utf-8", "replace")  # some write it as they speak
            with suppress(ValueError):
                where = urljoin(parts.geturl(), where)
            url = where
        finally:
            await transport.aclose()
    raise _refused(part, f"it redirects more than {REDIRECTS} times")


def _parts(url: str, part: Media) -> SplitResult:
    """The URL as it is asked for: its host in ASCII (RFC 3490), its path and query percent-encoded, without a fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        ascii_host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise _refused(part, "it is no http:// or https:// URL")
    if "@" in parts.netloc:
        raise _refused(part, "it must not hold a user or password")
    where = ascii_host if port is None else f"{ascii_host}:{port}"
    path, query = (quote(each, safe="%/:=&?~+!$,;'@()*[]") for each in (parts.path, parts.query))
    return SplitResult(parts.scheme, where, path, query, "")


async def _read(answer: FromConnection, part: Media, most_bytes: int) -> Media:
    if answer.status != 200:
        raise _refused(part, f"its server answers {answer.status}")
    kind = answer.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if not MEDIA_TYPE.fullmatch(kind) or not kind.startswith(KINDS[type(part)]):
        raise _refused(part, f"it is no {part.type}")
    data = bytearray()
    # Counted as it is unpacked: a server may have packed it though it was asked not to.
    while chunk := await answer.read():
        data += chunk
        if len(data) > most_bytes:
            raise _refused(part, f"it has more than {most_bytes} bytes (max_media_bytes)")
    if not data:
        raise _refused(part, "it is empty")
    stated = part.media_type if isinstance(part, File) and kind == "application/octet-stream" else kind
    return replace(part, data=bytes(data), url=None, fetch=False, media_type=stated)


def public(address: Address) -> bool:
    """True for an address of the public internet (IANA's special-purpose registries), also within an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(inner)
        if address not in UNICAST:
            return False
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


class Forbidden(OSError):
    """An address that is not allowed."""


def _why(error: OSError | Lost) -> str:
    """Why nothing came, in fixed words."""
    match error:
        case TimeoutError():
            return f"it does not come within {TIMEOUT_S:g} s"
        case Lost(why=why) if why == Forbidden.__name__:
            return "its address is not public"
        case Lost(phase="connect", why="no such host"):
            return "its host is not known"
        case Lost(phase="connect", why=why) if "certificate" in why:
            return "its server's certificate is not trusted"
        case Lost(phase="connect"):
            return "its server cannot be reached"
        case Lost(phase="request"):
            return "it is no http:// or https:// URL"
    return f"it breaks off ({error.why if isinstance(error, Lost) else type(error).__name__})"


def _refused(part: Media, why: str) -> InvalidRequest:
    return InvalidRequest(f"{part.type}: its url cannot be fetched: {why}", field=f"{part.type}.url")
