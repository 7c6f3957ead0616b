"""Clip vectors in any number, spread as real ones are: the same for the same seed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMENSION = 512
REAL = "C_models_tokenizers/clipis_image_embeddings_3045x512_fp16.npy"
NOISE_COSINE = 0.9
_NEAR = 10
_MIXED = 3
_BATCH = 50_000


def real_vectors() -> NDArray[np.float32] | None:
    """3,045 unit CLIP vectors of real pictures; None where the folder of real files is not there."""
    folder = os.environ.get("VIDSEEK_REALDATA") or Path(__file__).parents[3] / "shared" / "realdata"
    path = Path(folder) / REAL
    return _unit(np.load(path).astype(np.float32)) if path.is_file() else None


def base_vectors() -> tuple[NDArray[np.float32], str]:
    """What vectors are drawn around, and what that is: real ones, or a seeded set whose spectrum falls as theirs does."""
    real = real_vectors()
    if real is not None:
        return real, "real CLIP vectors"
    draws = np.random.default_rng(0)
    # Of the real set the mean is 0.76 long, and the k-th largest of the rest's variances falls about as 1 / (k + 5).
    scales = 1 / np.sqrt(np.arange(DIMENSION) + 5)
    rest = draws.normal(size=(3045, DIMENSION)) * scales
    mean = draws.normal(size=DIMENSION)
    rest *= np.sqrt(1 - 0.76**2) / np.sqrt((scales**2).sum())
    return _unit((0.76 * mean / np.linalg.norm(mean) + rest).astype(np.float32)), "a seeded set of the same spectrum"


def draw(base: NDArray[np.float32], num: int, *, seed: int) -> NDArray[np.float32]:
    """Unit vectors of shape (num, 512), each a random convex mix of three near ones of `base`, and noise of cosine 0.9."""
    draws = np.random.default_rng(seed)
    near = np.argsort(-(base @ base.T), axis=1)[:, :_NEAR]
    out = np.empty((num, base.shape[1]), dtype=np.float32)
    for start in range(0, num, _BATCH):
        size = min(_BATCH, num - start)
        rows = near[draws.integers(len(base), size=size)]
        chosen = np.take_along_axis(rows, draws.integers(_NEAR, size=(size, _MIXED)), axis=1)
        weights = draws.dirichlet(np.ones(_MIXED), size=size).astype(np.float32)
        mixed = _unit(np.einsum("ij,ijk->ik", weights, base[chosen]))
        noise = draws.normal(size=mixed.shape).astype(np.float32)
        noise = _unit(noise - (noise * mixed).sum(axis=1, keepdims=True) * mixed)
        out[start : start + size] = NOISE_COSINE * mixed + np.sqrt(1 - NOISE_COSINE**2) * noise
    return _unit(out)


def gaussian(num: int, *, seed: int) -> NDArray[np.float32]:
    """Unit vectors in random directions: what no encoder gives."""
    return _unit(np.random.default_rng(seed).normal(size=(num, DIMENSION)).astype(np.float32))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
