"""The fault table, printed: how providers fail, what the caller saw, who was asked how often, and how long it took.

    python benchmarks/faults.py [--only WORDS]

Real loopback sockets, the real clock, the real remote plugin. The limits are short (0.4 s of silence) to keep it quick. "!"
marks a row that is not as it must be. Then: how soon a provider is used again after an outage, under steady traffic (goal:
10 s), and how soon a caller who gives up has freed the slot and the socket (goal: 100 ms). Asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fault_cancel import MOMENTS, give_up, give_up_loading, leave  # type: ignore[import-not-found]
from fault_play import Outcome, Scenario, expected, play, played  # type: ignore[import-not-found]
from fault_recovery import NEARLY_AS_GOOD, OUTAGES, recover  # type: ignore[import-not-found]
from fault_table import SCENARIOS  # type: ignore[import-not-found]

TIMES = 5
"""How often a caller gives up at each moment."""


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows as aligned text, as they are: the first one is the head."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def faults(only: str) -> None:
    """Every row of the fault table, by run and by stream."""
    rows = [("scenario", "by", "what the caller saw", "attempts", "seconds", "")]
    for scenario in (one for one in SCENARIOS if only in one.name):
        with ThreadPoolExecutor(len(scenario.ways)) as threads:
            outcomes = list(threads.map(lambda way: played(play(scenario, way)), scenario.ways))  # noqa: B023 - used at once
        for way, outcome in zip(scenario.ways, outcomes, strict=True):
            wrong = "! " + "; ".join(expected(scenario, outcome)) if expected(scenario, outcome) else ""
            rows.append((scenario.name, way, str(outcome), asked(scenario, outcome), f"{outcome.seconds:.3f}", wrong))
    table(rows)


def asked(scenario: Scenario, outcome: Outcome) -> str:
    """How often each provider was asked by the request: those that were not asked too."""
    names = ("one", "two", "three")[: len(scenario.providers)]
    return ", ".join(f"{name} {outcome.by_provider.get(name, 0)}" for name in names)


def recoveries(only: str) -> None:
    """How soon a provider is used again after an outage."""
    rows = [("outage", "requests", "asked while down", "unanswered", "used again after")]
    outages = [outage for outage in (*OUTAGES, NEARLY_AS_GOOD) if only in outage.name]
    with ThreadPoolExecutor(len(outages) or 1) as threads:
        for outage, seen in zip(outages, threads.map(lambda outage: played(recover(outage)), outages), strict=True):
            after = f"! not within {outage.watched_s:g} s" if seen.seconds is None else f"{seen.seconds:.1f} s"
            rows.append((outage.name, str(seen.requests), str(seen.asked_while_down), str(seen.unanswered), after))
    table(rows)


def cancellations() -> None:
    """How soon slot and socket are free when a caller gives up: the median and the worst of a few times."""
    rows = [("the caller gives up", "by", "free after: median", "worst")]
    for moment in MOMENTS:
        for way in moment.ways:
            rows.append(timed(moment.name, way, partial(give_up, moment, way)))
    rows += [timed("while the model is loaded", way, partial(give_up_loading, way)) for way in ("run", "stream")]
    rows.append(timed("by leaving after the first word", "stream", partial(leave, 1)))
    table(rows)


def timed(name: str, way: str, work: Callable[[], object]) -> tuple[str, str, str, str]:
    """A row of times in milliseconds."""
    times: Iterable[float] = [played(work()) for _ in range(TIMES)]
    return name, way, f"{statistics.median(times) * 1e3:.1f} ms", f"{max(times) * 1e3:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    only = parser.parse_args().only
    faults(only)
    print()
    recoveries(only)
    if not only:
        print()
        cancellations()


if __name__ == "__main__":
    main()
