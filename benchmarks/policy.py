"""What a decision costs: CPU with 10 and 500 services, beside LiteLLM's router, then a million decisions. Asserts nothing.

    python benchmarks/policy.py [--rounds N] [--soak | --no-soak]

A decision is the whole of it: every built-in policy, the live statistics, the ranking and the plan. After each decision the
statistics of some service move, which is timed apart and taken off. CPU is the process's own time, the best of several rounds:
the machine may be shared. It is the clock that decisions see, too: what is renewed a few times a second is then renewed as on a
machine that nobody else uses. The peer runs in an environment of its own, which `make bench` sets up.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gateway.card import ModelCard, Need, Place, Price
from gateway.clock import SystemClock, seeded
from gateway.config import PolicyConfig
from gateway.decision import Decision
from gateway.keys import Keys
from gateway.policies import builtin_policies
from gateway.registry import Registry
from gateway.request import Request, Response
from gateway.router import Router
from gateway.routing import BYTES_PER_TOKEN, Ask, Shape
from gateway.service import ModelService, Resources
from gateway.tasks import Chat

HERE = Path(__file__).parent
PEER_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"
COUNTS = (10, 500)
GOAL_US = {10: 8.0, 500: 20.0}
REQUESTS = 1000
IN_FLIGHT = 32
BATCH = 20_000
"""Decisions in a round: it lasts long enough for what the clock renews to be renewed within it."""
RATES = (1000, 100)
"""Requests a second: the fewer they are, the fewer share what the clock renews."""
SOAK = 1_000_000
NEED = Need(max_cost_usd=0.1, max_latency_s=60.0)
SHAPES = (Shape(task=Chat, need=NEED), Shape(task=Chat, need=NEED, features=frozenset({"tools"})))


class Priced(ModelService):
    """A service that is a card and nothing more: nobody calls it."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    async def run(self, request: Request[Any], /) -> Response:
        raise NotImplementedError


def card(n: int, chance: random.Random) -> ModelCard:
    """One of many: hosted for the most part, nine in ten with tools, prices, context and quality as varied as on the market."""
    place: Place = "private" if n % 10 == 3 else "hosted"
    input_usd = chance.lognormvariate(0.0, 1.0)
    return ModelCard(
        name=f"service-{n}",
        tasks=frozenset({Chat}),
        place=place,
        provider=f"provider-{n % 20}",
        context=(8_000, 32_000, 128_000, 200_000)[n % 4],
        features=frozenset({"stop"} if n % 10 == 7 else {"stop", "tools"}),
        price=Price(input=input_usd, output=4 * input_usd),
        quality=chance.uniform(0.4, 0.95),
    )


def asks() -> list[Ask]:
    """Requests to decide on: input of about 1,000 tokens, half of them within 500 and 2,000; every other one with tools."""
    chance = random.Random(7)
    sizes = [min(int(chance.lognormvariate(8.3, 1.0)), 400_000) for _ in range(REQUESTS)]
    return [
        Ask(
            shape=SHAPES[n % 2],
            input_bytes=size,
            input_tokens=size // BYTES_PER_TOKEN,
            output_tokens=chance.choice((None, 256, 1024)),
            tenant=f"tenant-{n % 50}",
        )
        for n, size in enumerate(sizes)
    ]


def answers() -> Iterator[tuple[float, int, float]]:
    """Seconds to the first token, tokens, seconds per token of one answer after another, for ever."""
    chance = random.Random(5)
    firsts = [chance.lognormvariate(-0.7, 0.5) for _ in range(997)]
    return itertools.cycle([(s, 1 + int(chance.lognormvariate(5.0, 0.8)), chance.uniform(0.01, 0.03)) for s in firsts])


