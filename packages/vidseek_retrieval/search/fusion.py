"""Rankings to one ranking: fused by rank where they come of different vectors, reordered where answers are too alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order

RRF_K = 60
"""How slowly the weight of a rank falls: that of the paper."""


def fuse(rankings: Sequence[tuple[float, Sequence[RankedClip]]]) -> list[RankedClip]:
    """Weighted reciprocal-rank fusion: each clip scores the sum of weight / (60 + rank) over the rankings it is in.

    Scores are divided by what a clip gets that is first everywhere, so that they lie in (0, 1]. Cormack, Clarke and
    Büttcher, 2009, "Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank Learning Methods".

    Args:
        rankings: Each with its weight, above 0. Their own scores only order them, ties by clip_id.
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
    """The order by maximal marginal relevance: each next one maximises
    (1 - diversity) * score - diversity * (the largest cosine to one that was taken).

    Carbonell and Goldstein, 1998, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries".

    Args:
        scores: Of each candidate, best first; at equal value the earlier one is taken.
        vectors: Shape (n, dimension), unit rows.
        diversity: From 0 (the order stays) to 1 (only that they differ counts).
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
