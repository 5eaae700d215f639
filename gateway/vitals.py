"""Vitals: what is measured of a service; Knowledge, all of a gateway's. Policies see it as a `Live`.

First-token time and time per token are two estimates, never mixed. Failures enter neither, so that a service that fails at
once never looks fast; they lower `success`, which recovers with time. What little has been seen is shrunk to what the
provider's other models have shown, and that to a prior; one that was slow and is not asked drifts back to what is usual.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from gateway.breaker import MOST_S, Breaker
from gateway.card import ModelCard, Quota, finite
from gateway.histogram import DECAY, Histogram, bucket_of, shrunk
from gateway.live import OUTPUT_TOKENS, P90_TOKENS, Live, State

FAILURE_HALF_LIFE_S = 30.0
FAILURES_COUNTED = 3.0
"""More than so many, faded, say nothing more."""
FORGIVEN = 0.8
"""What an answer leaves of the failures before it."""
PROBE_FIRST_S, PROBE_LONGEST_S = 2.0, 8.0
"""A model that has failed is owed a request after so long, if it would be the best but for that; longer when it fails again."""
LOAD_BYTES_PER_S = 1e9
"""Prior for loading weights that are not in memory yet."""
P95 = 2.5
"""Prior for the 95th percentile of a time, as a multiple of its median."""
DRIFT_AFTER_S, DRIFT_HALF_LIFE_S = 1.0, 30.0
"""One that was slower than usual when last asked is believed to be less so as time passes: else nobody would ask it again."""
LONG = 0.998
"""What each measurement leaves of the weight of those before it, for what is usual in the long run."""
LITTLE = 5
"""A service with fewer measurements is judged by its provider's others too."""
TAIL_WEIGHT = 5.0
"""A tail is believed when so many have been seen; what is usual, much sooner."""
TASKS_KEPT = 32
"""Tasks, and providers, that are told apart; names beyond that share one place: memory is bounded whatever arrives."""
MOST_TOKENS = 10**12
OPINION = 8.0
"""The card's quality counts as much as so many scores."""
SCORES_KEPT = 0.98
"""What each further score leaves of the weight of those before it."""

# Seconds to the first token, and per token, where a card states no prior of its own.
_PRIORS = {"hosted": (0.8, 0.015), "private": (0.4, 0.02), "host": (0.3, 0.03), "process": (0.1, 0.02)}


class Pool:
    """What the models of one provider have shown together."""

    __slots__ = ("_next", "changed", "first_token", "per_token")

    def __init__(self) -> None:
        self.changed = 0
        """The pulse's count when something of it last changed that others should be judged anew for."""
        self._next = 1
        self.first_token = Histogram()
        self.per_token = Histogram()

    def told(self, change: int) -> None:
        """Something was added. The more is known, the less each further answer says."""
        if self.first_token.count >= self._next:
            self._next = self.first_token.count * 3 // 2 + 1
            self.changed = change


class Pulse:
    """Counts what has been learnt of any service: `changes` of every kind, and those that cannot wait, `alarms`."""

    __slots__ = ("alarms", "changes")

    def __init__(self) -> None:
        self.changes = 0
        self.alarms = 0


