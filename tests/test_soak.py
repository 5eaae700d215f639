"""Long runs: memory stays flat. Behind a marker: `make soak`."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from gateway import AsyncGateway, Chat, Meta, Need, Overloaded
from gateway.testing import Echo, Scripted

pytestmark = pytest.mark.soak


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat_over_many_requests_streams_failures_and_names() -> None:
    async def main() -> None:
        failing = Scripted("failing", otherwise=Overloaded("full"), quality=1.0)
        async with AsyncGateway([Echo("a"), Echo("b"), failing]) as gw:

            async def some(begin: int, end: int) -> None:
                for n in range(begin, end):
                    meta = Meta(tenant=f"tenant-{n}", conversation=f"c-{n}")
                    await gw.run(Chat.ask(f"number {n}"), Need(max_latency_s=60.0 + n % 5000), meta=meta)
                    async with gw.stream(Chat.ask(f"number {n}"), meta=meta) as stream:
                        await stream.result()
                    failing.asked.clear()  # the fake keeps what it was asked; a real service does not

            await some(0, 10_000)
            before = resident_bytes()
            await some(10_000, 60_000)
            assert resident_bytes() - before < 4_000_000

    asyncio.run(main())
