"""Aligns two videos in time, and measures whether they show the same: similar pictures, and changes that agree.

A fixed camera gives similar pictures in different recordings, since only the people in the room differ. So each frame's
difference from the mean of its span, which contains only what moves, is compared as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vidseek_retrieval.dedup.picture_likeness import VideoFingerprint, is_flat, likeness, views

TOLERANCE_MS = 600
"""How far from where it should be a frame may lie: clips begin at whole strides, copies anywhere."""
MIN_FRAMES = 4
"""Frames in a row that agree and are not flat, at least."""
MIN_LENGTH_MS = 1500
EXTEND = 0.05
"""How far below the threshold frames still belong to a span whose best ones are above it."""
STILL = 5e-4
"""The mean squared distance of unit looks from their mean, up to which nothing moves but the codec's noise."""
SPEEDS = (0.5, 2.0)
_OFFSET_STEP_MS = 500
_SPEED_STEP = 0.05
_HYPOTHESES = 6
_NEARLY = 0.02
"""Below the best score: of alignments that are as good as that the longest is taken."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Alignment:
    """A mapping of times of one video to times of another, `time * speed + offset_ms`, and the similarity under it."""

    speed: float
    offset_ms: float
    strength: float
    """The likeness that a run of frames reaches, up to 1."""
    motion: float | None
    """The correlation of what changes in that run, -1 to 1; None where nothing does in either video."""
    length_ms: int = 0
    """Of that run."""

    @property
    def score(self) -> float:
        """Strength and motion alike; of spans in which nothing moves the strength alone, which is another measure."""
        return self.strength if self.motion is None else (self.strength + self.motion) / 2


@dataclass(frozen=True)
class Limits:
    """From where on two spans are called one."""

    moving: float
    """The least `Alignment.score` of spans in which something moves."""
    still: float
    """The least of the others."""

    def call(self, alignment: Alignment) -> bool:
        """Whether they call the two one."""
        return alignment.strength > 0 and alignment.score >= (self.still if alignment.motion is None else self.moving)


def align(
    near: Mapping[Pair, Sequence[tuple[int, int]]], fingerprints: Mapping[str, VideoFingerprint]
) -> dict[Pair, Alignment]:
    """Return the best alignment of each pair of videos; pairs that do not align are left out.

    Args:
        near: For each pair, the centres in ms of clips of the two that may show the same.
        fingerprints: Descriptors of the frames of each video.
    """
    found = {}
    for (one, other), middles in tqdm(near.items(), desc="check", unit="pair", disable=None):
        if one in fingerprints and other in fingerprints:
            best = _best(fingerprints[one], fingerprints[other], middles)
            if best is not None:
                found[one, other] = best
    return found


def weigh(
    one: VideoFingerprint, other: VideoFingerprint, alike: NDArray[np.float32], *, speed: float = 1.0, offset_ms: float = 0.0
) -> Alignment:
    """Measure the similarity of two videos under one alignment.

    Args:
        one: Descriptors of the first video.
        other: Descriptors of the second video.
        alike: Similarity of all frames of the two, shape (n, m), from `likeness_of`.
        speed: Factor from times of the first video to times of the second.
        offset_ms: Milliseconds added after the factor.
    """
    values, columns = matched(alike, one.times_ms, other.times_ms, speed=speed, offset_ms=offset_ms)
    reached = strength(values, one.times_ms)
    if reached <= 0:
        return Alignment(speed, offset_ms, 0.0, None)
    run = longest_run(values, one.times_ms, reached - EXTEND)
    rows = np.arange(run[0], run[1] + 1) if run else np.arange(len(values))
    rows = rows[~np.isnan(values[rows])]
    length_ms = int(one.times_ms[rows[-1]] - one.times_ms[rows[0]])
    return Alignment(speed, offset_ms, reached, motion(one.fingerprints[rows], other.fingerprints[columns[rows]]), length_ms)


def matched(
    alike: NDArray[np.float32], times_ms: NDArray[np.int64], other_ms: NDArray[np.int64], *, speed: float = 1.0,
    offset_ms: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return for each frame of one video the most similar frame of another near its expected time.

    The expected time is `time * speed + offset_ms`, within `TOLERANCE_MS` or half the distance between two frames, whichever
    is
    larger.

    Args:
        alike: Similarity of all frames of the two, shape (n, m), from `likeness_of`.
        times_ms: Times of the rows in ms, shape (n,).
        other_ms: Times of the columns in ms, shape (m,).
        speed: Factor from times of the rows to times of the columns.
        offset_ms: Milliseconds added after the factor.

    Returns:
        The similarity (NaN if no frame is there, or one is flat) and the column of that frame, each of shape (n,).
    """
    step_ms = float(np.median(np.diff(other_ms))) if len(other_ms) > 1 else 0.0
    tolerance_ms = max(TOLERANCE_MS, 0.6 * step_ms)
    expected = times_ms * speed + offset_ms
    firsts = np.searchsorted(other_ms, expected - tolerance_ms, side="left")
    lasts = np.searchsorted(other_ms, expected + tolerance_ms, side="right")
    best = np.full(len(times_ms), -np.inf, dtype=np.float32)
    chosen = np.zeros(len(times_ms), dtype=np.int64)
    rows = np.arange(len(times_ms))
    for step in range(int((lasts - firsts).max(initial=0))):
        columns = np.minimum(firsts + step, len(other_ms) - 1)
        values = np.where(firsts + step < lasts, alike[rows, columns], np.nan)
        chosen = np.where(values > best, columns, chosen)
        best = np.fmax(best, values)
    best[np.isinf(best)] = np.nan
    return best, chosen


