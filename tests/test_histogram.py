"""Histogram: quantiles right to 4 %, old measurements fading, bounded whatever arrives, the same again after a restart."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.histogram import DECAY, HIGH, LOW, Histogram, shrunk

values = st.floats(LOW, HIGH)
lists = st.lists(values, min_size=1, max_size=60)
decays = st.floats(0.5, 1.0)
shares = st.floats(0.001, 0.999)
anything = st.floats() | st.integers()
BUCKET = 1.04 * (1 + 1e-9)


def filled(measured: list[float], decay: float = DECAY) -> Histogram:
    histogram = Histogram(decay=decay)
    for value in measured:
        histogram.add(value)
    return histogram


def exact(measured: list[float], decay: float, share: float) -> float:
    """The smallest measurement that `share` of the decayed weight lies at or below."""
    weighed = sorted((value, decay**age) for age, value in enumerate(reversed(measured)))
    total, below = math.fsum(weight for _, weight in weighed), 0.0
    for value, weight in weighed:
        below += weight
        if below >= share * total:
            return value
    return weighed[-1][0]


@given(lists, decays, shares)
def test_a_quantile_is_within_a_bucket_of_the_exact_decayed_one(measured: list[float], decay: float, q: float) -> None:
    # Where a share falls on the very edge between two measurements, rounding may choose either.
    low, high = exact(measured, decay, q - 1e-9), exact(measured, decay, q + 1e-9)
    found = filled(measured, decay).quantile(q)
    assert found is not None
    assert low / BUCKET <= found <= high * BUCKET


@given(lists, st.lists(shares, min_size=2, max_size=20))
def test_a_larger_share_never_has_a_smaller_quantile(measured: list[float], asked: list[float]) -> None:
    histogram = filled(measured)
    found = [histogram.quantile(q) or 0.0 for q in sorted(asked)]
    assert found == sorted(found)


def test_a_quantile_moves_through_a_bucket_without_steps() -> None:
    histogram = filled([1.0] * 100, 1.0)
    found = [histogram.quantile(q / 100) or 0.0 for q in range(1, 100)]
    assert max(after / before for before, after in pairwise(found)) < 1.0005


@given(lists, decays)
def test_typical_lies_among_the_measurements(measured: list[float], decay: float) -> None:
    found = filled(measured, decay).typical()
    assert found is not None
    assert min(measured) / BUCKET <= found <= max(measured) * BUCKET


@given(st.lists(st.floats(0.2, 0.22), min_size=13, max_size=13), st.lists(st.floats(1.0, HIGH), min_size=5, max_size=5))
def test_a_tail_does_not_move_what_is_typical(crowd: list[float], tail: list[float]) -> None:
    found = filled(crowd[:6] + tail + crowd[6:], 1.0).typical()
    assert found is not None
    assert 0.2 / BUCKET <= found <= 0.22 * BUCKET


def test_typical_is_where_measurements_crowd_and_not_the_median() -> None:
    histogram = filled([0.2, 1.0, 0.21, 3.0, 0.2, 9.0, 0.21, 2.0, 0.2, 5.0], 1.0)
    assert histogram.typical() == pytest.approx(0.205, rel=0.03)
    assert (histogram.quantile(0.6) or 0.0) > 0.9


def test_a_change_for_good_is_believed_within_a_few_dozen_measurements() -> None:
    histogram = filled([0.2] * 1000 + [0.6] * 40)
    assert histogram.typical() == pytest.approx(0.6, rel=0.03)
    assert histogram.quantile(0.5) == pytest.approx(0.6, rel=0.04)


def buckets(histogram: Histogram) -> int:
    held = histogram.to_json()["buckets"]
    assert isinstance(held, list)
    return len(held)


def test_there_are_at_most_706_buckets_and_fewer_as_old_measurements_fade() -> None:
    everywhere = [1.02**n for n in range(-900, 900)]
    assert buckets(filled(everywhere, 1.0)) == 706
    assert buckets(filled(everywhere + [1.0] * 2000)) == 1


@given(st.lists(anything, max_size=60))
def test_whatever_arrives_the_answers_are_finite_and_in_range(arriving: list[float]) -> None:
    histogram = filled(arriving)
    for found in (histogram.quantile(0.01), histogram.quantile(0.99), histogram.typical()):
        assert found is None or LOW / BUCKET <= found <= HIGH * BUCKET


@given(lists, st.sampled_from([math.nan, math.inf, -math.inf, -1e-9, -(10**400)]))
def test_what_is_no_measurement_changes_nothing(measured: list[float], wrong: float) -> None:
    histogram = filled(measured)
    before = histogram.to_json()
    histogram.add(wrong)
    assert histogram.to_json() == before


def test_nothing_and_too_much_count_as_the_ends_of_the_range() -> None:
    assert filled([0]).quantile(0.5) == pytest.approx(LOW, rel=0.04)
    assert filled([10**400]).quantile(0.5) == pytest.approx(HIGH, rel=0.04)


def test_an_empty_histogram_knows_nothing() -> None:
    histogram = Histogram()
    assert (histogram.quantile(0.5), histogram.typical(), histogram.weight, histogram.count) == (None, None, 0.0, 0)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.5, math.nan])
def test_a_share_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="q must lie between 0 and 1"):
        filled([1.0]).quantile(q)


@pytest.mark.parametrize("decay", [0.0, 0.49, 1.01, math.nan])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must be from 0\.5 to 1"):
        Histogram(decay=decay)


@given(st.integers(0, 3000), st.floats(0.5, 0.999))
def test_the_weight_is_the_decayed_count(number: int, decay: float) -> None:
    histogram = filled([1.0, 2.0] * (number // 2) + [3.0] * (number % 2), decay)
    assert histogram.weight == pytest.approx((1 - decay**number) / (1 - decay), rel=1e-6)
    assert histogram.count == number


@given(lists, lists, shares)
def test_merging_counts_both_each_as_fresh_as_it_was(mine: list[float], theirs: list[float], q: float) -> None:
    merged = filled(mine)
    merged.merge(filled(theirs))
    apart = filled(mine), filled(theirs)
    assert merged.count == len(mine) + len(theirs)
    assert merged.weight == pytest.approx(apart[0].weight + apart[1].weight, rel=1e-6)
    found = merged.quantile(q)
    assert found is not None
    one, other = apart[0].quantile(q) or 0.0, apart[1].quantile(q) or 0.0
    assert min(one, other) / BUCKET <= found <= max(one, other) * BUCKET


@given(lists, lists)
def test_without_decay_merging_is_adding_up(mine: list[float], theirs: list[float]) -> None:
    merged = filled(mine, 1.0)
    merged.merge(filled(theirs, 1.0))
    assert merged.to_json() == filled(mine + theirs, 1.0).to_json()


def test_merging_with_an_empty_one_or_with_itself_keeps_its_shape() -> None:
    histogram = filled([0.2, 0.5, 0.9])
    before = histogram.to_json()
    histogram.merge(Histogram())
    assert histogram.to_json() == before
    median, weight = histogram.quantile(0.5), histogram.weight
    histogram.merge(histogram)
    assert histogram.quantile(0.5) == pytest.approx(median)
    assert histogram.weight == pytest.approx(2 * weight)


def test_what_has_faded_away_is_not_merged() -> None:
    theirs, mine = filled([1.0] * 600 + [5.0] + [1.0] * 750), Histogram()
    assert buckets(theirs) == 2
    mine.merge(theirs)
    assert buckets(mine) == 1
    assert mine.count == 1351


def test_histograms_of_two_decays_do_not_merge() -> None:
    with pytest.raises(ValueError, match="only histograms of one decay merge"):
        Histogram(decay=0.9).merge(Histogram(decay=0.95))


@given(st.lists(values, max_size=60), st.integers(1, 30), decays, lists)
def test_after_a_restart_it_answers_and_goes_on_exactly_as_before(
    measured: list[float], times: int, decay: float, more: list[float]
) -> None:
    histogram = filled(measured * times, decay)
    restored = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
    for value in more:
        assert restored.to_json() == histogram.to_json()
        assert (restored.quantile(0.9), restored.typical()) == (histogram.quantile(0.9), histogram.typical())
        assert (restored.weight, restored.count) == (histogram.weight, histogram.count)
        histogram.add(value)
        restored.add(value)


@given(lists, st.integers(1, 30))
def test_the_same_measurements_give_the_same_floats_whenever_it_is_asked(measured: list[float], times: int) -> None:
    asked, silent = Histogram(), filled(measured * times)
    for value in measured * times:
        asked.add(value)
        assert asked.typical() is not None
        assert asked.quantile(0.5) is not None
    assert asked.to_json() == silent.to_json()
    assert (asked.typical(), asked.quantile(0.95), asked.weight) == (silent.typical(), silent.quantile(0.95), silent.weight)


def stored(**changes: Any) -> dict[str, Any]:
    return {"decay": 0.97, "gain": 2.0, "count": 5, "buckets": [[-3, 1.5], [4, 2]], **changes}


def test_what_is_stored_well_is_taken() -> None:
    assert Histogram.from_json(stored()).weight == 1.75


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (None, "fields decay, gain, count, buckets"),
        ([], "fields"),
        ({"decay": 0.97}, "fields"),
        (stored(more=1), "fields"),
        (stored(decay=2.0), "decay"),
        (stored(decay="0.97"), "decay"),
        (stored(decay=True), "decay"),
        (stored(gain=0.0), "gain"),
        (stored(gain=math.nan), "gain"),
        (stored(gain=math.inf), "gain"),
        (stored(count=-1), "count"),
        (stored(count=5.0), "count"),
        (stored(count=10**400), "count"),
        (stored(count=0), "buckets"),
        (stored(count=1), "buckets"),
        (stored(buckets=[]), "buckets"),
        (stored(buckets={"4": 2}), "buckets"),
        (stored(buckets=[[4, 2.0], [4, 2.0]]), r"buckets\[1\]"),
        (stored(buckets=[[4, 2.0], [-3, 2.0]]), r"buckets\[1\]"),
        (stored(buckets=[[4, 2.0, 1.0]]), r"buckets\[0\]"),
        (stored(buckets=[4]), r"buckets\[0\]"),
        (stored(buckets=[[1000, 2.0]]), r"buckets\[0\]"),
        (stored(buckets=[[-1000, 2.0]]), r"buckets\[0\]"),
        (stored(buckets=[[1.0, 2.0]]), r"buckets\[0\]"),
        (stored(buckets=[[True, 2.0]]), r"buckets\[0\]"),
        (stored(buckets=[[4, 0.0]]), r"buckets\[0\]"),
        (stored(buckets=[[4, -1.0]]), r"buckets\[0\]"),
        (stored(buckets=[[4, math.nan]]), r"buckets\[0\]"),
        (stored(buckets=[[4, "2"]]), r"buckets\[0\]"),
    ],
)
def test_garbage_from_a_file_is_refused_by_the_name_of_its_field(data: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Histogram.from_json(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {
            "decay": decays | json_values,
            "gain": st.floats(1, 1e9) | json_values,
            "count": st.integers(0, 1000) | json_values,
            "buckets": st.lists(st.tuples(st.integers(-400, 400), st.floats()).map(list), max_size=4) | json_values,
        }
    )
)
def test_what_is_taken_from_a_file_always_answers(data: dict[str, Any]) -> None:
    try:
        histogram = Histogram.from_json(data)
    except ValueError:
        return
    histogram.add(1.0)
    for found in (histogram.quantile(0.01), histogram.quantile(0.99), histogram.typical(), histogram.weight):
        assert found is not None
        assert 0.0 < found < math.inf


@given(values, st.floats(0, 1e6), values, st.floats(0.01, 100))
def test_an_estimate_lies_between_its_prior_and_what_was_seen(
    own: float, weight: float, prior: float, prior_weight: float
) -> None:
    low, high = sorted((own, prior))
    assert low * (1 - 1e-9) <= shrunk(own, weight, prior, prior_weight) <= high * (1 + 1e-9)


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_the_more_was_seen_the_less_the_prior_says(some: float, more: float) -> None:
    some, more = sorted((some, more))
    assert shrunk(0.2, more, 0.8) <= shrunk(0.2, some, 0.8) * (1 + 1e-12)


def test_before_anything_is_seen_there_is_the_prior_alone() -> None:
    assert shrunk(None, 0, 0.8) == shrunk(0.2, 0, 0.8) == 0.8
    assert shrunk(0.2, 1.0, 0.8, prior_weight=1.0) == pytest.approx(0.4)
