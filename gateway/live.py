"""Live: what is known of a service now: in flight, how fast, how reliable. Starts from priors, moves with what is measured.

First-token time and time per token are two estimates, never mixed. Failures enter neither, so that a service that
fails at once never looks fast; they lower `success`, which recovers with time.
"""

from __future__ import annotations

from typing import Literal

from gateway.card import ModelCard

PRIOR_WEIGHT = 5.0
"""A prior counts as much as this many measurements."""
DECAY = 0.97
"""What each further measurement leaves of the weight of those before it."""
FAILURE_HALF_LIFE_S = 30.0
OUTPUT_TOKENS = 256.0
"""Prior for the length of an answer."""
LOAD_BYTES_PER_S = 1e9
"""Prior for loading weights that are not in memory yet."""

# Seconds to the first token, and per token, where a card states no prior of its own.
_PRIORS = {"hosted": (0.8, 0.015), "private": (0.4, 0.02), "host": (0.3, 0.03), "process": (0.1, 0.02)}

State = Literal["cold", "starting", "ready", "failed"]


class Estimate:
    """A decayed mean of positive measurements, shrunk to a prior while few have been seen."""

    __slots__ = ("_count", "_sum", "value")

    def __init__(self, prior: float) -> None:
        self._count = PRIOR_WEIGHT
        self._sum = PRIOR_WEIGHT * prior
        self.value = prior

    def observe(self, measured: float) -> None:
        """Count one more measurement. One of 0 counts as a nanosecond, so that the mean never falls to 0."""
        measured = max(measured, 1e-9)
        self._count = self._count * DECAY + 1.0
        self._sum = self._sum * DECAY + measured
        self.value = self._sum / self._count


class Live:
    """The moving facts of one service. Policies read it; only the gateway writes it."""

    __slots__ = (
        "_failed_at", "_failures", "_load_s", "first_token_s", "in_flight", "output_tokens",
        "per_token_s", "state",
    )  # fmt: skip

    def __init__(self, card: ModelCard) -> None:
        first, per_token = _PRIORS[card.place]
        self.in_flight = 0
        self.state: State = "cold"
        self.first_token_s = Estimate(card.first_token_s or first)
        self.per_token_s = Estimate(card.per_token_s or per_token)
        self.output_tokens: dict[str, Estimate] = {}
        self._load_s = (card.bytes or 0) / LOAD_BYTES_PER_S
        self._failures = 0.0
        self._failed_at = 0.0

    def expected_tokens(self, task: str, limit: int | None) -> float:
        """How long an answer is expected to be, in tokens, never above the caller's limit."""
        known = self.output_tokens.get(task)
        expected = known.value if known is not None else OUTPUT_TOKENS
        return expected if limit is None or expected < limit else limit

    def latency_s(self, tokens: float) -> float:
        """The predicted time of a whole answer of so many tokens, loading included when it is not loaded."""
        loading = 0.0 if self.state == "ready" else self._load_s
        return loading + self.first_token_s.value + tokens * self.per_token_s.value

    def success(self, now: float) -> float:
        """The chance, in (0, 1], that a request now succeeds; `now` is the clock's monotonic reading."""
        if not self._failures:
            return 1.0
        faded = self._failures * 0.5 ** (max(0.0, now - self._failed_at) / FAILURE_HALF_LIFE_S)
        return float(1.0 / (1.0 + faded))

    def succeeded(self, task: str, seconds: float, first_token_s: float | None, output_tokens: int) -> None:
        """Learn from an answer. Without a measured first token both estimates move by one common factor."""
        self._failures *= 0.5
        if output_tokens > 0:
            known = self.output_tokens.get(task)
            if known is None:
                known = self.output_tokens[task] = Estimate(OUTPUT_TOKENS)
            known.observe(float(output_tokens))
        if first_token_s is not None:
            self.first_token_s.observe(first_token_s)
            if output_tokens > 1:
                self.per_token_s.observe(max(seconds - first_token_s, 0.0) / (output_tokens - 1))
            return
        expected = self.first_token_s.value + max(output_tokens, 0) * self.per_token_s.value
        factor = seconds / expected
        self.first_token_s.observe(self.first_token_s.value * factor)
        if output_tokens > 0:
            self.per_token_s.observe(self.per_token_s.value * factor)

    def failed(self, now: float) -> None:
        """Learn from a failure that was the service's own."""
        faded = self._failures * 0.5 ** (max(0.0, now - self._failed_at) / FAILURE_HALF_LIFE_S)
        self._failures = faded + 1.0
        self._failed_at = now
