"""KeyRing: what is given, and what is told, whatever has happened before."""

from typing import Any

from gateway_remote.key_ring import Rests
from hypothesis import given
from hypothesis import strategies as st

from gateway import (
    Denied,
    OutOfQuota,
    Overloaded,
    Quota,
    RateLimited,
    ServiceError,
)

ONE, TWO, THREE = REFS = ("env:KEY_ONE", "env:KEY_TWO", "env:KEY_THREE")

kinds = st.sampled_from([
    lambda: RateLimited("x"), lambda: RateLimited("x", retry_after_s=2.0), lambda: RateLimited("x", retry_after_s=0.0),
    lambda: RateLimited("x", retryable=False), lambda: Denied("x", status=401), lambda: OutOfQuota("x"),
    lambda: Denied("x", status=403), lambda: Overloaded("x", retry_after_s=9.0),
])  # fmt: skip
steps = st.lists(st.one_of(kinds, st.floats(0, 20), st.builds(lambda s: Quota(tokens=0, tokens_reset_s=s), st.floats(0, 9))))


@given(st.integers(1, 4), steps)
def test_a_ring_never_gives_a_key_that_rests_and_always_says_when_one_wakes(count: int, happened: list[Any]) -> None:
    rests, now = Rests(), 0.0
    ring = rests.ring(f"env:K{at}" for at in range(count))
    for what in happened:
        if isinstance(what, float):
            now += what
            continue
        awake = [key for key in rests.keys.values() if key.rests_until <= now]
        try:
            key = ring.take(now, "m")
        except ServiceError as error:
            assert not awake and count > 1
            waking = min(each.rests_until for each in rests.keys.values()) - now
            assert error.retry_after_s == waking > 0 and not error.spare_key
            continue
        assert count == 1 or (key in awake and key.turn == max(each.turn for each in rests.keys.values()))
        if isinstance(what, Quota):
            told = ring.answered(key, what, now)
            assert (told == what) if count == 1 else (told is None) == any(k.rests_until <= now for k in rests.keys.values())
            continue
        error = what()
        before = error.retry_after_s
        assert ring.failed(key, error, now) is error
        left = [each for each in rests.keys.values() if each.rests_until <= now]
        if count == 1 or isinstance(error, Overloaded) or error.status == 403:
            assert not error.spare_key and error.retry_after_s == before
        else:
            assert error.spare_key is bool(left)
            assert (error.retry_after_s is None) is bool(left)


def test_a_ring_holds_on_to_no_request_of_the_past() -> None:
    ring = Rests().ring([ONE, TWO])
    key = ring.take(0.0, "m")
    ring.failed(key, RateLimited("x"), 0.0)
    assert not any(isinstance(getattr(key, name), BaseException) for name in key.__slots__)
