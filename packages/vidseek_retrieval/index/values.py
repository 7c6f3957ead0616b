"""What a vector of a clip is made of, and what it is made from: types that the vectors of the index share."""

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
    """What was written about a clip: `ClipText`."""

    @property
    def spoken(self) -> str:
        """Title and captions, as the text tower reads them."""

    @property
    def words(self) -> str:
        """The same for BM25, with the file's name in the place of a missing title."""


class Rows(Protocol):
    """The embeddings of a run: `Embeddings`."""

    @property
    def clip_ids(self) -> list[str]:
        """Of the rows."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Shape (n, dimension), unit rows."""


class Tables(Protocol):
    """What the stages left of the clips that are published: `ClipTables`. Each table is read when it is first asked for."""

    @property
    def embeddings(self) -> Rows:
        """Of the video tower."""

    @property
    def places(self) -> Mapping[str, int]:
        """The row of each clip in `embeddings`, by clip_id."""

    @property
    def texts(self) -> Mapping[str, Written]:
        """By clip_id; empty where no captions are published."""

    @property
    def text_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """The texts that were embedded, by `text_id_of`."""

    @property
    def embed_dir(self) -> Path:
        """Of the stage `embed`."""

    @property
    def cut_dir(self) -> Path:
        """Of the stage `cut`."""

    @property
    def ingest_dir(self) -> Path:
        """Of the stage `ingest`."""

    @property
    def caption_dir(self) -> Path | None:
        """Of the stage `caption`; None where no captions are published."""

    @property
    def language(self) -> str:
        """Of the words of the index."""
