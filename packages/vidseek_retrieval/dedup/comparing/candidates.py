"""Proposes pairs of videos with similar frames, by the frames alone: what encoder the archive has does not matter.

Each video gives some frames. Those of one video are compared, as they are, cropped and mirrored, with all frames of the
others by products of matrices, in tiles that fit the cache of a core. New videos are compared with all, known ones not again
with each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.choices import usable_cores
from vidseek_media.terminal.progress import counted
from vidseek_retrieval.dedup.comparing.fingerprints import (
    IS_TURNED,
    WHOLE_PICTURE,
    Rectangle,
    Values,
    VideoFingerprint,
    features,
    is_flat,
    unit,
)

Pair = tuple[str, str]
ALIKE = 0.55
"""The similarity from which two frames propose their videos."""
STRONG = 0.85
"""The similarity from which few frames are enough."""
_LEAST_SHARE = 0.03
"""By how much the frames of a video must be more alike than `ALIKE` in the mean, or:"""
_LEAST_STRONG = 2
MOST_PARTNERS = 40
"""Of each video: those with the most similar frames."""
_STEP_MS = 1000
"""Between the frames that a long video gives; a short one gives at least so many:"""
_LEAST_FRAMES = 6
_EVERY = 2
"""Of a video's frames those that are asked with."""
_REPEATED = 0.995
"""The similarity from which a frame adds nothing to the one before."""
_BLOCK, _TILE = 256, 1024
"""Frames that are asked with, and looked through, at once."""
_INSETS = (0.0, 0.06, 0.12)
_BLANK = 2.0
"""The length of a frame's features in grey levels, below which it shows nothing."""


@dataclass(frozen=True)
class _Frames:
    asked: list[Values]
    """For each view, shape (q, dimension); a mirrored view has the signs of `IS_TURNED` changed."""
    askers: NDArray[np.int32]
    """The number of the video of each, shape (q,)."""
    is_barred: NDArray[np.bool_]
    """Whether that video has bars, shape (q,)."""
    rows: Values
    """Of the frames that are looked through, shape (n, dimension)."""
    owners: NDArray[np.int32]


def propose(fingerprints: Mapping[str, VideoFingerprint], *, known: Collection[str] = ()) -> dict[Pair, float]:
    """Return pairs of videos that have similar frames, smaller id first, in order, and how similar these are; pairs of two
    known videos are left out.

    Args:
        fingerprints: Of each video.
        known: Videos that were compared with each other before.
    """
    ids, before = sorted(fingerprints), set(known)
    is_known = np.array([each in before for each in ids], dtype=bool)
    if is_known.all():
        return {}
    frames = _frames_of([fingerprints[each] for each in ids])
    scores: dict[tuple[int, int], float] = {}
    new_askers, new_owners = ~is_known[frames.askers], ~is_known[frames.owners]
    old_askers = ~new_askers
    everything = np.ones(len(frames.rows), dtype=bool)
    for asking, among in ((new_askers, everything), (old_askers, new_owners)):
        for is_barred in (False, True):
            chosen = asking & (frames.is_barred == is_barred)
            if chosen.any() and among.any():
                # Without bars the last view is the first.
                _add_scores(scores, frames, frames.asked if is_barred else frames.asked[:-1], chosen, among)
    return _best(scores, ids)


def _add_scores(
    scores: dict[tuple[int, int], float], frames: _Frames, views: Sequence[Values], asking: NDArray[np.bool_],
    among: NDArray[np.bool_],
) -> None:
    asked = [each[asking] for each in views]
    askers, rows, owners = frames.askers[asking], frames.rows[among], frames.owners[among]
    tiles = [(slice(*block), slice(*tile)) for tile, block in product(_blocks(owners, _TILE), _blocks(askers, _BLOCK))]
    score = partial(_scores_of, asked, askers, rows, owners)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for found in counted(pool.map(score, tiles), "propose", unit="tile", total=len(tiles)):
            for pair, value in found:
                scores[pair] = max(scores.get(pair, 0.0), value)


