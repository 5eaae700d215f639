"""Steady traffic through an outage: does every caller get an answer, and how soon is the provider used again afterwards?"""

from __future__ import annotations

from dataclasses import dataclass

from fault_play import ASK, CLOCK, Provider, ask, at_work, laws

from gateway import Meta
from gateway.testing import Fault, Reply

GAP_S = 0.05
"""Between two requests."""
RECOVERED_S = 10.0
"""The most that a recovery may take."""


@dataclass(frozen=True, kw_only=True)
class Outage:
    """The first of the providers fails for a while. `watched_s`: how long its recovery is waited for."""

    name: str
    fault: Fault
    providers: tuple[Provider, ...]
    down_s: float
    watched_s: float = RECOVERED_S + 1.0


@dataclass(kw_only=True)
class Recovery:
    """What was seen of an outage. `seconds`: from the provider's recovery to its next answer; None when there was none."""

    requests: int = 0
    asked_while_down: int = 0
    unanswered: int = 0
    seconds: float | None = None
    broken: list[str]


async def recover(outage: Outage) -> Recovery:
    """One request after another, before and after the first provider comes back."""
    seen = Recovery(broken=[])
    async with at_work(outage.providers, {"retry": {"attempts": 2, "wait_s": 2.0}}) as (gw, hosts):
        one = hosts["one"]
        await gw.run(ASK)
        one.server.always(outage.fault, when=one.noted)
        before, failing = len(one.asked_at), True
        began = back = CLOCK.monotonic()
        while seen.seconds is None and CLOCK.monotonic() < back + (
            outage.down_s + RECOVERED_S if failing else outage.watched_s
        ):
            already = {name: len(host.asked_at) for name, host in hosts.items()}
            outcome = await ask(gw, "run", ASK, Meta())
            outcome.counted = {name: len(host.asked_at) - already[name] for name, host in hosts.items()}
            seen.requests += 1
            seen.unanswered += outcome.reply is None
            if outcome.attempts or outcome.reply is not None:
                seen.broken += laws(outcome, hosts, already)
            now = CLOCK.monotonic()
            if failing and now > began + outage.down_s:
                failing, back = False, now
                seen.asked_while_down = len(one.asked_at) - before
                one.server.always(Reply(), when=one.noted)
            elif not failing and outcome.reply is not None and outcome.reply.model == "one":
                seen.seconds = now - back
            await CLOCK.sleep(GAP_S)
    return seen


def _of(quality: float) -> Provider:
    return Provider(facts={"quality": quality})


BUSY, SILENT = Fault(status=503), Fault(delay_s=15.0)
OUTAGES = (
    Outage(name="503 for 2 s; alone", fault=BUSY, providers=(_of(0.9),), down_s=2.0),
    Outage(name="silent for 2 s; alone", fault=SILENT, providers=(_of(0.9),), down_s=2.0),
    Outage(name="503 for 2 s; a fallback, far worse", fault=BUSY, providers=(_of(0.9), _of(0.2)), down_s=2.0),
    Outage(name="503 for 2 s; a fallback, worse", fault=BUSY, providers=(_of(0.9), _of(0.4)), down_s=2.0),
    Outage(name="silent for 2 s; a fallback, worse", fault=SILENT, providers=(_of(0.9), _of(0.4)), down_s=2.0),
)
NEARLY_AS_GOOD = Outage(name="503 for 2 s; a fallback, nearly as good", fault=BUSY, providers=(_of(0.9), _of(0.8)), down_s=2.0)
