"""Breaker: whether a service may be asked now. It opens on failures, and waits when a provider asks to wait.

A circuit breaker (Nygard, Release It!, 2007) with one probe: when it has been open for a while, one request is let through,
and its outcome decides for the rest. Waiting for a standing Retry-After, or for a used-up quota, is kept apart from that: it
is never shortened, and needs no probe.
"""

from __future__ import annotations

from gateway.decision import Veto

STREAK = 5
"""So many failures in a row open it,"""
SHARE, LEAST, HALF_LIFE_S = 0.5, 10.0, 10.0
"""or more than this share of the attempts, when there have been so many; older ones count less."""
FIRST_S, LONGEST_S = 1.0, 8.0
"""How long it stays open the first time, and at most: twice as long after each probe that fails."""
MOST_S = 3600.0
"""A longer wait than this is not believed."""


class Breaker:
    """One service's. Times are the clock's monotonic readings; `shut_until` is what the router looks at."""

    __slots__ = ("_at", "_attempts", "_failures", "_open_until", "_opened", "_streak", "_wait_until", "_why", "shut_until")

    def __init__(self) -> None:
        self.shut_until = 0.0
        self._open_until = 0.0
        self._wait_until = 0.0
        self._why = ""
        self._opened = 0
        self._streak = 0
        self._failures = 0.0
        self._attempts = 0.0
        self._at = 0.0

    @property
    def open(self) -> bool:
        """True from its opening until a request has succeeded."""
        return self._opened > 0

    def refusal(self, now: float) -> Veto | None:
        """Why the service may not be asked now, and when it may."""
        if now >= self.shut_until:
            return None
        if self._wait_until > now and self._wait_until >= self._open_until:
            return Veto("wait", f"{self._why}; {self._wait_until - now:.1f} s are left", "", "gateway")
        return Veto(
            "breaker", f"{self._why}; asked again in {self._open_until - now:.1f} s", "a service that answers", "gateway"
        )

    def asked(self, now: float) -> bool:
        """A request is sent. True when it is the probe: the others wait for its outcome, or for the next probe."""
        if not self._opened:
            return False
        self._shut(open_until=now + LONGEST_S)
        return True

    def left(self, now: float) -> None:
        """The probe was given up by its caller: the next request is one."""
        if self._opened:
            self._open_until = now
            self.shut_until = max(now, self._wait_until)

    def succeeded(self, now: float) -> None:
        """An answer came: it closes."""
        self._count(now, 0.0)
        self._streak = 0
        if self._opened:
            self._opened, self._failures, self._open_until = 0, 0.0, 0.0
            self.shut_until = self._wait_until

    def failed(self, now: float, why: str, chance: float, *, probe: bool = False, at_once: bool = False) -> None:
        """A failure of the service's own. `chance`, in [0, 1), spreads out the probes; `at_once` opens it on the first."""
        self._count(now, 1.0)
        self._streak += 1
        if self._opened and not probe:
            return  # sent before it opened: it says nothing new
        often = self._attempts >= LEAST and self._failures > SHARE * self._attempts
        if probe or at_once or often or self._streak >= STREAK:
            self._opened += 1
            wait = min(LONGEST_S, FIRST_S * 2.0 ** min(self._opened - 1, 10))
            self._why = f"{self._streak} failures in a row, the last one {why}" if self._streak > 1 else why
            self._shut(open_until=now + wait * (0.75 + 0.25 * chance))

    def wait(self, until: float, now: float, why: str) -> None:
        """The provider asks to wait. A standing wait is never shortened."""
        until = min(until, now + MOST_S)
        if until > self._wait_until:
            self._wait_until, self.shut_until = until, max(until, self.shut_until)
            self._why = why

    def _shut(self, *, open_until: float) -> None:
        self._open_until = open_until
        self.shut_until = max(open_until, self._wait_until)

    def _count(self, now: float, failed: float) -> None:
        kept = 0.5 ** (max(0.0, now - self._at) / HALF_LIFE_S)
        self._at = now
        self._failures = self._failures * kept + failed
        self._attempts = self._attempts * kept + 1.0
