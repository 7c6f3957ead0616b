"""Output of the stages for the published clips, each table read once, for the vectors that need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.embedding.embed_texts import ClipText, clip_texts, read_texts
from vidseek_retrieval.embedding.embedding_parts import Embeddings


@dataclass(frozen=True)
class ClipTables:
    """The tables of a run. The arguments are those of `publish`."""

    embeddings: Embeddings
    embed_dir: Path
    cut_dir: Path
    ingest_dir: Path
    caption_dir: Path | None
    cut: str
    """The cut mode whose clips are published."""
    language: str
    """Of the words of the index."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each clip in `embeddings`, by clip_id."""
        return {clip_id: place for place, clip_id in enumerate(self.embeddings.clip_ids)}

    @cached_property
    def texts(self) -> Mapping[str, ClipText]:
        """The texts of the clips by clip_id; empty without `caption_dir`.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        if self.caption_dir is None:
            return {}
        return clip_texts(self.ingest_dir, self.cut_dir, self.caption_dir, cut=self.cut)

    @cached_property
    def text_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """The vectors of all texts by text_id.

        Raises:
            ArtifactError: a part is broken, or of another encoder_version.
        """
        return read_texts(self.embed_dir, encoder_version=self.embeddings.encoder_version)