async def registered(services: int) -> Registry:
    """A gateway's registry with so many services, all described and ready."""
    chance, clock = random.Random(3), SystemClock()
    resources = Resources(stores={}, keys=Keys({}), clock=clock, random=seeded(1))
    named = [("the app", Priced(card(n, chance))) for n in range(services)]
    registry = Registry(named, resources=resources, clock=clock, emit=lambda event: None)
    for entry in await registry.described():
        assert entry.vitals is not None, entry.error
        entry.vitals.state = "ready"
    return registry


Now = Callable[[], float]
Decide = Callable[[int, float], Decision]
Learn = Callable[[int, str | None, float], None]


def ours(services: int) -> tuple[Decide, Learn]:
    """`decide` the n-th request at a time; `learn` which service it went to, and that the oldest one under way is answered."""
    registry = asyncio.run(registered(services))
    config = PolicyConfig()
    router = Router(builtin_policies(config), random=seeded(1), config=config, knowledge=registry.knowledge)
    entries, version, requests = registry.known, registry.version, asks()
    vitals = {entry.name: entry.vitals for entry in entries if entry.vitals is not None}
    coming = answers()
    under_way: deque[tuple[str, Ask]] = deque()

    def request(n: int) -> Ask:
        # Five turns a conversation, and never the same one again: names that no memory may keep for ever.
        ask = requests[n % REQUESTS]
        ask.conversation = f"talk-{n // 5}"
        return ask

    def decide(n: int, now: float) -> Decision:
        ask = request(n)
        ask.now = now
        return router.decide(ask, entries, version)

    def learn(n: int, name: str | None, now: float) -> None:
        if name is None:
            return
        vitals[name].in_flight += 1
        under_way.append((name, request(n)))
        if len(under_way) > IN_FLIGHT:
            first_s, tokens, per_token_s = next(coming)
            name, ask = under_way.popleft()
            vitals[name].in_flight -= 1
            vitals[name].succeeded("chat", first_s + tokens * per_token_s, first_s, tokens, now)
            router.answered(ask, name)

    return decide, learn


def running() -> Now:
    """A clock that runs while this process does."""
    return time.process_time


def stopped() -> Now:
    """A clock that stands still: what was worked out once stays good."""
    moment = time.process_time()
    return lambda: moment


def paced(per_second: float) -> Now:
    """A clock that moves on by the time between two requests whenever it is read."""
    ticks = itertools.count()
    began = time.process_time()
    return lambda: began + next(ticks) / per_second


def decision_us(services: int, clock: Callable[[], Now], rounds: int, batch: int) -> float:
    """CPU microseconds per decision: the best round of deciding and learning, less the best of learning alone."""
    both = alone = float("inf")
    # What is learnt a second time is learnt elsewhere: it must not make the next decisions dearer.
    (decide, learn), (_, again) = ours(services), ours(services)
    now, then = clock(), clock()
    for number in range(rounds + 1):
        turns = range(number * batch, (number + 1) * batch)
        chosen = []
        began = time.process_time()
        for n in turns:
            moment = now()
            name = decide(n, moment).chosen
            chosen.append(name)
            learn(n, name, moment)
        both = min(both, time.process_time() - began)
        began = time.process_time()
        for n, name in zip(turns, chosen, strict=True):
            again(n, name, then())
        alone = min(alone, time.process_time() - began)
    return (both - alone) / batch * 1e6


def explanation_us(services: int, rounds: int) -> tuple[float, float]:
    """CPU microseconds to build the judgement of every candidate, put off until somebody looks; how many may be chosen."""
    best = float("inf")
    decide, learn = ours(services)
    eligible = []
    for number in range(rounds + 1):
        made = []
        for n in range(number * 50, (number + 1) * 50):
            now = time.process_time()
            made.append(decide(n, now))
            learn(n, made[-1].chosen, now)
        began = time.process_time()
        for decision in made:
            assert decision.candidates
        best = min(best, (time.process_time() - began) / len(made) * 1e6)
        eligible += [len(decision.ranked) for decision in made]
    return best, sum(eligible) / len(eligible)


