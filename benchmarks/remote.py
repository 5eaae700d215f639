"""What a call of a hosted model costs: ours beside raw HTTP clients and other gateways, CPU first. Prints figures.

    python benchmarks/remote.py [--rounds N] [--peers .venv-bench/bin/python] [--only NAME ...]

Every client is a process of its own, and all ask the same mock server, in another process, by turns: a round of each, then the
next round. CPU is the client process's own, user and system, all its threads. Given are the least of the rounds and,
against a baseline, the median of the ratios within each round: the machine may be shared.

Ours is the whole of `AsyncGateway.run`: a policy over ten cards, a trace, limits of time; "service" is the plugin alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway import AsyncGateway, Chat, Need

HERE = Path(__file__).parent
TEXT = "Name three rivers. " * 45
NEED = Need(max_latency_s=60.0, max_cost_usd=1.0)
JOBS = {"1 at a time": ("call", 1, 400), "32 at once": ("call", 32, 640), "stream": ("stream", 1, 10)}
OURS = ("gateway", "service")
PEERS = ("pyreqwest", "aiohttp", "httpx", "tensorzero", "openai", "any_llm", "litellm", "litellm_router")
SLOW = {"openai": 4, "any_llm": 4, "litellm": 20, "litellm_router": 20, "httpx": 2}
"""How many times fewer calls: a round should not take long."""
GOALS = (
    ("1 at a time", "pyreqwest", 1.5),
    ("32 at once", "pyreqwest", 2.0),
    ("1 at a time", "httpx", 0.4),
    ("32 at once", "httpx", 0.4),
    ("1 at a time", "tensorzero", 1.0),
    ("32 at once", "tensorzero", 1.0),
    ("stream", "aiohttp", 1.5),
)


async def ours(name: str, url: str) -> None:
    """Serve jobs of ours: see peers/remote_client.py, whose protocol this is."""
    rows = [
        {"name": f"m{n}", "base_url": url, "model": "mock", "quality": 0.5 + n / 100, "price": {"input": n, "output": 2 * n}}
        for n in range(10)
    ]
    ask = Chat.ask(TEXT, max_tokens=100)
    async with AsyncGateway.from_config({"plugins": ["remote"], "plugin": {"remote": {"models": rows}}}) as gw:
        first = await gw.run(ask, NEED)
        service = gw._house.registry.entries[first.model].service

        async def stream() -> None:
            async with gw.stream(ask, NEED) as deltas:
                async for _ in deltas:
                    pass

        async def bare_stream() -> None:
            async for _ in service.stream(ask):
                pass

        jobs: dict[str, Callable[[], Awaitable[Any]]] = {"call": lambda: gw.run(ask, NEED), "stream": stream}
        if name == "service":
            jobs = {"call": lambda: service.run(ask), "stream": bare_stream}
        for job in jobs.values():
            for _ in range(3):
                await job()
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            given = json.loads(line)
            print(await cpu_us(jobs[given["job"]], given["at_once"], given["times"]), flush=True)


async def cpu_us(job: Callable[[], Awaitable[Any]], at_once: int, times: int) -> float:
    """CPU microseconds per call."""
    began = time.process_time()

    async def several() -> None:
        for _ in range(times // at_once):
            await job()

    await asyncio.gather(*(several() for _ in range(at_once)))
    return (time.process_time() - began) / (times // at_once * at_once) * 1e6


class Client:
    """A process that measures one client."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.seen: dict[str, list[float]] = {job: [] for job in JOBS}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := self._line()) != "ready":
            if not line:
                raise RuntimeError(f"{name} did not start")

    def measure(self, job: str) -> None:
        """One round of one job."""
        kind, at_once, times = JOBS[job]
        given = {"job": kind, "at_once": at_once, "times": max(at_once, times // SLOW.get(self.name, 1))}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        self.seen[job].append(float(self._line()))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def ratio(ours: Client, other: Client, job: str) -> float:
    """The median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(ours.seen[job], other.seen[job], strict=True))


def main() -> None:
    """Measure all of them and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default=str(HERE.parent / ".venv-bench/bin/python"))
    parser.add_argument("--only", nargs="*", default=[*OURS, *PEERS])
    parser.add_argument("--gap-ms", type=float, default=0.0, help="between two chunks of a stream")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        asyncio.run(ours(*given.child))
        return
    upstream = subprocess.Popen(
        [sys.executable, str(HERE / "upstream.py"), "--gap-ms", str(given.gap_ms)], stdout=subprocess.PIPE, text=True
    )
    assert upstream.stdout is not None
    url = upstream.stdout.readline().strip()
    clients: list[Client] = []
    try:
        for name in given.only:
            ourselves = [sys.executable, __file__, "--child", name, url]
            peer = [given.peers, str(HERE / "peers/remote_client.py"), name, url]
            if name not in OURS and not Path(given.peers).exists():
                print(f"{name}: skipped, there is no {given.peers} (make bench makes it)")
                continue
            clients.append(Client(name, ourselves if name in OURS else peer))
        for _ in range(given.rounds):
            for job in JOBS:
                for client in clients:
                    client.measure(job)
        show({client.name: client for client in clients})
    finally:
        for client in clients:
            client.close()
        upstream.kill()


def show(clients: dict[str, Client]) -> None:
    """The table, and the goals."""
    print(f"\nCPU in microseconds per call, the least of the rounds; a stream is 256 chunks\n{'':16}", end="")
    print("".join(f"{job:>14}" for job in JOBS))
    for client in clients.values():
        print(f"{client.name:16}" + "".join(f"{min(client.seen[job]):14.0f}" for job in JOBS))
    if "gateway" not in clients:
        return
    print("\nour whole routed call against theirs, the median of the rounds")
    for job, name, goal in GOALS:
        if name in clients:
            found = ratio(clients["gateway"], clients[name], job)
            print(f"{job:>14} / {name:12} {found:6.2f}   (goal: at most {goal:g})")
    for name, client in clients.items():
        if name not in OURS and not any(name == goal[1] for goal in GOALS):
            print(f"{'':>14} / {name:12}" + "".join(f"{ratio(clients['gateway'], client, job):7.3f}" for job in JOBS))


if __name__ == "__main__":
    main()
