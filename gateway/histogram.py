"""Histogram: what has been measured of late, as a few dozen numbers; its quantiles, and what is typical of it.

A decayed log-histogram: buckets of 4 % (the mapping of DDSketch, Masson et al., 2019), so that a quantile is right to 4 %
over the whole range. Each measurement counts `decay` times as much as the one after it. The same calls give the same
floats; nothing here asks for the time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate

DECAY = 0.97
"""What each further measurement leaves of the weight of those before it."""
PRIOR_WEIGHT = 0.5
"""A prior counts as much as this many measurements: services differ far more from each other than from themselves."""
LOW, HIGH = 1e-6, 1e6
"""What lies outside counts as these. Seconds and tokens alike fit in between."""

_STEP = math.log(1.04)
_PER_LOG = 1.0 / _STEP
_FIRST = math.ceil(math.log(LOW) * _PER_LOG)
_LAST = math.ceil(math.log(HIGH) * _PER_LOG)
_RENORMALISE = 1e9
_DUST = 1e-9

# Chosen on measured first-token times (benchmarks/forecast.py), together with DECAY and PRIOR_WEIGHT.
_MASS = 0.44
_SHARPNESS = 5

_FIELDS = ("decay", "gain", "count", "buckets")


def bucket_of(value: float) -> int | None:
    """The bucket that a measurement falls into; None for what measures nothing."""
    if LOW < value < HIGH:
        return math.ceil(math.log(value) * _PER_LOG)
    if 0.0 <= value < math.inf:
        return _FIRST if value <= LOW else _LAST
    return None


class Histogram:
    """A decayed histogram of positive measurements. At most 706 buckets, whatever arrives; usually a few dozen."""

    # Instead of fading all buckets, each further measurement weighs more: `_gain` is the weight of the latest.
    __slots__ = ("_buckets", "_decay", "_gain", "_growth", "_order", "_typical", "count")

    def __init__(self, *, decay: float = DECAY) -> None:
        if not 0.5 <= decay <= 1.0:
            raise ValueError(f"decay must be from 0.5 to 1, not {decay!r}")
        self._decay = decay
        self._growth = 1.0 / decay
        self._gain = 1.0
        self._buckets: dict[int, float] = {}
        self._order: tuple[list[int], list[float]] | None = None
        self._typical: float | None = None
        self.count = 0
        """Measurements so far, none faded."""

    def add(self, value: float) -> None:
        """Count one more measurement; 0 counts as `LOW`. NaN, infinity and what is negative measure nothing: left out."""
        bucket = bucket_of(value)
        if bucket is not None:
            self.add_to(bucket)

    def add_to(self, bucket: int) -> None:
        """Count one more measurement by its bucket, as `bucket_of` gives it: for one that several histograms are told."""
        buckets = self._buckets
        self._gain = gain = self._gain * self._growth
        buckets[bucket] = buckets.get(bucket, 0.0) + gain
        self.count += 1
        self._order = self._typical = None
        if gain > _RENORMALISE:
            self._renormalise()

    def quantile(self, q: float) -> float | None:
        """The value that a share `q`, in (0, 1), of the weight lies at or below, to 4 %. None while empty.

        It lies in the bucket of the exact weighted quantile, and moves evenly through the bucket, in log space.
        """
        if not 0.0 < q < 1.0:
            raise ValueError(f"q must lie between 0 and 1, not {q!r}")
        if not self._buckets:
            return None
        buckets, below = self._order or self._sort()
        target = q * below[-1]
        at = bisect_left(below, target)
        before = below[at - 1] if at else 0.0
        part = (target - before) / (below[at] - before)
        return math.exp((buckets[at] - 1 + part) * _STEP)

    def typical(self) -> float | None:
        """The one value that the next measurement is likeliest to be near. None while empty.

        Where measurements crowd: the mean of the shortest windows that hold 44 % of the weight, in log space, a window
        counting by its width to the power of -5. The middle of the shortest window alone is the "shorth" (Andrews et al.,
        1972; Rousseeuw's least median of squares, 1984), the best forecast by median error; the average over nearly
        as short windows jumps less. A tail does not move it: ask `quantile` for what could go wrong.
        """
        if self._typical is None and self._buckets:
            buckets, below = self._order or self._sort()
            weights = [self._buckets[bucket] for bucket in buckets]
            self._typical = math.exp(_crowded(buckets, weights, below) * _STEP)
        return self._typical

    @property
    def weight(self) -> float:
        """The measurements that still count, faded: rises to 1 / (1 - decay). More for a while after a merge."""
        return (self._order or self._sort())[1][-1] / self._gain if self._buckets else 0.0

    @property
    def decay(self) -> float:
        """What each further measurement leaves of the weight of those before it."""
        return self._decay

    def merge(self, other: Histogram) -> None:
        """Add what the other has seen, as fresh as it is there. ValueError where it decays otherwise."""
        if other._decay != self._decay:
            raise ValueError(f"only histograms of one decay merge, not {self._decay!r} with {other._decay!r}")
        dust, scale = _DUST * other._gain, self._gain / other._gain
        for bucket, weight in other._buckets.items():
            if weight > dust:
                self._buckets[bucket] = self._buckets.get(bucket, 0.0) + weight * scale
        self.count += other.count
        self._order = self._typical = None

    def to_json(self) -> dict[str, object]:
        """Plain JSON; `from_json` makes a histogram of it that answers and goes on exactly as this one."""
        buckets = [[bucket, self._buckets[bucket]] for bucket in sorted(self._buckets)]
        return {"decay": self._decay, "gain": self._gain, "count": self.count, "buckets": buckets}

    @classmethod
    def from_json(cls, data: object) -> Histogram:
        """The histogram that `to_json` described. ValueError, naming the field, for anything else."""
        if not isinstance(data, dict) or set(data) != set(_FIELDS):
            raise ValueError(f"a stored histogram must have the fields {', '.join(_FIELDS)} and no others")
        made = cls(decay=_number(data["decay"], "decay", 0.5, 1.0))
        made._gain = _number(data["gain"], "gain", 1.0, _RENORMALISE)
        count, buckets = data["count"], data["buckets"]
        if type(count) is not int or not 0 <= count <= 1e15:
            raise ValueError("count of a stored histogram must be a whole number from 0 to 1e15")
        if not isinstance(buckets, list) or len(buckets) > min(count, _LAST - _FIRST + 1) or bool(buckets) != bool(count):
            raise ValueError("buckets of a stored histogram must be a list, as long as there were measurements to fill it")
        made.count = count
        previous = _FIRST - 1
        for n, pair in enumerate(buckets):
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int or not previous < pair[0] <= _LAST:
                raise ValueError(f"buckets[{n}] of a stored histogram must be [bucket, weight], buckets rising to {_LAST}")
            previous = pair[0]
            made._buckets[previous] = _number(pair[1], f"buckets[{n}]", 1e-30, 1e30)
        return made

    def _sort(self) -> tuple[list[int], list[float]]:
        # Buckets in order, and the weight up to and with each.
        buckets = sorted(self._buckets)
        self._order = order = (buckets, list(accumulate(map(self._buckets.__getitem__, buckets))))
        return order

    def _renormalise(self) -> None:
        # Once in hundreds of measurements; what is too old to matter goes.
        gain, self._gain = self._gain, 1.0
        self._buckets = {bucket: weight / gain for bucket, weight in self._buckets.items() if weight > _DUST * gain}


def shrunk(own: float | None, weight: float, prior: float, prior_weight: float = PRIOR_WEIGHT) -> float:
    """An estimate drawn to a prior while little is seen: their mean in log space, by weight. All in one unit, positive.

    `weight` says how much `own` rests on: give `Histogram.count`. The faded `Histogram.weight` stops growing, and would
    leave the prior a say for ever. Without an `own` the prior is all there is.
    """
    if own is None or weight <= 0.0:
        return prior
    return math.exp((prior_weight * math.log(prior) + weight * math.log(own)) / (prior_weight + weight))


def _crowded(buckets: list[int], weights: list[float], below: list[float]) -> float:
    """Where the weight crowds, in buckets: the mean of the windows that hold `_MASS` of it, the shortest counting most."""
    need = _MASS * below[-1]
    moments = list(accumulate((bucket - 0.5) * weight for bucket, weight in zip(buckets, weights, strict=True)))
    before = moment_before = mean = shares = 0.0
    end = 0
    for start, bucket in enumerate(buckets):
        while end < len(below) and below[end] - before < need:
            end += 1
        if end == len(below):
            break
        share = (buckets[end] - bucket + 1) ** -_SHARPNESS
        mean += share * (moments[end] - moment_before) / (below[end] - before)
        shares += share
        before, moment_before = below[start], moments[start]
    return mean / shares


def _number(value: object, field: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{field} of a stored histogram must be a number from {low:g} to {high:g}")
    return float(value)
