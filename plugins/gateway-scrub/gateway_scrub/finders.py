"""Finders: what needs more than one pattern. Each gives the places that it found in a text, given also its lower case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address

from gateway import ConfigError
from gateway_scrub.phones import international

Finder = Callable[[str, str], Iterator[tuple[int, int]]]
Place = tuple[int, int]

LETTER = "A-Za-z0-9\u00c0-\u024f"
LOCAL = re.compile(rf"[{LETTER}.!#$%&'*+/=?^_`{{|}}~\-]{{1,64}}\Z")
LABEL = rf"[{LETTER}](?:[{LETTER}\-]{{0,61}}[{LETTER}])?"
DOMAIN = re.compile(rf"(?:{LABEL}\.)+[A-Za-z\u00c0-\u024f]{{2,24}}(?![A-Za-z0-9])")
HEX_GROUPS = re.compile(
    r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4})?(?![0-9A-Za-z:])"
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
        if match is not None and (match.group().count(":") > 2 or any(char.isdigit() for char in match.group())):
            with suppress(ValueError):  # a::b, in code, is none that anybody has
                IPv6Address(match.group())
                yield match.span()
        at = text.find(":", match.end() if match is not None else at + 1)


FINDERS: dict[str, Finder] = {"email": email, "ipv6": ipv6, "international": international}
