from __future__ import annotations

import uuid

import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_quality.vectors import Sample, drift, effective_rank, mean_cosine, separability


def unit_vectors(n: int, dimension: int = 16, *, seed: int = 7, towards: int | None = None) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, dimension))
    if towards is not None:
        vectors[:, towards] += 10
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def sample_of(vectors: NDArray[np.float32], *, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(tuple(sorted(str(uuid.UUID(bytes=rng.bytes(16))) for _ in vectors)), vectors)


def test_mean_cosine__equals_the_mean_over_pairs() -> None:
    vectors = unit_vectors(5)
    pairs = [float(vectors[a] @ vectors[b]) for a in range(5) for b in range(5) if a != b]
    assert mean_cosine(vectors) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_effective_rank__counts_equal_directions() -> None:
    """± each of four axes: four singular values alike, so the rank is four."""
    axes = np.concatenate([np.eye(9)[:4], -np.eye(9)[:4]]).astype(np.float32)
    assert effective_rank(axes) == pytest.approx(4)


def test_effective_rank__is_that_of_the_singular_values() -> None:
    vectors = unit_vectors(200) * np.geomspace(1, 0.01, 16, dtype=np.float32)
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    share = singular / singular.sum()
    assert effective_rank(vectors) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_separability__of_one_distribution_is_a_half_and_of_two_apart_is_one() -> None:
    assert separability(unit_vectors(1000, seed=1), unit_vectors(1000, seed=2)) == pytest.approx(0.5, abs=0.05)
    assert separability(unit_vectors(100, towards=0), unit_vectors(100, towards=1)) == 1.0


def test_separability__of_ties_is_a_half() -> None:
    same = np.repeat(unit_vectors(1), 20, axis=0)
    assert separability(same, same) == 0.5


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_drift__reads_as_the_share_of_clips_of_a_new_kind(share: float) -> None:
    num_new = int(2000 * share)
    published = sample_of(unit_vectors(2000, seed=1, towards=0), seed=1)
    vectors = np.concatenate([unit_vectors(2000 - num_new, seed=2, towards=0), unit_vectors(num_new, seed=3, towards=1)])
    present = sample_of(np.random.default_rng(0).permutation(vectors), seed=2)
    assert drift(published, present, min_sampled=16) == pytest.approx(share, abs=0.08)


def test_drift__of_the_same_archive_is_none_or_nearly() -> None:
    published = sample_of(unit_vectors(2000, 64, seed=1), seed=1)
    found = drift(published, published, min_sampled=16)
    assert found is not None and found < 0.08


def test_drift__of_few_clips_is_not_measured() -> None:
    few = sample_of(unit_vectors(20), seed=1)
    assert drift(few, few, min_sampled=16) is None
