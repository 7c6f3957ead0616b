"""Frames to the numbers a model sees: the one way from pixels to input, for training and serving alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.errors import InputRejected

Channels = Sequence[float]
Resize = Literal["squash", "crop"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""Pillow's filters, in the order of their numbers there, which are those of a published `resample`."""


@dataclass(frozen=True)
class Resizing:
    """How a frame becomes the square picture that a model takes."""

    side: int
    """Height and width of the picture, in pixels."""
    resize: Resize
    """`squash`: both sides to `resize_side`, whatever the aspect. `crop`: the shorter side to it, the aspect stays."""
    resample: Resample = "bicubic"
    """The filter, with antialiasing where a frame becomes smaller."""
    resize_side: int | None = None
    """In pixels, at least `side`: what lies around the middle `side` pixels is then cut off. None: `side`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: a field is out of range.
        """
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize is {self.resize!r}, wanted squash or crop")
        if self.resample not in get_args(Resample):
            raise ValueError(f"resample is {self.resample!r}, wanted one of {', '.join(get_args(Resample))}")
        if self.resize_side is not None and self.resize_side < self.side:
            raise ValueError(f"resize_side is {self.resize_side}, wanted at least the side, {self.side}")

    @property
    def shorter_px(self) -> int:
        """The shorter side that a frame is brought to: what a stored frame needs so that none is enlarged."""
        return self.resize_side or self.side


def preprocess_frames(
    frames: NDArray[np.uint8], *, resizing: Resizing, mean: Channels, deviation: Channels
) -> NDArray[np.float32]:
    """Resize, scale to 0..1, then subtract `mean` and divide by `deviation`.

    Args:
        frames: uint8, shape (n, T, height, width, 3), RGB.
        resizing: See `resize_frame`.
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
    return normalise(resize_frames(frames, resizing), mean=mean, deviation=deviation)


def resize_frames(frames: NDArray[np.uint8], resizing: Resizing) -> NDArray[np.uint8]:
    """Every frame through `resize_frame`: (n, T, height, width, 3) to (n, T, side, side, 3)."""
    side = resizing.side
    if frames.shape[2:4] == (side, side) == (resizing.shorter_px,) * 2:
        return frames
    resized = np.empty((*frames.shape[:2], side, side, 3), dtype=np.uint8)
    for place in np.ndindex(*frames.shape[:2]):
        resized[place] = resize_frame(frames[place], resizing)
    return resized


def resize_frame(frame: NDArray[np.uint8], resizing: Resizing) -> NDArray[np.uint8]:
    """One frame (height, width, 3) to (side, side, 3): resized, then the centre cut out, as the processors of transformers
    do with Pillow."""
    height, width = frame.shape[:2]
    if height == 0 or width == 0:
        raise InputRejected(f"a frame of {width} x {height} pixels has nothing in it", code="bad-shape")
    side, shorter = resizing.side, resizing.shorter_px
    target_width = target_height = shorter
    if resizing.resize == "crop" and height != width:
        # Rounded down, as those processors do.
        target_width = shorter if width <= height else int(shorter * width / height)
        target_height = shorter if height <= width else int(shorter * height / width)
    if (target_height, target_width) != (height, width):
        picture = Image.fromarray(np.ascontiguousarray(frame))
        frame = np.asarray(picture.resize((target_width, target_height), _FILTERS[resizing.resample]))
    top, left = (target_height - side) // 2, (target_width - side) // 2
    return frame[top : top + side, left : left + side]


_FILTERS: dict[Resample, Image.Resampling] = {name: Image.Resampling(at) for at, name in enumerate(get_args(Resample))}


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
