"""Converts frames into model input. Training and serving use this one code path."""

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
"""Pillow's filters in the order of their numbers, which a published `resample` refers to."""


@dataclass(frozen=True)
class Resizing:
    """How a frame is brought to the square size that a model takes."""

    side: int
    """Height and width of the result in pixels."""
    resize: Resize
    """`squash` resizes both sides to `resize_side` and ignores the aspect ratio; `crop` resizes the shorter side to it."""
    resample: Resample = "bicubic"
    """The filter; it antialiases when a frame is reduced."""
    resize_side: int | None = None
    """Pixels, at least `side`; the centre of `side` pixels is then cut out. None means `side`."""

    def __post_init__(self) -> None:
        """Validate the fields.

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
        """Return the shorter side of a resized frame in pixels. Stored frames of this size are never enlarged."""
        return self.resize_side or self.side


def centre_frames(num_kept: int, num_frames: int) -> list[int]:
    """Return which of a clip's frames a model sees: those at the centres of equal bins, ascending.

    Args:
        num_kept: Number of frames that are there.
        num_frames: Number of bins, from 1 to `num_kept`.

    Examples:
        >>> centre_frames(24, 8)
        [1, 4, 7, 10, 13, 16, 19, 22]
    """
    return [int((place + 0.5) * num_kept / num_frames) for place in range(num_frames)]


def preprocess_frames(
    frames: NDArray[np.uint8], *, resizing: Resizing, image_mean: Channels, image_std: Channels
) -> NDArray[np.float32]:
    """Resize frames, scale them to 0 to 1, subtract the mean and divide by the standard deviation.

    Args:
        frames: uint8 RGB, shape (n, T, height, width, 3).
        resizing: Size, aspect ratio and filter of the result.
        image_mean: Mean of R, G, B, on a scale of 0 to 1.
        image_std: Standard deviation of R, G, B, on a scale of 0 to 1.

    Returns:
        float32, shape (n, T, 3, side, side).

    Raises:
        InputRejected: the frames have another shape or type, or no pixels.
    """
    if frames.ndim != 5 or frames.shape[4] != 3 or frames.dtype != np.uint8:
        raise InputRejected(
            f"frames are {frames.dtype} {frames.shape}, wanted uint8 (n, T, height, width, 3)", code="bad-shape",
        )
    return normalise(resize_frames(frames, resizing), image_mean=image_mean, image_std=image_std)


def resize_frames(frames: NDArray[np.uint8], resizing: Resizing) -> NDArray[np.uint8]:
    """Resize every frame as `resize_frame` does.

    Args:
        frames: uint8 RGB, shape (n, T, height, width, 3).
        resizing: Size, aspect ratio and filter of the result.

    Returns:
        uint8 RGB, shape (n, T, side, side, 3).
    """
    side = resizing.side
    if frames.shape[2:4] == (side, side) == (resizing.shorter_px,) * 2:
        return frames
    resized = np.empty((*frames.shape[:2], side, side, 3), dtype=np.uint8)
    for place in np.ndindex(*frames.shape[:2]):
        resized[place] = resize_frame(frames[place], resizing)
    return resized


def resize_frame(frame: NDArray[np.uint8], resizing: Resizing) -> NDArray[np.uint8]:
    """Resize one frame and cut out its centre, as the image processors of transformers do with Pillow.

    Args:
        frame: uint8 RGB, shape (height, width, 3).
        resizing: Size, aspect ratio and filter of the result.

    Returns:
        uint8 RGB, shape (side, side, 3).
    """
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


def normalise(frames: NDArray[np.uint8], *, image_mean: Channels, image_std: Channels) -> NDArray[np.float32]:
    """Compute `(frames / 255 - image_mean) / image_std`, channels first.

    Args:
        frames: uint8 RGB, shape (n, T, height, width, 3).
        image_mean: Mean of R, G, B, on a scale of 0 to 1.
        image_std: Standard deviation of R, G, B, on a scale of 0 to 1.

    Returns:
        float32, shape (n, T, 3, height, width).
    """
    num, length, height, width = frames.shape[:4]
    pixels = np.empty((num, length, 3, height, width), dtype=np.float32)
    levels = np.arange(256) / 255
    for channel in range(3):
        # A pixel has 256 values: looking the result up is exact, and faster than arithmetic on every pixel.
        table = ((levels - image_mean[channel]) / image_std[channel]).astype(np.float32)
        np.take(table, frames[..., channel], out=pixels[:, :, channel], mode="clip")  # "raise" would copy what is there
    return pixels
