"""Finds how the times of two videos map to each other: a factor and an offset, from the similarity of their frames.

Same speed and a constant offset come first: another speed must agree clearly better. What moves counts more than what stands
still, since a still camera gives similar frames at every offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.dedup.comparing.fingerprints import Values, unit

SPEEDS = (0.5, 2.0)
_COARSE_MS = 250
_COARSE_FRAMES = 240
"""Of each video, about: long ones are compared in longer steps first."""
_SPEED_STEP = 0.025
_AGREES = 0.5
"""The similarity of two frames from which they vote."""
_WINDOW_MS = 1500
"""What differs from the mean of this span moves."""
_SAME_SCENE = 0.6
"""The similarity of a frame and the next, below which a scene ends."""
MOTION_LEVELS = 60.0
"""The length of a difference of features, in grey levels, below which it is mostly noise."""
_PENALTY = 20.0
"""Another speed is one more number to fit: its shortfall must be so much less, by the frames that say so (Schwarz's BIC)."""
_LITTLE_LEFT = float(np.log(2))
"""Or not half of it may be left, however few the frames: those of a trimmed copy never lose so much by another speed."""
_SHORTFALL = 0.02
"""Below what full agreement the codec's noise lies."""
_HYPOTHESES = 2
_STEPS = _SPEED_STEP * np.arange(1, round(np.log(SPEEDS[1]) / _SPEED_STEP) + 1)
_SPEEDS = (1.0, *np.exp(np.outer(_STEPS, (1, -1))).ravel().tolist())


@dataclass(frozen=True)
class TimeMapping:
    """`time * speed + offset_ms` of one video is the time of the other."""

    speed: float
    offset_ms: float

    def times(self, times_ms: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return times of the other video."""
        return times_ms.astype(np.float64) * self.speed + self.offset_ms

    def turned(self) -> TimeMapping:
        """Return the mapping from the other video's times to those of the first."""
        return TimeMapping(1 / self.speed, -self.offset_ms / self.speed)


@dataclass(frozen=True)
class Track:
    """The features of a video over time."""

    times_ms: NDArray[np.int64]
    rows: Values
    """As `features` gives them; zeros where a frame is flat."""

    begins_ms: tuple[int, ...] = ()
    """Where another scene begins whatever the frames show; other scenes are told from the frames."""

    @cached_property
    def is_cut(self) -> NDArray[np.bool_]:
        """After which frames another scene begins."""
        looks = unit(self.rows)
        cuts = np.einsum("ij,ij->i", looks[1:], looks[:-1]) < _SAME_SCENE
        cuts[np.searchsorted(self.times_ms, self.begins_ms) - 1] = True
        return np.asarray(cuts)

    @cached_property
    def looks(self) -> Values:
        """The rows of length 1, those in which little is to be seen shorter."""
        return unit(self.rows, least=MOTION_LEVELS)

    @cached_property
    def moved(self) -> Values:
        """What moves, of length 1, shorter where little does."""
        return unit(self.moves, least=MOTION_LEVELS / 2)

    @cached_property
    def moves(self) -> Values:
        """The difference of each row from the mean of the rows around it, of the same scene."""
        begins = np.r_[0, np.flatnonzero(self.is_cut) + 1, len(self.times_ms)]
        scene = np.searchsorted(begins, np.arange(len(self.times_ms)), side="right")
        firsts = np.searchsorted(self.times_ms, self.times_ms - _WINDOW_MS / 2, side="left").clip(begins[scene - 1])
        lasts = np.minimum(np.searchsorted(self.times_ms, self.times_ms + _WINDOW_MS / 2, side="right"), begins[scene])
        sums = np.concatenate([np.zeros((1, self.rows.shape[1])), np.cumsum(self.rows, axis=0, dtype=np.float64)])
        means = (sums[lasts] - sums[firsts]) / (lasts - firsts)[:, np.newaxis]
        return (self.rows - means).astype(np.float32)

    def at(self, times_ms: NDArray[np.float64]) -> Values:
        """Return features between frames; times outside give those of the first or last frame."""
        return self.mixed(self.rows, *self.between(times_ms))

    def mixed(self, values: Values, places: NDArray[np.int64], share: Values) -> Values:
        """Return values between frames, as `between` gives these."""
        if len(self.times_ms) == 1:
            return values[places]
        # Between two scenes there is one or the other, and no mixture.
        weight = np.where(self.is_cut[places], share > 0.5, share)[:, np.newaxis].astype(np.float32)
        return values[places] * (1 - weight) + values[places + 1] * weight

    def between(self, times_ms: NDArray[np.float64]) -> tuple[NDArray[np.int64], Values]:
        """Return the frame before each time (never the last of several), and how far on the way to the next, 0 to 1."""
        if len(self.times_ms) == 1:
            return np.zeros(len(times_ms), np.int64), np.zeros(len(times_ms), np.float32)
        places = np.clip(np.searchsorted(self.times_ms, times_ms, side="right") - 1, 0, len(self.times_ms) - 2)
        gaps = np.maximum(self.times_ms[places + 1] - self.times_ms[places], 1)
        return places, np.clip((times_ms - self.times_ms[places]) / gaps, 0, 1).astype(np.float32)

    def gap_ms(self, time_ms: float, *, is_before: bool) -> float:
        """Return the time between the frame nearest to a time and the one before or after it; the last such at the ends."""
        if len(self.times_ms) < 2:
            return self.step_ms
        place = int(np.abs(self.times_ms - time_ms).argmin()) - is_before
        place = min(max(place, 0), len(self.times_ms) - 2)
        return float(self.times_ms[place + 1] - self.times_ms[place])

    @cached_property
    def step_ms(self) -> float:
        """Between two frames, as a rule."""
        return float(np.median(np.diff(self.times_ms))) if len(self.times_ms) > 1 else float(_COARSE_MS)


def find_mappings(one: Track, other: Track) -> list[TimeMapping]:
    """Return the mappings that most frames agree on, the same speed first, refined to some 25 ms."""
    step_ms = max(_COARSE_MS, max(float(np.ptp(each.times_ms)) for each in (one, other)) / _COARSE_FRAMES)
    step_ms = min(step_ms, max(min(float(np.ptp(each.times_ms)) for each in (one, other)) / 8, 40.0))
    mine = _on_grid(one, step_ms)
    same: list[tuple[float, TimeMapping]] = []
    others: list[tuple[float, TimeMapping]] = []
    for speed, sums in zip(_SPEEDS, _sums_by_speed(mine, other, step_ms), strict=True):
        for place in np.argsort(-sums)[:_HYPOTHESES]:
            shift = (int(place) - (len(mine.rows) - 1)) * step_ms * speed
            mapping = TimeMapping(speed, float(other.times_ms[0] + shift - speed * mine.times_ms[0]))
            (same if speed == 1 else others).append((float(sums[place]), mapping))
    same.sort(key=lambda each: -each[0])
    others.sort(key=lambda each: -each[0])
    least = same[0][0] * 0.9
    tried = same[:_HYPOTHESES] + [each for each in others[:_HYPOTHESES] if each[0] > least]
    values = agreements(one, other, [mapping for _, mapping in tried])
    scored = [(value, number, mapping) for number, (value, (_, mapping)) in enumerate(zip(values, tried, strict=True))]
    best = [max((each for each in scored if (each[2].speed == 1) is is_same), default=None) for is_same in (True, False)]
    return [refine(one, other, each[2], step_ms, is_same=each[2].speed == 1) for each in best if each is not None]


def agreement(one: Track, other: Track, mapping: TimeMapping) -> float:
    """Return how much of the shorter video agrees under a mapping: the likeness of frames and of what moves, 0 to 2."""
    return agreements(one, other, [mapping])[0]


def agreements(one: Track, other: Track, mappings: Sequence[TimeMapping]) -> list[float]:
    """Return the same for several mappings at once."""
    parts = [covered(one, other, mapping) for mapping in mappings]
    rows, times = (np.concatenate(each) for each in zip(*parts, strict=True))
    if not len(rows):
        return [0.0] * len(parts)
    places, share = other.between(times)
    theirs = unit(other.mixed(other.rows, places, share), least=MOTION_LEVELS)
    their = unit(other.mixed(other.moves, places, share), least=MOTION_LEVELS / 2)
    alike = np.clip(np.einsum("ij,ij->i", one.looks[rows], theirs) - _AGREES, 0, None) / (1 - _AGREES)
    alike += np.einsum("ij,ij->i", one.moved[rows], their)
    # Where the other changes its scene, the time of a frame says little.
    steady = ~other.is_cut[places] if len(other.times_ms) > 1 else np.ones(len(rows), dtype=bool)
    least = float(np.ptp(one.times_ms)), float(np.ptp(other.times_ms))
    found, start = [], 0
    for mapping, (of, _) in zip(mappings, parts, strict=True):
        part = slice(start, start + len(of))
        start = part.stop
        seen = alike[part][steady[part]] if steady[part].sum() >= 2 else alike[part]
        span = float(np.ptp(one.times_ms[of])) * mapping.speed if len(of) >= 2 else 0.0
        share_of = min(span / max(min(least[0] * mapping.speed, least[1]), 1.0), 1.0)
        found.append(float(seen.mean()) * share_of**0.5 if len(of) >= 2 else 0.0)
    return found


def covered(one: Track, other: Track, mapping: TimeMapping) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the frames of one video that the other reaches, and their times there."""
    times = mapping.times(one.times_ms)
    edge = other.step_ms * 0.75
    rows = np.flatnonzero((times >= other.times_ms[0] - edge) & (times <= other.times_ms[-1] + edge))
    return rows, times[rows]


def refine(one: Track, other: Track, mapping: TimeMapping, step_ms: float, *, is_same: bool) -> TimeMapping:
    """Return the mapping near another that agrees best, in steps of 25 ms; its speed is kept if it is the same speed."""
    middle = float(one.times_ms.mean())
    best, value = mapping, agreement(one, other, mapping)
    width, speed_width = step_ms, _SPEED_STEP / 2
    while width >= 20:
        near = [TimeMapping(best.speed, best.offset_ms + sign * width) for sign in (-1, 1)]
        if not is_same:
            for sign in (-1, 1):
                speed = best.speed * (1 + sign * speed_width)
                near.append(TimeMapping(speed, best.offset_ms + (best.speed - speed) * middle))
        values = agreements(one, other, near)
        place = int(np.argmax(values))
        if values[place] > value + 1e-4:
            best, value = near[place], values[place]
        else:
            width, speed_width = width / 2, speed_width / 2
    return best


def best_mapping(one: Track, other: Track) -> tuple[TimeMapping, float]:
    """Return the mapping that agrees best and how much; one of the same speed where none is clearly better."""
    found = find_mappings(one, other)
    scored = list(zip(agreements(one, other, found), found, strict=True))
    same_value, same = max((each for each in scored if each[1].speed == 1), key=lambda each: each[0])
    value, best = max(scored, key=lambda each: each[0])
    num = min(len(one.times_ms), len(other.times_ms))
    short = [max(2 - each, 0.0) + _SHORTFALL for each in (same_value, value)]
    less = float(np.log(short[0] / short[1]))
    return (best, value) if num * less > _PENALTY or less > _LITTLE_LEFT else (same, same_value)


def _on_grid(track: Track, step_ms: float) -> Track:
    times = np.arange(track.times_ms[0], track.times_ms[-1] + 1, step_ms)
    return Track(np.rint(times).astype(np.int64), track.at(times))


def _sums_by_speed(mine: Track, other: Track, step_ms: float) -> list[NDArray[np.float64]]:
    """For each speed the sums of votes of frames with equal `column - row`, from -(rows - 1) on."""
    grids = [np.arange(other.times_ms[0], other.times_ms[-1] + 1, step_ms * speed) for speed in _SPEEDS]
    theirs = other.at(np.concatenate(grids))
    # All speeds one after another in one track, each a scene of its own.
    starts = np.cumsum([0] + [int(each[-1] - each[0]) + 2 * _WINDOW_MS for each in grids[:-1]])
    times = np.concatenate([
        np.rint(each - each[0]).astype(np.int64) + start for each, start in zip(grids, starts, strict=True)
    ])
    votes = _votes(mine, Track(times, theirs, tuple(starts[1:].tolist())))
    num, widths = len(votes), np.array([len(each) for each in grids])
    # A frame of the other at place p of its grid has the diagonal p - row.
    firsts = np.r_[0, np.cumsum(widths + num - 1)]
    columns = np.concatenate([np.arange(width) + first for width, first in zip(widths, firsts, strict=False)])
    diagonals = columns[np.newaxis, :] + np.arange(num - 1, -1, -1)[:, np.newaxis]
    sums = np.bincount(diagonals.ravel(), weights=votes.ravel(), minlength=int(firsts[-1]))
    return np.split(sums.astype(np.float64), firsts[1:-1])


def _votes(mine: Track, theirs: Track) -> Values:
    alike = mine.looks @ theirs.looks.T
    common = unit(mine.moves, least=MOTION_LEVELS) @ unit(theirs.moves, least=MOTION_LEVELS).T
    np.clip(alike - _AGREES, 0, None, out=alike)
    alike *= 0.3 + np.clip(common, 0, None)
    return alike
