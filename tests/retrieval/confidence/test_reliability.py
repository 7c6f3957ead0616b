from __future__ import annotations

import numpy as np
import pytest

from vidseek_retrieval.confidence.calibration import Calibration, Context
from vidseek_retrieval.confidence.calibration_fit import Judged
from vidseek_retrieval.confidence.reliability import (
    calibration_error,
    debiased_error,
    error_by_chance,
    error_figures,
    kept_and_turned_away,
    reliability,
)
from vidseek_retrieval.search.moments import Moment

HALF = Calibration("0" * 16, 0.0, (0.0, 0.0, 0.0), 0.0, 0.4, 1, 0.5)
"""One moment against "none of them": 0.5 each time."""


def judged(num: int, num_right: int, kind: str, *, num_groups: int = 5) -> list[Judged]:
    moments = (Moment("v", 0, 1, 0.5, "c", 0, ("c",)),)
    return [
        Judged(moments, Context.of(moments), (place < num_right,), kind, f"{kind}{place % num_groups}")
        for place in range(num)
    ]


def test_calibration_error__by_hand() -> None:
    bins = [{"confidence": 0.2, "right": 0.1, "num": 30}, {"confidence": 0.9, "right": 1.0, "num": 10}]
    assert calibration_error(bins) == pytest.approx(0.1) and calibration_error([]) == 0.0
    weighted = [{**bins[0], "share": 0.5}, {**bins[1], "share": 0.5}]
    assert calibration_error(weighted) == pytest.approx(0.1)


def test_error_figures__opposite_errors_of_two_kinds_are_both_seen() -> None:
    """Half of all hits are right, as they say; of those with an answer all are, of the others none."""
    figures = error_figures(HALF, [*judged(20, 20, "present"), *judged(20, 0, "left_out")])
    assert figures["at_prior"]["all"]["gap"]["value"] == 0.0
    gap = figures["present"]["first"]["gap"]
    assert (gap["value"], gap["low"]) == (-0.5, None) and "too few videos (5 groups" in gap["note"]
    assert figures["left_out"]["first"]["gap"]["value"] == 0.5
    enough = error_figures(HALF, judged(200, 90, "present", num_groups=25))["present"]["first"]["gap"]
    assert enough["low"] < enough["value"] == 0.05 < enough["high"]
    first = figures["present"]["first"]
    assert (first["confidence"], first["right"], first["num"], first["num_groups"]) == (0.5, 1.0, 20, 5)


def test_error_figures__the_prior_weighs_the_kinds() -> None:
    figures = error_figures(HALF, [*judged(10, 10, "present"), *judged(90, 0, "left_out")])
    assert figures["at_prior"]["first"]["right"] == 0.5  # the prior is 0.5, whatever was asked more often


def test_error_by_chance__and_what_is_left_without_it() -> None:
    draws = np.random.default_rng(0)
    values, worth = draws.uniform(0.2, 0.8, size=400), np.ones(400)
    assert 0.04 < error_by_chance(values, worth) < 0.08
    exact, off = [], []
    for _ in range(50):
        exact.append(debiased_error(values, (draws.random(400) < values).astype(float), worth))
        off.append(debiased_error(values, (draws.random(400) < values - 0.15).astype(float), worth))
    assert np.median(exact) < 0.03 and np.mean(off) == pytest.approx(0.15, abs=0.02)


def test_reliability__bins_of_weighted_hits() -> None:
    hits = [*judged(10, 10, "present"), *judged(10, 0, "left_out")]
    (one,) = reliability(HALF, hits, num_bins=1, weights=np.array([3.0] * 10 + [1.0] * 10))
    assert one == {"confidence": 0.5, "right": 0.75, "num": 20, "share": 1.0}


def test_kept_and_turned_away__by_hand() -> None:
    calibration = Calibration("0" * 16, 10.0, (-10.0, 0.0, 0.0), 5.0, 0.4, 3)  # 0.5 at a score of 0.5
    high, low = (tuple(Moment("v", 0, 1, score, "c", 0, ("c",)) for score in scores) for scores in ((0.9, 0.1), (0.2, 0.1)))
    asked = [
        Judged(high, Context.of(high), (True, False), "present"), Judged(low, Context.of(low), (True, False), "present"),
        Judged(low, Context.of(low), (False, False), "unlike"), Judged(high, Context.of(high), (False, False), "left_out"),
    ]
    assert kept_and_turned_away(calibration, asked) == {
        "kept": 0.5, "turned_away_left_out": 0.0, "turned_away_present": 0.5, "turned_away_unlike": 1.0,
    }
