"""Keeps the vectors of lists of texts from one run to the next.

A list is kept as a whole: a text encoder may give a text other last bits in another batch, and what is read back must be
what a fresh run computes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder


class TextVectors:
    """Embeds lists of texts, or reads their vectors from the folder of an earlier run."""

    def __init__(self, encoder: Encoder, kept: Path | None = None) -> None:
        """Prepare to embed with `encoder`.

        Args:
            encoder: Its text tower is used, for the lists that are not kept.
            kept: Folder that `write` has filled in an earlier run; it may be missing. None embeds everything.
        """
        self.encoder = encoder
        self.num_embedded = 0
        """Texts that were embedded in this run."""
        self._kept = kept
        self._used: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector for each text: float32, shape (n, dimension)."""
        key = self._key(texts)
        if key not in self._used:
            vectors = self._read(key, len(texts))
            if vectors is None:
                vectors = self.encoder.embed_texts(list(texts))
                self.num_embedded += len(texts)
            self._used[key] = vectors
        return self._used[key]

    def write(self, folder: Path) -> None:
        """Write the vectors of the lists of this run to a folder, for the next run."""
        folder.mkdir(parents=True, exist_ok=True)
        for key, vectors in sorted(self._used.items()):
            np.save(folder / f"{key}.npy", vectors)

    def _key(self, texts: Sequence[str]) -> str:
        """Return the name of a list: of its texts, and of what embeds them."""
        encoder, spec = self.encoder, self.encoder.spec
        tower = sorted(each for each in spec.files.items() if each[0].startswith(f"{encoder.variant}/text"))
        named = json.dumps([spec.encoder_version, encoder.variant, encoder.provider, tower, list(texts)])
        return hashlib.sha256(named.encode()).hexdigest()[:32]

    def _read(self, key: str, num: int) -> NDArray[np.float32] | None:
        """Return kept vectors; None if there are none, or if they are not whole."""
        if self._kept is None:
            return None
        try:
            vectors = np.load(self._kept / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        is_whole = vectors.dtype == np.float32 and vectors.shape == (num, self.encoder.spec.dimension)
        return vectors if is_whole and np.isfinite(vectors).all() else None