class Vitals:
    """What is measured of one service. Only the gateway writes it; policies see a `Live`."""

    __slots__ = (
        "_failed_at",
        "_failures",
        "_load_s",
        "_long",
        "_outputs",
        "_owed_s",
        "_pool",
        "_pulse",
        "_read_at",
        "_readings",
        "_scores",
        "_state",
        "_told_at",
        "_usual",
        "alarmed",
        "breaker",
        "card",
        "changed",
        "drifting",
        "first_token",
        "in_flight",
        "owed_at",
        "per_token",
        "spent_usd",
        "tokens_left",
        "tokens_until",
    )  # fmt: skip

    def __init__(self, card: ModelCard, pulse: Pulse | None = None, pool: Pool | None = None) -> None:
        self.card = card
        self.in_flight = 0
        self.spent_usd = 0.0
        self.breaker = Breaker()
        self.first_token = Histogram()
        self.per_token = Histogram()
        self.tokens_left = 0.0
        self.tokens_until = 0.0
        """Until then no more than `tokens_left` may be sent: the provider's quota."""
        self.changed = 0
        """The pulse's count when something of this service last changed,"""
        self.alarmed = 0
        """and when that could not wait."""
        self._outputs: dict[str, Histogram] = {}
        self._scores: dict[str, tuple[float, float]] = {}
        self._readings: dict[str, Live] = {}
        self._read_at = -1
        self._long = Histogram(decay=LONG), Histogram(decay=LONG)
        self._usual: tuple[float, ...] = (math.inf, math.inf)
        """First-token time and time per token in the long run."""
        self._told_at = 0.0
        self.drifting = False
        """It was slower than it usually is, when it was last asked."""
        self._state: State = "cold"
        self._load_s = (card.bytes or 0) / LOAD_BYTES_PER_S
        self._failures = 0.0
        self._failed_at = 0.0
        self._owed_s = PROBE_FIRST_S
        self.owed_at = 0.0
        """When it is owed a request though it has failed."""
        self._pulse = pulse or Pulse()
        self._pool = pool or Pool()

    @property
    def state(self) -> State:
        """Whether it is loaded."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        self._touch(alarm=True)

    @property
    def news(self) -> int:
        """The pulse's count when something was last learnt that tells of this service, its provider's others included."""
        return self.changed if self.first_token.count >= LITTLE else max(self.changed, self._pool.changed)

    def read(self, task: str, now: float) -> Live:
        """What is known now, for a task; the caller's own copy."""
        if self._read_at < self.news:
            self._readings.clear()
            self._read_at = self.news
        known = self._readings.get(task)
        if known is None:
            if len(self._readings) >= TASKS_KEPT:
                self._readings.clear()
            known = self._readings[task] = self._work_out(task)
            self._usual = tuple([one.quantile(0.5) or math.inf for one in self._long])
            self.drifting = known.first_token_s > self._usual[0] or known.per_token_s > self._usual[1]
        live = known.at(self.in_flight, self.success(now))
        silent_s = now - self._told_at
        if silent_s > DRIFT_AFTER_S and self.drifting:
            lost = 1.0 - 0.5 ** (silent_s / DRIFT_HALF_LIFE_S)
            first, per = self._usual
            if live.first_token_s > first:
                by = (first / live.first_token_s) ** lost
                live.first_token_s, live.first_token_p95_s = live.first_token_s * by, live.first_token_p95_s * by
            if live.per_token_s > per:
                by = (per / live.per_token_s) ** lost
                live.per_token_s, live.per_token_p95_s = live.per_token_s * by, live.per_token_p95_s * by
        return live

    def success(self, now: float) -> float:
        """The chance, in (0, 1], that a request now succeeds; `now` is the clock's monotonic reading."""
        return 1.0 / (1.0 + self._faded(now)) if self._failures else 1.0

    def succeeded(
        self,
        task: str,
        seconds: float,
        first_token_s: float | None,
        output_tokens: int,
        now: float,
        live: Live | None = None,
    ) -> None:
        """Learn from an answer. Without a measured first token both times move by one common factor, from where `live`,
        what was known when the model was chosen, had them."""
        if self._failures:
            self._failures = 0.0 if self._failures < 0.01 else self._failures * FORGIVEN
            self._owed_s = max(PROBE_FIRST_S, self._owed_s / 2.0)
            self.owed_at = now + self._owed_s
        self._told_at = now
        self.breaker.succeeded(now)
        if output_tokens > 0:
            if (outputs := self._outputs.get(task)) is None:
                outputs = self._outputs.setdefault(task if len(self._outputs) < TASKS_KEPT else "", Histogram())
            outputs.add(float(output_tokens))
        per_token_s = None
        if first_token_s is None:
            live = live or self.read(task, now)
            factor = seconds / live.service_s(max(output_tokens, 0)) if self._state == "ready" else 1.0
            first_token_s = live.first_token_s * factor
            per_token_s = live.per_token_s * factor if output_tokens > 0 else None
        elif output_tokens > 1:
            per_token_s = max(seconds - first_token_s, 0.0) / (output_tokens - 1)
        long, pool = self._long, self._pool
        if (bucket := bucket_of(first_token_s)) is not None:
            self.first_token.add_to(bucket)
            long[0].add_to(bucket)
            pool.first_token.add_to(bucket)
        if per_token_s is not None and (bucket := bucket_of(per_token_s)) is not None:
            self.per_token.add_to(bucket)
            long[1].add_to(bucket)
            pool.per_token.add_to(bucket)
        self._touch()
        self._pool.told(self._pulse.changes)

    def failed(
        self,
        now: float,
        why: str = "",
        chance: float = 0.5,
        *,
        began: float | None = None,
        probe: bool = False,
        at_once: bool = False,
    ) -> None:
        """Learn from a failure that was the service's own; see `Breaker.failed`. `began` is when the request was sent.

        Of many that were under way together, the first to fail tells as much as all of them.
        """
        faded = self._faded(now)
        fresh = not self._failures or began is None or began > self._failed_at
        self._failures = min(faded + 1.0, FAILURES_COUNTED) if fresh else max(faded, 1.0)
        if fresh:
            self.owed_at = now + self._owed_s * (0.75 + 0.25 * chance)
            self._owed_s = min(2.0 * self._owed_s, PROBE_LONGEST_S)
        self._failed_at = self._told_at = now
        self.breaker.failed(now, why, chance, probe=probe, at_once=at_once)
        self._touch(alarm=True)

    def asked(self, now: float) -> bool:
        """A request is sent. True when it is the breaker's probe."""
        if self._failures:
            self.owed_at = now + self._owed_s
        return self.breaker.asked(now)

    def slow(self, seconds: float) -> None:
        """Learn that an answer had not begun after so long."""
        self.first_token.add(seconds)
        self._touch()

    def allowed(self, quota: Quota, now: float) -> None:
        """Learn what the provider says is left of its rate limit."""
        if finite(quota.requests) and (quota.requests or 0) <= 0:
            self.breaker.wait(now + _reset(quota.requests_reset_s), now, "the provider's quota of requests is used up")
        if finite(quota.tokens):
            self.tokens_left = float(min(max(quota.tokens or 0, 0), MOST_TOKENS))
            self.tokens_until = now + _reset(quota.tokens_reset_s)

    def scored(self, task: str, score: float) -> None:
        """Learn from a judgement of an answer, in [0, 1]: a Beta posterior (prior: the card's quality), older ones fading."""
        good, bad = self._scores.get(task, (0.0, 0.0))
        if task not in self._scores and len(self._scores) >= TASKS_KEPT:
            return
        self._scores[task] = good * SCORES_KEPT + score, bad * SCORES_KEPT + 1.0 - score
        self._touch()

    def to_json(self) -> dict[str, Any]:
        """What is worth keeping across restarts, as plain JSON values."""
        return {
            "first_token": self.first_token.to_json(),
            "per_token": self.per_token.to_json(),
            "long": [one.to_json() for one in self._long],
            "outputs": {task: one.to_json() for task, one in self._outputs.items()},
            "scores": {task: list(one) for task, one in self._scores.items()},
        }

    def recall(self, kept: dict[str, Any]) -> None:
        """Take up what `to_json` gave in an earlier run. ValueError, and nothing is changed, when it is something else."""
        if not isinstance(kept, dict):
            raise ValueError("not what was kept of a model")
        first, per = (Histogram.from_json(kept.get(name)) for name in ("first_token", "per_token"))
        outputs, scores, usual = kept.get("outputs"), kept.get("scores"), kept.get("long")
        if not isinstance(outputs, dict) or not isinstance(scores, dict) or not isinstance(usual, list) or len(usual) != 2:
            raise ValueError("not what was kept of a model")
        long = Histogram.from_json(usual[0]), Histogram.from_json(usual[1])
        if [one.decay for one in (first, per, *long)] != [DECAY, DECAY, LONG, LONG]:
            raise ValueError("not what was kept of a model: it decays otherwise")
        lengths = {str(task): Histogram.from_json(one) for task, one in list(outputs.items())[:TASKS_KEPT]}
        opinions = {str(task): _beta(one) for task, one in list(scores.items())[:TASKS_KEPT]}
        self._long, self._told_at = long, math.inf  # nothing drifts before it has answered again
        self.first_token, self.per_token, self._outputs, self._scores = first, per, lengths, opinions
        self._pool.first_token.merge(first)
        self._pool.per_token.merge(per)
        self._touch()

    def _work_out(self, task: str) -> Live:
        card, (first_prior, per_prior) = self.card, _PRIORS[self.card.place]
        first, first_p95 = _times(self.first_token, self._pool.first_token, card.first_token_s, first_prior)
        per, per_p95 = _times(self.per_token, self._pool.per_token, card.per_token_s, per_prior)
        outputs = self._outputs.get(task) or Histogram()
        usual = shrunk(outputs.quantile(0.5), outputs.count, OUTPUT_TOKENS)
        quality = card.quality_for(task)
        if task in self._scores:
            good, bad = self._scores[task]
            believed = 0.5 if quality is None else quality
            quality = (believed * OPINION + good) / (OPINION + good + bad)
        return Live(
            state=self._state,
            concurrency=card.concurrency,
            load_s=self._load_s,
            first_token_s=first,
            first_token_p95_s=first_p95,
            per_token_s=per,
            per_token_p95_s=per_p95,
            output_tokens=usual,
            output_tokens_p90=max(usual, shrunk(outputs.quantile(0.9), outputs.count, usual * P90_TOKENS, TAIL_WEIGHT)),
            quality=quality,
            measured=self.first_token.weight,
        )

    def _faded(self, now: float) -> float:
        return float(self._failures * 0.5 ** (max(0.0, now - self._failed_at) / FAILURE_HALF_LIFE_S))

    def _touch(self, *, alarm: bool = False) -> None:
        self._pulse.changes += 1
        self._pulse.alarms += alarm
        self.changed = self._pulse.changes
        if alarm:
            self.alarmed = self.changed


