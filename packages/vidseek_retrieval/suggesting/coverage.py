"""Chooses clips that are far from all that was taught and from each other: greedy k-centre over whitened vectors.

Sener and Savarese 2018 ("Active Learning for Convolutional Neural Networks: A Core-Set Approach"): each next clip is the
one farthest from the nearest centre, and what was taught are the first centres. Vectors are whitened first, so that all
directions in which clips differ count alike, and not those alone that the base model knows best. Ways that begin with what
is typical of many (facility location) came out lower on the demo: docs/decisions/2026-11-28-learning-loop.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Flags = NDArray[np.bool_]
FLAT = 0.1
"""Of the widest direction: narrower ones are noise, and are left out."""


@dataclass(frozen=True)
class Pick:
    """A clip that was chosen."""

    row: int
    distance: float
    """To the nearest one that is taught or chosen before, in standard deviations of the clips along an average direction."""
    num_nearest: int
    """Clips that are nearer to it than to anything taught or chosen before."""


def whitened(vectors: Vectors) -> Vectors:
    """Return vectors in which every direction counts alike: mean 0, variance 1 along each that is not flat.

    Args:
        vectors: Shape (n, dimension).

    Returns:
        Shape (n, k), k at most the dimension; no direction where all are equal.
    """
    if not len(vectors):
        return vectors
    left, spread, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    kept = spread > max(FLAT * float(spread[0]), 1e-6)
    return np.asarray(left[:, kept] * np.sqrt(len(vectors)), np.float32)


def choose_farthest(
    clips: Vectors, taught: Vectors, *, num: int, may_be_chosen: Flags, alike: Callable[[int], Flags]
) -> list[Pick]:
    """Return the rows to choose, the best first. The first ones of a longer list are those of a shorter one.

    Where nothing is taught, the first one is the clip nearest to the centre of all.

    Args:
        clips: All clips, shape (n, dimension), unit rows.
        taught: What is taught already, shape (m, dimension), unit rows.
        num: Number of rows, at most.
        may_be_chosen: Shape (n,).
        alike: Gives, for a chosen row, those that may not be chosen any more, shape (n,): they show the same.
    """
    vectors = whitened(np.concatenate([clips, taught]))
    own, centres = vectors[: len(clips)], vectors[len(clips) :]
    scale = np.sqrt(max(1, vectors.shape[1]))
    distances = np.full(len(own), np.inf)
    for centre in centres:
        distances = np.minimum(distances, _distances(own, centre))
    free, picks = may_be_chosen.copy(), list[Pick]()
    while len(picks) < num and free.any():
        if np.isinf(distances).all():
            row = int(np.where(free, np.linalg.norm(own, axis=1), np.inf).argmin())
        else:
            row = int(np.where(free, distances, -np.inf).argmax())
        if distances[row] <= 0:
            break
        to_row = _distances(own, own[row])
        distance = float(distances[row] / scale) if np.isfinite(distances[row]) else 0.0
        picks.append(Pick(row, distance, int((to_row < distances).sum())))
        distances = np.minimum(distances, to_row)
        free &= ~alike(row)
        free[row] = False
    return picks


def _distances(vectors: Vectors, centre: Vectors) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(vectors - centre, axis=1), np.float64)
