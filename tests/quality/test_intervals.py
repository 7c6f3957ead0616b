from __future__ import annotations

import math
import os
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.raising import raises
from vidseek_quality import intervals
from vidseek_quality.intervals import MIN_GROUPS, Interval, enough_resamples, holm

interval, share_interval, median_interval, p_value = (
    partial(function, resamples=2000, seed=0)
    for function in (intervals.interval, intervals.share_interval, intervals.median_interval, intervals.p_value)
)

RUNS = int(os.environ.get("VIDSEEK_PROOFS", "100"))
"""Simulated proofs of each layout; `make proofs` runs thousands."""
ALLOWED = 0.05
"""False wins that are allowed. Nominal are 0.025; the seeds are fixed."""

Values = NDArray[np.float64]


def normal(rng: np.random.Generator, count: int) -> Values:
    return rng.normal(size=count)


def heavy(rng: np.random.Generator, count: int) -> Values:
    return rng.standard_t(3, count)


def mostly_ties(rng: np.random.Generator, count: int) -> Values:
    return rng.choice([-1.0, 0.0, 1.0], count, p=[0.05, 0.9, 0.05])


def skewed(rng: np.random.Generator, count: int) -> Values:
    return 1 - rng.exponential(size=count)


def drawn(
    rng: np.random.Generator, sizes: NDArray[np.int64], correlation: float, kind: object
) -> tuple[Values, NDArray[np.int64]]:
    """Values whose mean is 0 in truth, correlated within groups of these sizes; and their groups."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    if kind is reciprocal_ranks:
        return reciprocal_ranks(rng, groups), groups
    assert callable(kind)
    of_groups, own = kind(rng, len(sizes))[groups], kind(rng, len(groups))
    return math.sqrt(correlation) * of_groups + math.sqrt(1 - correlation) * own, groups


def reciprocal_ranks(rng: np.random.Generator, groups: NDArray[np.int64]) -> Values:
    """Gains in reciprocal rank between two models that are equally good; six queries of ten are tied."""
    sides = []
    for _ in range(2):
        hardness = 0.5 * rng.normal(size=groups.max() + 1)[groups] + rng.normal(size=len(groups))
        sides.append(1 / (1 + np.floor(np.exp(1 + 1.2 * hardness))))
    return np.where(rng.random(len(groups)) < 0.6, 0.0, sides[0] - sides[1])


def even(count: int, size: int) -> NDArray[np.int64]:
    return np.full(count, size)


def uneven(count: int, size: int) -> NDArray[np.int64]:
    return np.maximum(1, np.round(size * np.exp(np.random.default_rng(3).normal(size=count) - 0.5))).astype(np.int64)


LAYOUTS = [
    (even(20, 15), 0.3, normal), (even(75, 3), 0.3, normal), (even(75, 10), 0.3, normal), (uneven(20, 15), 0.3, normal),
    (np.array([200, *[10] * 19]), 0.1, normal), (uneven(40, 10), 0.3, heavy), (even(20, 1), 0.0, mostly_ties),
    (even(20, 15), 0.3, reciprocal_ranks), (uneven(40, 10), 0.3, reciprocal_ranks), (even(75, 3), 0.3, skewed),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "correlation", "kind"), LAYOUTS)
def test_interval__without_a_difference_few_are_proven(
    sizes: NDArray[np.int64], correlation: float, kind: object
) -> None:
    rng = np.random.default_rng(5)
    better = worse = 0
    for _ in range(RUNS):
        found = interval(*drawn(rng, sizes, correlation, kind), resamples=500)
        better, worse = better + (found.low > 0), worse + (found.high < 0)
    assert better / RUNS <= ALLOWED and worse / RUNS <= ALLOWED, (better / RUNS, worse / RUNS)


def test_interval__a_difference_is_seen() -> None:
    rng = np.random.default_rng(0)
    proven = 0
    for _ in range(50):
        values, groups = drawn(rng, even(20, 15), 0.3, normal)
        found = interval(values + 0.7, groups)  # the error of the mean is about 0.13
        proven += found.low > 0
        assert found.low < found.value < found.high
    assert proven == 50


def test_interval__of_few_videos_is_no_proof() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        values, groups = drawn(rng, even(6, 33), 0.1, normal)
        found = interval(values + 10, groups)
        assert (found.low, found.high, found.num_groups) == (-math.inf, math.inf, 6)
        assert "too few videos" in found.why_not and "at least 20" in found.why_not
        assert p_value(values + 10, groups) == 1


@pytest.mark.parametrize("values", [[0.5], [0.01, 0.01, 0.01], [0.1, 0.2, 0.05, 0.1], [0.3] * (MIN_GROUPS - 1)])
def test_interval__of_few_queries_is_no_proof(values: list[float]) -> None:
    found = interval(values, range(len(values)))
    assert found.low == -math.inf and found.to_json()["low"] is None and "too few videos" in found.to_json()["note"]


def test_interval__many_captions_of_a_video_say_little_more_than_one() -> None:
    rng = np.random.default_rng(1)
    of_groups = rng.normal(size=30)
    once = interval(of_groups, range(30))
    often = interval(np.repeat(of_groups, 40), np.repeat(np.arange(30), 40))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_interval__is_students_for_values_of_a_normal_distribution() -> None:
    values = np.random.default_rng(5).normal(size=400)
    found = interval(values, range(400), resamples=20_000)
    half = 1.966 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.006)


def test_interval__of_thousands_of_groups_is_as_wide_as_theirs() -> None:
    values = np.random.default_rng(5).normal(size=9000)
    found = interval(values, np.arange(9000) // 3)
    half = 1.96 * values.reshape(-1, 3).mean(1).std() / math.sqrt(3000)
    assert found.num_groups == 3000 and found.high - found.low == pytest.approx(2 * half, rel=0.08)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([-1.0, -0.5, 0.0, 0.0, 0.25, 1.0])), min_size=1, max_size=60),
    st.floats(-3, 3),
)
def test_interval__holds_its_estimate_and_moves_with_the_values(rows: list[tuple[int, float]], shift: float) -> None:
    groups, values = [f"g{group}" for group, _ in rows], np.array([value for _, value in rows])
    found = interval(values, groups, resamples=200, min_groups=2)
    assert found.low <= found.value + 1e-9 and found.high >= found.value - 1e-9
    mirrored = interval(-values, groups, resamples=200, min_groups=2)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-6)
    moved = interval(values + shift, groups, resamples=200, min_groups=2)
    assert moved.value == pytest.approx(found.value + shift, abs=1e-9)
    if math.isfinite(found.low):
        assert (moved.low, moved.high) == pytest.approx((found.low + shift, found.high + shift), abs=1e-6)


def test_interval__refuses_groups_that_do_not_fit() -> None:
    with raises(ValueError, naming=("2 values", "3 groups")):
        interval([1.0, 2.0], [1, 2, 3])
    with raises(ValueError, naming="at least one"):
        interval([], [])


def test_p_value__agrees_with_the_interval() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        values, groups = drawn(rng, even(25, 4), 0.2, normal)
        shifted = values + 0.25
        p = p_value(shifted, groups)
        if not 0.02 < p < 0.03:  # the bootstraps are of different lengths
            assert (interval(shifted, groups).low > 0) == (p <= 0.025)


def test_holm__tests_the_smallest_p_at_the_hardest_level() -> None:
    assert holm([0.02, 0.004, 0.9], 0.025) == [(False, 0.0125), (True, 0.025 / 3), (False, 0.0125)]
    assert holm([0.001, 0.002], 0.025) == [(True, 0.0125), (True, 0.025)]
    assert holm([], 0.025) == []


def test_median_interval__resamples_whole_videos() -> None:
    rng = np.random.default_rng(4)
    of_groups = rng.integers(1, 50, 40).astype(float)
    once = median_interval(of_groups, None, np.arange(40))
    often = median_interval(np.repeat(of_groups, 9), None, np.repeat(np.arange(40), 9))
    assert once.value == np.median(of_groups) and once.low < once.value < once.high
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high), abs=2)
    better = median_interval(of_groups, of_groups + 3, np.arange(40))
    assert (better.value, better.low, better.high) == (-3, -3, -3)
    assert median_interval(of_groups[:5], None, np.arange(5)).low == -math.inf


def test_to_json__says_how_many_groups() -> None:
    assert Interval(0.12345, 0.1, 0.2, 25).to_json() == {"value": 0.1235, "low": 0.1, "high": 0.2, "num_groups": 25}


def test_enough_resamples__reach_into_the_tail() -> None:
    assert enough_resamples(2000, 0.025) == 2000 and enough_resamples(500, 0.001) == 50_000


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.025 ** (1 / 30), 1.0), (0.0, 0.0, 1 - 0.025 ** (1 / 30))])
def test_share_interval__where_all_are_right_or_none_is_has_the_exact_bound_over_groups(
    value: float, low: float, high: float
) -> None:
    found = share_interval(np.full(120, value), np.repeat(np.arange(30), 4))
    assert (found.low, found.high) == pytest.approx((low, high))
    # One group of nearly all queries says about as much as one video.
    unequal = share_interval(np.full(120, value), [0] * 91 + list(range(1, 30)))
    assert unequal.high - unequal.low > 0.5
