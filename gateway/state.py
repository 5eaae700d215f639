"""StateStore: what is reserved before a call and settled after it, against limits per window. In memory here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gateway.clock import Clock

Unit = Literal["requests", "tokens", "usd"]
LEASE_TTL_S = 900.0


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
    """The first limit that has no room, what is used of it, and in how many seconds the amount would fit."""

    limit: Limit
    used: float
    frees_in_s: float


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
        self._used: dict[tuple[str, Unit, float, int], float] = {}
        self._leases: dict[int, Lease] = {}
        self._count = 0
        self._sweep_at = 0.0

    async def reserve(self, amounts: Mapping[Unit, float], limits: Sequence[Limit]) -> Lease | Refusal:
        now = self._clock.now()
        self._sweep(now)
        for limit in limits:
            window, amount = int(now // limit.window_s), amounts.get(limit.unit, 0.0)
            used = self._used.get((limit.key, limit.unit, limit.window_s, window), 0.0)
            if used + amount > limit.max:
                fits_in = math.inf if amount > limit.max else (window + 1) * limit.window_s - now
                return Refusal(limit, used, fits_in)
        self._count += 1
        lease = Lease(self._count, dict(amounts), tuple(limits), now + LEASE_TTL_S)
        self._leases[lease.id] = lease
        self._add(lease, amounts, now)
        return lease

    async def settle(self, lease: Lease, actual: Mapping[Unit, float]) -> None:
        held = self._leases.pop(lease.id, None)
        if held is not None:
            self._add(held, held.amounts, held.expires_at - LEASE_TTL_S, sign=-1)
            self._add(held, actual, self._clock.now())

    def _add(self, lease: Lease, amounts: Mapping[Unit, float], at: float, *, sign: int = 1) -> None:
        for limit in lease.limits:
            key = (limit.key, limit.unit, limit.window_s, int(at // limit.window_s))
            if sign > 0 or key in self._used:
                self._used[key] = max(0.0, self._used.get(key, 0.0) + sign * amounts.get(limit.unit, 0.0))
                self._sweep_at = min(self._sweep_at, (key[3] + 1) * limit.window_s)

    def _sweep(self, now: float) -> None:
        """Lapse old leases (they are in order of age) and, when one has ended, forget past windows."""
        for lease in list(self._leases.values()):
            if lease.expires_at > now:
                break
            del self._leases[lease.id]
            self._add(lease, lease.amounts, lease.expires_at - LEASE_TTL_S, sign=-1)
        if now >= self._sweep_at:
            self._used = {key: used for key, used in self._used.items() if (key[3] + 1) * key[2] > now}
            self._sweep_at = min(((window + 1) * window_s for _, _, window_s, window in self._used), default=math.inf)
