"""Retrieval figures: ranks, recalls, and paired intervals over groups of videos. Equal scores never count as hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.intervals import Interval, interval, median_interval, share_interval

Ranks = NDArray[np.int64]
Matrix = NDArray[np.float32]
Groups = Sequence[Any] | NDArray[Any]

_BLOCK = 512
"""Rows that are compared with all others at once: memory grows with their number, not with its square."""


def ranks_of_owned(scores: Matrix, owner: NDArray[np.int64]) -> Ranks:
    """Return the rank, from 1, of each query's own candidate.

    A candidate that scores the same as the right one is counted before it, and so is a score that is NaN.

    Args:
        scores: Shape (n, m): query i against candidate j.
        owner: int64 of shape (n,): the index of each query's own candidate, from 0.

    Returns:
        int64 of shape (n,).

    Examples:
        >>> ranks_of_owned(np.array([[0.9, 0.1], [0.8, 0.3]], dtype=np.float32), np.array([0, 1])).tolist()
        [1, 2]
    """
    everyone = np.arange(len(scores))
    before: NDArray[np.bool_] = ~(scores < scores[everyone, owner][:, None])
    before[everyone, owner] = True
    ranks: Ranks = before.sum(1).astype(np.int64)
    return ranks


def average_precision(scores: Matrix, relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the average precision of each query (Manning et al. 2008): the mean of the precision at each right candidate.

    Of equal scores, wrong candidates are ranked first. A NaN score is ranked last if right, first if wrong.

    Args:
        scores: Shape (n, m): query i against candidate j.
        relevant: Shape (n, m): whether a candidate is right; at least one in each row.

    Returns:
        Shape (n,), from 0 to 1.
    """
    hits = _in_order(scores, relevant)
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(1) / places
    result: NDArray[np.float64] = (precision * hits).sum(1) / hits.sum(1)
    return result


def ndcg_at(scores: Matrix, relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return the normalised discounted cumulative gain of each query's first `k` (Järvelin and Kekäläinen 2002).

    Of equal scores, wrong candidates are ranked first. A NaN score is ranked last if right, first if wrong.

    Args:
        scores: Shape (n, m): query i against candidate j.
        relevant: Shape (n, m): whether a candidate is right (a gain of 1); at least one in each row.
        k: Number of candidates that count, at least 1.

    Returns:
        Shape (n,), from 0 to 1.
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
    """Return the share of queries whose own candidate is among the first `k`; 0 if there are no queries.

    Args:
        ranks: Shape (n,), from 1.
        k: Number of candidates, at least 1.

    Examples:
        >>> recall_at(np.array([1, 4, 20, 2]), 5)
        0.75
    """
    return float((ranks <= k).mean()) if len(ranks) else 0.0


def summarise(ranks: Ranks) -> dict[str, float]:
    """Return R@1, R@5, R@10 (`r1`, `r5`, `r10`), median rank (`mdr`), mean rank (`mnr`) and mean reciprocal rank (`mrr`).

    Args:
        ranks: Shape (n,), from 1.

    Returns:
        Figures rounded to four digits; empty if there are no ranks.

    Examples:
        >>> summarise(np.array([1, 2, 1, 8]))
        {'r1': 0.5, 'r5': 0.75, 'r10': 1.0, 'mdr': 1.5, 'mnr': 3.0, 'mrr': 0.6562}
    """
    return figures_of(rank_values(ranks))


def rank_values(ranks: Ranks) -> dict[str, NDArray[np.float64]]:
    """Return the value of each figure of ranks for each query, shape (n,).

    Args:
        ranks: Shape (n,), from 1.
    """
    own = ranks.astype(np.float64)
    return {**{f"r{k}": (ranks <= k).astype(np.float64) for k in (1, 5, 10)}, "mdr": own, "mnr": own, "mrr": 1 / own}


def figures_of(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return each figure of its values for each query: their median for `mdr`, else their mean, rounded to four digits.

    Args:
        values: By name of the figure, each of shape (n,). Where n is 0 there are no figures.
    """
    middles = {name: np.median(each) if name == "mdr" else each.mean() for name, each in values.items() if len(each)}
    return {name: round(float(middle), 4) for name, middle in middles.items()}


def paired_gain(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: Groups, *, resamples: int, seed: int,
    median: bool = False,
) -> Interval:
    """Return the mean (or median) of `after` minus that of `before`, with its 95 % confidence interval.

    Args:
        before: Shape (n,), a value for each query.
        after: Shape (n,), a value for each of the same queries.
        groups: Shape (n,): the group of videos of each query.
        resamples: Number of times that the groups are drawn with replacement.
        seed: Seed of the draws.
        median: Whether to compare medians instead of means.
    """
    if median:
        return median_interval(after, before, groups, resamples=resamples, seed=seed)
    return interval(after - before, groups, resamples=resamples, seed=seed)


def recall_interval(ranks: Ranks, k: int, groups: Groups, *, resamples: int, seed: int) -> Interval:
    """Return R@k with its 95 % confidence interval, which stays between 0 and 1.

    Args:
        ranks: Shape (n,), from 1.
        k: Number of candidates, at least 1.
        groups: Shape (n,): the group of videos of each query.
        resamples: Number of times that the groups are drawn with replacement.
        seed: Seed of the draws.
    """
    return share_interval((ranks <= k).astype(np.float64), groups, resamples=resamples, seed=seed)


def recall_gain(base: Ranks, adapted: Ranks, k: int, groups: Groups, *, resamples: int, seed: int) -> Interval:
    """Return R@k of `adapted` minus R@k of `base`, paired by query, with its 95 % confidence interval.

    Args:
        base: Shape (n,), ranks from 1.
        adapted: Shape (n,), ranks of the same queries.
        k: Number of candidates, at least 1.
        groups: Shape (n,): the group of videos of each query.
        resamples: Number of times that the groups are drawn with replacement.
        seed: Seed of the draws.
    """
    before, after = ((ranks <= k).astype(np.float64) for ranks in (base, adapted))
    return paired_gain(before, after, groups, resamples=resamples, seed=seed)


def alignment(videos: Matrix, texts: Matrix) -> float:
    """Return the mean squared distance between the two vectors of a pair (Wang and Isola 2020); lower is closer.

    Args:
        videos: Shape (n, dimension), unit rows.
        texts: Shape (n, dimension), unit rows; row i belongs to row i of `videos`.
    """
    return float(((videos - texts) ** 2).sum(1).mean())


def uniformity(vectors: Matrix) -> float:
    """Return the log of the mean Gaussian potential of all pairs, t = 2 (Wang and Isola 2020); lower is more spread out.

    Args:
        vectors: Shape (n, dimension), unit rows.
    """
    count, total = len(vectors), 0.0
    if count < 2:
        return 0.0
    for start in range(0, count, _BLOCK):
        squared = 2 - 2 * (vectors[start : start + _BLOCK] @ vectors.T)
        total += float(np.triu(np.exp(-2 * squared), start + 1).sum(dtype=np.float64))  # each two once
    return float(np.log(total / (count * (count - 1) / 2)))