def memory_mb() -> float:
    """Resident memory now, in MB; where the system does not say, the most that there has been."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return pages * resource.getpagesize() / 1e6


def soak(decide: Decide, learn: Learn) -> None:
    """A million decisions; the memory after every 100,000, and what it grew by after the first 200,000."""
    print(f"\n{SOAK:,} decisions, 500 services, 200,000 conversations")
    seen = []
    began = time.process_time()
    for n in range(SOAK):
        now = time.process_time()
        learn(n, decide(n, now).chosen, now)
        if (n + 1) % 100_000 == 0:
            seen.append(memory_mb())
    spent = time.process_time() - began
    print(f"  MB after every 100,000{'':8}" + " ".join(f"{mb:6.1f}" for mb in seen))
    print(f"  growth after the first 200,000 {seen[-1] - seen[1]:+5.1f} MB;  {spent:.0f} s of CPU, learning included")


def peer(our_us: dict[int, float], rounds: int) -> None:
    """LiteLLM's router with as many deployments, each of its strategies, and how many times ours it takes."""
    if not PEER_PYTHON.exists():
        print("\nLiteLLM's router: skipped: make bench installs the peer")
        return
    task = {"services": COUNTS, "prompt_bytes": [ask.input_bytes for ask in asks()], "rounds": min(rounds, 3)}
    command = [str(PEER_PYTHON), str(HERE / "peers" / "litellm_router.py")]
    ran = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    if ran.returncode:
        print(f"\nLiteLLM's router: failed: {ran.stderr.strip().splitlines()[-1:]}")
        return
    told = json.loads(ran.stdout)
    print(f"\n{'LiteLLM ' + told['version'] + ', its choice alone':28}" + "".join(f"{f'{n} services':>36}" for n in COUNTS))
    print(f"{'':28}" + f"{'brief us':>12}{'x ours':>12}{'our sizes':>12}" * 2)
    for strategy, counts in told["us"].items():
        cells = [(counts[str(n)], our_us[n]) for n in COUNTS]
        us_cells = [f"{us['brief']:12,.0f}{us['brief'] / own:12,.0f}{us['same']:12,.0f}" for us, own in cells]
        print(f"  {strategy:26}" + "".join(us_cells))
    print("  brief: a prompt of one word; our sizes: the prompts that we decide on, whose tokens it counts.")


def main() -> None:
    """Measure and print, ours beside the peer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", action=argparse.BooleanOptionalAction, help="by default when it takes less than a minute")
    options = parser.parse_args()
    rounds = options.rounds
    explained = {n: explanation_us(n, rounds) for n in COUNTS}
    us = {n: decision_us(n, running, rounds, BATCH) for n in COUNTS}
    rows = {
        "a decision, one after the other": us,
        "  when nothing is due for renewal": {n: decision_us(n, stopped, rounds, BATCH // 4) for n in COUNTS},
        **{
            f"  when {rate:,} requests come a second": {
                n: decision_us(n, partial(paced, rate), rounds, 2 * rate) for n in COUNTS
            }
            for rate in RATES
        },
        "  its explanation, when somebody asks": {n: explained[n][0] for n in COUNTS},
    }
    print(f"{'CPU us':44}" + "".join(f"{f'{n} services':>16}" for n in COUNTS))
    for label, row in rows.items():
        goals = f"   (goals {', '.join(f'{GOAL_US[n]:g}' for n in COUNTS)})" if row is us else ""
        print(f"{label:44}" + "".join(f"{row[n]:16,.1f}" for n in COUNTS) + goals)
    print("services that may be chosen, the mean       " + "".join(f"{explained[n][1]:16,.1f}" for n in COUNTS))
    peer(us, rounds)
    if options.soak or (options.soak is None and us[500] * SOAK < 60e6):
        soak(*ours(500))
    elif options.soak is None:
        print(f"\n{SOAK:,} decisions: left out, about {us[500] * SOAK / 60e6:.0f} minutes of CPU; --soak runs them")


if __name__ == "__main__":
    main()
