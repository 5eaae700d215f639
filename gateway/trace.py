"""What happened on the way to a reply: attempts, timings, cost. Sizes and names only, never content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.decision import Decision


@dataclass(kw_only=True, slots=True)  # made for each request: freezing would double the cost of making it
class Attempt:
    """One model asked once, `at_s` seconds after the request had come. `error` is the error's class name, "" when it answered.

    `cost_usd` is None where the model's price is not known.
    `hedge`: it was asked beside another one that was slow to begin; the loser's error is "Hedged".
    """

    model: str
    at_s: float = 0.0
    seconds: float = 0.0
    first_token_s: float | None = None
    cost_usd: float | None = 0.0
    error: str = ""
    message: str = ""
    hedge: bool = False


@dataclass(kw_only=True, slots=True)  # as Attempt
class Trace:
    """How a reply came about: who was chosen and why, who was asked, what it took.

    `cost_usd` is of all attempts, None where one's is not known. `notes` are the rewrites' own words, such as ``scrub: 1
    EMAIL``. `decision` is the last one taken.
    """

    model: str
    attempts: tuple[Attempt, ...] = ()
    seconds: float = 0.0
    first_token_s: float | None = None
    cost_usd: float | None = 0.0
    notes: tuple[str, ...] = ()
    decision: Decision | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        head = f"{self.model}  {self.seconds:.3f} s  {_usd(self.cost_usd)}"
        if self.first_token_s is not None:
            head += f"  first token {self.first_token_s:.3f} s"
        lines = [head]
        for number, attempt in enumerate(self.attempts, 1):
            outcome = f"{attempt.error}: {attempt.message}" if attempt.error else "answered"
            beside = "  (hedge)" if attempt.hedge else ""
            cost = "" if attempt.cost_usd == 0 else f"  {_usd(attempt.cost_usd)}"
            since = f"  after {attempt.at_s:.3f} s" if attempt.at_s >= 0.001 else ""
            lines.append(f"  {number}. {attempt.model}{beside}{since}  {attempt.seconds:.3f} s{cost}  {outcome}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def total_usd(attempts: Iterable[Attempt]) -> float | None:
    """What attempts cost together, None where one's cost is not known."""
    costs = [one.cost_usd for one in attempts]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _usd(cost: float | None) -> str:
    return "price unknown" if cost is None else f"${cost:.6f}"
