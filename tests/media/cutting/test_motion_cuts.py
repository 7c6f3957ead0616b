from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_media.cutting.content_changes import ContentChanges
from vidseek_media.cutting.motion_cuts import motion_cuts
from vidseek_media.cutting.small_frames import SmallFrame, SmallFrames
from vidseek_media.cutting.transitions import Pace
from vidseek_media.settings import ShotSettings

PACE = Pace.of(1 / 25)


def world(seed: int) -> NDArray[np.uint8]:
    """A picture larger than a frame, soft enough that a small shift changes little."""
    coarse = np.random.default_rng(seed).integers(20, 236, (30, 120, 3)).astype(np.float32)
    fine = coarse.repeat(12, 0).repeat(12, 1)
    return ((fine + np.roll(fine, 6, 0) + np.roll(fine, 6, 1) + np.roll(fine, (6, 6), (0, 1))) / 4).astype(np.uint8)


def panned(seed: int, lefts: list[int], tops: list[int] | None = None) -> list[NDArray[np.uint8]]:
    """Frames of 144 x 256 of one world, at these places."""
    whole = world(seed)
    return [whole[top : top + 144, left : left + 256] for left, top in zip(lefts, tops or [0] * len(lefts), strict=True)]


def found(frames: list[NDArray[np.uint8]], known: tuple[int, ...] = ()) -> list[int]:
    small = SmallFrames.of([SmallFrame.of(frame) for frame in frames])
    return motion_cuts(known, small, reach=PACE.flash, threshold=3.0, min_content=15.0)


@pytest.mark.parametrize("step", [0, 4, 8, 12])
def test_motion_cuts__finds_a_cut_between_pans(step: int) -> None:
    frames = panned(1, [step * n for n in range(20)]) + panned(2, [step * n for n in range(20)])
    assert found(frames) == [20]
    assert found(frames, (19,)) == []  # it is known


@pytest.mark.parametrize("right, down", [(48, 0), (-36, 12), (24, -24), (12, 24)])
def test_motion_cuts__a_picture_that_jerks_is_no_cut(right: int, down: int) -> None:
    lefts, tops = [100 + n for n in range(12)], [60] * 12
    jerked = panned(3, lefts + [left + right for left in lefts], tops + [60 + down] * 12)
    assert found(jerked) == []


def test_motion_cuts__water_in_which_no_frame_is_like_the_next_has_none() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (12, 22, 3)).astype(np.uint8).repeat(12, 0).repeat(12, 1)[:, :256] for _ in range(30)]
    assert found(noise) == []


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_motion_cuts__of_very_short_videos(num_frames: int) -> None:
    assert found(panned(4, [5 * n for n in range(num_frames)])) == []
    assert found(panned(4, [0] * num_frames) + panned(5, [0] * num_frames)) in ([], [num_frames])


def test_boundaries__a_cut_in_a_fast_pan_counts_once_and_a_flash_does_not() -> None:
    pytest.importorskip("scenedetect")
    lit = [np.clip(frame * 0.3 + 170, 0, 255).astype(np.uint8) for frame in panned(6, [200, 204])]
    frames = [
        *panned(6, [10 * n for n in range(20)]), *lit, *panned(6, [208 + 12 * n for n in range(18)]),
        *panned(7, [12 * n for n in range(20)]),
    ]
    detector = ContentChanges(ShotSettings())
    for frame in frames:
        detector.take(frame)
    assert detector.boundaries(PACE) == [40]