def motion(one: NDArray[np.float16], other: NDArray[np.float16]) -> float | None:
    """Return the correlation of the changes in two spans, from -1 to 1; None if nothing changes in one of them.

    What is equal in all frames of a span (a logo, bars, a room) has no influence.

    Args:
        one: Descriptors of shape (n, 2, 256).
        other: Descriptors of the frames that they are compared with, shape (n, 2, 256).
    """
    # As they are alike most: mirrored or not, whole or without margin.
    mine, theirs = max(views(one, other), key=lambda pair: float((pair[0] * pair[1]).sum()))
    moving = [each - each.mean(axis=0) for each in (mine, theirs)]
    energies = [float((each**2).sum(axis=1).mean()) for each in moving]
    if max(energies) < STILL:
        return None
    if min(energies) == 0:
        return 0.0
    return float((moving[0] * moving[1]).sum() / np.sqrt((moving[0] ** 2).sum() * (moving[1] ** 2).sum()))


def likeness_of(one: VideoFingerprint, other: VideoFingerprint) -> NDArray[np.float32]:
    """Return the similarity of each frame of `one` to each of `other`, shape (n, m); NaN if one of the two is flat."""
    alike = likeness(one.fingerprints, other.fingerprints)
    alike[is_flat(one.fingerprints)] = np.nan
    alike[:, is_flat(other.fingerprints)] = np.nan
    return alike


def strength(values: NDArray[np.float32], times_ms: NDArray[np.int64]) -> float:
    """Return the highest similarity that a run of frames reaches: `MIN_FRAMES` in a row over `MIN_LENGTH_MS`, with one miss.

    Args:
        values: Similarity of each frame, shape (n,), from `matched`.
        times_ms: Times of these frames in ms, shape (n,).
    """
    # A video of a second has no run of more.
    least_ms = min(MIN_LENGTH_MS, (times_ms[-1] - times_ms[0]) // 2)
    steps = np.unique(values[~np.isnan(values)])
    low, high = -1, len(steps) - 1  # steps[low] is reached by some run; -1 by none
    while low < high:
        middle = (low + high + 1) // 2
        if any(times_ms[end] - times_ms[start] >= least_ms for start, end in _runs(values, float(steps[middle]))):
            low = middle
        else:
            high = middle - 1
    return float(steps[low]) if low >= 0 else 0.0


def longest_run(
    values: NDArray[np.float32], times_ms: NDArray[np.int64], threshold: float
) -> tuple[int, int] | None:
    """Return the first and last frame of the longest span of matching frames; None if there is none.

    Args:
        values: Similarity of each frame, shape (n,), from `matched`.
        times_ms: Times of these frames in ms, shape (n,).
        threshold: Least similarity of a matching frame.
    """
    runs = list(_runs(values, threshold))
    return max(runs, key=lambda run: times_ms[run[1]] - times_ms[run[0]]) if runs else None


def _best(one: VideoFingerprint, other: VideoFingerprint, middles: Sequence[tuple[int, int]]) -> Alignment | None:
    alike = likeness_of(one, other)
    tried = [weigh(one, other, alike, speed=speed, offset_ms=offset_ms) for speed, offset_ms in _hypotheses(middles)]
    fitting = [each for each in tried if each.strength > 0]
    if not fitting:
        return None
    best = max(each.score for each in fitting)
    return max((each for each in fitting if each.score >= best - _NEARLY), key=lambda each: (each.length_ms, each.score))


def _hypotheses(middles: Sequence[tuple[int, int]]) -> Iterator[tuple[float, float]]:
    """Speeds and offsets that most candidates agree on: same speed first, then others."""
    steps = Counter(round((other - one) / _OFFSET_STEP_MS) for one, other in middles)
    for step, _ in steps.most_common(_HYPOTHESES):
        yield 1.0, float(step * _OFFSET_STEP_MS)
    lines: Counter[tuple[float, int]] = Counter()
    for (one, other), (later, other_later) in combinations(middles[:30], 2):
        if abs(later - one) >= 2 * MIN_LENGTH_MS:
            speed = round((other_later - other) / (later - one) / _SPEED_STEP) * _SPEED_STEP
            if SPEEDS[0] <= speed <= SPEEDS[1] and abs(speed - 1) > _SPEED_STEP / 2:
                lines[round(speed, 4), round((other - speed * one) / _OFFSET_STEP_MS)] += 1
    for (speed, step), _ in lines.most_common(_HYPOTHESES):
        yield speed, float(step * _OFFSET_STEP_MS)


def _runs(values: NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int]]:
    """First and last frame of the spans in which frames agree; one that does not, or is flat, breaks none by itself."""
    start = last = -1
    num = misses = 0
    for place, value in enumerate([*values.tolist(), -1.0, -1.0]):
        if np.isnan(value):
            continue
        if value >= threshold:
            start = place if start < 0 else start
            last, num, misses = place, num + 1, 0
        elif start >= 0:
            misses += 1
            if misses > 1:
                if num >= MIN_FRAMES:
                    yield start, last
                start, num, misses = -1, 0, 0
