"""Combines rankings of different vectors by rank, and reorders answers that are too similar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order

RRF_K = 60
"""How slowly the weight of a rank falls: that of the paper."""


def fuse(rankings: Sequence[tuple[float, Sequence[RankedClip]]]) -> list[RankedClip]:
    """Merge rankings by weighted reciprocal-rank fusion (Cormack, Clarke and Büttcher 2009).

    A clip scores the sum of weight / (60 + rank) over the rankings that contain it. Scores are divided by that of a clip
    which is first in all rankings, so they lie in (0, 1].

    Args:
        rankings: Pairs (weight above 0, clips). A ranking's own scores only order its clips; ties are ordered by clip_id.

    Returns:
        Each clip once, with its fused score, best first.

    Examples:
        >>> a, b = RankedClip("a", "v", 0, 3000, 0.9), RankedClip("b", "v", 3000, 6000, 0.8)
        >>> [(clip.clip_id, clip.score) for clip in fuse([(1.0, [a, b]), (1.0, [a])])]
        [('a', 1.0), ('b', 0.491935)]
    """
    scores: dict[str, float] = {}
    clips: dict[str, RankedClip] = {}
    for weight, ranking in rankings:
        for rank, clip in enumerate(sorted(ranking, key=rank_order), start=1):
            scores[clip.clip_id] = scores.get(clip.clip_id, 0.0) + weight / (RRF_K + rank)
            clips.setdefault(clip.clip_id, clip)
    best = sum(weight for weight, _ in rankings) / (RRF_K + 1)
    fused = [clip._replace(score=round(scores[clip_id] / best, SCORE_DIGITS)) for clip_id, clip in clips.items()]
    return sorted(fused, key=rank_order)


def diversify(scores: Sequence[float], vectors: NDArray[np.float32], *, diversity: float) -> list[int]:
    """Return the order of candidates by maximal marginal relevance (Carbonell and Goldstein 1998).

    Each next candidate maximises (1 - diversity) * score - diversity * (its largest cosine to a candidate already taken).

    Args:
        scores: Score of each of n candidates, best first. Of equal values the earlier candidate is taken.
        vectors: Vector of each candidate, shape (n, dimension), unit rows.
        diversity: 0 keeps the order, 1 counts only how different candidates are.

    Returns:
        Indices of the candidates, n of them.
    """
    relevance = np.asarray(scores, dtype=np.float64)
    nearest = np.full(len(relevance), -1.0)
    remaining = np.ones(len(relevance), dtype=bool)
    order: list[int] = []
    for _ in range(len(relevance)):
        values = (1 - diversity) * relevance - (diversity * nearest if order else 0.0)
        taken = int(np.argmax(np.where(remaining, np.round(values, SCORE_DIGITS), -np.inf)))
        order.append(taken)
        remaining[taken] = False
        nearest = np.maximum(nearest, vectors @ vectors[taken])
    return order
