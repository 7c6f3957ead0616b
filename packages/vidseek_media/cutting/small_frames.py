"""What is kept of every frame of a video while its shots are looked for: mean colours, brightness and detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 6
"""Side of the blocks that a frame is reduced to, for frames whose shorter side is 144."""
GREY_BLOCKS, CELL_BLOCKS = 2, 4
"""Side, in blocks, of the parts whose brightness and whose colour are kept: 12 by 21 and 6 by 10 parts at 16 to 9. What
moves inside a cell does not change it."""
BLACK_LEVEL = 24.0
"""Rows and columns at the border that are darker everywhere are black bars."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of ITU-R BT.601."""


@dataclass(frozen=True)
class SmallFrame:
    """One frame, strongly reduced."""

    cells: NDArray[np.uint8]
    """Mean colours of its cells, shape (cells, 3)."""
    grey: NDArray[np.uint8]
    """Brightness of smaller parts, shape (rows, columns)."""
    detail: float
    """Mean square of the differences of neighbouring blocks in brightness, without black bars."""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> SmallFrame:
        """Reduce a frame, shape (height, width, 3)."""
        blocks = _means(pixels, BLOCK_PX)
        brightness = blocks @ LUMA
        cells = _means(blocks, CELL_BLOCKS).astype(np.uint8).reshape(-1, 3)
        return cls(cells, _means(brightness[..., None], GREY_BLOCKS)[..., 0].astype(np.uint8), detail_of(brightness))


@dataclass(frozen=True)
class SmallFrames:
    """All frames of a video in order, strongly reduced."""

    cells: NDArray[np.uint8]
    """Shape (frames, cells, 3)."""
    grey: NDArray[np.uint8]
    """Shape (frames, rows, columns)."""
    detail: NDArray[np.float32]
    """Shape (frames,)."""

    @classmethod
    def of(cls, frames: Sequence[SmallFrame]) -> SmallFrames:
        """Join at least one frame."""
        return cls(
            np.stack([each.cells for each in frames]), np.stack([each.grey for each in frames]),
            np.array([each.detail for each in frames], np.float32),
        )

    def brightness(self) -> NDArray[np.float64]:
        """Return the brightness of each frame, in levels."""
        return self.cells.mean(axis=1) @ LUMA.astype(np.float64)

    def change(self, at: int) -> float:
        """Return by how many levels the cells of frame `at` differ from those of the previous one; 0 of the first."""
        return float(np.abs(self.cells[at].astype(np.float32) - self.cells[max(at - 1, 0)]).mean())


def edges_of(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the differences of neighbouring parts as vectors of length 1, shape (frames, differences).

    Args:
        grey: Brightness of parts, shape (frames, rows, columns). A flat picture has a vector of zeros, and is like none.
    """
    plain = grey.astype(np.float32)
    steps = [np.diff(plain, axis=axis).reshape(len(plain), -1) for axis in (1, 2)]
    return unit_vectors(np.concatenate(steps, axis=1))


def unit_vectors(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows with length 1; rows that are shorter than 1 as zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1), np.float32)


def detail_of(brightness: NDArray[np.float32]) -> float:
    """Return the mean square of the differences of neighbours, of shape (rows, columns), without black bars."""
    is_lit = brightness > BLACK_LEVEL
    rows, columns = np.flatnonzero(is_lit.any(axis=1)), np.flatnonzero(is_lit.any(axis=0))
    if not len(rows):
        return 0.0
    inside = brightness[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return float(np.square(np.diff(inside, axis=0)).sum() + np.square(np.diff(inside, axis=1)).sum()) / brightness.size


def _means(picture: NDArray[np.uint8] | NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return the means of squares of so many pixels; a picture smaller than one is one: shape (rows, columns, colours)."""
    height, width = (max(length // size, 1) for length in picture.shape[:2])
    tall, wide = picture.shape[0] // height, picture.shape[1] // width
    whole = np.ascontiguousarray(picture[: height * tall, : width * wide], np.float32)
    rows = whole.reshape(height, tall, -1).sum(axis=1)
    return rows.reshape(height, width, wide, -1).sum(axis=2) / np.float32(tall * wide)
