"""Types that the vectors of the index share: the value of a clip, and the tables that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class SparseVector(NamedTuple):
    """A sparse vector over words; equal lengths."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


Value = NDArray[np.float32] | SparseVector
"""Of one clip: dense of shape (dimension,) and unit length, or sparse."""


class Written(Protocol):
    """The texts of a clip (`ClipText`)."""

    @property
    def spoken(self) -> str:
        """Title and captions, as the text tower reads them."""

    @property
    def words(self) -> str:
        """The text for BM25, with the file name instead of a missing title."""


class Rows(Protocol):
    """The embeddings of a run: `Embeddings`."""

    @property
    def clip_ids(self) -> list[str]:
        """Clip ids of the rows."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Shape (n, dimension), unit rows."""


class Tables(Protocol):
    """Output of the stages for the published clips (`ClipTables`). Each table is read on first use."""

    @property
    def embeddings(self) -> Rows:
        """Embeddings of the vision tower."""

    @property
    def places(self) -> Mapping[str, int]:
        """The row of each clip in `embeddings`, by clip_id."""

    @property
    def texts(self) -> Mapping[str, Written]:
        """Texts by clip_id; empty if no captions are published."""

    @property
    def text_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """Vectors of the texts, by `text_id_of`."""

    @property
    def embed_dir(self) -> Path:
        """Output of the stage `embed`."""

    @property
    def cut_dir(self) -> Path:
        """Output of the stage `cut`."""

    @property
    def ingest_dir(self) -> Path:
        """Output of the stage `ingest`."""

    @property
    def caption_dir(self) -> Path | None:
        """Output of the stage `caption`; None if no captions are published."""

    @property
    def language(self) -> str:
        """Language of the words of the index."""
