"""Names that a re-run reproduces: video ids from bytes, clip ids from video and span."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def clip_ids_of(
    video_ids: Iterable[str], starts_ms: Iterable[int], ends_ms: Iterable[int]
) -> NDArray[np.object_]:
    """`clip_id_of` each, as text, shape (n,): a million in two seconds."""
    prefix = CLIP_NAMESPACE.bytes
    spans = zip(video_ids, starts_ms, ends_ms, strict=True)
    digests = b"".join([hashlib.sha1(prefix + f"{v}:{a}:{b}".encode(), usedforsecurity=False).digest() for v, a, b in spans])
    octets = np.frombuffer(digests, np.uint8).reshape(-1, 20)[:, :16].copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x50  # RFC 9562: version 5
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80  # and its variant
    whole = octets.tobytes().hex()
    return np.array(
        [f"{whole[i:i+8]}-{whole[i+8:i+12]}-{whole[i+12:i+16]}-{whole[i+16:i+20]}-{whole[i+20:i+32]}"
         for i in range(0, len(whole), 32)], dtype=object,
    )


def shard_key_of(video_id: str, index: int) -> str:
    """The WebDataset key of a clip: `<video_id>_<index:05d>`."""
    return f"{video_id}_{index:05d}"


def to_ms(seconds: float) -> int:
    """Whole milliseconds, half up."""
    return int(seconds * 1000 + 0.5)
