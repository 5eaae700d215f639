"""Hours of traffic in a minute or two: every byte right, memory flat, no socket left. Run by `make soak`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import AsyncGateway, Chat, ChatResponse

pytestmark = pytest.mark.soak

STREAMS, ROUNDS = 1_000, 8
CALLS, WARM, AT_ONCE = 200_000, 20_000, 32
GROWTH_KB = 5_000


@pytest.fixture
def url() -> Iterator[str]:
    """A loopback server in a process of its own, so that only ours is measured."""
    with subprocess.Popen([sys.executable, "-m", "gateway.testing"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def rss_kb() -> int:
    """What this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def sockets() -> int:
    """How many sockets this process has open."""
    return sum("socket:" in str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())


def gateway_at(url: str) -> AsyncGateway:
    rows = [{"name": f"m{at}", "base_url": url, "max_connections": STREAMS} for at in range(2)]
    return AsyncGateway.from_config({"plugins": ["remote"], "plugin": {"remote": {"models": rows}}})


@pytest.mark.timeout(600)
def test_a_thousand_streams_at_once_are_right_to_the_byte_and_leave_no_memory_behind(url: str) -> None:
    async def whole() -> list[int]:
        seen = []
        before = sockets()
        async with gateway_at(url) as gw:

            async def one(number: int) -> None:
                said = f"number {number}: " + "grüß dich, 你好, 🦀 " * (1 + number % 7)
                async with gw.stream(Chat.ask(said)) as stream:
                    text = "".join([delta.text async for delta in stream])
                    assert isinstance(stream.response, ChatResponse)
                    assert text == stream.response.text == f"You said: {said}"

            for _ in range(ROUNDS):
                await asyncio.gather(*map(one, range(STREAMS)))
                seen.append(rss_kb())
        assert sockets() == before
        return seen

    seen = asyncio.run(whole())
    assert seen[-1] - seen[2] < GROWTH_KB, seen  # the first rounds fill pools and histograms


@pytest.mark.timeout(1200)
def test_two_hundred_thousand_calls_leave_no_memory_and_no_socket_behind(url: str) -> None:
    async def whole() -> tuple[int, int]:
        before = sockets()
        async with gateway_at(url) as gw:

            async def some(count: int) -> None:
                for at in range(count):
                    reply = await gw.run(Chat.ask(f"call {at}", max_tokens=60))
                    assert reply.text == f"You said: call {at}"

            async def many(count: int) -> int:
                await asyncio.gather(*(some(count // AT_ONCE) for _ in range(AT_ONCE)))
                return rss_kb()

            warm, after = await many(WARM), await many(CALLS - WARM)
        assert sockets() == before
        return warm, after

    warm, after = asyncio.run(whole())
    assert after - warm < GROWTH_KB
