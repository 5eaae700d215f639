"""How well the policy chooses under faults: one real hour of requests, in virtual time. Prints figures; asserts nothing.

    python benchmarks/simulate.py --data DIR [--seed N] [--script NAME]...

DIR, or GATEWAY_DATA, holds routing/azure_conv_trace.csv: 19,366 requests in 58 minutes, with tokens in and out. Four
deployments of one quality differ in speed, room and price. Every request is tried once: nothing is asked again, no other model
after it. So what is counted is the choice alone. Ours is the very router, vitals and breaker of a gateway, told what a call
would tell them; while it says that nobody may be asked, a request waits as a call does, and that is part of its latency.

A script is what goes wrong. Most hit each deployment in turn, the favourite and the one that is hardly used. All policies see
the same requests and the same luck. The SLO: an answer, in at most twice the time that the fastest deployment usually takes.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from gateway.call import SLICE_S
from gateway.card import ModelCard, Need, Price
from gateway.clock import Random, seeded
from gateway.config import PolicyConfig, RetryConfig
from gateway.decision import Decision
from gateway.errors import AttemptTimeout, Overloaded, RateLimited, ServiceError
from gateway.journal import AT_ONCE
from gateway.policies import builtin_policies
from gateway.ranking import Row
from gateway.registry import Entry
from gateway.request import Request, Response
from gateway.router import Router
from gateway.routing import Ask, Shape
from gateway.service import ModelService
from gateway.tasks import Chat
from gateway.vitals import Knowledge, Vitals

SILENT_S, ERROR_S = 10.0, 0.03
"""A silent deployment is given up after so long; an error comes after so long."""
LUCK = 0.15
"""Standard deviation of the logarithm of a request's time."""


@dataclass(frozen=True)
class Deployment:
    """One deployment, alone and idle; with as many in flight as `room`, everything takes twice the time."""

    name: str
    first_s: float
    per_token_s: float
    room: float
    price: Price

    def times(self, tokens_in: int, tokens_out: int, load: float) -> tuple[float, float]:
        """Seconds to the first token, and of the whole answer."""
        slower = 1.0 + load / self.room
        first = self.first_s * (1.0 + tokens_in / 4000.0) * slower
        return first, first + max(tokens_out - 1, 0) * self.per_token_s * slower


FLEET = (
    Deployment("quick", 0.30, 0.010, 12.0, Price(input=1.0, output=4.0)),
    Deployment("broad", 0.45, 0.013, 24.0, Price(input=0.6, output=2.4)),
    Deployment("cheap", 0.60, 0.014, 12.0, Price(input=0.2, output=0.8)),
    Deployment("small", 0.40, 0.012, 6.0, Price(input=0.4, output=1.6)),
)
ALL = range(len(FLEET))


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the trace. `luck`: for each deployment, a factor of its time; and one number of chance in [0, 1)."""

    at: float
    tokens_in: int
    tokens_out: int
    luck: tuple[tuple[float, float], ...]

    @property
    def slo_s(self) -> float:
        return 2.0 * FLEET[0].times(self.tokens_in, self.tokens_out, FLEET[0].room / 4)[1]


@dataclass(frozen=True, slots=True)
class Moment:
    """What may make an attempt fail: where and when, its requests in flight and of the last second; chance, in [0, 1)."""

    at: int
    now: float
    load: int
    rate: int
    chance: float

    def hit(self, seconds: float) -> bool:
        """True while the deployment has its turn: each for so long, one every 800 s."""
        turn, since = divmod(self.now - 300.0, 800.0)
        return turn == self.at and since < seconds


Fault = ServiceError | float
"""An error, or how much slower it is."""
DOWN, SILENT, WAIT = Overloaded("503"), AttemptTimeout("silent"), RateLimited("429", retry_after_s=2.0)


def three(m: Moment) -> Fault:
    """One down, another one silent, a third one slow, each for 400 s; they do not overlap."""
    if m.at == 0 and 400.0 <= m.now < 800.0:
        return DOWN
    if m.at == 1 and 1300.0 <= m.now < 1700.0:
        return SILENT
    return 5.0 if m.at == 2 and 2200.0 <= m.now < 2600.0 else 1.0


Setting = tuple[Callable[[Moment], Fault], float]
SCRIPTS: dict[str, Setting] = {
    "no fault": (lambda m: 1.0, 0.25),
    "one down 60 s": (lambda m: DOWN if m.hit(60.0) else 1.0, 0.25),
    "one silent 60 s": (lambda m: SILENT if m.hit(60.0) else 1.0, 0.25),
    "one 5x slower 120 s": (lambda m: 5.0 if m.hit(120.0) else 1.0, 0.25),
    "30 % fail 300 s": (lambda m: DOWN if m.hit(300.0) and m.chance < 0.3 else 1.0, 0.25),
    "two give 429": (lambda m: WAIT if m.at < 2 and (m.load >= 6 or m.rate >= 2) else 1.0, 0.25),
    "flapping 20 s": (lambda m: DOWN if m.hit(300.0) and (m.now - 300.0) % 40.0 < 20.0 else 1.0, 0.25),
    "all down 30 s": (lambda m: DOWN if m.now - 300.0 >= 0.0 and (m.now - 300.0) % 800.0 < 30.0 else 1.0, 0.25),
    "three faults": (three, 0.25),
    "no fault, half": (lambda m: 1.0, 0.5),
    "no fault, full": (lambda m: 1.0, 1.0),
    "three faults, full": (three, 1.0),
}
"""What goes wrong, and how much each request in flight slows the others, as a share of what `Deployment.room` says."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended, after how long."""

    seconds: float
    first_token_s: float
    tokens_out: int
    error: ServiceError | None


