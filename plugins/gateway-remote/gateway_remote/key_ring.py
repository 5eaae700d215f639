"""KeyRing: the keys of one row, in turn; one that is refused, or has to wait, is left alone for a while.

What has become of a key is known to all rows that use it: the rings of one gateway share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway import Denied, OutOfQuota, Quota, RateLimited, ServiceError

WAIT_S = 5.0
"""How long a key rests that was asked too much of, where the provider does not say."""
DENIED_S = 60.0
"""How long a key rests that was refused, or is out of credit: it may be mended meanwhile."""
RESET_S = 1.0
"""How long one rests whose quota is used up, where the provider does not say when it is full again."""


@dataclass(slots=True)
class Key:
    """One key by its reference, never its value. Times are the clock's monotonic readings."""

    ref: str
    rests_until: float = 0.0
    turn: int = 0
    """The how-manieth call of the gateway it was last used for: by time alone, calls at one instant would all take one key."""
    why: type[ServiceError] = RateLimited
    status: int | None = None
    """The class and the status of the error for which it rests; not the error, which holds on to a whole request."""

    def rest(self, until: float, why: type[ServiceError] = RateLimited, status: int | None = None) -> None:
        """Leave it alone until then. A standing rest is never shortened."""
        if until > self.rests_until:
            self.rests_until, self.why, self.status = until, why, status

    @property
    def waits(self) -> bool:
        """True when it rests for what time alone cures."""
        return issubclass(self.why, RateLimited)


@dataclass
class Rests:
    """What is known of every key of one gateway, by reference."""

    keys: dict[str, Key] = field(default_factory=dict)
    turns: int = 0

    def ring(self, refs: Iterable[str]) -> KeyRing:
        """The keys of one row."""
        return KeyRing([self.keys.setdefault(ref, Key(ref)) for ref in refs], self)


class KeyRing:
    """The keys that one row may use; a row without one has a single key, of no name."""

    def __init__(self, keys: Iterable[Key], rests: Rests) -> None:
        self._keys = list(keys) or [Key("")]
        self._rests = rests

    def __len__(self) -> int:
        return len(self._keys)

    def at(self, place: int) -> Key:
        """One of them, whether it rests or not."""
        return self._keys[place]

    def take(self, now: float, model: str) -> Key:
        """The key that has not been used for longest. When all of several rest, an error that says how long, and why.

        A single key is always given: when it may be used again is the gateway's to judge.
        """
        key = self._keys[0]
        if len(self._keys) > 1:
            awake = [each for each in self._keys if each.rests_until <= now]
            if not awake:
                raise self._all_rest(now, model)
            key = min(awake, key=lambda each: each.turn)
        self._rests.turns = key.turn = self._rests.turns + 1
        return key

    def failed(self, key: Key, error: ServiceError, now: float) -> ServiceError:
        """The error as the gateway is to take it: with other keys that are awake, the model may be asked again at once.

        When none is, it says how long until one is.
        """
        if key.ref and isinstance(error, (Denied, OutOfQuota)):
            error.message += f" (the key is {key.ref})"
        if not key.ref or not concerns_the_key(error):
            return error
        usual_s = WAIT_S if isinstance(error, RateLimited) else DENIED_S
        key.rest(now + (usual_s if error.retry_after_s is None else error.retry_after_s), type(error), error.status)
        if len(self._keys) < 2:
            return error
        first = self._first()
        if first.rests_until <= now:
            error.spare_key, error.retryable, error.retry_after_s = True, True, None
        else:
            # The key that wakes first says whether waiting helps: not the one that happened to be used last.
            error.retryable = error.retryable or (first is not key and first.waits)
            error.retry_after_s = first.rests_until - now
        return error

    def answered(self, key: Key, quota: Quota | None, now: float) -> Quota | None:
        """What the gateway is to know of a quota. That of one key among several is the ring's own affair, until all rest."""
        if quota is None or len(self._keys) < 2:
            return quota
        for left, reset_s in ((quota.requests, quota.requests_reset_s), (quota.tokens, quota.tokens_reset_s)):
            if left is not None and left <= 0:
                key.rest(now + (reset_s or RESET_S))
        wait_s = self._first().rests_until - now
        return Quota(requests=0, requests_reset_s=wait_s) if wait_s > 0 else None

    def _first(self) -> Key:
        """The key that is awake first, or for longest."""
        return min(self._keys, key=lambda each: each.rests_until)

    def _all_rest(self, now: float, model: str) -> ServiceError:
        first = self._first()
        wait_s = first.rests_until - now
        message = f"model {model!r}: each of its {len(self._keys)} keys has to rest, the first for {wait_s:.1f} s more"
        return first.why(message, model=model, status=first.status, retry_after_s=wait_s)


def concerns_the_key(error: ServiceError) -> bool:
    """True for what another key may cure: a 403 is about this model, or this content."""
    return isinstance(error, (RateLimited, OutOfQuota)) or (isinstance(error, Denied) and error.status != 403)
