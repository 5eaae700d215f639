"""Live: what is known of a service at one moment: how busy, how fast, how reliable, how good. Policies read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

OUTPUT_TOKENS = 256.0
"""Prior for the length of an answer."""
P90_TOKENS = 3.0
"""Prior for the 90th percentile of an answer's length, as a multiple of its median."""
CONCURRENCY = 4
"""A model whose card does not say how many requests it serves side by side is scored as if it were so many."""

State = Literal["cold", "starting", "ready", "failed"]


@dataclass(slots=True, kw_only=True)
class Live:
    """What is known of a service at one moment, for one task. Times in seconds; `_p95` and `_p90` are percentiles.

    `concurrency` is how many requests it serves side by side, None when its card does not say. `output_tokens` is how long an
    answer usually is. `quality` is what the card states, moved by feedback. `measured` is how much of all this was measured
    here, as a count of answers that fades with age.
    """

    state: State = "cold"
    in_flight: int = 0
    concurrency: int | None = None
    load_s: float = 0.0
    first_token_s: float = 0.8
    first_token_p95_s: float = 2.0
    per_token_s: float = 0.015
    per_token_p95_s: float = 0.0375
    output_tokens: float = OUTPUT_TOKENS
    output_tokens_p90: float = OUTPUT_TOKENS * P90_TOKENS
    success: float = 1.0
    quality: float | None = None
    measured: float = 0.0

    def at(self, in_flight: int, success: float) -> Live:
        """The same, with what changes from one moment to the next; written out, since copy.copy takes ten times as long."""
        return Live(
            state=self.state,
            in_flight=in_flight,
            concurrency=self.concurrency,
            load_s=self.load_s,
            first_token_s=self.first_token_s,
            first_token_p95_s=self.first_token_p95_s,
            per_token_s=self.per_token_s,
            per_token_p95_s=self.per_token_p95_s,
            output_tokens=self.output_tokens,
            output_tokens_p90=self.output_tokens_p90,
            success=success,
            quality=self.quality,
            measured=self.measured,
        )

    def expected_tokens(self, limit: int | None, *, high: bool = False) -> float:
        """How long an answer will be, in tokens, never above the caller's limit; `high`: nine in ten are shorter."""
        expected = self.output_tokens_p90 if high else self.output_tokens
        return expected if limit is None or expected < limit else limit

    def first_s(self, percentile: float | None = None) -> float:
        """The predicted time to the first token: loading and waiting included. None: the median."""
        return self.wait_s() + _at(self.first_token_s, self.first_token_p95_s, percentile)

    def latency_s(self, tokens: float, percentile: float | None = None) -> float:
        """The predicted time of a whole answer of so many tokens: loading and waiting included. None: the median."""
        answer = tokens * _at(self.per_token_s, self.per_token_p95_s, percentile)
        return self.wait_s() + _at(self.first_token_s, self.first_token_p95_s, percentile) + answer

    def service_s(self, tokens: float) -> float:
        """The median time of a whole answer, loading included, were nobody else served."""
        loading = 0.0 if self.state == "ready" else self.load_s
        return loading + self.first_token_s + tokens * self.per_token_s

    def wait_s(self) -> float:
        """How long a request waits before its turn: for loading, and for those that are served now."""
        loading = 0.0 if self.state == "ready" else self.load_s
        if not self.in_flight or self.concurrency is None:  # what is not stated refuses nobody
            return loading
        turn = self.first_token_s + self.output_tokens * self.per_token_s
        return loading + self.in_flight / self.concurrency * turn


def _at(median: float, p95: float, percentile: float | None) -> float:
    """A percentile between and beyond two known ones: times are log-normal, near enough."""
    if percentile is None:
        return median
    return float(median * (p95 / median) ** (_z(percentile) / _z(0.95)))


@lru_cache(maxsize=64)
def _z(percentile: float) -> float:
    return NormalDist().inv_cdf(min(max(percentile, 1e-6), 1.0 - 1e-6))
