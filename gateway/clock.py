"""Clock and Random: the one place where time and chance enter, so that decisions replay and tests need no sleep."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol

Random = random.Random
"""A seeded source of chance; one belongs to each gateway."""


class Clock(Protocol):
    """Where the gateway and its policies get the time from."""

    def now(self) -> float:
        """Seconds since the epoch: for records and daily limits."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards: for durations and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""


class SystemClock:
    """The machine's own clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)


def seeded(seed: int | None) -> Random:
    """A source of chance: the same for the same seed; None seeds it from the operating system."""
    return random.Random(seed)
