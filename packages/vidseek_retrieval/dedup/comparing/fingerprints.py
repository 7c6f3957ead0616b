"""Describes the frames of a video by small grey pictures, independent of size, codec and colour. No model is used.

A fingerprint keeps whole frames and where they lie inside bars. A view is a rectangle of them, plain or mirrored: its low
frequencies, weighted against the excess of the lowest in natural pictures, are compared by their cosine. Flat frames (black,
a fade) match nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.cutting.small_frames import LUMA

SIDE = 40
"""Pixels of a picture in each direction."""
FREQUENCIES = 10
"""Of the cosine transform in each direction; the first of both, the brightness, is left out."""
FLAT_LEVELS = 4.0
"""The standard deviation, of 256 levels, below which a frame shows nothing."""
BAR_LEVELS = 12.0
"""The range of levels in a line of a bar, at most, in nine of ten frames."""
MAX_BAR = 0.35
"""Of a side: more is no bar."""
_GRID = 20

Values = NDArray[np.float32]


@dataclass(frozen=True, order=True)
class Rectangle:
    """A part of a picture, in shares of its height and width from the upper left."""

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0

    def within(self, outer: Rectangle) -> Rectangle:
        """Return the part of the whole picture that this part of `outer` is."""
        height, width = outer.bottom - outer.top, outer.right - outer.left
        return Rectangle(
            outer.top + height * self.top, outer.top + height * self.bottom,
            outer.left + width * self.left, outer.left + width * self.right,
        )

    @property
    def area(self) -> float:
        """Share of the picture."""
        return (self.bottom - self.top) * (self.right - self.left)


WHOLE_PICTURE = Rectangle()


@dataclass(frozen=True)
class VideoFingerprint:
    """The frames of one video that its clips were sampled at, in order of time."""

    times_ms: NDArray[np.int64]
    pictures: NDArray[np.uint8]
    """Whole frames, grey, squeezed into a square: shape (n, SIDE, SIDE)."""
    inside: Rectangle = field(default_factory=Rectangle)
    """Without bars."""

    @property
    def length_ms(self) -> int:
        """From the first frame to the last."""
        return int(self.times_ms[-1] - self.times_ms[0])

    def rows(self, chosen: NDArray[np.int64] | slice) -> VideoFingerprint:
        """Return the fingerprint of some of the frames."""
        return VideoFingerprint(self.times_ms[chosen], self.pictures[chosen], self.inside)


def picture_of(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the small grey picture of a frame, shape (SIDE, SIDE).

    Args:
        frame: uint8 RGB of shape (height, width, 3), or grey of shape (height, width).
    """
    grey = frame if frame.ndim == 2 else grey_of(frame)
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))


def grey_of(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the brightness of an RGB frame, shape (height, width)."""
    return np.rint(frame.astype(np.float32) @ LUMA).astype(np.uint8)


def fingerprint_of(times_ms: Sequence[int], pictures: Sequence[NDArray[np.uint8]]) -> VideoFingerprint:
    """Return the fingerprint of pictures of `picture_of` at ascending times."""
    stacked = np.stack(pictures)
    return VideoFingerprint(np.array(times_ms, dtype=np.int64), stacked, inside_of(stacked))


def inside_of(pictures: NDArray[np.uint8]) -> Rectangle:
    """Return what the bars of a video leave, by all its frames that show something."""
    seen = pictures[pictures.std(axis=(1, 2)) > FLAT_LEVELS]
    if not len(seen):
        return WHOLE_PICTURE
    top, bottom = _inside(np.quantile(np.ptp(seen, axis=2), 0.9, axis=0))
    # Of a letterboxed video all columns have a range.
    left, right = _inside(np.quantile(np.ptp(seen[:, round(top * SIDE) : round(bottom * SIDE)], axis=1), 0.9, axis=0))
    return Rectangle(top, bottom, left, right)


def features(pictures: NDArray[np.uint8] | Values, part: Rectangle, *, is_mirrored: bool = False) -> Values:
    """Return the weighted low frequencies of a part of each picture, shape (n, FREQUENCIES ** 2 - 1), in grey levels.

    They are linear in the pictures, so that those between two frames are those of their mixture. Unit rows: `unit`.

    Args:
        pictures: Shape (n, SIDE, SIDE).
        part: Of each picture.
        is_mirrored: Whether left and right are exchanged.
    """
    return features_of(pictures, [part], is_mirrored=is_mirrored)[0]


def features_of(
    pictures: NDArray[np.uint8] | Values, parts: Sequence[Rectangle], *, is_mirrored: bool = False
) -> Values:
    """Return the same for several parts at once, shape (parts, n, FREQUENCIES ** 2 - 1)."""
    num = len(pictures)
    down = np.concatenate([_transform(part.top, part.bottom) for part in parts])
    across = np.stack([_transform(part.left, part.right).T for part in parts])
    if is_mirrored:
        across = across * _SIGNS
    rows = (down @ pictures.astype(np.float32)).reshape(num, len(parts), FREQUENCIES, SIDE)
    low = rows.transpose(1, 0, 2, 3).reshape(len(parts), num * FREQUENCIES, SIDE) @ across
    low = low.reshape(len(parts), num, FREQUENCIES, FREQUENCIES) * _SPECTRUM
    return low.reshape(len(parts), num, FREQUENCIES**2)[..., 1:]


def unit(rows: Values, *, least: float = 0.0) -> Values:
    """Return rows of length 1, those that are shorter than `least` shorter than that."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(lengths, max(least, 1e-6))


def is_flat(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pictures show nothing, shape (n,)."""
    flat: NDArray[np.bool_] = pictures.std(axis=(1, 2)) < FLAT_LEVELS
    return flat


def _inside(ranges: NDArray[np.float64]) -> tuple[float, float]:
    """From the first to the last line that is not of one level; all of them where a bar would be too thick."""
    lines = np.flatnonzero(ranges > BAR_LEVELS)
    most = int(len(ranges) * MAX_BAR)
    first, last = (int(lines[0]), int(lines[-1]) + 1) if len(lines) else (0, len(ranges))
    return (first if first <= most else 0) / SIDE, (last if len(ranges) - last <= most else len(ranges)) / SIDE


@lru_cache(maxsize=4096)
def _transform(start: float, end: float) -> Values:
    """From the pixels of a line to the low frequencies of the part from `start` to `end`, shape (FREQUENCIES, SIDE)."""
    edges = SIDE * np.linspace(start, end, _GRID + 1)
    pixels = np.arange(SIDE)
    # How much of each pixel is in each cell of the grid.
    shares = np.clip(np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels), 0, None)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-9)
    at = (2 * np.arange(_GRID) + 1) * np.pi / (2 * _GRID)
    cosines = np.cos(np.arange(FREQUENCIES)[:, None] * at) / np.sqrt(_GRID / 2)
    cosines[0] /= np.sqrt(2)
    return (cosines @ shares).astype(np.float32)


_SIGNS = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
_SPECTRUM = np.hypot(*np.mgrid[0:FREQUENCIES, 0:FREQUENCIES]).astype(np.float32) ** 0.5
IS_TURNED = np.tile(_SIGNS < 0, FREQUENCIES)[1:]
"""The features whose sign is the other one in a mirrored picture."""
