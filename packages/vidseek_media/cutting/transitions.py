"""Tells cuts from flashes, and finds dissolves and fades, in strongly reduced frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL_PX = 24
"""Of a frame whose shorter side is 144: 6 by 10 cells at 16 to 9. What moves inside a cell does not change it."""

HALF_SECONDS = 0.48
"""Of the span that a dissolve is looked for in. Two dissolves lie at least twice as far apart."""

SCALES = (2 / 3, 1.0, 4 / 3)
"""Lengths of that span, as shares: a short dissolve fills a short one, and a long one is seen whole in a long one."""

MIN_CHANGE = 32.0
"""From one end of the span to the other, in levels (root of the mean square over cells and colours)."""

MAX_OFF_LINE = 0.28
"""How far the frames between may lie from the line between both ends, as a share of its length: in a dissolve every frame
is a mix of two, and lies on it; a picture that moves goes another way."""

MIN_CONTRAST = 1.6
"""How much more changes than in the spans before and after, on average: a steady drift is no dissolve."""

MAX_LIKENESS = 0.8
"""Correlation of both ends, over cells and colours: light that comes or goes leaves the same picture, only brighter."""

_MIXED = (0.15, 0.85)
"""Shares of the new shot in frames that count as mixed."""

DARK_SHARE, DARK_LEVEL, BRIGHT_LEVEL = 0.3, 30.0, 30.0
"""A fade's darkest frame: at most this share of the brighter frames on both sides, at most that level; and how bright
these must be."""

MIN_FLASH = 8.0
"""From one frame to the next, in levels: where less changes, a picture comes up slowly from black, and no flash."""

FLASH_SECONDS = 0.4
"""On both sides of a cut: a picture that is there before and again after it was only lit for a moment."""

MAX_FLASH_LIKENESS = 0.6
"""Correlation of two pictures, over cells and colours, from which they are of one shot. Of joined real clips, cuts have at
most 0.57, and 14 of 16 sparks and lamps more than 0.64: docs/decisions/2026-11-27-flashes-and-dissolves.md."""

MIN_JUMP = 20.0
"""From one frame to the next, in levels: more than the dark frames of a fade change by."""


@dataclass(frozen=True)
class Pace:
    """How many frames the seconds of a video are."""

    half: int
    """Of the span that a dissolve is looked for in."""
    second: int

    @property
    def halves(self) -> tuple[int, ...]:
        """Of the spans of all `SCALES`, at least 4 frames each."""
        return tuple(sorted({max(round(scale * self.half), 4) for scale in SCALES}))

    @classmethod
    def of(cls, frame_seconds: float) -> Pace:
        """Return the pace of a video with this time between frames, in seconds."""
        return cls(max(round(HALF_SECONDS / frame_seconds), 5), max(round(1 / frame_seconds), 6))


def cells_of(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean colours of the cells of a frame (height, width, 3): shape (cells, 3)."""
    height, width = (max(size // CELL_PX, 1) for size in frame.shape[:2])
    tall, wide = frame.shape[0] // height, frame.shape[1] // width
    cells = frame[: height * tall, : width * wide].reshape(height, tall, width, wide, 3)
    return cells.mean(axis=(1, 3)).astype(np.uint8).reshape(-1, 3)


def without_flashes(cuts: list[int], cells: NDArray[np.uint8], pace: Pace) -> list[int]:
    """Return the cuts after which another picture is shown, and no picture that was there just before.

    Sparks, lightning, lamps and photographers' flashes change a frame as much as a cut does; but the picture is the same
    before and after, only brighter or darker.

    Args:
        cuts: Frame numbers of abrupt cuts.
        cells: Cells of every frame, shape (frames, cells, 3), from `cells_of`.
        pace: Frame counts that depend on the video's rate.
    """
    reach = max(round(FLASH_SECONDS * pace.second), 1)
    return [
        cut for cut in cuts
        if _jump(cells, cut) < MIN_FLASH or _likeness_across(cells, cut, reach) < MAX_FLASH_LIKENESS
    ]


def add_gradual(cuts: list[int], cells: NDArray[np.uint8], pace: Pace) -> list[int]:
    """Add the middles of dissolves and the darkest frames of fades to the cuts; all are frame numbers, ascending.

    A cut inside the dark of a fade is replaced by the fade. A jump to or from black is a cut and not a fade. The two halves
    of a
    fade look like dissolves with black, and are not counted as dissolves.

    Args:
        cuts: Frame numbers of abrupt cuts.
        cells: Cells of every frame, shape (frames, cells, 3), from `cells_of`.
        pace: Frame counts that depend on the video's rate.
    """
    jumps = [cut for cut in cuts if _jump(cells, cut) >= MIN_JUMP]
    fades = [at for at in find_fades(cells, pace) if _is_away(at, jumps, pace.second)]
    dissolves = find_dissolves(cells, pace)
    hard = [cut for cut in cuts if _is_away(cut, fades, pace.half)]
    soft = [at for at in dissolves if _is_away(at, hard, pace.half) and _is_away(at, fades, pace.second + 2)]
    return sorted([*hard, *fades, *soft])


def find_dissolves(cells: NDArray[np.uint8], pace: Pace) -> list[int]:
    """Return the middles of spans in which one picture is mixed into another, as frame numbers, ascending.

    Every frame of a dissolve is `(1 - a) x + a y`, with a growing from 0 to 1. The test is how far the frames lie from the
    line
    through the first and last one of a span (compare Hampapur, Jain and Weymouth 1995).

    Args:
        cells: Cells of every frame, shape (frames, cells, 3), from `cells_of`.
        pace: Frame counts that depend on the video's rate.
    """
    flat = cells.reshape(len(cells), -1).astype(np.float32)
    light = _brightness(cells)
    middles = [middle for half in pace.halves for middle in _middles(flat, light, half)]
    found: list[int] = []
    for _, at in sorted(middles):
        if _is_away(at, found, 2 * pace.half):
            found.append(at)
    return sorted(found)


def find_fades(cells: NDArray[np.uint8], pace: Pace) -> list[int]:
    """Return the first darkest frame of each fade, with brighter frames within a second on both sides; ascending.

    Args:
        cells: Cells of every frame, shape (frames, cells, 3), from `cells_of`.
        pace: Frame counts that depend on the video's rate.
    """
    light = _brightness(cells)
    found: list[int] = []
    for at in np.flatnonzero(light <= DARK_LEVEL).tolist():
        bright = min(light[max(at - pace.second, 0) : at + 1].max(), light[at : at + pace.second + 1].max())
        is_darkest = light[at] == light[max(at - pace.half // 2, 0) : at + pace.half // 2 + 1].min()
        if bright >= BRIGHT_LEVEL and light[at] <= DARK_SHARE * bright and is_darkest and _is_away(at, found, pace.half):
            found.append(at)
    return found


def _middles(flat: NDArray[np.float32], light: NDArray[np.float64], half: int) -> list[tuple[float, int]]:
    """Return each frame that may be the middle of a dissolve of this length, behind its distance from an equal mix."""
    if len(flat) <= 2 * half:
        return []
    change = np.zeros(len(flat))
    change[half:-half] = np.sqrt(np.square(flat[2 * half :] - flat[: -2 * half]).mean(axis=1))
    found = []
    for at in np.flatnonzero(change >= MIN_CHANGE).tolist():
        if min(light[at - half], light[at + half]) > BRIGHT_LEVEL - 5 and _stands_out(change, at, half):
            share = _share_of_middle(flat[at - half : at + half + 1])
            if share is not None:
                found.append((abs(share - 0.5), at))
    return found


def _likeness_across(cells: NDArray[np.uint8], cut: int, reach: int) -> float:
    """Return the highest correlation of a frame before a cut with one after it, each at most `reach` frames away."""
    before, after = (
        _normalised(cells[part]) for part in (slice(max(cut - reach, 0), cut), slice(cut, cut + reach))
    )
    return float((before @ after.T).max()) if len(before) and len(after) else 0.0


def _normalised(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pictures as vectors whose products are correlations: (frames, cells * 3). A flat picture is like none."""
    plain = cells.astype(np.float32)
    flat = (plain - plain.mean(axis=1, keepdims=True)).reshape(len(cells), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 1), np.float32)


def _jump(cells: NDArray[np.uint8], at: int) -> float:
    """Return the mean change from the previous frame to frame `at`, in levels."""
    return float(np.abs(cells[at].astype(np.float32) - cells[max(at - 1, 0)]).mean())


def _brightness(cells: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the brightness of each frame, in levels (luma of ITU-R BT.601)."""
    return cells.mean(axis=1) @ np.array([0.299, 0.587, 0.114])


def _stands_out(change: NDArray[np.float64], at: int, half: int) -> bool:
    """Against both sides: within a second and a half of the video's ends nothing does."""
    sides = [change[side] for side in (at - 2 * half, at + 2 * half) if half <= side < len(change) - half]
    return len(sides) == 2 and bool(change[at] >= MIN_CONTRAST * np.mean(sides))


def _share_of_middle(stretch: NDArray[np.float32]) -> float | None:
    """Return the share of the last frame in the middle one, if the frames between are mixes of the first and the last.

    None if they are not, or the middle is not about half of each.
    """
    line = stretch[-1] - stretch[0]
    ends = stretch[[0, -1]] - stretch[[0, -1]].mean(axis=1, keepdims=True)
    if ends[0] @ ends[1] > MAX_LIKENESS * np.linalg.norm(ends[0]) * np.linalg.norm(ends[1]):
        return None
    length = float(line @ line)
    shares = (stretch - stretch[0]) @ line / length
    off = np.linalg.norm(stretch - stretch[0] - shares[:, None] * line, axis=1) / np.sqrt(length)
    mixed = (shares > _MIXED[0]) & (shares < _MIXED[1])
    share = float(shares[len(shares) // 2])
    is_gradual = mixed.sum() >= 0.2 * len(stretch) and abs(share - 0.5) <= 0.25
    return share if is_gradual and off[mixed].mean() <= MAX_OFF_LINE else None


def _is_away(at: int, others: list[int], frames: int) -> bool:
    return all(abs(at - other) > frames for other in others)
