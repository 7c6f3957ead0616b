from __future__ import annotations

import numpy as np
import pytest

from tests.retrieval.dedup.test_video_matches import fingerprints
from tests.retrieval.pictures import moving_frames
from vidseek_retrieval.dedup.alignment import Alignment, Limits, likeness_of, matched, motion, strength
from vidseek_retrieval.dedup.picture_likeness import fingerprint_of


def test_matched__by_hand() -> None:
    alike = np.array([[0.1, 0.9], [np.nan, 0.3], [np.nan, np.nan]], np.float32)
    times, other = np.array([0, 5000, 9000]), np.array([0, 5000])
    # Frames lie 5 s apart, so 3 s is near enough.
    np.testing.assert_allclose(matched(alike, times, other)[0], [0.1, 0.3, np.nan])
    assert matched(alike, times, other, offset_ms=2500)[1][0] == 1
    np.testing.assert_allclose(matched(alike, times, other, offset_ms=2500)[0], [0.9, 0.3, np.nan])
    np.testing.assert_allclose(matched(alike, times, other, offset_ms=5000)[0], [0.9, np.nan, np.nan])
    np.testing.assert_allclose(matched(alike, times, other, speed=0.5)[0][1], 0.3)


def test_strength__the_best_run_of_four_with_one_miss() -> None:
    times = np.arange(8) * 500
    def of(*values: float) -> float:
        return strength(np.array(values, np.float32), times[: len(values)])

    assert of(0.9, 0.8, 0.9, 0.95, 0.2, 0.1, 0.0, 0.0) == pytest.approx(0.8)
    assert of(0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1) == pytest.approx(0.9)  # one miss
    assert of(0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1) == pytest.approx(0.1)  # two
    assert of(0.9, np.nan, 0.9, np.nan, 0.9, np.nan, 0.9, np.nan) == pytest.approx(0.9)
    assert of(*[np.nan] * 8) == 0.0 and of(0.9, 0.9, 0.9) == 0.0


def test_likeness_of__flat_frames_are_like_nothing() -> None:
    flat = np.zeros((90, 120, 3), np.uint8)
    alike = likeness_of(fingerprints([*moving_frames(1, num=1), flat]), fingerprints([flat, *moving_frames(1, num=1)]))
    assert np.isnan(alike).tolist() == [[True, False], [True, True]]


def test_motion__what_stands_in_each_frame_counts_for_nothing() -> None:
    frames = moving_frames(1, num=8)
    marked = [np.where(np.arange(120)[:, np.newaxis] > 100, 250, frame).astype(np.uint8) for frame in frames]
    one, other = fingerprints(frames).fingerprints, fingerprints(marked).fingerprints
    alike = motion(one, other)
    assert alike is not None and alike > 0.7
    assert motion(one, one) == pytest.approx(1.0, abs=1e-3)
    backwards = motion(one, one[::-1])
    assert backwards is not None and backwards < 0.5
    mirrored = np.stack([fingerprint_of(np.ascontiguousarray(frame[:, ::-1])) for frame in frames])
    assert motion(one, mirrored) == pytest.approx(1.0, abs=0.02)


def test_motion__nothing_moves() -> None:
    still = fingerprints(moving_frames(1, num=1) * 8).fingerprints
    assert motion(still, still) is None
    assert motion(still, fingerprints(moving_frames(1, num=8)).fingerprints) == 0.0


def test_limits__each_kind_has_its_own() -> None:
    limits = Limits(moving=0.7, still=0.9)
    assert limits.call(Alignment(1.0, 0.0, 0.8, 0.7)) and not limits.call(Alignment(1.0, 0.0, 0.95, 0.4))
    assert limits.call(Alignment(1.0, 0.0, 0.9, None)) and not limits.call(Alignment(1.0, 0.0, 0.8, None))
    assert not Limits(0.0, 0.0).call(Alignment(1.0, 0.0, 0.0, None))
