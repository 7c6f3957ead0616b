"""Exact upper bounds of a proportion, for any number of observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

ASSURANCE = 0.975
"""Of a bound: it is too low once in forty times at most. One side of an interval of 95 %."""


def share_high(values: Sequence[float]) -> float:
    """Return an upper confidence bound of the mean of independent values from 0 to 1.

    If all values are 0 or 1 it is that of Clopper and Pearson (1934). Otherwise it is Hoeffding's (1963, theorem 1), which
    needs no distribution, and is never lower for the same mean. If all values are 0 the two are equal.

    Args:
        values: At least one value, each from 0 to 1.
    """
    num, total = len(values), math.fsum(values)
    if total >= num:
        return 1.0
    if all(value in (0.0, 1.0) for value in values):
        return _root(lambda share: binomial_at_most(round(total), num, share) - (1 - ASSURANCE), total / num)
    mean, most = total / num, -math.log(1 - ASSURANCE) / num
    return _root(lambda share: most - _divergence(mean, share), mean)


def num_needed(share: float) -> int | None:
    """Return how many observations without a loss prove that at most a given share is lost; None if no number does.

    Args:
        share: The share, from 0 to 1.
    """
    if share <= 0:
        return None
    return 1 if share >= 1 else math.ceil(math.log(1 - ASSURANCE) / math.log1p(-share))


def binomial_at_most(most: int, num: int, share: float) -> float:
    """Return the probability of at most `most` successes.

    Args:
        most: Number of successes.
        num: Number of draws.
        share: Probability of a success, from 0 to 1.
    """
    if share <= 0:
        return 1.0
    if share >= 1:
        return float(most >= num)
    logs = [
        math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) + k * math.log(share)
        + (num - k) * math.log1p(-share) for k in range(most + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def _divergence(mean: float, share: float) -> float:
    """Return the Kullback-Leibler divergence between two coins with these probabilities."""
    below = mean * math.log(mean / share) if mean > 0 else 0.0
    return below + (1 - mean) * math.log((1 - mean) / (1 - share)) if share < 1 else math.inf


def _root(falls: Callable[[float], float], low: float) -> float:
    """Return the zero of a falling function between `low` and 1, rounded up."""
    high = 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) > 0 else (low, middle)
    return high
