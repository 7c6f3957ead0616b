"""Finds cuts between pictures that move so much that the cut changes little more than the motion does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.small_frames import SmallFrames, edges_of
from vidseek_media.cutting.transitions import is_away, likeness

NEIGHBOURS = 5
"""Frames on both sides whose change a frame is compared with, by their median: a flash beside a cut does not hide it."""

MIN_APART = 2
"""Frames between two cuts: nearer ones are one cut, found twice."""

MAX_SHIFT_ROWS, MAX_SHIFT_COLUMNS = 2, 4
"""How far a picture may move from one frame to another, in parts of `SmallFrame.grey`: a sixth of the height, a fifth of
the width."""

_SHIFTS = sorted(
    itertools.product(range(-MAX_SHIFT_ROWS, MAX_SHIFT_ROWS + 1), range(-MAX_SHIFT_COLUMNS, MAX_SHIFT_COLUMNS + 1)),
    key=lambda shift: abs(shift[0]) + abs(shift[1]),
)
"""In parts, downwards and to the right; the smallest first."""

MAX_FOUND_AGAIN = 0.38
"""Correlation of edges across a cut, at the shift that fits best. Most joints of real clips have at most 0.35; frames of
clips of one shot that jerk or blur have at least 0.45: docs/decisions/2026-11-28-cuts-in-motion.md."""

MAX_SHARE_FOUND_AGAIN = 0.6
"""The same as a share of what neighbours within one shot have: where nothing is found again from frame to frame, as in
water or fire, a low correlation says nothing."""


def motion_cuts(
    cuts: Sequence[int], frames: SmallFrames, *, reach: int, threshold: float, min_content: float
) -> list[int]:
    """Return the cuts beside `cuts` at which the picture changes and its edges are found nowhere near: ascending.

    Motion moves edges, a flash takes them for a moment, and a cut brings others. So a frame that changes more than those
    around it is a cut if the edges of the frames after it fit those of no frame before it, at any shift.

    Args:
        cuts: Frame numbers of cuts that are known.
        frames: All frames of the video.
        reach: Frames on both sides in which a picture may be found again: as long as a flash lasts.
        threshold: How many times more than its neighbours a frame must change where edges are not looked at; half of it
            is asked for here.
        min_content: By how many levels a frame must change at least.
    """
    changes = np.array([frames.change(at) for at in range(len(frames.cells))], np.float32)
    found: list[int] = []
    for at in _outstanding(changes, threshold / 2, min_content):
        if is_away(at, [*cuts, *found], MIN_APART) and _is_another_picture(frames.grey, at, reach):
            found.append(at)
    return sorted(found)


def _outstanding(changes: NDArray[np.float32], ratio: float, least: float) -> list[int]:
    """Return the frames that change at least `least` levels, and `ratio` times as much as those around, largest first."""
    found = []
    for at in np.flatnonzero(changes >= least).tolist():
        around = np.concatenate([changes[max(at - NEIGHBOURS, 1) : at], changes[at + 1 : at + 1 + NEIGHBOURS]])
        if len(around) and changes[at] >= ratio * float(np.median(around)):
            found.append(at)
    return sorted(found, key=lambda at: -changes[at])


def _is_another_picture(grey: NDArray[np.uint8], at: int, reach: int) -> bool:
    before, after = grey[max(at - reach, 0) : at], grey[at : at + reach]
    if min(len(before), len(after)) < 2:
        return False
    across = _found_again(before, after, enough=MAX_FOUND_AGAIN)
    if across > MAX_FOUND_AGAIN:
        return False
    return across <= MAX_SHARE_FOUND_AGAIN * min(_found_again(side[:-1], side[1:]) for side in (before, after))


def _found_again(some: NDArray[np.uint8], others: NDArray[np.uint8], *, enough: float = 1.0) -> float:
    """Return the highest correlation of the edges of one picture with those of another, at the shift that fits best.

    From `enough` on, further shifts are not tried.
    """
    height, width = some.shape[1:]
    best = -1.0
    for down, right in _SHIFTS:
        rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
        moved = slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0))
        best = max(best, likeness(edges_of(some[:, rows, columns]), edges_of(others[:, *moved])))
        if best > enough:
            break
    return best
