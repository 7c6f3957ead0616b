"""Retrieval figures: ranks, recalls, and paired bootstrap intervals. Equal scores never count as hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
Matrix = NDArray[np.float32]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval at 95 %."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """For metrics.json, rounded to what the data can say."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def ranks_of(scores: Matrix, *, same: NDArray[np.bool_] | None = None) -> Ranks:
    """The rank, from 1, of each query's own candidate.

    Args:
        scores: Shape (n, n): query i against candidate j; the right one is on the diagonal.
        same: Shape (n, n): candidates that are right too (other captions of the same clip) and so do not compete.

    Returns:
        Shape (n,). A candidate that scores the same as the right one is counted before it.
    """
    before: NDArray[np.bool_] = ~(scores < np.diagonal(scores)[:, None])  # so that not a number comes last
    if same is not None:
        before &= ~same
    np.fill_diagonal(before, True)
    ranks: Ranks = before.sum(1).astype(np.int64)
    return ranks


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


def bootstrap(values: NDArray[np.float64], *, resamples: int, seed: int) -> Interval:
    """The mean of `values` and its percentile interval (Efron and Tibshirani 1993).

    For a paired comparison give the differences, one for each query.

    Args:
        values: Shape (n,), n at least 1.
        resamples: How many times n of the n are drawn with replacement.
        seed: Makes the interval reproducible.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(values), size=(resamples, len(values)))
    means = values[picks].mean(1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def recall_interval(ranks: Ranks, k: int, *, resamples: int, seed: int) -> Interval:
    """R@k with its interval."""
    return bootstrap((ranks <= k).astype(np.float64), resamples=resamples, seed=seed)


def recall_gain(base: Ranks, adapted: Ranks, k: int, *, resamples: int, seed: int) -> Interval:
    """R@k of `adapted` minus that of `base`, paired by query."""
    difference = (adapted <= k).astype(np.float64) - (base <= k).astype(np.float64)
    return bootstrap(difference, resamples=resamples, seed=seed)


def alignment(videos: Matrix, texts: Matrix) -> float:
    """Mean squared distance of the two sides of a pair (Wang and Isola 2020); lower is closer."""
    return float(((videos - texts) ** 2).sum(1).mean())


def uniformity(vectors: Matrix) -> float:
    """Logarithm of the mean Gaussian potential of all pairs, t = 2 (Wang and Isola 2020); lower is more spread."""
    if len(vectors) < 2:
        return 0.0
    squared = 2 - 2 * (vectors @ vectors.T)
    above = squared[np.triu_indices(len(vectors), 1)]
    return float(np.log(np.exp(-2 * above).mean()))
