"""Means with intervals that know which values belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its interval."""

    mean: float
    low: float
    high: float
    num_groups: int
    """Independent groups of values: few say little, whatever the number of values."""

    def to_json(self) -> dict[str, float]:
        """As metrics.json has it."""
        return {"mean": round(self.mean, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def interval(
    values: NDArray[np.float64], groups: NDArray[np.object_], *, resamples: int = RESAMPLES, seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The mean of `values`, and its percentile interval over resampled groups (Davison and Hinkley 1997, section 3.8).

    Args:
        values: Shape (n,), at least one.
        groups: Shape (n,): values of one group are not independent.
        resamples: How often the groups are drawn, with replacement.
        seed: Of the draws.
        level: Of the interval, 0 to 1.
    """
    names, owner = np.unique(groups.astype(str), return_inverse=True)
    sums, sizes = np.bincount(owner, weights=values), np.bincount(owner)
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(names))
