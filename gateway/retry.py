"""Retries: which models one request may ask again, and when; RetryBudget, what all requests together may spend on that.

The gateway is the one owner of retries: services ask once. Another model is asked first, at once; the same one again only
when no other is left, after a jittered, growing wait (Brooker, "Exponential backoff and jitter", 2015), and never three times
within a second and a half. A budget keeps retries from multiplying the load of a provider that is down (Google SRE book, 21).
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.card import ModelCard
from gateway.clock import Clock
from gateway.config import RetryConfig
from gateway.decision import Veto
from gateway.errors import AttemptTimeout, ContextTooLong, Denied, OutOfQuota, ServiceError
from gateway.registry import Entry

FIRST_WAIT_S = 0.25
"""The least before the second attempt; jitter adds up to as much again."""
LATER_WAIT_S = 1.5
"""The least before the third; twice as long before each one after that."""
PER_SECOND = 1.0
MOST = 100.0
BEGIN = 10.0


class RetryBudget:
    """A token bucket: each request adds a share of a retry, each second one, and a retry or a hedge takes one."""

    def __init__(self, clock: Clock, share: float, *, begin: float = BEGIN, per_second: float = PER_SECOND) -> None:
        self._clock = clock
        self._share = share
        self._per_second = per_second
        self._tokens = begin
        self._at = clock.monotonic()

    def earn(self) -> None:
        """A request has come."""
        self._tokens = min(MOST, self._tokens + self._share)

    def take(self) -> bool:
        """One retry or hedge, if there is room."""
        now = self._clock.monotonic()
        self._tokens = min(MOST, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def put_back(self) -> None:
        """What was taken was not used."""
        self._tokens += 1.0


def refuses_the_key(error: ServiceError) -> bool:
    """True when a key, or its account, is refused, and the model has no other: a 403 is about this model, or content, alone."""
    if error.spare_key:
        return False
    return isinstance(error, OutOfQuota) or (isinstance(error, Denied) and error.status != 403)


def ruled_out(entries: Iterable[Entry], card: ModelCard, error: ServiceError) -> dict[str, Veto]:
    """Which other models need not be asked after what has become of this one, and why."""
    out = {}
    held = min((n for n in (error.context, card.context) if n), default=None) if isinstance(error, ContextTooLong) else None
    key = card.key if refuses_the_key(error) else ""
    for other in (entry.card for entry in entries if entry.card is not None):
        if held is not None and other.context is not None and other.context <= held:
            seen = f"{other.context} tokens; {card.name!r} has shown that {held} are too few"
            out[other.name] = Veto("context", seen, f"more than {held}", "gateway")
        if key and other.key == key:
            out[other.name] = Veto("key", f"{card.name!r} has shown that it may not", "another key", "gateway")
    return out


class Retries:
    """The attempts of one request on each model, and when each may be asked again."""

    def __init__(self, config: RetryConfig) -> None:
        self._most = config.attempts
        self._asked: dict[str, int] = {}
        self.due: dict[str, float] = {}
        """When each model that may be asked again may be, as the clock's monotonic reading."""

    def with_another_key(self, model: str) -> bool:
        """True when a model of which only one key is refused may be asked again at once; that counts as an attempt."""
        count = self._asked.get(model, 0) + 1
        if count >= self._most:
            return False
        self._asked[model] = count
        return True

    def failed(self, model: str, error: ServiceError, now: float, chance: float) -> None:
        """An attempt failed. `chance`, in [0, 1), spreads out those that failed together."""
        count = self._asked[model] = self._asked.get(model, 0) + 1
        # One that was silent would be silent again: nobody waits for that twice.
        if not error.retryable or isinstance(error, AttemptTimeout) or count >= self._most:
            return
        least = FIRST_WAIT_S if count == 1 else LATER_WAIT_S * 2.0 ** (count - 2)
        wait = least * (1.0 + chance)
        self.due[model] = now + max(wait, error.retry_after_s or 0.0)
