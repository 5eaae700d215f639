"""What a provider's headers say is left of its rate limit. No I/O.

Read are ``x-ratelimit-remaining-requests`` and its kin (OpenAI, Azure, Groq, Cerebras, Mistral, Fireworks, Together),
``anthropic-ratelimit-requests-remaining`` and its kin, and ``ratelimit`` as well as ``ratelimit-remaining`` of
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway import Quota
from gateway_remote.waits import wait_s

NAME = re.compile(
    r"(?:x-|anthropic-)?(rate-?|token)limit-(?:([a-z-]+)-)?(remaining|reset|limit)(?:-([a-z0-9_-]+))?"
)  # what is limited stands before the fact or after it
PERIODS = frozenset({"", "second", "minute", "hour", "day", "month"})
COUNT = re.compile(r"([0-9]{1,15})(?:\.[0-9]*)?")
PAIR = re.compile(r"([a-z]+) *= *([^;, ]+)")
LONGEST = 1024
Which = tuple[str, str]
"""What is limited, "requests" or "tokens", and by which of its limits."""


class Window(NamedTuple):
    """One of the limits that hold side by side."""

    left: int | None
    limit: int | None
    reset_s: float | None


def quota_of(headers: Sequence[tuple[bytes, bytes]], now_s: float) -> Quota | None:
    """The quota in a reply's raw headers, None when there is none. `now_s`, since the epoch, is for dates.

    Of several limits on the same thing, the one that is nearest to its end counts: that with the least share left when each
    says how much it allows, else that with the least left. What cannot be read, or is negative, is as if it were not there.
    """
    # Most servers send nothing of the kind, and this is read with every reply: one look at all names.
    if b"limit" not in b"\n".join([name for name, _ in headers]).lower():
        return None
    stated: dict[Which, dict[str, str]] = {}
    for name, raw in headers:
        if b"limit" not in (name := name.lower()):
            continue
        value = raw[:LONGEST].decode("latin-1")
        if name == b"ratelimit":
            for which, fact, text in _draft(value):
                stated.setdefault(which, {}).setdefault(fact, text)
        elif (known := _named(name)) is not None:
            stated.setdefault(known[0], {}).setdefault(known[1], value)
    requests = _scarcest(_window(facts, now_s) for (kind, _), facts in stated.items() if kind == "requests")
    tokens = _scarcest(_window(facts, now_s) for (kind, _), facts in stated.items() if kind == "tokens")
    if (requests.left, requests.reset_s, tokens.left, tokens.reset_s) == (None,) * 4:
        return None
    return Quota(requests=requests.left, requests_reset_s=requests.reset_s, tokens=tokens.left, tokens_reset_s=tokens.reset_s)


@lru_cache(maxsize=256)  # the same few names come with every reply
def _named(name: bytes) -> tuple[Which, str] | None:
    """Which limit a header is about, and what it tells of it: remaining, reset or limit."""
    found = NAME.fullmatch(name.decode("latin-1"))
    if found is None:
        return None
    what, before, fact, after = found.groups(default="")
    which = before or after
    if what == "token" or "token" in which:
        return ("tokens", which), fact
    return (("requests", which), fact) if "req" in which or which in PERIODS else None


def _draft(value: str) -> Iterator[tuple[Which, str, str]]:
    """``limit=100, remaining=50, reset=50`` (drafts to 07), or ``"day";r=50;t=30, "minute";r=5;t=3`` (since)."""
    pairs = dict(PAIR.findall(value))
    if "remaining" in pairs:
        for fact in pairs.keys() & {"limit", "remaining", "reset"}:
            yield ("requests", ""), fact, pairs[fact]
        return
    for item in value.split(","):
        policy, _, parameters = item.partition(";")
        kind = "tokens" if "token" in policy.lower() else "requests"
        for name, text in PAIR.findall(parameters):
            if fact := {"r": "remaining", "t": "reset"}.get(name):
                yield (kind, policy.strip()), fact, text


def _window(facts: dict[str, str], now_s: float) -> Window:
    reset = facts.get("reset")
    return Window(_count(facts.get("remaining")), _count(facts.get("limit")), None if reset is None else wait_s(reset, now_s))


def _scarcest(windows: Iterable[Window]) -> Window:
    every = list(windows)
    counted = [window for window in every if window.left is not None] or every
    if len(counted) < 2:
        return counted[0] if counted else Window(None, None, None)
    shares = all(window.limit for window in counted)

    def order(window: Window) -> tuple[float, float, float]:
        left = window.left or 0
        # Limits that are all untouched are of different sizes: the least of them is no scarcer than the others.
        return (left / (window.limit or 1), -left, -(window.reset_s or 0.0)) if shares else (left, 0, -(window.reset_s or 0.0))

    return min(counted, key=order)


def _count(text: str | None) -> int | None:
    found = COUNT.fullmatch(text.strip()) if text else None
    return int(found[1]) if found else None
