from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_media.cutting.quality_flags import quality_flags_of, thumb_of


def noisy(level: float, *, seed: int, deviation: float = 1.0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(level, deviation, (72, 128, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def textured(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (9, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)


def flags_of(*frames: NDArray[np.uint8]) -> tuple[str, ...]:
    return quality_flags_of([thumb_of(frame) for frame in frames])


def test_thumb_of__is_the_means_of_blocks() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:2, :3] = 200
    thumb = thumb_of(pixels)
    assert thumb.shape == (32, 32)
    assert thumb[0, 0] == pytest.approx(200, abs=0.1)
    assert thumb[1:].max() == thumb[0, 1:].max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (33, 7), (31, 100)])
def test_thumb_of__takes_any_size_and_keeps_the_level(shape: tuple[int, int]) -> None:
    thumb = thumb_of(np.full((*shape, 3), 90, np.uint8))
    assert thumb.shape == (min(shape[0], 32), min(shape[1], 32))
    np.testing.assert_allclose(thumb, 90, atol=0.01)


def test_marks_of__video_black_with_noise_is_black_and_flat() -> None:
    assert flags_of(noisy(16, seed=0), noisy(16, seed=1)) == ("black", "flat", "frozen")


def test_marks_of__a_light_in_the_dark_is_not_black() -> None:
    frame = noisy(16, seed=0)
    frame[:16, :16] = 200
    assert "black" not in flags_of(frame, frame)


def test_marks_of__plain_colours_that_change_are_flat_alone() -> None:
    assert flags_of(noisy(60, seed=0), noisy(120, seed=1)) == ("flat",)


def test_marks_of__a_picture_that_stands_still_is_frozen_alone() -> None:
    assert flags_of(textured(0), textured(0), textured(0)) == ("frozen",)


def test_marks_of__one_frame_alone_is_never_frozen() -> None:
    assert flags_of(textured(0)) == ()


def test_marks_of__one_change_late_is_movement() -> None:
    moved = textured(0)
    moved[:24, :24] = 255 - moved[:24, :24]
    assert flags_of(textured(0), textured(0), moved) == ()
