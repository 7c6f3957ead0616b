"""Flags clips without content: black, flat or frozen. They would appear as false duplicates and wrong search results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

INTERLACED = "interlaced"
"""The mark of a clip whose frames are made of two fields each: moving edges are combed. It is still one to learn from."""

THUMB_PX = 32
"""Side of the small grey picture that is looked at: larger details do not make a black clip bright."""

BLACK_LEVEL = 24.0
"""A frame no pixel in a hundred of which is brighter than this is black; video black is 16, with noise of a few levels."""

FLAT_DEVIATION = 2.0
"""A frame whose levels deviate less than this is one plain colour; coding noise deviates by about 1."""

FROZEN_CHANGE = 0.5
"""A clip none of whose frames differs from the first by more than this, in levels on average, stands still."""


def thumb_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Reduce a frame to grey, at most 32 x 32, by means over blocks: float32, levels 0 to 255.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
    """
    # Whole numbers, so that equal pixels give equal thumbs on every machine.
    grey = pixels.astype(np.int64) @ np.array([299, 587, 114])
    sums = _block_sums(_block_sums(grey).T).T
    sizes = _block_sums(np.ones(grey.shape[:1], np.int64))[:, None] * _block_sums(np.ones(grey.shape[1:], np.int64))
    return np.asarray(sums / (1000 * sizes), np.float32)


def _block_sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over up to `THUMB_PX` blocks of rows."""
    size = len(values)
    return np.add.reduceat(values, np.arange(min(size, THUMB_PX)) * size // min(size, THUMB_PX), axis=0)


def quality_flags_of(thumbs: Sequence[NDArray[np.float32]]) -> tuple[str, ...]:
    """Return the quality flags of a clip, in the order black, flat, frozen.

    `black`: all frames are black. `flat`: each frame has one plain colour (possibly black). `frozen`: there are at least two
    frames, and none differs from the first.

    Args:
        thumbs: Reduced distinct frames of the clip, from `thumb_of`.
    """
    quality_flags = []
    if all(np.quantile(thumb, 0.99) <= BLACK_LEVEL for thumb in thumbs):
        quality_flags.append("black")
    if all(float(thumb.std()) <= FLAT_DEVIATION for thumb in thumbs):
        quality_flags.append("flat")
    if len(thumbs) > 1 and all(float(np.abs(thumb - thumbs[0]).mean()) <= FROZEN_CHANGE for thumb in thumbs[1:]):
        quality_flags.append("frozen")
    return tuple(quality_flags)
