"""Statistics of a set of embeddings: whether it has collapsed, and how far it is from an earlier set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """A sample of a set of embeddings: the first clips by id. Ids are hashes, so this is a random draw that is always
    the same.
    """

    clip_ids: tuple[str, ...]
    """Ascending."""
    vectors: NDArray[np.float32]
    """Shape (n, dimension), unit length."""


def mean_cosine(vectors: NDArray[np.float32]) -> float:
    """Return the mean cosine over all pairs of different rows.

    Args:
        vectors: Shape (n, dimension), unit rows, n at least 2.
    """
    n = len(vectors)
    whole = vectors.astype(np.float64)
    return float((np.square(whole.sum(axis=0)).sum() - np.square(whole).sum()) / (n * (n - 1)))


def effective_rank(vectors: NDArray[np.float32]) -> float:
    """Return the effective number of directions that the centred vectors use (Roy and Vetterli 2007), from 1 to the
    dimension.

    Args:
        vectors: Shape (n, dimension).
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    singular = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0.0))
    total = float(singular.sum())
    if total <= 1e-6:
        return 1.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))


def drift(published: Sample, present: Sample, *, min_sampled: int) -> float | None:
    """Return how well a linear classifier separates two sets of clips, from 0 (not at all) to 1 (always).

    It is 2 AUC - 1 of a classifier two-sample test (Lopez-Paz and Oquab 2017), and is about the share of present clips of a
    kind that was not published. Of the published set only clips with an even id are used, of the present set only those with
    an
    odd one, since clips in both sets would help the classifier.

    Args:
        published: Sample of the live embeddings.
        present: Sample of the new embeddings.
        min_sampled: Fewest clips of each half.

    Returns:
        None if a half has fewer clips than that.
    """
    one, other = _half(published, odd=False), _half(present, odd=True)
    if min(len(one), len(other)) < min_sampled:
        return None
    return max(0.0, 2 * separability(one, other) - 1)


def separability(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the area under the ROC curve of a cross-validated ridge classifier between two sets of rows.

    It is about 0.5 if both come from one distribution, and 1 if a plane separates them.

    Args:
        one: Shape (n, d), n at least 2.
        other: Shape (m, d), m at least 2.
    """
    rng = np.random.default_rng(0)
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
    """Return the direction that separates the classes. The penalty, a tenth of the mean variance, allows more dimensions
    than
    rows.
    """
    centred = rows - rows.mean(axis=0)
    wanted = np.where(is_one, 1 / is_one.sum(), -1 / (~is_one).sum())
    covariance = centred.T @ centred / len(rows)
    penalty = max(0.1 * float(np.trace(covariance)) / len(covariance), 1e-12)
    return np.linalg.solve(covariance + penalty * np.eye(len(covariance)), centred.T @ wanted)


def _area(scores: NDArray[np.float64], is_one: NDArray[np.bool_]) -> float:
    """Return the probability that a row of the first set scores higher than one of the other; ties count half (Mann and
    Whitney).
    """
    others = np.sort(scores[~is_one])
    ones = scores[is_one]
    below = np.searchsorted(others, ones, "left") + np.searchsorted(others, ones, "right")
    return float(below.mean() / (2 * len(others)))
