from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from tests.raising import raises
from vidseek_encoder.preprocess import Resample, Resize, Resizing, preprocess_frames, resize_frame, resize_frames
from vidseek_media.errors import InputRejected

MEAN, DEVIATION = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)


def test_preprocess__is_the_formula_where_the_size_fits() -> None:
    frames = noise(2, 3, 8, 8, 3)
    pixels = preprocess_frames(frames, resizing=Resizing(8, "squash"), image_mean=MEAN, image_std=DEVIATION)
    expected = (frames.astype(np.float64) / 255 - np.array(MEAN)) / np.array(DEVIATION)
    assert pixels.shape == (2, 3, 3, 8, 8) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, expected.transpose(0, 1, 4, 2, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("num", [0, 1])
def test_preprocess__any_number(num: int) -> None:
    frames = noise(num, 2, 5, 7, 3)
    pixels = preprocess_frames(frames, resizing=Resizing(4, "crop"), image_mean=MEAN, image_std=DEVIATION)
    assert pixels.shape == (num, 2, 3, 4, 4)


def test_resize__squash_keeps_the_whole_picture() -> None:
    frame = np.zeros((10, 40, 3), dtype=np.uint8)
    frame[:, 20:] = 255
    squashed = resize_frame(frame, Resizing(10, "squash"))
    assert squashed.shape == (10, 10, 3)
    assert (squashed[:, :4] == 0).all() and (squashed[:, 6:] == 255).all()


@pytest.mark.parametrize("shape", [(10, 40), (40, 10)])
def test_resize__crop_takes_the_centre(shape: tuple[int, int]) -> None:
    frame = np.zeros((*shape, 3), dtype=np.uint8)
    rows, columns = (slice(None), slice(15, 25)) if shape[1] > shape[0] else (slice(15, 25), slice(None))
    frame[rows, columns] = 200
    assert (resize_frame(frame, Resizing(10, "crop")) == 200).all()


@pytest.mark.parametrize(("height", "width"), [(37, 91), (91, 37), (64, 64), (360, 640), (33, 32), (20, 30)])
def test_resize__crop_equals_the_clip_processor(height: int, width: int) -> None:
    # transformers' CLIPImageProcessor, written out: shorter side to `side` (the longer rounded down), centre crop.
    side, frame = 32, noise(height, width, 3)
    short, long = min(height, width), max(height, width)
    size = (side, int(side * long / short)) if width <= height else (int(side * long / short), side)
    whole = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    top, left = (whole.shape[0] - side) // 2, (whole.shape[1] - side) // 2
    np.testing.assert_array_equal(
        resize_frame(frame, Resizing(side, "crop")), whole[top : top + side, left : left + side]
    )


@pytest.mark.parametrize("resample", get_args(Resample))
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_resize__by_any_filter_then_the_middle(resample: Resample, resize: Resize) -> None:
    """A picture brought to 40 pixels, of which the middle 32 are taken, against Pillow."""
    frame = noise(50, 75, 3)
    size = (40, 40) if resize == "squash" else (60, 40)
    whole = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling[resample.upper()]))
    left = (size[0] - 32) // 2
    found = resize_frame(frame, Resizing(32, resize, resample, 40))
    np.testing.assert_array_equal(found, whole[4:36, left : left + 32])


def test_resize__a_frame_of_the_side_is_enlarged_first_where_a_margin_is_cut_off() -> None:
    frame = noise(1, 1, 32, 32, 3)
    found = resize_frames(frame, Resizing(32, "crop", resize_side=40))
    assert found.shape == (1, 1, 32, 32, 3) and not np.array_equal(found, frame)
    assert np.array_equal(resize_frames(frame, Resizing(32, "crop")), frame)


@pytest.mark.parametrize(
    "frames", [noise(1, 2, 8, 8), noise(1, 2, 8, 8, 4), noise(2, 8, 8, 3), noise(1, 2, 8, 8, 3).astype(np.float32)]
)
def test_preprocess__other_shape_or_type_is_rejected(frames: np.ndarray) -> None:
    with raises(InputRejected, code="bad-shape", naming="uint8"):
        preprocess_frames(frames, resizing=Resizing(8, "crop"), image_mean=MEAN, image_std=DEVIATION)


def test_preprocess__no_pixels_is_rejected() -> None:
    with raises(InputRejected, code="bad-shape"):
        preprocess_frames(noise(1, 2, 0, 8, 3), resizing=Resizing(8, "crop"), image_mean=MEAN, image_std=DEVIATION)
