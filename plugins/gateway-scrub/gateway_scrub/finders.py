"""Finders: what needs more than one pattern. Each gives the places that it found in a text, given also its lower case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address

from gateway import ConfigError
from gateway_scrub.finders_asia import ASIA
from gateway_scrub.phones import international

Finder = Callable[[str, str], Iterator[tuple[int, int]]]
Place = tuple[int, int]

LETTER = "A-Za-z0-9\u00c0-\u024f"
LOCAL = re.compile(rf"[{LETTER}.!#$%&'*+/=?^_`{{|}}~\-]{{1,64}}\Z")
LABEL = rf"[{LETTER}](?:[{LETTER}\-]{{0,61}}[{LETTER}])?"
DOMAIN = re.compile(rf"(?:{LABEL}\.)+[A-Za-z\u00c0-\u024f]{{2,24}}(?![A-Za-z])")
HEX_GROUPS = re.compile(
    r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4})?(?![0-9A-Za-z:])"
)
MAC = re.compile("(?<![0-9A-Za-z:-])[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\\1[0-9A-Fa-f]{2}){4}(?![0-9A-Za-z]|[:-][0-9A-Fa-f])")
MRZ = re.compile(
    r"(?<![A-Z0-9<])(?:"
    r"P[A-Z<][A-Z<]{3}[A-Z<]{39}\s{1,4}[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{6}[0-9][MFX<][0-9]{6}[0-9][A-Z0-9<]{14}[0-9<][0-9]"
    r"|[IACV][A-Z0-9<][A-Z<]{3}[A-Z<]{31}\s{1,4}[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{6}[0-9][MFX<][0-9]{6}[0-9][A-Z0-9<]{7}[0-9]"
    r"|V[A-Z<][A-Z<]{3}[A-Z<]{39}\s{1,4}[A-Z0-9<]{9}[0-9][A-Z<]{3}[0-9]{6}[0-9][MFX<][0-9]{6}[0-9][A-Z0-9<]{16}"
    r"|[IAC][A-Z0-9<][A-Z<]{3}[A-Z0-9<]{9}[0-9<][A-Z0-9<]{15}\s{1,4}[0-9]{6}[0-9][MFX<][0-9]{6}[0-9][A-Z<]{3}[A-Z0-9<]{11}[0-9]"
    r"\s{1,4}[A-Z<]{30})(?![A-Z0-9<])"
)


def named(name: str) -> Finder:
    """A finder by name."""
    finder = FINDERS.get(name)
    if finder is None:
        raise ConfigError(f"there is no finder {name!r}; there are: {', '.join(sorted(FINDERS))}")
    return finder


def email(text: str, lower: str) -> Iterator[Place]:
    """E-mail addresses (RFC 5321 as people write them): around each @."""
    at = text.find("@")
    while at >= 0:
        local = LOCAL.search(text, max(at - 64, 0), at)
        domain = DOMAIN.match(text, at + 1)
        if local is not None and domain is not None:
            start = local.start()
            while text[start] in ".'`{|/=*&#!" and start < at - 1:  # punctuation before it is not its own
                start += 1
            yield start, domain.end()
        at = text.find("@", at + 1)


def ipv6(text: str, lower: str) -> Iterator[Place]:
    """IPv6 addresses (RFC 4291, 2.2): two colons near each other, and what the standard library takes for an address."""
    at = text.find(":")
    while at >= 0:
        nearest = text.find(":", at + 1, at + 6)
        if nearest < 0:
            at = text.find(":", at + 1)
            continue
        begin = at
        while begin > 0 and at - begin < 4 and text[begin - 1] in "0123456789abcdefABCDEF":
            begin -= 1
        match = HEX_GROUPS.match(text, begin)
        if match is not None and _an_address(match.group()):
            yield match.span()
        at = text.find(":", match.end() if match is not None else at + 1)


def _an_address(text: str) -> bool:
    """Whether it is an IPv6 address that a machine of somebody's can have; 1::2, in code, is a slice."""
    with suppress(ValueError):
        address = IPv6Address(text)
        plain = text.find(":") > 2 or text.count(":") > 3 or "." in text
        return plain and not (address.is_loopback or address.is_unspecified)
    return False


def mac(text: str, lower: str) -> Iterator[Place]:
    """MAC addresses (IEEE 802), with colons or hyphens: two of those three characters apart."""
    for sign in ":-":
        at = text.find(sign)
        while at >= 0:
            match = MAC.match(text, at - 2) if at > 1 and text[at + 3 : at + 4] == sign else None
            if match is not None:
                yield match.span()
            at = text.find(sign, match.end() if match is not None else at + 1)


def mrz(text: str, lower: str) -> Iterator[Place]:
    """Machine-readable zones of passports, identity cards and visas (ICAO 9303): around the first <<< of each."""
    at = text.find("<<<")
    while at >= 0:
        begin = at
        while begin > 0 and at - begin < 95 and (text[begin - 1] in "< \r\n" or text[begin - 1].isalnum()):
            begin -= 1
        match = next((found for found in MRZ.finditer(text, begin, at + 140) if found.start() <= at < found.end()), None)
        if match is not None:
            yield match.span()
        end = at
        while text[end : end + 1] == "<":
            end += 1
        at = text.find("<<<", match.end() if match is not None else end)


FINDERS: dict[str, Finder] = {"email": email, "ipv6": ipv6, "mac": mac, "mrz": mrz, "international": international, **ASIA}
