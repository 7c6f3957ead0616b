from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseek_retrieval.dedup.comparing import time_alignment
from vidseek_retrieval.dedup.comparing.time_alignment import TimeMapping, Track, best_mapping, find_mappings

DIMENSION = 24
LEVELS = 400.0


def track(seed: int, times_ms: np.ndarray, *, speed: float = 1.0, start_ms: float = 0.0, noise: float = 6.0) -> Track:
    """What a made video of a seed shows, so much faster: a still part, and features that swing at their own rates."""
    draws = np.random.default_rng(seed)
    still = draws.normal(size=DIMENSION) * LEVELS / 3
    rates, phases = draws.uniform(0.08, 0.45, DIMENSION), draws.uniform(0, 2 * np.pi, DIMENSION)
    shown = (start_ms + times_ms * speed)[:, np.newaxis] / 1000
    rows = still + LEVELS / 4 * np.sin(2 * np.pi * rates * shown + phases)
    rows += np.random.default_rng(seed + 1).normal(size=rows.shape) * noise
    return Track(times_ms.astype(np.int64), rows.astype(np.float32))


def times_of(length_ms: float, step_ms: int = 125) -> np.ndarray:
    return np.arange(0, int(length_ms), step_ms)


@given(st.integers(0, 99), st.sampled_from([8, 20, 60]), st.sampled_from([0.8, 0.87, 0.94, 1.06, 1.1, 1.17, 1.25]))
@settings(max_examples=8, deadline=None)
def test_best_mapping__another_speed_wins_where_it_fits_clearly_better(seed: int, seconds: int, speed: float) -> None:
    copy = track(seed, times_of(1000 * seconds / speed), speed=speed)
    by, _ = best_mapping(copy, track(seed, times_of(1000 * seconds), noise=0))
    assert by.speed == pytest.approx(speed, rel=0.02)
    middle = np.array([500.0 * seconds / speed])
    assert by.times(middle) == pytest.approx(middle * speed, abs=100)


@given(st.integers(0, 99), st.sampled_from([4, 8, 20]), st.integers(0, 2000), st.sampled_from([80, 125, 250]))
@settings(max_examples=10, deadline=None)
def test_best_mapping__the_same_speed_stays_the_same(seed: int, seconds: int, start_ms: int, step_ms: int) -> None:
    copy = track(seed, times_of(1000 * seconds, step_ms), start_ms=start_ms)
    by, _ = best_mapping(copy, track(seed, times_of(1000 * seconds + 2500), noise=0))
    assert by.speed == 1 and by.offset_ms == pytest.approx(start_ms, abs=100)


def test_find_mappings__a_faster_mapping_gains_nothing_by_reaching_beyond_the_end() -> None:
    same = track(3, times_of(3000, 375))
    assert all(each.speed == 1 or abs(each.speed - 1) < 0.05 for each in find_mappings(same, track(3, times_of(3000))))


def test_turned__goes_back() -> None:
    by, times = TimeMapping(1.25, -300.0), np.array([0.0, 1000.0])
    np.testing.assert_allclose(by.turned().times(by.times(times)), times)


def test_gap__of_the_frames_before_and_after() -> None:
    uneven = Track(np.array([160, 560, 680, 800]), np.ones((4, 3), np.float32))
    assert uneven.gap_ms(560, is_before=True) == 400 and uneven.gap_ms(560, is_before=False) == 120
    assert uneven.gap_ms(0, is_before=True) == 400 and uneven.gap_ms(900, is_before=False) == 120
    assert Track(np.array([40]), np.ones((1, 3), np.float32)).gap_ms(0, is_before=True) > 0


@given(st.integers(0, 99), st.sampled_from([1, 2, 7, 40]), st.sampled_from([125, 250]))
@settings(max_examples=6, deadline=None)
def test_sums_by_speed__are_those_of_each_speed_by_itself(seed: int, num: int, step_ms: int) -> None:
    mine, other = track(seed, 125 * np.arange(12)), track(seed + 1, 125 * np.arange(num))
    found = time_alignment._sums_by_speed(mine, other, float(step_ms))
    for speed, sums in zip(time_alignment._SPEEDS, found, strict=True):
        votes = time_alignment._votes(mine, time_alignment._on_grid(other, step_ms * speed))
        alone = [float(np.trace(votes, offset)) for offset in range(1 - len(votes), votes.shape[1])]
        np.testing.assert_allclose(sums, alone, atol=1e-3)


def test_agreements__of_several_mappings_are_those_of_each() -> None:
    one, other = track(1, times_of(4000)), track(1, times_of(6000), start_ms=-500)
    mappings = [TimeMapping(speed, offset) for speed in (0.8, 1.0, 1.3) for offset in (-9000.0, 0.0, 500.0, 5900.0)]
    alone = [time_alignment.agreements(one, other, [each])[0] for each in mappings]
    assert time_alignment.agreements(one, other, mappings) == pytest.approx(alone)
    assert max(alone) == alone[6]
    assert [place for place, value in enumerate(alone) if value == 0][:2] == [0, 3]  # nothing of the other is reached
