"""What a data set holds of a clip, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.fields.declared import DeclaredFields
from vidseek_media.ids import shard_key_of

UNASSIGNED = "unassigned"
"""The split of clips whose video is in none: no caption of it made a pair."""
SPLITS = ("train", "validation", "test", UNASSIGNED)


@dataclass(frozen=True)
class ClipCaption:
    """A caption of one clip."""

    text: str
    writer: str
    """As the table of captions has it: file, transcript, title, or a language model."""
    gallery: str
    contrast: str
    """A caption that is false of the clip and differs in one fact; empty where there is none."""
    axis: str
    """Which fact that is."""
    is_pair: bool
    """Whether models of the archive are taught or measured with it."""


@dataclass(frozen=True)
class DatasetClip:
    """A clip and what is known of it."""

    clip_id: str
    video_id: str
    uri: str
    title: str
    channel: str
    category: str
    published_at: str
    start_ms: int
    end_ms: int
    index: int
    cut: tuple[str, ...]
    split: str
    captions: tuple[ClipCaption, ...]
    video_captions: tuple[str, ...]
    """Captions of the whole video."""
    duplicate_of: str
    """The video that it shows a copy of, by the decisions of people; empty for none."""
    quality_flags: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values of the declared fields, with tags: texts, numbers, truth values, or lists of them."""

    @cached_property
    def key(self) -> str:
        """The name of its files: letters, digits and `_`."""
        return shard_key_of(self.video_id, self.index)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as values of JSON."""
        return {"key": self.key, **asdict(self), "fields": dict(self.fields)}


@dataclass(frozen=True)
class ClipContent:
    """What a data set holds of a clip beside its row."""

    frames: tuple[bytes, ...] = ()
    """JPEG files, as the frame store has them; empty where frames are left out."""
    times_ms: tuple[int, ...] = ()
    """Of the frames, in the video's time."""
    embedding: NDArray[np.float32] | None = None
    """Unit vector of shape (dimension,)."""
    media: Path | None = None
    """The clip as an MP4 file, which the writer may move."""


@dataclass(frozen=True)
class Layout:
    """What every clip of a data set has."""

    declared: DeclaredFields
    has_frames: bool
    dimension: int
    """Of the embeddings; 0 where they are left out."""
    has_media: bool
    shard_bytes: int
    """From which a shard takes no more clips."""
