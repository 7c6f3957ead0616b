"""Lines of text in a frame: where they stand, and how alike two of them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the frame; right and bottom are exclusive."""

MAX_EDITS = 0.2
"""Of two readings of one line: differing letters, as a share of the longer reading."""


@dataclass(frozen=True)
class TextLine:
    """One line of text as it stands in a frame."""

    box: Box
    text: str
    """One line, not blank."""
    score: float
    """Of the recognition, 0 to 1."""

    @property
    def height_px(self) -> float:
        """Of its box."""
        return self.box[3] - self.box[1]


def box_of(corners: NDArray[np.float32]) -> Box:
    """Return the upright box around four corners, shape (4, 2), x before y."""
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return left, top, right, bottom


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1.

    Examples:
        >>> overlap((0, 0, 10, 10), (5, 0, 15, 10))
        0.3333333333333333
    """
    wide, tall = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or tall <= 0:
        return 0.0
    shared = wide * tall
    return shared / (_area(one) + _area(other) - shared)


def are_alike(one: str, other: str) -> bool:
    """Whether two texts are readings of one line.

    Case, white space and signs are ignored, and up to `MAX_EDITS` of the letters may differ. Digits may not: `10:41` and
    `10:42` are two lines.

    Examples:
        >>> are_alike("Quarterly revenue", "Quarterlyrevenve"), are_alike("10:41", "10:42")
        (True, False)
    """
    first, second = _letters(one), _letters(other)
    if _digits(first) != _digits(second):
        return False
    longest = max(len(first), len(second))
    if not longest:
        return one == other
    most = int(MAX_EDITS * longest)
    return abs(len(first) - len(second)) <= most and num_edits(first, second) <= most


def num_edits(one: str, other: str) -> int:
    """Return the Levenshtein distance of two texts: letters put in, left out or replaced."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, against in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != against))
    return row[-1]


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