class Simple:
    """Whoever `pick` names, by the number of the request, the loads and chance. A deployment is its number in `FLEET`."""

    def __init__(self, seed: int, pick: Callable[[int, Sequence[int], Random], int] = lambda n, loads, chance: 0) -> None:
        self._random, self._pick, self._count = seeded(seed), pick, 0

    def choose(self, now: float, arrival: Arrival, loads: Sequence[int]) -> tuple[int | None, Any]:
        """Which to ask, and what `learn` is to be given back; or nobody, and when to choose anew (None: give up)."""
        self._count += 1
        return self._pick(self._count, loads, self._random), None

    def learn(self, now: float, at: int, sent: Any, end: End) -> None:
        """How an attempt ended."""


class PeakEwma(Simple):
    """Power of two choices by peak-EWMA latency times load (Finagle); an error counts as what it took, as there.

    `aware`: a failure is no latency, but a penalty that fades (linkerd2-proxy).
    """

    def __init__(self, seed: int, *, aware: bool = False) -> None:
        super().__init__(seed)
        self._aware, self._took, self._failed = aware, [(0.5, 0.0)] * len(FLEET), [(0.0, 0.0)] * len(FLEET)

    def choose(self, now: float, arrival: Arrival, loads: Sequence[int]) -> tuple[int | None, Any]:
        cost = [max(self._faded(self._took[at], now), self._faded(self._failed[at], now)) * (loads[at] + 1) for at in ALL]
        return min(self._random.sample(ALL, 2), key=cost.__getitem__), None

    def learn(self, now: float, at: int, sent: Any, end: End) -> None:
        if end.error is not None and self._aware:
            self._failed[at] = 30.0, now
            return
        kept = self._faded((1.0, self._took[at][1]), now)
        self._took[at] = max(end.seconds, self._took[at][0] * kept + end.seconds * (1.0 - kept)), now

    def _faded(self, known: tuple[float, float], now: float) -> float:
        return known[0] * float(0.5 ** ((now - known[1]) / 10.0))


class LatencyCooldown(Simple):
    """As LiteLLM's latency routing: the least mean of the last ten seconds a token; a 429, or most failing, rests for 5 s."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._took: list[deque[float]] = [deque(maxlen=10) for _ in FLEET]
        self._ends: list[deque[tuple[float, bool]]] = [deque(maxlen=200) for _ in FLEET]
        self._until = [0.0] * len(FLEET)

    def choose(self, now: float, arrival: Arrival, loads: Sequence[int]) -> tuple[int | None, Any]:
        means = {at: fmean(self._took[at] or [0.0]) for at in ALL if self._until[at] <= now}
        return min(means, key=lambda at: (means[at], self._random.random()), default=None), None

    def learn(self, now: float, at: int, sent: Any, end: End) -> None:
        self._ends[at].append((now, end.error is not None))
        if end.error is None:
            self._took[at].append(end.seconds / max(end.tokens_out, 1))
            return
        if isinstance(end.error, AttemptTimeout):
            self._took[at].append(1000.0)
        late = [failed for then, failed in self._ends[at] if now - then < 60.0]
        if isinstance(end.error, RateLimited) or (len(late) >= 5 and sum(late) > 0.5 * len(late)):
            self._until[at] = now + 5.0


class Priced(ModelService):
    """A service that is a card and nothing more: nobody calls it."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    async def run(self, request: Request[Any], /) -> Response:
        raise NotImplementedError


