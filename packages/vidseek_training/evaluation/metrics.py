"""Retrieval figures: ranks, recalls, and paired intervals by groups of videos. Equal scores never count as hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.intervals import MIN_GROUPS, Interval, interval, median_interval, share_interval

Ranks = NDArray[np.int64]
Matrix = NDArray[np.float32]
Groups = Sequence[Any] | NDArray[Any]

_BLOCK = 512
"""Rows that are compared with all others at once: memory grows with their number, not with its square."""


def ranks_of(scores: Matrix) -> Ranks:
    """As `ranks_of_owned`, the right candidate of query i being candidate i: scores (n, n) to ranks (n,)."""
    return ranks_of_owned(scores, np.arange(len(scores)))


def ranks_of_owned(scores: Matrix, owner: NDArray[np.int64]) -> Ranks:
    """The rank, from 1, of each query's own candidate, which is number `owner` of each row.

    Args:
        scores: Shape (n, m): query i against candidate j.
        owner: Shape (n,).

    Returns:
        Shape (n,). A candidate that scores the same as the right one is counted before it, and so is what is no number.
    """
    everyone = np.arange(len(scores))
    before: NDArray[np.bool_] = ~(scores < scores[everyone, owner][:, None])
    before[everyone, owner] = True
    ranks: Ranks = before.sum(1).astype(np.int64)
    return ranks


def average_precision(scores: Matrix, relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each query the mean, over its right candidates, of the share of right ones down to each (Manning et al. 2008).

    Args:
        scores: Shape (n, m): query i against candidate j. What is no number comes last if right, first if wrong.
        relevant: Shape (n, m): which candidates are right; at least one of each row.

    Returns:
        Shape (n,). Of equal scores the wrong ones come first.
    """
    hits = _in_order(scores, relevant)
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(1) / places
    result: NDArray[np.float64] = (precision * hits).sum(1) / hits.sum(1)
    return result


def ndcg_at(scores: Matrix, relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """For each query the discounted gain of its first `k`, by the best possible (Järvelin and Kekäläinen 2002).

    Args:
        scores: See `average_precision`.
        relevant: See `average_precision`; right ones count 1.
        k: How many places count.
    """
    hits = _in_order(scores, relevant)[:, :k]
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(discount)[np.minimum(relevant.sum(1), hits.shape[1]) - 1]
    result: NDArray[np.float64] = (hits * discount).sum(1) / best
    return result


def _in_order(scores: Matrix, relevant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each place of each row's order is right; of equal scores the wrong ones come first."""
    known = np.where(np.isnan(scores), np.where(relevant, -np.inf, np.inf), scores)
    order = np.lexsort((relevant, -known), axis=1)
    hits: NDArray[np.bool_] = np.take_along_axis(relevant, order, 1)
    return hits


def recall_at(ranks: Ranks, k: int) -> float:
    """The share of queries whose own candidate is among the first `k`; 0 where there is no query."""
    return float((ranks <= k).mean()) if len(ranks) else 0.0


def summarise(ranks: Ranks) -> dict[str, float]:
    """R@1, R@5, R@10, median rank, mean rank and mean reciprocal rank."""
    if not len(ranks):
        return {}
    figures = {f"r{k}": recall_at(ranks, k) for k in (1, 5, 10)}
    figures |= {"mdr": float(np.median(ranks)), "mnr": float(ranks.mean()), "mrr": float((1 / ranks).mean())}
    return {name: round(value, 4) for name, value in figures.items()}


def bootstrap(
    values: NDArray[np.float64], *, resamples: int, seed: int, groups: Groups | None = None, min_groups: int = MIN_GROUPS
) -> Interval:
    """Return the mean of `values` with its interval at 95 %: see `vidseek_quality.intervals.interval`.

    For a paired comparison give the differences, one for each query.

    Args:
        values: Shape (n,), n at least 1.
        resamples: How many times the groups are drawn with replacement.
        seed: Makes the interval reproducible.
        groups: Shape (n,): the group of videos of each query. None: each query is of a video of its own.
        min_groups: With fewer groups the interval is infinite.
    """
    owners = np.arange(len(values)) if groups is None else groups
    return interval(values, owners, resamples=resamples, seed=seed, min_groups=min_groups)


def paired_gain(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: Groups, *, resamples: int, seed: int,
    median: bool = False,
) -> Interval:
    """Return the mean of `after` minus that of `before` (or the medians'), with its interval: of the same queries.

    Args:
        before: Shape (n,), a value for each query.
        after: Shape (n,), of the same queries.
        groups: Shape (n,): the group of videos of each query.
        resamples: How many times the groups are drawn with replacement.
        seed: Makes the interval reproducible.
        median: Of the medians instead.
    """
    if median:
        return median_interval(after, before, groups, resamples=resamples, seed=seed)
    return interval(after - before, groups, resamples=resamples, seed=seed)


def recall_interval(ranks: Ranks, k: int, groups: Groups, *, resamples: int, seed: int) -> Interval:
    """Return R@k with its interval, which stays between 0 and 1."""
    return share_interval((ranks <= k).astype(np.float64), groups, resamples=resamples, seed=seed)


def recall_gain(base: Ranks, adapted: Ranks, k: int, groups: Groups, *, resamples: int, seed: int) -> Interval:
    """Return R@k of `adapted` minus that of `base`, paired by query."""
    before, after = ((ranks <= k).astype(np.float64) for ranks in (base, adapted))
    return paired_gain(before, after, groups, resamples=resamples, seed=seed)


def alignment(videos: Matrix, texts: Matrix) -> float:
    """Mean squared distance of the two sides of a pair (Wang and Isola 2020); lower is closer."""
    return float(((videos - texts) ** 2).sum(1).mean())


def uniformity(vectors: Matrix) -> float:
    """Logarithm of the mean Gaussian potential of all pairs, t = 2 (Wang and Isola 2020); lower is more spread."""
    count, total = len(vectors), 0.0
    if count < 2:
        return 0.0
    for start in range(0, count, _BLOCK):
        squared = 2 - 2 * (vectors[start : start + _BLOCK] @ vectors.T)
        total += float(np.triu(np.exp(-2 * squared), start + 1).sum(dtype=np.float64))  # each two once
    return float(np.log(total / (count * (count - 1) / 2)))
