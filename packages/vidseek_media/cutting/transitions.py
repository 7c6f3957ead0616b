"""Tells cuts from flashes, and finds dissolves and fades, in strongly reduced frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.small_frames import SmallFrames, edges_of, unit_vectors

HALF_SECONDS = 0.48
"""Half of the span that a dissolve is looked for in. Two dissolves lie at least twice as far apart."""

SCALES = (1 / 2, 2 / 3, 1.0, 4 / 3)
"""Lengths of that span, as shares: a short dissolve fills a short one, and a long one is seen whole in a long one."""

MIN_CHANGE = 32.0
"""From one end of the span to the other, in levels (root of the mean square over cells and colours)."""

MAX_DETAIL = 0.64
"""Detail of the middle, as a share of the mean of both ends. The details of two pictures have nothing in common, so an equal
mix of both has half of it, however much moves in them. Where a camera pans, detail stays as it is."""

MAX_OFF_LINE = 0.45
"""How far the frames between may lie from the line between both ends, as a share of its length: in a dissolve every frame
is a mix of two, and lies on it; a picture that moves goes another way."""

MAX_ASIDE = 0.25
"""How far the middle frame may be from half of each, as a share."""

MAX_DOUBT = 1.0
"""Of the three above together: the share of detail, the distance from the line, and that of the middle from half of each.
A pure dissolve has 0.5. Motion blur and things that come closer passed each test alone, with 1.06 and more."""

MAX_STEP = 0.3
"""From one frame to the next, as a share of the line's length: a cut or a flash makes a larger one."""

MAX_LIKENESS = 0.9
"""Correlation of both ends, over cells and colours: light that comes or goes leaves the same picture, only brighter."""

DARK_SHARE, DARK_LEVEL, BRIGHT_LEVEL = 0.3, 30.0, 30.0
"""A fade's darkest frame: at most this share of the brighter frames on both sides, at most that level; and how bright
these must be."""

SAME_DARK = 1.0
"""Levels between frames that are equally dark: noise."""

MIN_FLASH = 8.0
"""From one frame to the next, in levels: where less changes, a picture comes up slowly from black, and no flash."""

FLASH_SECONDS = 0.4
"""On both sides of a cut: a picture that is there before and again after it was only lit for a moment."""

MAX_FLASH_COLOURS, MAX_FLASH_EDGES = 0.6, 0.33
"""Correlations of two pictures, of the colours of cells and of the edges between smaller parts, from which both mean one
shot. Of joined real clips, cuts have at most 0.86 and 0.26, sparks and lamps at least 0.76 and 0.38:
docs/decisions/2026-11-28-transnetv2-and-detail.md."""

SAME_COLOURS, SAME_EDGES = 0.99, 0.85
"""The same of two neighbouring frames, from which they are one picture whatever the detector says of their hues."""

MIN_JUMP = 20.0
"""From one frame to the next, in levels: more than the dark frames of a fade change by."""


@dataclass(frozen=True)
class Pace:
    """How many frames the seconds of a video are."""

    half: int
    """Of the span that a dissolve is looked for in."""
    second: int

    @property
    def flash(self) -> int:
        """On each side of a cut, the frames in which a picture that was lit for a moment is seen as it is."""
        return max(round(FLASH_SECONDS * self.second), 1)

    @property
    def halves(self) -> tuple[int, ...]:
        """Of the spans of all `SCALES`, at least 4 frames each."""
        return tuple(sorted({max(round(scale * self.half), 4) for scale in SCALES}))

    @classmethod
    def of(cls, frame_seconds: float) -> Pace:
        """Return the pace of a video with this time between frames, in seconds."""
        return cls(max(round(HALF_SECONDS / frame_seconds), 5), max(round(1 / frame_seconds), 6))


def without_flashes(cuts: Sequence[int], frames: SmallFrames, pace: Pace) -> list[int]:
    """Return the cuts after which another picture is shown, and no picture that was there just before.

    Sparks, lightning, lamps and photographers' flashes change a frame as much as a cut does; but the picture is the same
    before and after, only brighter or darker.

    Args:
        cuts: Frame numbers of abrupt cuts.
        frames: All frames of the video.
        pace: Frame counts that depend on the video's rate.
    """
    reach = pace.flash
    return [cut for cut in cuts if not _is_same_picture(frames, cut) and not _is_flash(frames, cut, reach)]


