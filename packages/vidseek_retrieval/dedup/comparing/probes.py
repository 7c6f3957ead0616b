"""Compares a few frames of two videos under many views at once: as a whole or cropped, with bars or without, mirrored.

What says quickly which views are worth to be aligned, and which pairs of videos are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.dedup.comparing.fingerprints import (
    IS_TURNED,
    WHOLE_PICTURE,
    Rectangle,
    Values,
    VideoFingerprint,
    features_of,
    is_flat,
    unit,
)
from vidseek_retrieval.dedup.comparing.registration import INSETS, View

NUM_PROBES = 24
"""Frames of each video, at most."""


@dataclass(frozen=True)
class Probes:
    """Some frames of a video, as a whole and cropped."""

    pictures: NDArray[np.uint8]
    parts: tuple[tuple[Rectangle, ...], ...]
    """For the picture inside the bars, and with them where there are bars: it, and what is cropped from it."""
    rows: tuple[Values, ...]
    """Of each of these the features, shape (parts, n, dimension)."""


@dataclass(frozen=True)
class Likeness:
    """How alike the frames of two videos are under one view."""

    score: float
    """The mean similarity of the frames of the video that is more of the other, to those that are most like them."""
    view: View
    alike: Values
    """The similarity of each two frames, shape (n, m)."""
    outer: tuple[int, int]
    """Of both videos, the place in `Probes.parts`."""
    part: tuple[int, int]
    """Of both, the place of the rectangle there."""


def probes_of(video: VideoFingerprint) -> Probes:
    """Return frames spread over a video, without those that show nothing, under all views."""
    pictures = video.pictures[spread(np.flatnonzero(~is_flat(video.pictures)), NUM_PROBES)]
    parts = tuple(
        (outer, *(Rectangle(down, 1 - down, across, 1 - across).within(outer) for down, across in INSETS))
        for outer in sorted({video.inside, WHOLE_PICTURE})
    )
    return Probes(pictures, parts, tuple(features_of(pictures, of) for of in parts))


def compare_views(one: Probes, other: Probes) -> list[Likeness]:
    """Return the best view of each kind first: one of the two cropped, plain or mirrored, with bars or without.

    Args:
        one: Of the first video.
        other: Of the second.
    """
    if not len(one.pictures) or not len(other.pictures):
        return []
    outers = product(range(len(one.rows)), range(len(other.rows)))
    found = [each for outer in outers for each in _of_outer(one, other, outer)]
    return sorted(found, key=lambda each: -each.score)


def _of_outer(one: Probes, other: Probes, outer: tuple[int, int]) -> Iterator[Likeness]:
    mine, theirs = unit(one.rows[outer[0]]), unit(other.rows[outer[1]])
    # The other cropped, then the first.
    for rows, columns, is_first in ((mine[:1], theirs, False), (mine[1:], theirs[:1], True)):
        left, right = rows.reshape(-1, rows.shape[-1]), columns.reshape(-1, columns.shape[-1])
        same, turned = left[:, ~IS_TURNED] @ right[:, ~IS_TURNED].T, left[:, IS_TURNED] @ right[:, IS_TURNED].T
        for is_mirrored, alike in ((False, same + turned), (True, same - turned)):
            shaped = alike.reshape(len(rows), rows.shape[1], len(columns), columns.shape[1]).transpose(0, 2, 1, 3)
            of_views = shaped.reshape(-1, rows.shape[1], columns.shape[1])
            for number, score in enumerate(_scores(of_views).tolist()):
                part = (1 + number, 0) if is_first else (0, number)
                view = View(one.parts[outer[0]][part[0]], other.parts[outer[1]][part[1]], is_mirrored)
                yield Likeness(score, view, of_views[number], outer, part)


def _scores(alike: Values) -> NDArray[np.float64]:
    """Of each view the mean of the upper two thirds of the best similarities, by the better of both videos."""
    best = []
    for axis in (2, 1):
        each = np.sort(alike.max(axis=axis), axis=1)
        best.append(each[:, each.shape[1] // 3 :].mean(axis=1, dtype=np.float64))
    return np.maximum(*best)


def spread(rows: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Return so many of the rows at most, equally far apart."""
    return rows if len(rows) <= num else rows[np.linspace(0, len(rows) - 1, num).round().astype(int)]
