"""Chooses clips that stand for many others and for none that was taught: greedy facility location.

With few captions, clips that are typical of many teach more than the strangest ones (Hacohen et al. 2022, TypiClust;
Yehuda et al. 2022, ProbCover), and later ones must cover what the first do not. One objective does both: the sum, over all
clips, of the likeness to the nearest one that is taught or chosen (facility location; Cornuejols et al. 1977). Greedy choice
reaches at least 63 % of the best sum, since the sum is submodular (Nemhauser et al. 1978).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Pick:
    """A clip that was chosen."""

    row: int
    gain: float
    """Share of the whole archive's likeness that it adds, from 0 to 1."""
    num_nearest: int
    """Clips that nothing taught or chosen before is as like to."""
    likeness: float
    """To the nearest one that is taught, from 0 to 1; 0 where nothing is."""


def likeness(left: Vectors, right: Vectors, *, mean: Vectors) -> Vectors:
    """Return the cosines of vectors from their common mean; what is less like than average is not like at all.

    Vectors of one model lie in a narrow cone: what they have in common says nothing.

    Args:
        left: Shape (n, dimension).
        right: Shape (m, dimension).
        mean: Shape (dimension,), of all clips.

    Returns:
        Shape (n, m), from 0 to 1.
    """
    return np.clip(_direction(left - mean) @ _direction(right - mean).T, 0, 1)


def choose_covering(
    clips: Vectors, taught: Vectors, weights: NDArray[np.float64], *, num: int, may_be_chosen: Flags,
    alike: Callable[[int], Flags],
) -> list[Pick]:
    """Return the rows to choose, the best first. The first ones of a longer list are those of a shorter one.

    Args:
        clips: All clips, shape (n, dimension), unit rows: each is to be covered, whether it may be chosen or not.
        taught: What is taught already, shape (m, dimension), unit rows; it covers from the start.
        weights: How much each clip counts, shape (n,), at least 0.
        num: Number of rows, at most.
        may_be_chosen: Shape (n,).
        alike: Gives, for a chosen row, those that may not be chosen any more, shape (n,): they show the same.
    """
    if not len(clips) or not weights.sum():
        return []
    mean = np.concatenate([clips, taught]).mean(axis=0)
    pairs = likeness(clips, clips, mean=mean)
    covered = likeness(clips, taught, mean=mean).max(axis=1) if len(taught) else np.zeros(len(clips), np.float32)
    to_taught = covered
    free, picks = may_be_chosen.copy(), list[Pick]()
    gains = np.full(len(clips), np.inf)
    while len(picks) < num and free.any():
        row = _best(gains, free, partial(_gain, pairs, covered, weights))
        if gains[row] <= 0:
            break
        nearer = pairs[row] > covered
        picks.append(Pick(row, float(gains[row] / weights.sum()), int(nearer.sum()), float(to_taught[row])))
        covered = np.maximum(covered, pairs[row])
        free &= ~alike(row)
        free[row] = False
    return picks


def _gain(pairs: Vectors, covered: Vectors, weights: NDArray[np.float64], row: int) -> float:
    return float(weights @ np.maximum(pairs[row] - covered, 0))


def _best(gains: NDArray[np.float64], free: Flags, gain_of: Callable[[int], float]) -> int:
    """Return the free row of the greatest gain. A gain never grows: only rows whose last one is great are measured anew."""
    measured = ~free
    while True:
        row = int(np.where(free, gains, -np.inf).argmax())
        if measured[row]:
            return row
        gains[row], measured[row] = gain_of(row), True


def _direction(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return found
