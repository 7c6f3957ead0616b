"""Embeddings as a whole: whether they have collapsed, and how far they are from an earlier set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """Some embeddings of a set. Clip ids are hashes, so the first by id are a fair draw, the same one every time."""

    clip_ids: tuple[str, ...]
    """Ascending."""
    vectors: NDArray[np.float32]
    """Shape (n, dimension), unit length."""


def mean_cosine(vectors: NDArray[np.float32]) -> float:
    """The mean cosine over all pairs of different rows of unit `vectors`, shape (n, d), n at least 2."""
    n = len(vectors)
    whole = vectors.astype(np.float64)
    return float((np.square(whole.sum(axis=0)).sum() - np.square(whole).sum()) / (n * (n - 1)))


def effective_rank(vectors: NDArray[np.float32]) -> float:
    """How many directions the centred `vectors` use: 1 to d (Roy and Vetterli, The effective rank, EUSIPCO 2007)."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    singular = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0.0))
    total = float(singular.sum())
    if total <= 1e-6:
        return 1.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def drift(published: Sample, present: Sample, *, min_sampled: int) -> float | None:
    """How well a linear classifier tells clips of one set from clips of the other: 0 not at all, 1 always.

    It is 2 AUC - 1 of a classifier two-sample test (Lopez-Paz and Oquab 2017), and reads as a share: where a third of the
    present clips are of a kind that was not published, it is about a third. Of the published set the clips with an even
    id are taken, of the present set those with an odd one: a clip that is in both would else help to tell them apart.

    None where either half has fewer than `min_sampled` clips.
    """
    one, other = _half(published, odd=False), _half(present, odd=True)
    if min(len(one), len(other)) < min_sampled:
        return None
    return max(0.0, 2 * separability(one, other) - 1)


def separability(one: NDArray[np.float32], other: NDArray[np.float32], *, seed: int = 0) -> float:
    """The area under the ROC curve of a ridge classifier between the rows of both, each row judged by a fit without it.

    About 0.5 where both are drawn from one distribution; 1 where a plane lies between them.

    Args:
        one: Shape (n, d), n at least 2.
        other: Shape (m, d), m at least 2.
        seed: Of the two folds.
    """
    rng = np.random.default_rng(seed)
    rows = np.concatenate([one, other]).astype(np.float64)
    is_one = np.arange(len(rows)) < len(one)
    fold = np.concatenate([rng.permutation(len(part)) % 2 for part in (one, other)])
    areas = []
    for held_out in (0, 1):
        learned, judged = fold != held_out, fold == held_out
        scores = rows[judged] @ _ridge(rows[learned], is_one[learned])
        areas.append(_area(scores, is_one[judged]))
    return float(np.mean(areas))


def _half(sample: Sample, *, odd: bool) -> NDArray[np.float32]:
    return sample.vectors[[int(clip_id[-1], 16) % 2 == odd for clip_id in sample.clip_ids]]


def _ridge(rows: NDArray[np.float64], is_one: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The direction that tells them apart. A penalty of a tenth of the mean variance lets dimensions outnumber rows."""
    centred = rows - rows.mean(axis=0)
    wanted = np.where(is_one, 1 / is_one.sum(), -1 / (~is_one).sum())
    covariance = centred.T @ centred / len(rows)
    penalty = max(0.1 * float(np.trace(covariance)) / len(covariance), 1e-12)
    return np.linalg.solve(covariance + penalty * np.eye(len(covariance)), centred.T @ wanted)


def _area(scores: NDArray[np.float64], is_one: NDArray[np.bool_]) -> float:
    """The chance that a row of the one scores higher than a row of the other; a tie counts half (Mann and Whitney)."""
    others = np.sort(scores[~is_one])
    ones = scores[is_one]
    below = np.searchsorted(others, ones, "left") + np.searchsorted(others, ones, "right")
    return float(below.mean() / (2 * len(others)))