class Ours:
    """The gateway's own router, vitals and breakers, where answers are streamed: first tokens are seen."""

    def __init__(self, seed: int) -> None:
        config = PolicyConfig()
        self._chance = seeded(seed)
        knowledge = Knowledge()
        self.router = Router(builtin_policies(config), random=self._chance, config=config, knowledge=knowledge)
        self._shape = Shape(task=Chat, need=Need())
        self._number = {one.name: at for at, one in enumerate(FLEET)}
        self._waited: dict[int, float] = {}
        self.entries: list[Entry] = []
        self._vitals: list[Vitals] = []
        for one in FLEET:
            card = ModelCard(name=one.name, tasks=frozenset({Chat}), place="hosted", provider=one.name, price=one.price)
            entry, vitals = Entry(Priced(card), ""), knowledge.of(card)
            entry.card, entry.vitals, vitals.state = card, vitals, "ready"
            self.entries.append(entry)
            self._vitals.append(vitals)

    def choose(self, now: float, arrival: Arrival, loads: Sequence[int]) -> tuple[int | None, Any]:
        """As `Call.next`, with `_dispatched` and `_waited`."""
        ask = Ask(shape=self._shape, input_bytes=4 * arrival.tokens_in, input_tokens=arrival.tokens_in, now=now)
        decision = self.router.decide(ask, self.entries, 1)
        if decision.chosen is None:
            return None, self._again(decision, arrival, now)
        vitals, row = self._vitals[at := self._number[decision.chosen]], decision.basis.row
        self._waited.pop(id(arrival), None)
        vitals.in_flight += 1
        probe = vitals.asked(now)
        vitals.tokens_left -= arrival.tokens_in
        return at, (row, probe, now)

    def learn(self, now: float, at: int, sent: tuple[Row, bool, float], end: End) -> None:
        """As `Journal.answered` and `Journal._learn`."""
        (row, probe, began), vitals, error = sent, self._vitals[at], end.error
        vitals.in_flight -= 1
        if error is None:
            vitals.succeeded("chat", end.seconds, end.first_token_s, end.tokens_out, now, row.live)
            return
        kind, at_once = type(error).__name__, isinstance(error, AT_ONCE)
        vitals.failed(now, kind, self._chance.random(), began=began, probe=probe, at_once=at_once)
        if error.retry_after_s:
            vitals.breaker.wait(now + error.retry_after_s, now, "asked to wait")

    def _again(self, decision: Decision, arrival: Arrival, now: float) -> float | None:
        soonest, waited = decision.basis.soonest({}), self._waited.pop(id(arrival), 0.0)
        if soonest is None or soonest[0] - now > RetryConfig().wait_s - waited:
            return None
        pause: float = min(max(soonest[0] - now, 1e-6), max(SLICE_S, waited / 2))
        self._waited[id(arrival)] = waited + pause
        return now + pause


POLICIES: dict[str, Callable[[int], Simple | Ours]] = {
    "random": lambda seed: Simple(seed, lambda n, loads, chance: chance.randrange(len(FLEET))),
    "robin": lambda seed: Simple(seed, lambda n, loads, chance: n % len(FLEET)),
    "least busy": lambda seed: Simple(seed, lambda n, loads, chance: min(ALL, key=lambda at: (loads[at], chance.random()))),
    "EWMA P2C": PeakEwma,
    "same+fail": lambda seed: PeakEwma(seed, aware=True),
    "latency+cd": LatencyCooldown,
    "ours": Ours,
}


@dataclass(slots=True)
class Result:
    """What came of all requests. `lost_s` is what failures took."""

    failed: int = 0
    met: int = 0
    usd: float = 0.0
    lost_s: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def loss_usd(self) -> float:
        """Money, time at 0.002 USD a second, and failures at 0.01 USD, for each answer: what a good policy makes least."""
        usd = self.usd + 0.002 * (sum(self.seconds) + self.lost_s) + 0.01 * self.failed
        return usd / max(len(self.seconds), 1)

    def quantile(self, q: float) -> float:
        return sorted(self.seconds)[int(q * len(self.seconds))] if self.seconds else 0.0


