"""Aligns two videos in time and in the picture, and gathers the evidence that they show the same.

A fixed camera gives similar pictures in different recordings, since only the people in the room differ. So what moves is
compared by itself: the difference of each frame from the mean of its span, in which a room, a logo and bars are nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.dedup.comparing.fingerprints import (
    Values,
    VideoFingerprint,
    features,
    is_flat,
    unit,
)
from vidseek_retrieval.dedup.comparing.probes import compare_views, probes_of, spread
from vidseek_retrieval.dedup.comparing.registration import View, register
from vidseek_retrieval.dedup.comparing.time_alignment import (
    MOTION_LEVELS,
    TimeMapping,
    Track,
    best_mapping,
    covered,
    refine,
)

Along = tuple[NDArray[np.int64], Values, Values]
"""Places of frames of one video, their features, and those of the other video at their times."""
BELONGS = 0.55
"""The similarity from which a frame belongs to the span, where those of the span are fully alike."""
NUM_REGISTERED = 12
"""Frames that the picture is aligned on."""
_NUM_REGISTERED_VIEWS = 3
_NUM_VIEWS = 2
"""That are aligned in time."""
_NEARLY = 0.04
"""Below the best view: what is less alike is not aligned in time."""


@dataclass(frozen=True)
class Evidence:
    """What says that two videos show the same, each by itself."""

    likeness: float
    """The mean similarity of the aligned frames, -1 to 1."""
    weakest: float
    """That one tenth of them do not reach."""
    motion: float
    """The correlation of what moves in the aligned span, -1 to 1."""
    energy: float
    """How much moves, on a scale of logarithms: 0 is noise."""
    detail: float
    """How much there is to see in a frame, on a scale of logarithms."""
    peak: float
    """How much less the frames are alike one or two seconds off, 0 where nothing moves."""
    length: float
    """Of the span in seconds, on a scale of logarithms."""
    share: float
    """Of the shorter video that the span covers."""
    area: float
    """Of the picture that both show."""


@dataclass(frozen=True)
class Alignment:
    """Two videos as they fit best."""

    by: TimeMapping
    view: View
    one_ms: tuple[int, int]
    """The span in the first video."""
    other_ms: tuple[int, int]
    evidence: Evidence
    near_ms: tuple[float, float] = (0.0, 0.0)
    """Before the span and after it: so near to the end of a video no frame says that the span stops before; in time of the
    first.
    """
    weight: float = 1.0
    """How many pairs of the archive it stands for, where only a sample of unlikely ones is aligned."""

    def turned(self) -> Alignment:
        """Return the same with the two videos exchanged."""
        view = View(self.view.theirs, self.view.mine, self.view.is_mirrored)
        near_ms = self.near_ms[0] * self.by.speed, self.near_ms[1] * self.by.speed
        return Alignment(self.by.turned(), view, self.other_ms, self.one_ms, self.evidence, near_ms, self.weight)


def align(one: VideoFingerprint, other: VideoFingerprint) -> Alignment | None:
    """Return the best alignment of two videos; None where no span of the two is alike.

    Args:
        one: Fingerprint of the first video.
        other: Fingerprint of the second video.
    """
    found = None
    for view in _likeliest(one, other):
        tracks = _tracks(one, other, view)
        by, value = best_mapping(*tracks)
        if found is None or value > found[0]:
            found = value, view, by, tracks
    if found is None:
        return None
    _, view, by, tracks = found
    span = _span(_along(*tracks, by))
    if span is None:
        return None
    view = _registered(one, other, view, by, span)
    tracks = _tracks(one, other, view)
    by = refine(*tracks, by, 100.0, is_same=by.speed == 1)
    along = _along(*tracks, by)
    span = _span(along)
    if span is None:
        return None
    return _alignment(tracks, along, view, by, span)


def _likeliest(one: VideoFingerprint, other: VideoFingerprint) -> list[View]:
    """The views under which the frames have the most similar ones in the other video, in whatever order."""
    mine, theirs = probes_of(one), probes_of(other)
    registered = []
    for each in compare_views(mine, theirs)[:_NUM_REGISTERED_VIEWS]:
        rows = np.argsort(-each.alike.max(axis=1))[: NUM_REGISTERED // 2]
        shown = theirs.pictures[each.alike[rows].argmax(axis=1)]
        found, value = register(mine.pictures[rows].astype(np.float32), shown.astype(np.float32), each.view)
        registered.append((value, found))
    registered.sort(key=lambda each: -each[0])
    return [view for value, view in registered[:_NUM_VIEWS] if value > registered[0][0] - _NEARLY]


def _tracks(one: VideoFingerprint, other: VideoFingerprint, view: View) -> tuple[Track, Track]:
    rows = []
    for each, part, is_mirrored in ((one, view.mine, False), (other, view.theirs, view.is_mirrored)):
        of = features(each.pictures, part, is_mirrored=is_mirrored)
        of[is_flat(each.pictures)] = 0
        rows.append(of)
    return Track(one.times_ms, rows[0]), Track(other.times_ms, rows[1])


def _along(one: Track, other: Track, by: TimeMapping) -> Along:
    """The frames that the other video reaches, their features, and those of the other: of two frames and their mixture those
    that are most alike.
    """
    rows, times = covered(one, other, by)
    mine = one.rows[rows]
    if len(other.times_ms) == 1:
        return rows, mine, np.repeat(other.rows, len(rows), axis=0)
    places, share = other.between(times)
    near = np.stack([other.mixed(other.rows, places, share), other.rows[places], other.rows[places + 1]])
    alike = np.einsum("ij,kij->ki", unit(mine), unit(near))
    alike[1:] -= 0.005  # the mixture, where they are equal
    alike[1, share > 0.8], alike[2, share < 0.2] = -1, -1
    chosen = alike.argmax(axis=0)
    return rows, mine, near[chosen, np.arange(len(rows))]


def _span(along: Along) -> tuple[int, int] | None:
    """The first and the last frame of the span whose frames are alike, misses and flat frames included; None for none."""
    rows, mine, theirs = along
    if len(rows) < 2:
        return None
    alike = np.einsum("ij,ij->i", unit(mine), unit(theirs))
    flat = ~mine.any(axis=1) & ~theirs.any(axis=1)
    best = float(np.quantile(alike[~flat], 0.75)) if (~flat).any() else 0.0
    gains = alike - max(0.35, BELONGS * best)
    gains[flat] = 0
    sums = np.concatenate([[0], np.cumsum(gains)])
    # The span with the largest sum.
    lowest = np.minimum.accumulate(sums)
    above = sums - lowest
    end = len(above) - 1 - int(np.argmax(above[::-1]))  # with the flat frames that follow, as with those before
    start = int(np.argmin(sums[: end + 1]))
    return (int(rows[start]), int(rows[end - 1])) if end - start >= 2 else None


def _registered(
    one: VideoFingerprint, other: VideoFingerprint, view: View, by: TimeMapping, span: tuple[int, int]
) -> View:
    rows = spread(np.arange(span[0], span[1] + 1), NUM_REGISTERED)
    mine = one.pictures[rows].astype(np.float32)
    flat = Track(other.times_ms, other.pictures.reshape(len(other.pictures), -1).astype(np.float32))
    theirs = flat.at(by.times(one.times_ms[rows])).reshape(mine.shape)
    return register(mine, theirs, view)[0]


def _alignment(
    tracks: tuple[Track, Track], along: Along, view: View, by: TimeMapping, span: tuple[int, int]
) -> Alignment:
    rows, mine, theirs = along
    near_ms = _near(*tracks, by, rows, span)
    inside = (rows >= span[0]) & (rows <= span[1])
    rows, mine, theirs = rows[inside], mine[inside], theirs[inside]
    seen = np.asarray(mine.any(axis=1) & theirs.any(axis=1))
    if not seen.any():
        seen = np.ones(len(rows), dtype=bool)
    alike = np.einsum("ij,ij->i", unit(mine[seen]), unit(theirs[seen]))
    moved, their = mine[seen] - mine[seen].mean(axis=0), theirs[seen] - theirs[seen].mean(axis=0)
    energies = [float((each**2).sum(axis=1).mean()) for each in (moved, their)]
    noise = MOTION_LEVELS**2 / 16
    motion = float((moved * their).sum(axis=1).mean() / (np.sqrt(energies[0] * energies[1]) + noise))
    one_ms, other_ms = _spans(*tracks, by, rows)
    share = max((end - start) / (float(np.ptp(of.times_ms)) + of.step_ms)
                for (start, end), of in zip((one_ms, other_ms), tracks, strict=True))
    evidence = Evidence(
        likeness=float(alike.mean()), weakest=float(np.quantile(alike, 0.1)), motion=motion,
        energy=float(np.log1p(min(energies) / MOTION_LEVELS**2)),
        detail=float(np.log1p(np.median(np.linalg.norm(mine[seen], axis=1)) / MOTION_LEVELS)),
        peak=_peak(tracks, by, rows[seen], alike), length=float(np.log1p((one_ms[1] - one_ms[0]) / 1000)),
        share=min(share, 1.0), area=min(view.mine.area, view.theirs.area),
    )
    return Alignment(by, view, one_ms, other_ms, evidence, near_ms)


def _spans(
    one: Track, other: Track, by: TimeMapping, rows: NDArray[np.int64]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The span of these frames in both videos: each frame stands for half the time to its neighbours."""
    steps = one.step_ms / 2, other.step_ms / 2
    half = max(steps[0], steps[1] / by.speed)
    start, end = one.times_ms[rows[0]] - half, one.times_ms[rows[-1]] + half
    ends = other.times_ms[0] - steps[1], other.times_ms[-1] + steps[1]
    reach = [(each - by.offset_ms) / by.speed for each in ends]
    start = max(start, one.times_ms[0] - steps[0], reach[0])
    end = min(end, one.times_ms[-1] + steps[0], reach[1])
    theirs = [by.speed * each + by.offset_ms for each in (start, end)]
    return (max(0, round(start)), round(end)), (max(0, round(theirs[0])), round(theirs[1]))


