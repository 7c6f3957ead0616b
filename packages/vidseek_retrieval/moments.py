"""Ranked clips to moments: neighbours of one video that answer alike are one hit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NUM_CLIPS = 1000
"""Moments form from this many clips of the ranking, wherever a page begins: so paging never shifts them."""
SCORE_DIGITS = 6
"""Scores are rounded to this many places before they are ordered, so that the last bits of float32 break no tie."""


@dataclass(frozen=True, slots=True)
class RankedClip:
    """One clip of a ranking."""

    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    score: float
    """Cosine, rounded to `SCORE_DIGITS`."""


@dataclass(frozen=True, slots=True)
class Moment:
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


def rank_order(clip: RankedClip) -> tuple[float, str]:
    """The sort key of a ranking: by score, ties by clip_id."""
    return -clip.score, clip.clip_id


def merge_moments(ranked: Iterable[RankedClip], *, margin: float) -> list[Moment]:
    """Moments of a ranking, best first.

    Clips are taken in the order of `rank_order`. One that overlaps or touches a moment of its video joins it, and the
    span grows, if its score is within `margin` of the moment's best; two moments that so come to touch, both within
    `margin`, are one. Else, if more than half of it lies in a moment of its video, it is part of that answer and makes
    no hit of its own. Else it begins a moment.

    A small margin keeps spans tight: the window that fits best already overlaps its scene well, and each window that
    joins adds a stride to the span. A margin of 0 joins only clips of equal score.
    """
    moments: list[_Growing] = []
    by_video: dict[str, list[_Growing]] = {}
    for clip in sorted(ranked, key=rank_order):
        neighbours = by_video.setdefault(clip.video_id, [])
        joined = _join(clip, neighbours)
        if joined is None and not any(_lies_in(clip, moment) for moment in neighbours):
            # Rounded, or a margin of 0.1 would not reach from 0.9 to 0.8.
            floor = round(clip.score - margin, SCORE_DIGITS)
            moment = _Growing(clip, clip.start_ms, clip.end_ms, [clip], floor)
            neighbours.append(moment)
            moments.append(moment)
    return [moment.finished() for moment in moments if not moment.swallowed]


def rank_exact(
    query_vectors: NDArray[np.float32],
    clip_vectors: NDArray[np.float32],
    clips: Sequence[RankedClip],
    *,
    limit: int = NUM_CLIPS,
) -> list[list[RankedClip]]:
    """The exact ranking of each query over all clips, as a search over the published collection would order them.

    Args:
        query_vectors: Shape (num_queries, dimension), unit rows.
        clip_vectors: Shape (num_clips, dimension), unit rows.
        clips: One for each row of `clip_vectors`; their scores are not looked at.
        limit: Clips kept for each query.
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
        best = np.argsort(-scores, kind="stable")[:limit]
        rankings.append([_with_score(ordered[row], float(scores[row])) for row in best])
    return rankings


@dataclass(slots=True)
class _Growing:
    best: RankedClip
    start_ms: int
    end_ms: int
    clips: list[RankedClip]
    floor: float
    """The least score of a clip that widens it."""
    swallowed: bool = field(default=False)

    def grow(self, start_ms: int, end_ms: int, clips: Iterable[RankedClip]) -> None:
        self.start_ms = min(self.start_ms, start_ms)
        self.end_ms = max(self.end_ms, end_ms)
        self.clips += clips

    def finished(self) -> Moment:
        best = self.best
        return Moment(
            video_id=best.video_id,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            score=best.score,
            best_clip_id=best.clip_id,
            best_ms=(best.start_ms + best.end_ms) // 2,
            clip_ids=tuple(clip.clip_id for clip in sorted(self.clips, key=rank_order)),
        )


def _join(clip: RankedClip, neighbours: list[_Growing]) -> _Growing | None:
    """The moment that `clip` joins, the best that takes it; moments that it bridges become one."""
    takers = [
        moment
        for moment in neighbours
        if clip.start_ms <= moment.end_ms and moment.start_ms <= clip.end_ms and clip.score >= moment.floor
    ]
    if not takers:
        return None
    first, *others = takers  # in the order they began: the best first
    first.grow(clip.start_ms, clip.end_ms, [clip])
    for other in others:
        if other.best.score >= first.floor:
            first.grow(other.start_ms, other.end_ms, other.clips)
            other.swallowed = True
            neighbours.remove(other)
    return first


def _lies_in(clip: RankedClip, moment: _Growing) -> bool:
    overlap_ms = min(clip.end_ms, moment.end_ms) - max(clip.start_ms, moment.start_ms)
    return 2 * overlap_ms > clip.end_ms - clip.start_ms


def _with_score(clip: RankedClip, score: float) -> RankedClip:
    return RankedClip(clip.clip_id, clip.video_id, clip.start_ms, clip.end_ms, score)
