"""Names and types of the vectors of a clip, and of the tables that they are built from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

VIDEO_VECTOR: Final = "video"
"""The vector that every clip has."""
CAPTION_VECTOR: Final = "caption"
WORDS_VECTOR: Final = "words"
Dense = str
"""The name of a dense vector."""


class SparseVector(NamedTuple):
    """A sparse vector over words."""

    indices: tuple[int, ...]
    """Distinct, at least 0."""
    values: tuple[float, ...]
    """As many as `indices`."""


Value = NDArray[np.float32] | SparseVector
"""One vector of a clip: dense, shape (dimension,), unit length; or sparse."""


class Written(Protocol):
    """The text of a clip; implemented by `ClipText`."""

    @property
    def spoken(self) -> str:
        """Title and captions, as input of the text tower."""

    @property
    def words(self) -> str:
        """Title (or the file name if there is none) and captions, for BM25."""


class Rows(Protocol):
    """The embeddings of a run; implemented by `Embeddings`."""

    @property
    def clip_ids(self) -> list[str]:
        """Clip ids of the rows."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Shape (n, dimension), unit rows."""


class Tables(Protocol):
    """The tables of the clips that are published; implemented by `ClipTables`. Each is read on first use."""

    @property
    def embeddings(self) -> Rows:
        """Embeddings of the vision tower."""

    @property
    def places(self) -> Mapping[str, int]:
        """The row of each clip in `embeddings`, by clip_id."""

    @property
    def texts(self) -> Mapping[str, Written]:
        """By clip_id; empty if no captions are published."""

    @property
    def text_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """The embedded texts by `text_id_of`; shape (dimension,), unit length."""

    @property
    def embed_dir(self) -> Path:
        """The folder of the stage `embed`."""

    @property
    def cut_dir(self) -> Path:
        """The folder of the stage `cut`."""

    @property
    def ingest_dir(self) -> Path:
        """The folder of the stage `ingest`."""

    @property
    def caption_dir(self) -> Path | None:
        """The folder of the stage `caption`; None if no captions are published."""

    @property
    def language(self) -> str:
        """The language of the vector `words`."""
