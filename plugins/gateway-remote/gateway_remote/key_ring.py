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


@dataclass(slots=True)
class Key:
    """One key by its reference, never its value. Times are the clock's monotonic readings."""

    ref: str
    rests_until: float = 0.0
    used_at: float = 0.0
    error: ServiceError | None = None
    """Why it rests."""


@dataclass
class Rests:
    """What is known of every key of one gateway, by reference."""

    keys: dict[str, Key] = field(default_factory=dict)

    def ring(self, refs: Iterable[str]) -> KeyRing:
        """The keys of one row."""
        return KeyRing([self.keys.setdefault(ref, Key(ref)) for ref in refs])


class KeyRing:
    """The keys that one row may use; a row without one has a single key, of no name."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = list(keys) or [Key("")]

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, now: float, model: str) -> Key:
        """The key that has not been used for longest. RateLimited, or what befell the last one, when all of several rest."""
        key = self._keys[0]
        if len(self._keys) > 1:
            awake = [each for each in self._keys if each.rests_until <= now]
            if not awake:
                raise self._all_rest(now, model)
            key = min(awake, key=lambda each: each.used_at)
        key.used_at = now
        return key

    def failed(self, key: Key, error: ServiceError, now: float) -> ServiceError:
        """The error as the gateway is to take it: with other keys that are awake, the model may be asked again at once."""
        if len(self._keys) < 2 or not concerns_the_key(error):
            return error
        wait = error.retry_after_s or (WAIT_S if isinstance(error, RateLimited) else DENIED_S)
        key.rests_until, key.error = max(key.rests_until, now + wait), error
        waking = min(each.rests_until for each in self._keys)
        error.spare_key = waking <= now
        error.retryable = error.spare_key or isinstance(error, RateLimited)
        error.retry_after_s = None if error.spare_key else waking - now
        return error

    def answered(self, key: Key, quota: Quota | None, now: float) -> Quota | None:
        """What the gateway is to know of a quota: that of a key among several is the ring's own affair."""
        if quota is None or len(self._keys) < 2:
            return quota
        for left, reset_s in ((quota.requests, quota.requests_reset_s), (quota.tokens, quota.tokens_reset_s)):
            if left is not None and left <= 0 and reset_s:
                key.rests_until = max(key.rests_until, now + reset_s)
        return None

    def _all_rest(self, now: float, model: str) -> ServiceError:
        first = min(self._keys, key=lambda each: each.rests_until)
        wait = first.rests_until - now
        message = f"model {model!r}: each of its {len(self._keys)} keys has to rest, the first for {wait:.1f} s more"
        if first.error is not None and not isinstance(first.error, RateLimited):
            return type(first.error)(message, model=model, status=first.error.status, retry_after_s=wait)
        return RateLimited(message, model=model, retry_after_s=wait)


def concerns_the_key(error: ServiceError) -> bool:
    """True for what another key may cure: a 403 is about this model, or this content."""
    return isinstance(error, (RateLimited, OutOfQuota)) or (isinstance(error, Denied) and error.status != 403)
