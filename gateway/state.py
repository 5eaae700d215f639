"""StateStore: what is reserved before a call and settled after it, against limits per window. In memory here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from gateway.clock import Clock

Unit = Literal["requests", "tokens", "usd"]
LEASE_TTL_S = 900.0
LAPSED_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `max` of `unit` per window of `window_s` seconds (windows start at multiples of it since the epoch).

    `key` names what is being limited, such as ``tenant:acme``; limits with one key, unit and window share one count.
    """

    key: str
    unit: Unit
    max: float
    window_s: float


@dataclass(frozen=True, slots=True)
class Lease:
    """What was reserved. It lapses after `LEASE_TTL_S` when nobody settles it, and frees what it held."""

    id: int
    amounts: Mapping[Unit, float]
    limits: tuple[Limit, ...]
    expires_at: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first limit that has no room, what is used of it, and in how many seconds the amount would fit.

    `reason` is the gateway's own, where room is not what it lacks.
    """

    limit: Limit
    used: float
    frees_in_s: float
    reason: str = ""


@runtime_checkable
class StateStore(Protocol):
    """Counts against limits; all or nothing. A store that several processes share keeps to the same contract."""

    async def reserve(self, amounts: Mapping[Unit, float], limits: Sequence[Limit]) -> Lease | Refusal:
        """Take `amounts` from every limit, or from none and say which refused."""

    async def settle(self, lease: Lease, actual: Mapping[Unit, float]) -> None:
        """Replace what was reserved by what was used. A second settlement of one lease changes nothing."""


class MemoryState:
    """One process's counts, forgotten when it ends. Memory is bounded by the limits and leases in use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[Count, float] = {}
        self._leases: dict[int, tuple[Lease, set[Count]]] = {}
        self._lapsed: dict[int, Lease] = {}
        self._count = 0
        self._sweep_at = 0.0

    async def reserve(self, amounts: Mapping[Unit, float], limits: Sequence[Limit]) -> Lease | Refusal:
        now = self._clock.now()
        self._sweep(now)
        for limit in limits:
            amount = amounts.get(limit.unit, 0.0)
            used = self._used.get(_count(limit, now), 0.0)
            if not used + amount <= limit.max:  # so worded that NaN is refused
                fits_in = math.inf if not amount <= limit.max else (now // limit.window_s + 1) * limit.window_s - now
                return Refusal(limit, used, fits_in)
        self._count += 1
        lease = Lease(self._count, dict(amounts), tuple(limits), now + LEASE_TTL_S)
        counts = {_count(limit, now) for limit in limits}
        self._leases[lease.id] = lease, counts
        self._add(counts, amounts)
        return lease

    async def settle(self, lease: Lease, actual: Mapping[Unit, float]) -> None:
        held, counts = self._leases.pop(lease.id, (self._lapsed.pop(lease.id, None), set()))
        if held is not None:  # a lapsed one holds nothing any more, but what was used is counted all the same
            self._add(counts, held.amounts, sign=-1)
            now = self._clock.now()
            # What a service says it used is not to be trusted blindly: NaN would erase a count.
            used = {unit: n if 0.0 <= n < math.inf else held.amounts.get(unit, 0.0) for unit, n in actual.items()}
            self._add({_count(limit, now) for limit in held.limits}, used)

    def _add(self, counts: Iterable[Count], amounts: Mapping[Unit, float], *, sign: int = 1) -> None:
        for count in counts:
            if sign > 0 or count in self._used:
                self._used[count] = max(0.0, self._used.get(count, 0.0) + sign * amounts.get(count.unit, 0.0))
                self._sweep_at = min(self._sweep_at, count.ends_at)

    def _sweep(self, now: float) -> None:
        """Lapse old leases (they are in order of age) and, when one has ended, forget past windows."""
        for lease, counts in list(self._leases.values()):
            if lease.expires_at > now:
                break
            self._lapsed[lease.id] = self._leases.pop(lease.id)[0]
            self._add(counts, lease.amounts, sign=-1)
        while len(self._lapsed) > LAPSED_KEPT:
            del self._lapsed[next(iter(self._lapsed))]
        if now >= self._sweep_at:
            self._used = {count: used for count, used in self._used.items() if count.ends_at > now}
            self._sweep_at = min((count.ends_at for count in self._used), default=math.inf)


class Count(NamedTuple):
    """What one window of a limit is counted under: limits that differ only in `max` share it."""

    key: str
    unit: Unit
    window_s: float
    ends_at: float


def _count(limit: Limit, now: float) -> Count:
    return Count(limit.key, limit.unit, limit.window_s, (now // limit.window_s + 1) * limit.window_s)
