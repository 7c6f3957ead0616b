"""Finds which part of a frame has changed since it was last looked at, in a small grey picture of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vidseek_media.ocr.text_lines import Box

Grey = NDArray[np.int16]
"""A frame whose width and height are divided by `SHRINK`, 0 to 255, shape (height, width)."""

SHRINK = 4
"""Noise of the camera and of the codec averages out over so many pixels, and a digit of 20 pixels is still seen."""
MIN_CHANGE = 18
"""In levels, of one pixel of the small picture."""
MARGIN_PX = 24
"""Around what has changed, in pixels of the frame: text is only found with some ground around it."""
WHOLE_SHARE = 0.6
"""Of the frame: if more has changed, the whole frame is looked at."""


def small_grey(pixels: NDArray[np.uint8]) -> Grey:
    """Return the small grey picture of an RGB frame (height, width, 3); rows and columns that are left over are not in it.
    """
    height, width = (max(size // SHRINK, 1) * SHRINK for size in pixels.shape[:2])
    if min(pixels.shape[:2]) < SHRINK:
        return pixels[:, :, 1].astype(np.int16)
    cells = pixels[:height, :width, 1].reshape(height // SHRINK, SHRINK, width // SHRINK, SHRINK)
    return (cells.sum(axis=(1, 3), dtype=np.uint16) // SHRINK**2).astype(np.int16)


def changed_box(before: Grey, now: Grey, frame: tuple[int, int], *, lines: Iterable[Box] = ()) -> Box | None:
    """Return the part of a frame that has changed, in pixels of the frame; None if nothing has.

    Args:
        before: The small picture of what was last looked at.
        now: The small picture of the frame, of the same shape.
        frame: Height and width of the frame in pixels.
        lines: Boxes of lines of text that stand in the frame. None of them is cut by the result.
    """
    has_changed = np.abs(now - before) >= MIN_CHANGE
    rows, columns = np.flatnonzero(has_changed.any(axis=1)), np.flatnonzero(has_changed.any(axis=0))
    if not len(rows):
        return None
    box: Box = (
        columns[0] * SHRINK - MARGIN_PX, rows[0] * SHRINK - MARGIN_PX,
        (columns[-1] + 1) * SHRINK + MARGIN_PX, (rows[-1] + 1) * SHRINK + MARGIN_PX,
    )
    box = _around_lines(box, list(lines))
    height, width = frame
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if (right - left) * (bottom - top) > WHOLE_SHARE * height * width:
        return 0.0, 0.0, float(width), float(height)
    return float(left), float(top), float(right), float(bottom)


def has_changed_in(before: Grey, now: Grey, box: Box) -> bool:
    """Whether the small pictures differ inside a box, given in pixels of the frame."""
    part = cells_of(box)
    return bool((np.abs(now[part] - before[part]) >= MIN_CHANGE).any())


def cells_of(box: Box) -> tuple[slice, slice]:
    """Return the rows and columns of the small picture that a box covers, given in pixels of the frame."""
    left, top, right, bottom = box
    return (
        slice(max(int(top // SHRINK), 0), max(int(-(-bottom // SHRINK)), 1)),
        slice(max(int(left // SHRINK), 0), max(int(-(-right // SHRINK)), 1)),
    )


def _around_lines(box: Box, lines: list[Box]) -> Box:
    grown = True
    while grown:
        grown = False
        for line in lines:
            if not _touches(box, line) or _holds(box, line):
                continue
            box = (min(box[0], line[0]), min(box[1], line[1]), max(box[2], line[2]), max(box[3], line[3]))
            grown = True
    return box


def _touches(box: Box, line: Box) -> bool:
    return min(box[2], line[2]) > max(box[0], line[0]) and min(box[3], line[3]) > max(box[1], line[1])


def _holds(box: Box, line: Box) -> bool:
    return box[0] <= line[0] and box[1] <= line[1] and box[2] >= line[2] and box[3] >= line[3]
