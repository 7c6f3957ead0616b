"""What a collection holds, in digests: by them a publish finds the points that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.collection_metadata import CollectionMetadata, canonical_json
from vidseek_retrieval.index.values import Point, SparseVector
from vidseek_retrieval.settings import Vector

DIGEST_BYTES = 16
Digest = tuple[int, int]
"""Two unsigned 64-bit halves: numpy drops zero bytes at the end of its own byte strings."""

VIDEO_ROW = np.dtype([("video_id", "S32"), ("digest", "<u8", (2,)), ("content", "<u8", (2,))])
"""Of a video, with the digest of all that its points are made from, and of the same without model and vectors."""
POINT_ROW = np.dtype([("digest", "<u8", (2,)), ("vectors", "<u4")])
"""Of a point, with a bit for each of its vectors in the order of the collection's settings."""


class StoredPoint(NamedTuple):
    """What a record knows of one point."""

    digest: Digest
    vectors: int
    """A bit for each of its vectors, in the order of the collection's settings."""


class Record(Protocol):
    """The digests of a stored collection."""

    @property
    def metadata(self) -> CollectionMetadata:
        """Of the collection."""

    @property
    def videos(self) -> NDArray[np.void]:
        """Rows of `VIDEO_ROW`, sorted by video."""

    @property
    def can_grow(self) -> bool:
        """Whether the backend can make a collection from this one."""

    def points_of(self, video_ids: Collection[str]) -> Mapping[str, StoredPoint]:
        """Return the points of videos by clip id.

        Args:
            video_ids: Of the videos; unknown ones are ignored.
        """

    def grow(self, metadata: CollectionMetadata, difference: Difference) -> None:
        """Make a collection from this one, which stays as it is. It exists only once it is finished.

        Args:
            metadata: Of the new collection.
            difference: How it differs from this one.

        Raises:
            ArtifactError: this one is damaged.
            ServiceError: the backend cannot store it.
        """


@dataclass(frozen=True)
class Difference:
    """How a new collection differs from a stored one of the same encoder and shape."""

    base: CollectionMetadata
    removed: tuple[str, ...]
    """Points of the base that the new collection has not."""
    written: Sequence[Point]
    """Points that the base has not, or has with another content."""
    videos: NDArray[np.void]
    """Rows of `VIDEO_ROW`, of the new collection."""
    counts: Mapping[Vector, int]
    """Points of the new collection that have each vector."""

    @property
    def num_changed(self) -> int:
        """Points that are written or removed."""
        return len(self.removed) + len(self.written)


def halves(digest: bytes) -> Digest:
    """Return the two halves of a digest of `DIGEST_BYTES`."""
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def point_digest(point: Point) -> Digest:
    """Return a digest of a point's payload and vectors, which is that of the same point read back from an index.

    Equal dense vectors have equal bits; the words of a sparse one have no order.
    """
    found = hashlib.blake2b(canonical_json(dict(point.payload)).encode(), digest_size=DIGEST_BYTES)
    for name, value in sorted(point.vectors.items()):
        found.update(f"\n{name}\n".encode())
        if isinstance(value, SparseVector):
            words = sorted(zip(value.indices, np.asarray(value.values, np.float32).tolist(), strict=True))
            found.update(canonical_json(words).encode())
        else:
            found.update(np.ascontiguousarray(value, "<f4").data)
    return halves(found.digest())


def vector_bits(point: Point, names: Sequence[Vector]) -> int:
    """Return a bit for each vector that a point has, the first name's lowest."""
    return sum(1 << place for place, name in enumerate(names) if name in point.vectors)


def point_row(point: Point, names: Sequence[Vector]) -> tuple[Digest, int]:
    """Return the row of a point.

    Args:
        point: The point.
        names: The vectors of its collection's settings.
    """
    return point_digest(point), vector_bits(point, names)
