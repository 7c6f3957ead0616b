"""Frames to the numbers a model sees: the one way from pixels to input, for training and serving alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.errors import InputRejected

Channels = Sequence[float]


def preprocess_frames(
    frames: NDArray[np.uint8], *, side: int, resize: Literal["squash", "crop"], mean: Channels, deviation: Channels
) -> NDArray[np.float32]:
    """Resize, scale to 0..1, then subtract `mean` and divide by `deviation`.

    Args:
        frames: uint8, shape (n, T, height, width, 3), RGB.
        side: Height and width of the result, in pixels.
        resize: See `resize_frame`.
        mean: Of R, G, B on a scale of 0 to 1.
        deviation: Of R, G, B on the same scale.

    Returns:
        float32, shape (n, T, 3, side, side).

    Raises:
        InputRejected: the frames have another shape or type, or no pixels.
    """
    if frames.ndim != 5 or frames.shape[4] != 3 or frames.dtype != np.uint8:
        raise InputRejected(
            f"frames are {frames.dtype} {frames.shape}, wanted uint8 (n, T, height, width, 3)", code="bad-shape",
        )
    return normalise(resize_frames(frames, side=side, resize=resize), mean=mean, deviation=deviation)


def resize_frames(frames: NDArray[np.uint8], *, side: int, resize: Literal["squash", "crop"]) -> NDArray[np.uint8]:
    """Every frame through `resize_frame`: (n, T, height, width, 3) to (n, T, side, side, 3)."""
    if frames.shape[2:4] == (side, side):
        return frames
    resized = np.empty((*frames.shape[:2], side, side, 3), dtype=np.uint8)
    for place in np.ndindex(*frames.shape[:2]):
        resized[place] = resize_frame(frames[place], side=side, resize=resize)
    return resized


def resize_frame(frame: NDArray[np.uint8], *, side: int, resize: Literal["squash", "crop"]) -> NDArray[np.uint8]:
    """One frame (height, width, 3) to (side, side, 3), bicubic.

    `squash` goes straight to side x side, and all of the picture stays. `crop` brings the shorter side to `side`, keeps
    the aspect, and cuts the centre out, as transformers' CLIPImageProcessor does.
    """
    height, width = frame.shape[:2]
    if height == 0 or width == 0:
        raise InputRejected(f"a frame of {width} x {height} pixels has nothing in it", code="bad-shape")
    if (height, width) == (side, side):
        return frame
    if resize == "squash":
        target_width, target_height = side, side
    else:
        # Rounded down, as the processors of transformers do.
        target_width = side if width <= height else int(side * width / height)
        target_height = side if height <= width else int(side * height / width)
    if (target_height, target_width) != (height, width):
        picture = Image.fromarray(np.ascontiguousarray(frame))
        frame = np.asarray(picture.resize((target_width, target_height), Image.Resampling.BICUBIC))
    top, left = (target_height - side) // 2, (target_width - side) // 2
    return frame[top : top + side, left : left + side]


def normalise(frames: NDArray[np.uint8], *, mean: Channels, deviation: Channels) -> NDArray[np.float32]:
    """`(frames / 255 - mean) / deviation`, channels first: (n, T, h, w, 3) to float32 (n, T, 3, h, w)."""
    num, length, height, width = frames.shape[:4]
    pixels = np.empty((num, length, 3, height, width), dtype=np.float32)
    levels = np.arange(256) / 255
    for channel in range(3):
        # A pixel has 256 values: looking the result up is exact, and faster than arithmetic on every pixel.
        table = ((levels - mean[channel]) / deviation[channel]).astype(np.float32)
        np.take(table, frames[..., channel], out=pixels[:, :, channel], mode="clip")  # "raise" would copy what is there
    return pixels
