"""The digests of a collection's videos on the server, which a publish compares with: a collection without vectors beside it.

Its rows carry the builds that added and removed them, as points do, and a build changes only those of its videos.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from vidseek_retrieval.index.difference.record import VIDEO_ROW, Digest
from vidseek_retrieval.index.qdrant.build_reader import BuildReader
from vidseek_retrieval.index.qdrant.builds import ADDED, FIRST, REMOVED
from vidseek_retrieval.index.qdrant.lock import NAMESPACE
from vidseek_retrieval.vectors.registry import FieldKind

_SUFFIX = "-videos"
ROW_INDEXES: Mapping[str, FieldKind] = {ADDED: "integer", REMOVED: "integer"}


def rows_of(stored_as: str) -> str:
    """Return the name on the server of the digests of videos beside a collection.

    Args:
        stored_as: The collection's name on the server.
    """
    return f"{stored_as}{_SUFFIX}"


def rows_hash(videos: NDArray[np.void]) -> str:
    """Return a hash of rows of `VIDEO_ROW`, by which rows that are read back are known to be whole."""
    return hashlib.sha256(videos.tobytes()).hexdigest()[:32]


def row_structs(videos: NDArray[np.void], number: int) -> Iterator[models.PointStruct]:
    """Yield rows of `VIDEO_ROW` as the server stores them.

    Args:
        videos: The rows.
        number: The build that adds them.
    """
    added = {} if number == FIRST else {ADDED: number}
    for row in videos:
        digest, content = (digest_text(tuple(row[field].tolist())) for field in ("digest", "content"))
        payload: dict[str, Any] = {"video_id": row["video_id"].decode(), "digest": digest, "content": content, **added}
        yield models.PointStruct(id=row_id(payload["video_id"], number), vector={}, payload=payload)


def row_id(video_id: str, number: int) -> str:
    """Return the id of the row of a video that a build added."""
    return str(uuid.uuid5(NAMESPACE, f"video:{video_id}:{number}"))


def read_rows(rows: BuildReader) -> tuple[NDArray[np.void], list[str]]:
    """Return the rows of `VIDEO_ROW` of a build, sorted by video, and their ids.

    Args:
        rows: Reads the build's rows.

    Raises:
        KeyError, ValueError: a row is not as it was written.
    """
    found = [
        (
            (payload := each.payload or {})["video_id"], digest_in(payload["digest"]), digest_in(payload["content"]),
            str(each.id),
        )
        for page in rows.pages(10_000, with_payload=True) for each in page
    ]
    found.sort()
    videos = np.array([(name.encode(), digest, content) for name, digest, content, _ in found], VIDEO_ROW)
    return videos, [each[3] for each in found]


def digest_text(digest: Digest) -> str:
    """Return a digest as 32 hex digits."""
    return "".join(f"{half:016x}" for half in digest)


def digest_in(text: str) -> Digest:
    """Return the digest that `digest_text` wrote. Raises ValueError where it is none."""
    return int(text[:16], 16), int(text[16:], 16)