def add_gradual(cuts: Sequence[int], frames: SmallFrames, pace: Pace) -> list[int]:
    """Add the middles of dissolves and of the dark of fades to the cuts; all are frame numbers, ascending.

    A cut inside the dark of a fade is replaced by the fade. A jump to or from black is a cut and not a fade. The two halves
    of a fade look like dissolves with black, and are not counted as dissolves.

    Args:
        cuts: Frame numbers of abrupt cuts.
        frames: All frames of the video.
        pace: Frame counts that depend on the video's rate.
    """
    fades = _fades_among(cuts, frames, pace)
    hard = [cut for cut in cuts if not any(fade.has(cut, margin=pace.half) for fade in fades)]
    soft = [
        at for at in find_dissolves(frames, pace)
        if is_away(at, hard, pace.half) and not any(fade.has(at, margin=pace.second) for fade in fades)
    ]
    return sorted([*hard, *(fade.middle for fade in fades), *soft])


def merge_fades(boundaries: Sequence[int], frames: SmallFrames, pace: Pace) -> list[int]:
    """Replace the boundaries that were found in each fade by the middle of its dark; all are frame numbers, ascending.

    Args:
        boundaries: Frame numbers.
        frames: All frames of the video.
        pace: Frame counts that depend on the video's rate.
    """
    fades = _fades_among(boundaries, frames, pace)
    others = [at for at in boundaries if not any(fade.has(at, margin=pace.second) for fade in fades)]
    return sorted([*others, *(fade.middle for fade in fades)])


def find_dissolves(frames: SmallFrames, pace: Pace) -> list[int]:
    """Return the middles of spans in which one picture is mixed into another, as frame numbers, ascending.

    Every frame of a dissolve is `(1 - a) x + a y`, with a growing from 0 to 1. Two things follow, and both are tested: the
    frames lie on the line from the first to the last one (compare Hampapur, Jain and Weymouth 1995), and the variance of
    a frame has a dip in the middle (compare Alattar 1993), here that of its detail.

    Args:
        frames: All frames of the video.
        pace: Frame counts that depend on the video's rate.
    """
    light = frames.brightness()
    middles = [middle for half in pace.halves for middle in _middles(frames, light, half)]
    found: list[int] = []
    for _, at in sorted(middles):
        if is_away(at, found, 2 * pace.half):
            found.append(at)
    return sorted(found)


@dataclass(frozen=True)
class Fade:
    """One shot goes dark, and the next comes up: frame numbers."""

    first: int
    """Of the dark frames."""
    middle: int
    """Of the darkest frames."""
    last: int
    """Of the dark frames."""

    def has(self, at: int, *, margin: int) -> bool:
        """Whether a frame lies in the dark or at most `margin` frames from it."""
        return self.first - margin <= at <= self.last + margin