def _near(
    one: Track, other: Track, by: TimeMapping, rows: NDArray[np.int64], span: tuple[int, int]
) -> tuple[float, float]:
    """How far the span may be from an end of a video and reach it: one frame that differs, or where none was compared."""
    step_ms = max(one.step_ms, other.step_ms / by.speed)
    slacks = []
    for frame, outermost, is_before in ((span[0], rows[0], True), (span[1], rows[-1], False)):
        time_ms = float(one.times_ms[frame])
        gaps = one.gap_ms(time_ms, is_before=is_before), other.gap_ms(
            time_ms * by.speed + by.offset_ms, is_before=is_before
        ) / by.speed
        slacks.append(max(1.5 * step_ms, sum(gaps) if frame == outermost else 0.0))
    return slacks[0], slacks[1]


def _peak(tracks: tuple[Track, Track], by: TimeMapping, rows: NDArray[np.int64], alike: Values) -> float:
    one, other = tracks
    off = []
    for shift in (-2000, -1000, 1000, 2000):
        times = by.times(one.times_ms[rows]) + shift
        there = (times >= other.times_ms[0]) & (times <= other.times_ms[-1])
        if there.sum() >= 3:
            theirs = unit(other.at(times[there]))
            off.append(float(np.einsum("ij,ij->i", unit(one.rows[rows[there]]), theirs).mean()))
    return float(alike.mean()) - float(np.mean(off)) if off else 0.0