def _scores_of(
    asked: Sequence[Values], askers: NDArray[np.int32], rows: Values, owners: NDArray[np.int32], tile: tuple[slice, slice]
) -> list[tuple[tuple[int, int], float]]:
    """The pairs of videos of a tile that have similar frames: all frames of some videos, and all of some others."""
    block, among = tile
    number, owner = askers[block], owners[among]
    begins, firsts = (np.flatnonzero(np.r_[True, each[1:] != each[:-1]]) for each in (number, owner))
    best = _most_alike([view[block] for view in asked], rows[among], firsts)
    num = np.diff(np.r_[begins, len(number)])[:, np.newaxis]
    shares = np.add.reduceat(np.clip(best - ALIKE, 0, None), begins, axis=0) / num
    strong = np.add.reduceat((best >= STRONG).astype(np.int32), begins, axis=0)
    found = []
    for place, column in zip(*np.nonzero((shares >= _LEAST_SHARE) | (strong >= _LEAST_STRONG)), strict=True):
        one, other = int(number[begins[place]]), int(owner[firsts[column]])
        if one != other:
            score = float(shares[place, column]) + 0.01 * float(strong[place, column])
            found.append(((min(one, other), max(one, other)), score))
    return found


def _most_alike(views: Sequence[Values], rows: Values, firsts: NDArray[np.int64]) -> Values:
    """Of each frame, under any view, plain or mirrored, the similarity of the most similar frame of each other video."""
    same, turned = np.ascontiguousarray(rows[:, ~IS_TURNED].T), np.ascontiguousarray(rows[:, IS_TURNED].T)
    best: Values | None = None
    for view in views:
        # A mirrored picture has the other sign in the second product: the better of both is the first and its size.
        alike, other = view[:, ~IS_TURNED] @ same, view[:, IS_TURNED] @ turned
        np.abs(other, out=other)
        alike += other
        best = alike if best is None else np.maximum(best, alike, out=best)
    assert best is not None
    return np.asarray(np.maximum.reduceat(best, firsts, axis=1))


def _blocks(numbers: NDArray[np.int32], size: int) -> Iterator[tuple[int, int]]:
    """Rows that are taken together: all of some videos."""
    ends = np.r_[np.flatnonzero(numbers[1:] != numbers[:-1]) + 1, len(numbers)]
    start = 0
    while start < len(numbers):
        fitting = ends[(ends > start) & (ends <= start + size)]
        end = int(fitting[-1]) if len(fitting) else int(ends[ends > start][0])
        yield start, end
        start = end


def _best(scores: Mapping[tuple[int, int], float], ids: Sequence[str]) -> dict[Pair, float]:
    """Of each video the partners with the highest scores."""
    partners: dict[int, list[tuple[float, tuple[int, int]]]] = {}
    for pair, score in scores.items():
        for each in pair:
            partners.setdefault(each, []).append((-score, pair))
    kept = {pair for of in partners.values() for _, pair in sorted(of)[:MOST_PARTNERS]}
    return {(ids[one], ids[other]): scores[one, other] for one, other in sorted(kept)}


def _frames_of(videos: Sequence[VideoFingerprint]) -> _Frames:
    asked: list[list[Values]] = []
    rows: list[Values] = []
    askers, owners = [], []
    for number, video in enumerate(videos):
        chosen = video.pictures[_chosen(video)]
        own = unit(features(chosen, video.inside), least=_BLANK)
        rows.append(own)
        owners.append(np.full(len(own), number, np.int32))
        half = chosen[::_EVERY]
        asked.append([unit(features(half, part), least=_BLANK) for part in _views(video)])
        askers.append(np.full(len(half), number, np.int32))
    is_barred = np.array([video.inside != WHOLE_PICTURE for video in videos])
    numbers = np.concatenate(askers)
    return _Frames(
        [np.concatenate(view) for view in zip(*asked, strict=True)], numbers, is_barred[numbers], np.concatenate(rows),
        np.concatenate(owners),
    )


def _views(video: VideoFingerprint) -> list[Rectangle]:
    parts = [Rectangle(inset, 1 - inset, inset, 1 - inset).within(video.inside) for inset in _INSETS]
    # Bars that hold a logo are not seen as bars.
    return [*parts, Rectangle(0.15, 0.85, 0.0, 1.0), WHOLE_PICTURE]


def _chosen(video: VideoFingerprint) -> NDArray[np.int64]:
    """Frames that show something, some time apart, without those that repeat the one before."""
    step_ms = min(_STEP_MS, max(video.length_ms / _LEAST_FRAMES, 1))
    seen = np.flatnonzero(~is_flat(video.pictures))
    if not len(seen):
        return seen
    slots = ((video.times_ms[seen] - video.times_ms[seen[0]]) / step_ms).astype(int)
    apart = seen[np.r_[True, slots[1:] != slots[:-1]]]
    looks = unit(features(video.pictures[apart], video.inside))
    kept = [0]
    for row in range(1, len(apart)):
        if float(looks[row] @ looks[kept[-1]]) < _REPEATED:
            kept.append(row)
    return apart[kept]