def find_fades(frames: SmallFrames, pace: Pace) -> list[Fade]:
    """Return the fades, each with brighter frames within a second of its darkest frame on both sides; ascending.

    Args:
        frames: All frames of the video.
        pace: Frame counts that depend on the video's rate.
    """
    light = frames.brightness()
    found: list[Fade] = []
    for at in np.flatnonzero(light <= DARK_LEVEL).tolist():
        bright = min(light[max(at - pace.second, 0) : at + 1].max(), light[at : at + pace.second + 1].max())
        is_darkest = light[at] == light[max(at - pace.half // 2, 0) : at + pace.half // 2 + 1].min()
        if bright < BRIGHT_LEVEL or light[at] > DARK_SHARE * bright or not is_darkest:
            continue
        if not any(fade.has(at, margin=pace.half) for fade in found):
            first, last = _around(light <= min(DARK_LEVEL, DARK_SHARE * bright), at)
            darkest = _around(light <= light[at] + SAME_DARK, at)
            found.append(Fade(first, sum(darkest) // 2, last))
    return found


def _around(is_dark: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """Return the first and the last of the neighbouring frames that are dark as frame `at` is."""
    lit = np.flatnonzero(~is_dark)
    before, after = lit[lit < at], lit[lit > at]
    return (int(before[-1]) + 1 if len(before) else 0, int(after[0]) - 1 if len(after) else len(is_dark) - 1)


def _fades_among(cuts: Sequence[int], frames: SmallFrames, pace: Pace) -> list[Fade]:
    """Return the fades that are not the dark behind or before a cut."""
    jumps = [cut for cut in cuts if frames.change(cut) >= MIN_JUMP]
    return [fade for fade in find_fades(frames, pace) if is_away(fade.middle, jumps, pace.second)]


def _middles(frames: SmallFrames, light: NDArray[np.float64], half: int) -> list[tuple[float, int]]:
    """Return each frame that may be the middle of a dissolve of this length, behind how far it is from a pure one."""
    if len(frames.cells) <= 2 * half:
        return []
    detail = frames.detail
    ends = (detail[: -2 * half] + detail[2 * half :]) / 2
    share = np.divide(detail[half:-half], ends, out=np.ones_like(ends), where=ends > 0)
    found = []
    for start in np.flatnonzero(share <= MAX_DETAIL).tolist():
        if min(light[start], light[start + 2 * half]) > BRIGHT_LEVEL - 5:
            off = _off_a_mix(frames.cells[start : start + 2 * half + 1])
            if off is not None and (doubt := float(share[start]) + off) <= MAX_DOUBT:
                found.append((doubt, start + half))
    return found


def _is_flash(frames: SmallFrames, cut: int, reach: int) -> bool:
    """Return whether a picture within `reach` frames before a cut is there within as many after it, lit otherwise."""
    if frames.change(cut) < MIN_FLASH:
        return False
    return _stays(frames, cut, reach, colours=MAX_FLASH_COLOURS, edges=MAX_FLASH_EDGES)


def _is_same_picture(frames: SmallFrames, cut: int) -> bool:
    return _stays(frames, cut, 1, colours=SAME_COLOURS, edges=SAME_EDGES)


def _stays(frames: SmallFrames, cut: int, reach: int, *, colours: float, edges: float) -> bool:
    """Return whether colours and edges within `reach` frames before a cut are as alike as stated to some after it."""
    before, after = slice(max(cut - reach, 0), cut), slice(cut, cut + reach)
    return (
        likeness(_normalised(frames.cells[before]), _normalised(frames.cells[after])) >= colours
        and likeness(edges_of(frames.grey[before]), edges_of(frames.grey[after])) >= edges
    )


def likeness(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return the highest correlation of a picture before with one after; 0 where there are none."""
    return float((before @ after.T).max()) if len(before) and len(after) else 0.0


def _normalised(cells: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pictures as vectors whose products are correlations: (frames, cells * 3). A flat picture is like none."""
    plain = cells.astype(np.float32)
    return unit_vectors((plain - plain.mean(axis=1, keepdims=True)).reshape(len(cells), -1))


def _off_a_mix(cells: NDArray[np.uint8]) -> float | None:
    """Return how far the frames of a span are from mixes of its first and its last: 0 to about 1; None if too far."""
    stretch = cells.reshape(len(cells), -1).astype(np.float32)
    line = stretch[-1] - stretch[0]
    length = float(line @ line)
    if length < MIN_CHANGE**2 * len(line):
        return None
    ends = stretch[[0, -1]] - stretch[[0, -1]].mean(axis=1, keepdims=True)
    if ends[0] @ ends[1] > MAX_LIKENESS * np.linalg.norm(ends[0]) * np.linalg.norm(ends[1]):
        return None
    shares = (stretch - stretch[0]) @ line / length
    off = float(np.linalg.norm(stretch - stretch[0] - shares[:, None] * line, axis=1)[1:-1].mean() / np.sqrt(length))
    aside = abs(float(shares[len(shares) // 2]) - 0.5)
    is_mix = off <= MAX_OFF_LINE and aside <= MAX_ASIDE and np.abs(np.diff(shares)).max() <= MAX_STEP
    return off + aside if is_mix else None


def is_away(at: int, others: Sequence[int], frames: int) -> bool:
    """Return whether a frame is more than so many frames from each of the others."""
    return all(abs(at - other) > frames for other in others)
