"""How far a query is from what a model was taught to look for: words that no caption had, and vectors unlike any caption's.

A ranking cannot say that its query means nothing here: the nearest clip of a strange query is often as near as that of a
good one. The captions that were learned from can.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_CAPTIONS = 50
"""That say what is familiar, at least: of fewer most words are new."""
MAX_EMBEDDED = 2000
"""Captions whose vectors give the axes; words are those of all captions."""
MAX_AXES = 32
MAX_WORDS = 20_000
NUM_PLACES = 8
"""Axes along which the place of a query is told."""
_CAPTIONS_PER_AXIS = 4
_FLAT = 1e-3
"""Of the widest axis: what is narrower is none."""
_WORD = re.compile(r"\w+")
_LEAST = 1e-4


@dataclass(frozen=True)
class Familiarity:
    """What is kept of the captions that were learned from."""

    words: frozenset[str]
    """In lower case; the `MAX_WORDS` most frequent."""
    mean: NDArray[np.float32]
    """Shape (dimension,): of the captions' vectors."""
    axes: NDArray[np.float32]
    """Shape (k, dimension), orthonormal rows: along which they differ most."""

    @staticmethod
    def of(captions: Sequence[str], vectors: NDArray[np.float32]) -> Familiarity | None:
        """Learn which queries are familiar from captions; None if there are fewer than `MIN_CAPTIONS`.

        Args:
            captions: All training captions.
            vectors: Vectors of `sample_captions(captions)`, float32 of shape (n, dimension), unit rows.
        """
        if len(captions) < MIN_CAPTIONS:
            return None
        counts = Counter(_words("\n".join(captions)))  # a line's end is of no word
        mean = vectors.mean(axis=0)
        _, spread, axes = np.linalg.svd(vectors - mean, full_matrices=False)
        seen = int((spread > _FLAT * spread[0]).sum())
        num = min(MAX_AXES, len(vectors) // _CAPTIONS_PER_AXIS, vectors.shape[1] // 2, seen)
        # Rounded as they are kept: what was fitted is what is served.
        kept = [each.astype(np.float16).astype(np.float32) for each in (mean, axes[:num])]
        return Familiarity(frozenset(word for word, _ in counts.most_common(MAX_WORDS)), *kept)

    @staticmethod
    def learned(captions: Sequence[str], embed: Callable[[list[str]], NDArray[np.float32]]) -> Familiarity | None:
        """Learn which queries are familiar, embedding only a sample of the captions; None if there are fewer than
        `MIN_CAPTIONS`.

        Args:
            captions: All training captions.
            embed: Returns float32 unit rows for texts.
        """
        if len(captions) < MIN_CAPTIONS:
            return None
        return Familiarity.of(captions, embed(sample_captions(captions)))

    def ood_distance(self, vector: NDArray[np.float32]) -> float:
        """Return the logarithm of the distance of a query from the plane in which the captions' vectors lie."""
        centred = vector - self.mean
        return float(np.log(np.linalg.norm(centred - (centred @ self.axes.T) @ self.axes) + _LEAST))

    def oov_rate(self, text: str) -> float:
        """Return the share of the words of a query that no caption had, 0 to 1."""
        words = _words(text)
        return sum(word not in self.words for word in words) / len(words) if words else 1.0

    def place(self, vector: NDArray[np.float32]) -> tuple[float, ...]:
        """Return the coordinates of a query along the first `NUM_PLACES` axes."""
        return tuple(((vector - self.mean) @ self.axes[:NUM_PLACES].T).tolist())

    @cached_property
    def key(self) -> str:
        """16 hex digits that name mean and axes: places of two keys cannot be compared."""
        return hashlib.sha256(self._vectors()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON values, for calibration.json."""
        return {
            "words": sorted(self.words), "dimension": len(self.mean),
            "vectors": base64.b64encode(self._vectors()).decode(),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Familiarity:
        """Restore a model from the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        values = np.frombuffer(base64.b64decode(content["vectors"], validate=True), dtype="<f2").astype(np.float32)
        vectors = values.reshape(-1, int(content["dimension"]))
        words = content["words"]
        if not 1 <= len(vectors) <= MAX_AXES + 1 or not np.isfinite(vectors).all():
            raise ValueError(f"vectors are of shape {vectors.shape}, wanted a mean and at most {MAX_AXES} axes, all finite")
        if not isinstance(words, list) or len(words) > MAX_WORDS or not all(isinstance(word, str) for word in words):
            raise ValueError(f"words is no list of at most {MAX_WORDS} texts")
        return Familiarity(frozenset(words), vectors[0], vectors[1:])

    def _vectors(self) -> bytes:
        return np.concatenate([self.mean[np.newaxis], self.axes]).astype("<f2").tobytes()


def sample_captions(captions: Sequence[str]) -> list[str]:
    """Return up to `MAX_EMBEDDED` captions, drawn with a fixed seed, in their original order."""
    if len(captions) <= MAX_EMBEDDED:
        return list(captions)
    rows = np.sort(np.random.default_rng(0).choice(len(captions), MAX_EMBEDDED, replace=False))
    return [captions[row] for row in rows]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
