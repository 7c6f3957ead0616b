"""Merges ranked clips into moments: neighbouring clips of a video with similar scores become one hit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_CLIPS = 1000
"""Moments begin in this many clips of the ranking, wherever a page begins: so paging never shifts them."""
SCORE_DIGITS = 6
"""Scores are rounded to this many places before they are ordered, so that the last bits of float32 break no tie."""


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
    moments: list[_Growing] = []
    by_video: dict[str, list[_Growing]] = {}
    for clip in sorted(ranked, key=rank_order):
        neighbours = by_video.setdefault(clip.video_id, [])
        takers, is_inside = _around(clip, neighbours) if neighbours else (_NONE, False)
        if takers:
            _join(clip, takers, neighbours)
        elif not is_inside:
            moment = _Growing(clip, clip.start_ms, clip.end_ms, [clip], floor_of(clip.score, margin))
            neighbours.append(moment)
            moments.append(moment)
    return [moment.finished() for moment in moments if not moment.swallowed]


def first_moments(ranking: Sequence[RankedClip], *, margin: float) -> list[Moment]:
    """Return the moments that begin in the first `NUM_CLIPS` clips, widened by later clips.

    Args:
        ranking: Clips in the order of `rank_order`, including all clips within `margin` of the last of those first ones.
        margin: Largest difference to the best score of a moment, at least 0.
    """
    moments = merge_moments(ranking, margin=margin)
    if len(ranking) <= NUM_CLIPS:
        return moments
    last = rank_order(ranking[NUM_CLIPS - 1])
    return [moment for moment in moments if moment_order(moment) <= last]


def fold_duplicates(moments: Sequence[Moment]) -> list[Moment]:
    """Remove moments of duplicate videos whose original has a moment too."""
    if not any(moment.duplicate_of for moment in moments):
        return list(moments)
    videos = {moment.video_id for moment in moments}
    return [moment for moment in moments if moment.duplicate_of not in videos]


def rank_exact(
    query_vectors: NDArray[np.float32],
    clip_vectors: NDArray[np.float32],
    clips: Sequence[RankedClip],
    *,
    limit: int = NUM_CLIPS,
    margin: float = 0.0,
) -> list[list[RankedClip]]:
    """Return the exact ranking of all clips for each query, in the order in which a published collection is searched.

    Args:
        query_vectors: Shape (num_queries, dimension), unit rows.
        clip_vectors: Shape (num_clips, dimension), unit rows.
        clips: The clip of each row of `clip_vectors`; their scores are ignored.
        limit: Number of clips kept for each query, at least 1.
        margin: Clips that score at most this much below the last kept one are kept too, at least 0.

    Returns:
        For each query its clips with their cosines as scores, best first; ties are ordered by clip_id.

    Raises:
        ValueError: the number of clips is not the number of vectors.

    Examples:
        >>> clips = [RankedClip("a", "v", 0, 3000, 0.0), RankedClip("b", "v", 3000, 6000, 0.0)]
        >>> vectors = np.eye(2, dtype=np.float32)
        >>> [[best, _]] = rank_exact(vectors[1:], vectors, clips)
        >>> best.clip_id, best.score
        ('b', 1.0)
    """
    if len(clips) != len(clip_vectors):
        raise ValueError(f"{len(clips)} clips for {len(clip_vectors)} vectors")
    by_id = sorted(range(len(clips)), key=lambda row: clips[row].clip_id)
    ordered = [clips[row] for row in by_id]
    vectors = clip_vectors[by_id]
    rankings = []
    for query in query_vectors:
        scores = np.round((vectors @ query).astype(np.float64), SCORE_DIGITS)
        # Stable, over rows in the order of clip_id: that is how ties are broken.
        best = np.argsort(-scores, kind="stable")
        least = floor_of(float(scores[best[limit - 1]]), margin) if limit < len(best) else -math.inf
        best = best[: max(limit, np.searchsorted(-scores[best], -least, side="right"))]
        rankings.append([ordered[row]._replace(score=float(scores[row])) for row in best])
    return rankings


def floor_of(best: float, margin: float) -> float:
    """Return the least score of a clip that widens a moment.

    Args:
        best: Best score of the moment.
        margin: Largest difference to it, at least 0.
    """
    return round(best - margin, SCORE_DIGITS)  # or a margin of 0.1 would not reach from 0.9 to 0.8


@dataclass(slots=True, eq=False)
class _Growing:
    best: RankedClip
    start_ms: int
    end_ms: int
    clips: list[RankedClip]
    floor: float
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
