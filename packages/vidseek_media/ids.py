"""Names that a re-run reproduces: video ids from bytes, clip ids from video and span."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

CLIP_NAMESPACE = uuid.UUID("6f1c2a52-8f0e-5b57-9a3e-1d6f0f7e7c11")
"""The uuid5 namespace of clip ids. Changing it changes every clip id of every archive."""

VIDEO_ID_DIGITS = 32


def video_id_of(path: Path) -> str:
    """The first 32 hex digits of the sha256 of the file's bytes: equal files are one video.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:VIDEO_ID_DIGITS]


def clip_id_of(video_id: str, start_ms: int, end_ms: int) -> uuid.UUID:
    """The uuid5 of `video_id:start_ms:end_ms` in `CLIP_NAMESPACE`."""
    return uuid.uuid5(CLIP_NAMESPACE, f"{video_id}:{start_ms}:{end_ms}")


def shard_key_of(video_id: str, index: int) -> str:
    """The WebDataset key of a clip: `<video_id>_<index:05d>`."""
    return f"{video_id}_{index:05d}"


def to_ms(seconds: float) -> int:
    """Whole milliseconds, half up."""
    return int(seconds * 1000 + 0.5)
