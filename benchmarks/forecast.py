"""How well first-token times are forecast one step ahead, beside a rolling median of 20. Prints figures; asserts nothing.

    python benchmarks/forecast.py --data DIR [--prior SECONDS]

DIR, or GATEWAY_DATA, holds routing/llmperf_requests.csv: requests to hosted models, in the order they were made. Every
provider and size is a series; failed requests are no measurements. Before each request both forecast its first-token
time: ours from the prior and what came before, the other from the last 20, or as many as there are. The error is
|forecast - measured| / measured, from the second request on, since before the first a rolling median says nothing.
A line for a provider pools the errors of its series; n counts errors.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median

from gateway.histogram import Histogram, shrunk

PRIOR_S = 0.8
"""What is expected of a hosted model before anything is known of it."""
WINDOW = 20
GOAL = 0.15


def series(path: Path) -> dict[tuple[str, str], list[float]]:
    """First-token seconds by provider and size, in the file's order."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if not row["error_code"]:
                found[row["provider"], row["size"]].append(float(row["ttft_s"]))
    return dict(found)


def ours(measured: list[float], prior: float) -> list[float]:
    """The forecast before each measurement but the first."""
    seen, forecasts = Histogram(), []
    for value in measured:
        forecasts.append(shrunk(seen.typical(), seen.count, prior))
        seen.add(value)
    return forecasts[1:]


def rolling(measured: list[float]) -> list[float]:
    """The forecast before each measurement but the first."""
    return [median(measured[max(0, n - WINDOW) : n]) for n in range(1, len(measured))]


def errors(forecasts: list[float], measured: list[float]) -> list[float]:
    return [abs(forecast - value) / value for forecast, value in zip(forecasts, measured[1:], strict=True)]


def spread(found: list[float]) -> str:
    """Median, mean and 90th percentile, in per cent."""
    return f"{median(found):7.1%}{fmean(found):8.1%}{sorted(found)[int(0.9 * len(found))]:8.1%}"


def line(name: str, count: int, own: list[float], other: list[float]) -> str:
    return f"{name:18}{count:5} {spread(own)}   {spread(other)}{median(own) / median(other):8.3f}"


def report(measured: dict[tuple[str, str], list[float]], prior: float) -> None:
    """Print a line for each series and each provider, and how many providers meet the goal."""
    own = {key: errors(ours(values, prior), values) for key, values in measured.items()}
    other = {key: errors(rolling(values), values) for key, values in measured.items()}
    providers = list(dict.fromkeys(provider for provider, _ in measured))
    medians = []
    print(f"{'':18}{'n':>5} {'ours: median, mean, p90':>23}   {'rolling median of 20':>23}{'ratio':>8}")
    for provider in providers:
        pair = pooled(own, provider), pooled(other, provider)
        medians.append((median(pair[0]), median(pair[1])))
        print(line(provider, len(pair[0]), *pair))
        for key in measured:
            if key[0] == provider:
                print(line(f"  {key[1]}", len(own[key]), own[key], other[key]))
    worse = sum(mine > theirs for mine, theirs in medians)
    print(f"providers with a median error of at most {GOAL:.0%}: {sum(mine <= GOAL for mine, _ in medians)} (goal 6)")
    print(f"worse than the rolling median: {worse} of {len(providers)} providers (goal 0)")
    for name, halves in (("first", (0.0, 0.5)), ("second", (0.5, 1.0))):
        ratios = [median(pooled(own, p, *halves)) / median(pooled(other, p, *halves)) for p in providers]
        print(f"  ratios, {name} half of each series: {', '.join(f'{r:.2f}' for r in ratios)}")


def pooled(found: dict[tuple[str, str], list[float]], provider: str, start: float = 0.0, end: float = 1.0) -> list[float]:
    """All errors of a provider; only those in one part of each series where `start` and `end`, shares of it, say so."""
    chosen = [values for key, values in found.items() if key[0] == provider]
    return [value for values in chosen for value in values[int(start * len(values)) : int(end * len(values))]]


def cpu_us(job: Callable[[], object], times: int) -> float:
    """CPU microseconds per call, the best of 30 rounds."""
    best = float("inf")
    for _ in range(30):
        began = time.process_time()
        for _ in range(times):
            job()
        best = min(best, (time.process_time() - began) / times * 1e6)
    return best


def costs(values: list[float]) -> None:
    """Print CPU per operation on a histogram that `values` keep passing through."""
    seen = Histogram()

    def pass_through(ask: Callable[[], object] | None) -> Callable[[], None]:
        def job() -> None:
            for value in values:
                seen.add(value)
                if ask is not None:
                    ask()

        return job

    per_add = cpu_us(pass_through(None), 10) / len(values)
    buckets = seen.to_json()["buckets"]
    assert isinstance(buckets, list)
    print(f"CPU, the best of 30 rounds, {len(buckets)} buckets held")
    print(f"{'  add':26}{per_add:7.2f} us")
    for name, ask in (("quantile", lambda: seen.quantile(0.95)), ("typical", seen.typical)):
        after = cpu_us(pass_through(ask), 10) / len(values) - per_add
        print(f"{f'  {name}':26}{after:7.2f} us right after an add, {cpu_us(ask, 1000):.2f} us asked again")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--data", default=os.environ.get("GATEWAY_DATA"), help="the folder with routing/ in it")
    parser.add_argument("--prior", type=float, default=PRIOR_S, help="seconds expected before anything is known")
    given = parser.parse_args()
    path = Path(given.data, "routing", "llmperf_requests.csv") if given.data else None
    if path is None or not path.is_file():
        print("skipped: no data")
        return
    measured = series(path)
    report(measured, given.prior)
    costs(max(measured.values(), key=lambda values: max(values) / min(values)))


if __name__ == "__main__":
    main()