def simulate(arrivals: Sequence[Arrival], setting: Setting, chooser: Simple | Ours) -> Result:
    """All arrivals, in virtual time."""
    script, crowd = setting
    result, loads = Result(), [0] * len(FLEET)
    latest: list[deque[float]] = [deque() for _ in FLEET]
    # When; a number that tells those of one moment apart; who; and where, what `learn` needs and its end, if it was sent.
    events: list[tuple[float, int, Arrival, tuple[int, Any, End] | None]]
    events = [(arrival.at, n, arrival, None) for n, arrival in enumerate(arrivals)]  # in order: a heap
    number = len(events)
    while events:
        now, _, arrival, under_way = heapq.heappop(events)
        number += 1
        if under_way is not None:
            at, sent, end = under_way
            loads[at] -= 1
            chooser.learn(now, at, sent, end)
            took = now - arrival.at
            if end.error is None:
                result.usd += FLEET[at].price.usd(arrival.tokens_in, arrival.tokens_out)
                result.seconds.append(took)
                result.met += took <= arrival.slo_s
            else:
                result.failed += 1
                result.lost_s += took
            continue
        chosen, sent = chooser.choose(now, arrival, loads)
        if chosen is None:
            result.failed += sent is None
            if sent is not None:
                heapq.heappush(events, (sent, number, arrival, None))
            continue
        load, recent, (luck, chance) = loads[chosen], latest[chosen], arrival.luck[chosen]
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        fault = script(Moment(chosen, now, load, len(recent), chance))
        first, seconds = FLEET[chosen].times(arrival.tokens_in, arrival.tokens_out, load * crowd)
        if isinstance(fault, float):
            end = End(seconds * fault * luck, first * fault * luck, arrival.tokens_out, None)
            recent.append(now)
        else:
            end = End(SILENT_S if fault is SILENT else ERROR_S, 0.0, 0, fault)
        loads[chosen] += 1
        heapq.heappush(events, (now + end.seconds, number, arrival, (chosen, sent, end)))
    return result


def read(path: Path, seed: int) -> list[Arrival]:
    """The trace, with everybody's luck."""
    chance, out, began = seeded(seed), [], None
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            when = datetime.fromisoformat(row["TIMESTAMP"][:26])
            began = began or when
            luck = tuple([(chance.lognormvariate(0.0, LUCK), chance.random()) for _ in FLEET])
            out.append(Arrival((when - began).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"]), luck))
    return out


FIGURES: dict[str, Callable[[Result], str]] = {
    "failed %": lambda one: f"{100 * one.failed / max(one.failed + len(one.seconds), 1):.2f}",
    "SLO met %": lambda one: f"{100 * one.met / max(one.failed + len(one.seconds), 1):.1f}",
    "loss, USD for 1,000": lambda one: f"{1000 * one.loss_usd:.2f}",
    "p50/p95 s": lambda one: f"{one.quantile(0.5):.1f}/{one.quantile(0.95):.1f}",
    "cost, USD for 1,000": lambda one: f"{1000 * one.usd / max(len(one.seconds), 1):.2f}",
}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--data", default=os.environ.get("GATEWAY_DATA"), help="the folder with routing/ in it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", action="append", choices=[*SCRIPTS])
    given = parser.parse_args()
    path = Path(given.data, "routing", "azure_conv_trace.csv") if given.data else None
    if path is None or not path.is_file():
        print("skipped: no data")
        return
    began, arrivals = time.perf_counter(), read(path, given.seed)
    scripts, makers = given.script or [*SCRIPTS], POLICIES.values()
    results = {script: [simulate(arrivals, SCRIPTS[script], make(given.seed)) for make in makers] for script in scripts}
    for title, figure in FIGURES.items():
        print(f"{title:20}" + "".join(f"{name:>11}" for name in POLICIES))
        for script, ends in results.items():
            print(f"{script:20}" + "".join(f"{figure(one):>11}" for one in ends))
        print()
    print(f"{len(arrivals)} requests, seed {given.seed}; it took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