class Knowledge:
    """The vitals of all services of a gateway, so that one can teach about another of its provider or key."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.vitals: dict[str, Vitals] = {}
        self.kept: dict[str, Any] = {}
        """What was remembered of models in earlier runs, by name."""
        self._pools: dict[str, Pool] = {}

    def of(self, card: ModelCard) -> Vitals:
        """The vitals of a service; what was learnt stays as long as its card does."""
        known = self.vitals.get(card.name)
        if known is not None and known.card == card:
            return known
        who = f"{card.place}:{card.provider}"
        pool = self._pools.setdefault(who if len(self._pools) < TASKS_KEPT else "", Pool())
        made = self.vitals[card.name] = Vitals(card, self.pulse, pool)
        if (kept := self.kept.pop(card.name, None)) is not None:
            with contextlib.suppress(ValueError):  # by another version, perhaps: it is measured anew
                made.recall(kept)
        return made

    def denied(self, of: Vitals, now: float, why: str, chance: float) -> None:
        """The key of a service was refused or is out of credit: whoever uses the same key sits out with it."""
        for vitals in self.vitals.values():
            if vitals is not of and of.card.key and vitals.card.key == of.card.key:
                vitals.failed(now, f"{why} for the key that {of.card.name!r} uses too", chance, at_once=True)


def _times(own: Histogram, pool: Histogram, stated: float | None, prior: float) -> tuple[float, float]:
    """Usual value and 95th percentile of a time: of the service, shrunk to its provider's, shrunk to a prior."""
    believed = max(stated, 1e-9) if stated is not None else shrunk(pool.typical(), pool.count, prior)
    usual = shrunk(own.typical(), own.count, believed)
    return usual, max(usual, shrunk(own.quantile(0.95), own.count, usual * P95, TAIL_WEIGHT))


def _reset(seconds: Any) -> float:
    """When a quota is full again, as far as that is believed."""
    return min(seconds, MOST_S) if finite(seconds) and seconds > 0 else 1.0


def _beta(kept: Any) -> tuple[float, float]:
    if not (isinstance(kept, list) and len(kept) == 2 and all(type(n) is float and 0.0 <= n < 1e6 for n in kept)):
        raise ValueError("not what was kept of a model's scores")
    if not all(math.isfinite(n) for n in kept):
        raise ValueError("not what was kept of a model's scores")
    return kept[0], kept[1]
