"""Tests whether numbers and vectors still come from their reference distribution: PSI and MMD, with numpy alone.

The population stability index (PSI) compares the shares of ten bins, cut at the reference's deciles. By convention a value
below 0.1 is stable, and one above 0.25 is another distribution. For two samples of one distribution it is (1/m + 1/n) times
a chi-square with nine degrees of freedom (Yurdakul and Naranjo 2020, "Statistical properties of the population stability
index"), so few queries are not significant; `num_needed` returns how many are.

The maximum mean discrepancy detects differences that no single number shows (Gretton et al. 2012, "A kernel two-sample
test").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import InputRejected

Level = Literal["steady", "watch", "act"]

NUM_BINS = 10
WATCH, ACT = 0.1, 0.25
"""Where the field's convention looks, and where it acts."""
MAX_ROWS = 500
"""Of either set, that the kernel test takes: it compares each with each."""
NUM_PERMUTATIONS = 999
MAX_P = 0.005
"""A kernel test whose p is not above this says that the two differ."""
_ONCE_IN_10000, _ONCE_IN_400 = 3.719, 2.807
"""Standard normal quantiles."""


@dataclass(frozen=True)
class Mmd:
    """What the kernel test found."""

    value: float
    """The squared maximum mean discrepancy, 0 to 2: of use only beside others of the same reference."""
    p_value: float
    """The share of random splits of all rows that differ as much, 0 to 1."""


def psi(reference: NDArray[np.floating], observed: NDArray[np.floating]) -> float:
    """Return the population stability index of observed values against a reference; 0 for equal shares.

    Half a value is added to each bin, so that an empty bin keeps it finite. Equal deciles share a bin.

    Args:
        reference: Shape (m,), finite.
        observed: Shape (n,), finite.

    Raises:
        InputRejected: one of them is empty, or a value is not finite.
    """
    reference, observed = _checked(reference, ndim=1), _checked(observed, ndim=1)
    edges = np.unique(np.quantile(reference, np.arange(1, NUM_BINS) / NUM_BINS))
    wanted, found = (_shares(values, edges) for values in (reference, observed))
    return float(((found - wanted) * np.log(found / wanted)).sum())


def level_of(value: float, *, num_reference: int, num_observed: int) -> Level:
    """Classify a PSI; it only counts if chance alone would hardly produce it from so few values.

    Args:
        value: The PSI.
        num_reference: Number of reference values.
        num_observed: Number of observed values.
    """
    if value >= max(ACT, by_chance(num_reference, num_observed)):
        return "act"
    watched = max(WATCH, by_chance(num_reference, num_observed, quantile=_ONCE_IN_400))
    return "watch" if value >= watched else "steady"


def by_chance(num_reference: int, num_observed: int, *, quantile: float = _ONCE_IN_10000) -> float:
    """Return the PSI that two samples of one distribution exceed with a small probability.

    Args:
        num_reference: Number of reference values.
        num_observed: Number of observed values.
        quantile: Quantile of the normal distribution; the default is a probability of one in ten thousand.
    """
    freedom = NUM_BINS - 1
    # Wilson and Hilferty, 1931: the cube root of a chi-square is nearly normal.
    chi_square = freedom * (1 - 2 / (9 * freedom) + quantile * math.sqrt(2 / (9 * freedom))) ** 3
    return chi_square * (1 / num_reference + 1 / num_observed)


def num_needed(num_reference: int) -> int | None:
    """Return how many values must be observed for chance alone to stay below `ACT`; None if no number suffices.

    Args:
        num_reference: Number of reference values.
    """
    chi_square = by_chance(1, 1) / 2
    left = ACT / chi_square - 1 / max(num_reference, 1)
    return math.ceil(1 / left) if left > 1e-4 else None


def mmd(reference: NDArray[np.floating], observed: NDArray[np.floating], *, seed: int = 0) -> Mmd:
    """Run a kernel two-sample test (MMD) between the rows of two sets.

    Columns are scaled by the reference's spread. The kernel is Gaussian, with the median distance as its width. At most
    `MAX_ROWS` rows of each set are drawn.

    Args:
        reference: Shape (m, d), finite.
        observed: Shape (n, d), finite.
        seed: Seed of the draws and permutations.

    Raises:
        InputRejected: one of them is empty, a value is not finite, or the widths differ.
    """
    reference, observed = _checked(reference, ndim=2), _checked(observed, ndim=2)
    if reference.shape[1] != observed.shape[1]:
        raise InputRejected(
            f"rows of {reference.shape[1]} and of {observed.shape[1]} values cannot be compared", code="bad-shape",
        )
    random = np.random.default_rng(seed)
    one, other = (_drawn(rows, random) for rows in (reference, observed))
    spread = reference.std(axis=0)
    rows = np.concatenate([one, other]) / np.where(spread > 1e-9, spread, 1.0)
    square = np.square(rows).sum(axis=1)
    distances = (square[:, np.newaxis] + square - 2 * rows @ rows.T).clip(min=0.0)
    median = float(np.median(distances[np.triu_indices(len(rows), 1)]))
    kernel = np.exp(-distances / (2 * median)) if median > 0 else np.ones_like(distances)
    weights = np.where(np.arange(len(rows)) < len(one), 1 / len(one), -1 / len(other))
    splits = np.stack([weights, *(random.permutation(weights) for _ in range(NUM_PERMUTATIONS))], axis=1)
    values = (splits * (kernel @ splits)).sum(axis=0)
    as_far = int((values[1:] >= values[0] - 1e-12).sum())
    return Mmd(float(values[0]), (1 + as_far) / (1 + NUM_PERMUTATIONS))


def _checked(values: NDArray[np.floating], *, ndim: int) -> NDArray[np.float64]:
    checked: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if checked.ndim != ndim or not checked.size:
        raise InputRejected(
            f"values of shape {checked.shape}, wanted {ndim} dimensions and at least one value", code="bad-shape",
        )
    wrong = int((~np.isfinite(checked)).sum())
    if wrong:
        raise InputRejected(
            f"{wrong} of {checked.size} values are not finite", code="values-not-finite", remedy="Look where they come from",
        )
    return checked


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + 0.5
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _drawn(rows: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    return rows if len(rows) <= MAX_ROWS else rows[random.choice(len(rows), MAX_ROWS, replace=False)]
