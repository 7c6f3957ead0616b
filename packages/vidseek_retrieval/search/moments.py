"""Merges ranked clips into moments: neighbouring clips of a video with similar scores become one hit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_CLIPS = 1000
"""Moments begin in this many clips of the ranking, wherever a page begins: so paging never shifts them."""
SCORE_DIGITS = 6
"""Scores are rounded to this many places before they are ordered, so that the last bits of float32 break no tie."""
_BLOCK_SCORES = 2**23
"""Scores that are computed at once."""
_ROUNDING = 1e-6
"""More than rounding changes a score."""
_SORTED_AT_FIRST = (256, 4096)
"""Of a ranking so many clips are sorted, then so many, then all."""


class RankedClip(NamedTuple):
    """One clip of a ranking."""

    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    score: float
    """Cosine, rounded to `SCORE_DIGITS`."""
    duplicate_of: str = ""
    """The video that shows the same, where it was decided that this one is a duplicate of it."""


class Moment(NamedTuple):  # of a thousand clips up to a thousand are made: a dataclass takes five times as long
    """A span of one video that answers a query."""

    video_id: str
    start_ms: int
    end_ms: int
    score: float
    """Of the best clip."""
    best_clip_id: str
    best_ms: int
    """The middle of the best clip."""
    clip_ids: tuple[str, ...]
    """The clips that the span is made of, best first."""
    duplicate_of: str = ""
    """Of the best clip."""


def rank_order(clip: RankedClip) -> tuple[float, str]:
    """Return the sort key of a ranking: by score, ties by clip_id."""
    return -clip.score, clip.clip_id


def moment_order(moment: Moment) -> tuple[float, str]:
    """Return the sort key of moments: that of their best clips."""
    return -moment.score, moment.best_clip_id


def merge_moments(ranked: Iterable[RankedClip], *, margin: float) -> list[Moment]:
    """Merge the ranked clips of each video into moments, best first.

    Clips are taken in the order of `rank_order`:

    - A clip that overlaps or touches a moment of its video joins it, and widens its span, if its score is at most `margin`
      below the moment's best score. Two moments that come to touch in this way, both within `margin`, become one.
    - Any other clip that lies by more than half in a moment of its video is left out.
    - Any other clip begins a moment.

    A small margin keeps spans tight, since each joining window adds a stride to the span.

    Args:
        ranked: Clips with scores, in any order.
        margin: Largest difference to the best score of a moment, at least 0; 0 joins only clips of equal score.

    Examples:
        >>> clips = [RankedClip("a", "v", 0, 3000, 0.9), RankedClip("b", "v", 2000, 5000, 0.88)]
        >>> [(moment.start_ms, moment.end_ms, moment.score) for moment in merge_moments(clips, margin=0.05)]
        [(0, 5000, 0.9)]
    """
    merging = _Merging(margin)
    for clip in sorted(ranked, key=rank_order):
        merging.add(clip)
    return [moment.finished() for moment in merging.moments if not moment.swallowed]


def first_moments(ranking: Iterable[RankedClip], *, margin: float, num: int | None = None) -> list[Moment]:
    """Return the moments that begin in the first `NUM_CLIPS` clips, widened by later clips.

    Args:
        ranking: Clips in the order of `rank_order`, including all clips within `margin` of the last of those first ones.
        margin: Largest difference to the best score of a moment, at least 0.
        num: The number of moments wanted, at least 1; None for all. The ranking is read only as far as these need it.
    """
    merging = _Merging(margin)
    for place, clip in enumerate(ranking):
        if num is not None and merging.is_settled(num, clip.score, begins=place < NUM_CLIPS):
            break
        merging.add(clip, begins=place < NUM_CLIPS)
    return [moment.finished() for moment in merging.firsts()[:num]]


def fold_duplicates(moments: Sequence[Moment]) -> list[Moment]:
    """Remove moments of duplicate videos whose original has a moment too."""
    if not any(moment.duplicate_of for moment in moments):
        return list(moments)
    videos = {moment.video_id for moment in moments}
    return [moment for moment in moments if moment.duplicate_of not in videos]


def rankings(
    query_vectors: NDArray[np.float32], clip_vectors: NDArray[np.float32], clips: Sequence[RankedClip]
) -> Iterator[Ranking]:
    """Yield for each query the exact ranking of all clips, of which no more is sorted than is read.

    Args:
        query_vectors: Shape (num_queries, dimension), unit rows.
        clip_vectors: Shape (num_clips, dimension), unit rows.
        clips: The clip of each row of `clip_vectors`; their scores are ignored.

    Raises:
        ValueError: the number of clips is not the number of vectors.
    """
    if len(clips) != len(clip_vectors):
        raise ValueError(f"{len(clips)} clips for {len(clip_vectors)} vectors")
    clip_ids = [clip.clip_id for clip in clips]
    if clip_ids != sorted(clip_ids):
        by_id = sorted(range(len(clips)), key=clip_ids.__getitem__)
        clips, clip_vectors = [clips[row] for row in by_id], clip_vectors[by_id]
    step = max(1, _BLOCK_SCORES // max(1, len(clips)))
    for start in range(0, len(query_vectors), step):
        for scores in query_vectors[start : start + step] @ clip_vectors.T:
            yield Ranking(clips, scores)


@dataclass(frozen=True, eq=False)
class Ranking:
    """All clips with their scores for one query: iterating gives them best first, ties by clip_id."""

    clips: Sequence[RankedClip]
    """In the order of clip_id; their scores are ignored."""
    scores: NDArray[np.float32]
    """One for each clip; they are rounded to `SCORE_DIGITS` before they are ordered."""

    def __iter__(self) -> Iterator[RankedClip]:
        part = self._first
        for num in (*_SORTED_AT_FIRST[1:], len(self.scores)):
            yield from self._clips_of(part)
            if part.low == -math.inf:
                return
            part = self._sorted(num, high=part.low)
        yield from self._clips_of(part)

    def _clips_of(self, part: _Sorted) -> Iterator[RankedClip]:
        for row, score in zip(part.rows, part.scores, strict=True):
            clip = self.clips[row]
            yield RankedClip(clip.clip_id, clip.video_id, clip.start_ms, clip.end_ms, score, clip.duplicate_of)

    @cached_property
    def _first(self) -> _Sorted:
        """What is read most often: several readers of one ranking sort it once."""
        return self._sorted(_SORTED_AT_FIRST[0], high=math.inf)

    def _sorted(self, num: int, *, high: float) -> _Sorted:
        """Return those of the best `num` clips that score less than `high`, best first."""
        is_part = num < len(self.scores)
        low = round(float(np.partition(self.scores, -num)[-num]), SCORE_DIGITS) if is_part else -math.inf
        rows = np.flatnonzero((self.scores >= low - _ROUNDING) & (self.scores <= high + _ROUNDING))
        scores = np.round(self.scores[rows].astype(np.float64), SCORE_DIGITS)
        within = (scores >= low) & (scores < high)
        rows, scores = rows[within], scores[within]
        order = np.argsort(-scores, kind="stable")  # stable: in the order of clip_id
        return _Sorted(low, rows[order].tolist(), scores[order].tolist())


class _Sorted(NamedTuple):
    """A part of a ranking, best first."""

    low: float
    """The least score that its clips may have."""
    rows: list[int]
    scores: list[float]


def cut_off(ranking: Iterable[RankedClip], *, limit: int, margin: float) -> list[RankedClip]:
    """Return the first `limit` clips, and those that score at most `margin` below the last of them."""
    kept: list[RankedClip] = []
    for clip in ranking:
        if len(kept) >= limit and clip.score < floor_of(kept[limit - 1].score, margin):
            break
        kept.append(clip)
    return kept


def floor_of(best: float, margin: float) -> float:
    """Return the least score of a clip that widens a moment.

    Args:
        best: Best score of the moment.
        margin: Largest difference to it, at least 0.
    """
    return round(best - margin, SCORE_DIGITS)  # or a margin of 0.1 would not reach from 0.9 to 0.8


class _Merging:
    """Merges clips that come in the order of `rank_order` into moments."""

    def __init__(self, margin: float) -> None:
        self.moments: list[_Growing] = []
        self._margin = margin
        self._by_video: dict[str, list[_Growing]] = {}

    def add(self, clip: RankedClip, *, begins: bool = True) -> None:
        """Take the next clip. What it begins is among the first moments where `begins` is true."""
        neighbours = self._by_video.setdefault(clip.video_id, [])
        takers, is_inside = _around(clip, neighbours) if neighbours else (_NONE, False)
        if takers:
            _join(clip, takers, neighbours)
        elif not is_inside:
            floor = floor_of(clip.score, self._margin)
            moment = _Growing(clip, clip.start_ms, clip.end_ms, [clip], floor, is_first=begins)
            neighbours.append(moment)
            self.moments.append(moment)

    def firsts(self) -> list[_Growing]:
        """Return the first moments, best first."""
        return [moment for moment in self.moments if moment.is_first and not moment.swallowed]

    def is_settled(self, num: int, score: float, *, begins: bool) -> bool:
        """Whether no clip of at most this score changes the first `num` moments."""
        if begins and (len(self.moments) < num or score >= self.moments[num - 1].floor):
            return False  # without a look at each of them
        firsts = self.firsts()[:num]
        return (len(firsts) == num or not begins) and score < firsts[-1].floor


@dataclass(slots=True, eq=False)
class _Growing:
    best: RankedClip
    start_ms: int
    end_ms: int
    clips: list[RankedClip]
    floor: float
    is_first: bool
    swallowed: bool = field(default=False)

    def grow(self, start_ms: int, end_ms: int, clips: Iterable[RankedClip]) -> None:
        self.start_ms = min(self.start_ms, start_ms)
        self.end_ms = max(self.end_ms, end_ms)
        self.clips += clips

    def finished(self) -> Moment:
        clip_id, video_id, start_ms, end_ms, score, duplicate_of = self.best
        clip_ids = (clip_id,) if len(self.clips) == 1 else tuple(
            clip.clip_id for clip in sorted(self.clips, key=rank_order)
        )
        middle_ms = (start_ms + end_ms) // 2
        return Moment(video_id, self.start_ms, self.end_ms, score, clip_id, middle_ms, clip_ids, duplicate_of)


_NONE: list[_Growing] = []


def _around(clip: RankedClip, neighbours: list[_Growing]) -> tuple[list[_Growing], bool]:
    """Return the moments that `clip` may join, best first, and whether more than half of it lies in one of the others."""
    _, _, start_ms, end_ms, score, _ = clip
    takers, is_inside = [], False
    for moment in neighbours:  # in the order they began: the best first
        if start_ms <= moment.end_ms and moment.start_ms <= end_ms:
            if score >= moment.floor:
                takers.append(moment)
            elif 2 * (min(end_ms, moment.end_ms) - max(start_ms, moment.start_ms)) > end_ms - start_ms:
                is_inside = True
    return takers, is_inside


def _join(clip: RankedClip, takers: list[_Growing], neighbours: list[_Growing]) -> None:
    """Widen the best of `takers` by `clip`; those of the others that are within its margin become part of it."""
    first, *others = takers
    first.grow(clip.start_ms, clip.end_ms, [clip])
    for other in others:
        if other.best.score >= first.floor:
            first.grow(other.start_ms, other.end_ms, other.clips)
            other.swallowed = True
            neighbours.remove(other)
