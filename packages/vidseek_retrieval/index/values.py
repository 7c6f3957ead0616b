"""Points, the names and types of their vectors, and the tables that they are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a search imports no tables
    from vidseek_media.text.segments import Segment

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


@dataclass(frozen=True, slots=True, init=False)
class Point:
    """One clip, as it goes into a collection.

    Args:
        clip_id: Of the clip.
        vector: Its vector `video`, shape (dimension,), unit length.
        payload: Fields of its hit, and fields that filters name.
        vectors: Its vectors by name.
        named: Single vectors by name, for example `caption=...`, in place of those of `vectors`; None removes one.
    """

    clip_id: str
    payload: Mapping[str, Any]
    vectors: Mapping[str, Value]
    """By name: dense of shape (dimension,) and unit length, or sparse."""

    def __init__(
        self, clip_id: str, vector: NDArray[np.float32] | None = None, payload: Mapping[str, Any] | None = None,
        *, vectors: Mapping[str, Value] | None = None, **named: Value | None,
    ) -> None:
        changes: dict[str, Value | None] = {**({} if vector is None else {VIDEO_VECTOR: vector}), **named}
        values = {name: value for name, value in {**(vectors or {}), **changes}.items() if value is not None}
        for name, value in (("clip_id", clip_id), ("payload", payload or {}), ("vectors", values)):
            object.__setattr__(self, name, value)

    @property
    def vector(self) -> NDArray[np.float32]:
        """The vector `video`, shape (dimension,), unit length."""
        return self.vectors[VIDEO_VECTOR]  # type: ignore[return-value]

    @property
    def caption(self) -> NDArray[np.float32] | None:
        """The vector `caption`, shape (dimension,), unit length; None if it has none."""
        return self.vectors.get(CAPTION_VECTOR)  # type: ignore[return-value]

    @property
    def words(self) -> SparseVector | None:
        """The vector `words`; None if it has none."""
        return self.vectors.get(WORDS_VECTOR)  # type: ignore[return-value]


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

    def clip_segments(self, field: str) -> Mapping[str, Sequence[Segment]]:
        """Return the segments of each clip by clip_id."""

    def segments(self, field: str) -> Mapping[str, Sequence[Segment]]:
        """Return the segments of each video by video_id."""

    @property
    def spans(self) -> Mapping[str, tuple[int, int]]:
        """Start and end of each published clip in milliseconds, by clip_id."""

    @property
    def text_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """The embedded texts by `text_id_of`; shape (dimension,), unit length."""

    @property
    def text_variants(self) -> list[str]:
        """The precisions that the texts were embedded with, sorted."""

    def text_source(self, video_id: str) -> bytes:
        """Return bytes that differ if a text of one of the video's clips does.

        Args:
            video_id: Of the video.
        """

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
