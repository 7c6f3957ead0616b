"""Records that pass between the packages: small, frozen and validated."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import VidseekError
from vidseek_media.ids import clip_id_of, shard_key_of
from vidseek_media.urls import bare_url, without_secrets

Span: TypeAlias = tuple[int, int]
"""(start_ms, end_ms)"""


def share_half(one: Span, other: Span) -> bool:
    """Return whether two spans share at least half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return 2 * shared >= min(one[1] - one[0], other[1] - other[0])


def share_half_of_each(
    starts: NDArray[np.int64], ends: NDArray[np.int64], other_starts: NDArray[np.int64], other_ends: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return what `share_half` says of each of many pairs of spans."""
    shared = np.minimum(ends, other_ends) - np.maximum(starts, other_starts)
    shorter: NDArray[np.int64] = np.minimum(ends - starts, other_ends - other_starts)
    return 2 * shared >= shorter


REJECTED_KINDS = ("file", "caption", "transcript", "cue", "clip", "frames", "pair", "field")
"""A video file or the row of a manifest that names one; a row of captions; a file of subtitles; one cue of it; a clip that
was not cut; a clip without frames; a pair; a value of a field of one's own."""

_KIND_OF_STAGE = {
    "ingest": "file", "cut": "clip", "frames": "frames", "caption": "caption", "pairs": "pair",
    "subtitles": "transcript", "speech": "file", "ocr": "file", "fields": "field",
}


@dataclass(frozen=True)
class Video:
    """One video of the archive; equal files are one video with several uris."""

    video_id: str
    uris: tuple[str, ...]
    """As the source names its files, sorted: paths relative to its root, or what a manifest says (`sources/`). The
    first is the one that is read."""
    duration_ms: int
    fps: float
    width: int
    """Upright, in pixels."""
    height: int
    codec: str
    source_id: str = ""
    """The source's own name for it (YouTube's id), or empty."""
    title: str = ""
    channel: str = ""
    category: str = ""
    published_at: str = ""
    """RFC 3339, or empty."""
    thumbnail: str = ""
    """A picture of it, as a path relative to the source root, or empty."""
    clip_of: str = ""
    """The longer video that this file is one clip of by its name (`harbour` for `harbour_3.mp4`), or empty."""
    views: int | None = None
    """How often it was seen where it comes from, when it was downloaded; None where nobody says."""

    def __post_init__(self) -> None:
        # Files are named by it: it is one name, wherever the table came from.
        if len(self.video_id) != 32 or not self.uris or not (self.video_id.isascii() and self.video_id.isalnum()):
            raise ValueError(f"a video needs an id of 32 digits and a uri, got {self.video_id!r}, {self.uris!r}")
        if self.duration_ms <= 0 or self.width <= 0 or self.height <= 0:
            shown = f"{self.duration_ms} ms, {self.width} x {self.height}"
            raise ValueError(f"{self.uris[0]}: {shown}: all must be positive")


@dataclass(frozen=True)
class Clip:
    """A span `[start_ms, end_ms)` of one video."""

    video_id: str
    index: int
    """Place among all clips of the video, by (start_ms, end_ms), from 0."""
    start_ms: int
    end_ms: int
    cut: tuple[str, ...]
    """The cut modes that made this span, sorted: captions, shots, windows."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise ValueError(f"clip {self.index} of {self.video_id}: [{self.start_ms}, {self.end_ms}) is not a span")

    @cached_property
    def clip_id(self) -> uuid.UUID:
        """The id of this span of the video, hashed when it is asked for: a table of many clips has them."""
        return clip_id_of(self.video_id, self.start_ms, self.end_ms)

    @property
    def key(self) -> str:
        """The WebDataset key of this clip."""
        return shard_key_of(self.video_id, self.index)


@dataclass(frozen=True)
class ClipFrames:
    """The sampled frames of one clip, decoded."""

    clip_id: uuid.UUID
    key: str
    times_ms: tuple[int, ...]
    """One for each frame, in the video's time."""
    frames: NDArray[np.uint8]
    """Shape (T, height, width, 3), RGB, upright."""
    num_repeated: int = 0
    """How many of the T are the last good frame again, because the video had no more."""
    digest: str = ""
    """Names the stored bytes of the frames; empty where they come from no shard."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[3] != 3 or self.frames.dtype != np.uint8:
            found = f"{self.frames.dtype} {self.frames.shape}"
            raise ValueError(f"{self.key}: frames are {found}, wanted uint8 (T, h, w, 3)")
        if len(self.times_ms) != len(self.frames):
            raise ValueError(f"{self.key}: {len(self.times_ms)} times for {len(self.frames)} frames")


TRY_AGAIN = " (another run tries it again)"
"""Ends the reason of what is `retryable`, for people."""


UNNAMED = "refused"
"""The code of what an earlier version refused, which named none."""


@dataclass(frozen=True)
class Refusal:
    """Why an input was refused, where the row for it is written later."""

    reason: str
    """For people. Nothing decides by what it says."""
    retryable: bool = False
    """See `Rejection`."""
    code: str = UNNAMED
    """See `Rejection`."""

    @classmethod
    def of(cls, error: VidseekError, before: str = "") -> Refusal:
        """Return a refusal with the message of an error.

        Args:
            error: The error.
            before: Text before the message, such as the name of the file.
        """
        return cls(f"{before}{error.message}{TRY_AGAIN if error.retryable else ''}", error.retryable, error.code)


@dataclass(frozen=True)
class Rejection:
    """An input that was refused: written down, never lost."""

    id: str
    """The uri, video_id or clip_id refused; of a row, its file and line."""
    stage: str
    reason: str
    """For people. Nothing decides by what it says."""
    kind: str = ""
    """One of `REJECTED_KINDS`: what was refused. Left empty, it is what the stage usually takes in."""
    retryable: bool = False
    """Whether another run may mend it with nothing changed here: a worker that was lost, a file that was replaced."""
    code: str = UNNAMED
    """The kind of fault: that of the error, or one of docs/errors.md."""

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", _KIND_OF_STAGE[self.stage])
        if self.kind not in REJECTED_KINDS:
            raise ValueError(f"a rejection of the kind {self.kind!r}, there are {', '.join(REJECTED_KINDS)}")
        object.__setattr__(self, "id", bare_url(self.id))
        object.__setattr__(self, "reason", without_secrets(self.reason))

    @classmethod
    def of(cls, subject: str, stage: str, why: Refusal, kind: str = "") -> Rejection:
        """Return the row of a refusal.

        Args:
            subject: The `id` of the row.
            stage: The stage that refused it.
            why: The reason.
            kind: As in the record.
        """
        return cls(subject, stage, why.reason, kind, why.retryable, why.code)
