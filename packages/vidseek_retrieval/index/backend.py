"""The interface of an index backend: collections that are built once and then only read, and aliases that move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.names import plain_name
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.difference.record import Record
from vidseek_retrieval.index.values import WORDS_VECTOR, Dense, SparseVector
from vidseek_retrieval.index.values import Point as Point
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import RankedClip
from vidseek_retrieval.settings import Vector

PUBLISH_REMEDY = "Run `dvc repro`; where it finds nothing to do, `dvc repro --force --single-item publish`"
"""For a missing index. DVC tracks only its receipt, so a plain `dvc repro` may find nothing to do."""

USE_REMEDY = "`vidseek index list` says what is there, and `vidseek index use COLLECTION` makes one of them live"
"""For collections without an alias: they may be the only copies, so nothing is removed."""


class CollectionRemoved(ArtifactError):
    """An open collection was removed from the index."""

    code = "collection-removed"


class TimeRange(NamedTuple):
    """A part of a video in which clips begin; both ends are included."""

    video_id: str
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Alias:
    """The collection that an alias points to, and those before it."""

    collection: str
    previous: tuple[str, ...] = ()
    """Kept for a rollback, newest first."""


class Collection(Protocol):
    """A finished collection, open for reading. Safe to share between threads."""

    @property
    def metadata(self) -> CollectionMetadata:
        """The content of collection.json."""

    @property
    def allows_exact(self) -> bool:
        """Whether `search` accepts `exact`; a server may forbid it."""

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        exact: bool = False,
        score_threshold: float = -math.inf,
        using: Dense = "video",
        conditions: Sequence[Condition] = (),
        time_ranges: Sequence[TimeRange] = (),
    ) -> list[RankedClip]:
        """Return the nearest clips by a dense vector, best first.

        Args:
            vector: Shape (dimension,), unit length.
            limit: Clips at most, at least 1.
            exact: Compare with every clip; approximate otherwise.
            score_threshold: The least cosine.
            using: The vector to compare with; clips without it are left out.
            conditions: Filters that every clip must meet.
            time_ranges: Ranges that a clip must begin in, any of them; empty for anywhere.
        """

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """Return the clips that share words with the query, best first by BM25.

        Args:
            words: The query's sparse vector.
            limit: Clips at most, at least 1.
            using: The sparse vector to compare with.
            conditions: Filters that every clip must meet.
        """

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the payloads of points by clip id; missing points are left out.

        Args:
            clip_ids: Of the points.
        """

    def count(self, vector: Vector | None = None) -> int:
        """Count the points.

        Args:
            vector: Count only points that have it; None for all.
        """

    def sample(self, num: int, *, seed: int) -> list[str]:
        """Return the clip ids of random points.

        Args:
            num: Points at most, at least 0.
            seed: Equal seeds give equal points.
        """

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """Return points in the given order; missing ones are left out.

        Args:
            clip_ids: Of the points.
        """

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """Yield all points in order of clip id.

        Args:
            batch: Points in memory at once, at least 1.
        """

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return the values of a keyword field and how many points have each, the most frequent first.

        Args:
            field: A payload field.
            limit: Values at most, at least 1.
            conditions: Filters that counted points must meet.
        """

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """Return the least and the greatest value of a field; None if no point has one.

        Args:
            field: A payload field of numbers or times.
        """

    def close(self) -> None:
        """Release memory and files."""


class IndexBackend(Protocol):
    """Stores collections: in a folder of Qdrant Edge shards, or on a Qdrant server."""

    def aliases(self) -> dict[str, Alias]:
        """Return all aliases by name; empty if nothing was published."""

    def live(self, alias: str) -> str | None:
        """Return the collection that an alias points to, None if nowhere. May be a second old if another process moved it.

        Args:
            alias: Its name.
        """

    def lost_aliases(self) -> list[str]:
        """Return how the backend's own notes on aliases differ from the table; empty if they agree."""

    def collections(self) -> list[CollectionMetadata]:
        """Return the metadata of all finished collections that can be read, oldest first."""

    def stored(self) -> list[str]:
        """Return the names of all finished collections, sorted, including those whose metadata cannot be read."""

    def open(self, name: str) -> Collection:
        """Open a finished collection.

        Args:
            name: Of the collection.

        Raises:
            ArtifactError: it does not exist, or is broken.
        """

    def building(self) -> AbstractContextManager[None]:
        """Return the builder's lock; every writer must hold it.

        Raises:
            ServiceError: another process holds it.
        """

    def build(
        self, metadata: CollectionMetadata, points: Iterable[Point], videos: NDArray[np.void] | None = None
    ) -> None:
        """Build a searchable, immutable collection. It exists only once it is finished.

        Args:
            metadata: Of the collection.
            points: As many as `metadata` says.
            videos: Rows of `VIDEO_ROW`, which a later publish compares with; None if the points are from elsewhere.

        Raises:
            ServiceError: the backend cannot store it.
        """

    def record(self, name: str) -> Record | None:
        """Return the digests of a collection; None if it has none.

        Args:
            name: Of the collection.
        """

    def check(self, name: str) -> list[str]:
        """Return what is wrong with the stored files of a collection; empty if nothing is.

        Args:
            name: Of the collection.
        """

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point an alias to another collection, atomically.

        Args:
            alias: Its name.
            to: The collection, and those kept for a rollback.

        Raises:
            ConfigError: it cannot be the name of an alias.
        """

    def drop_alias(self, alias: str) -> None:
        """Remove an alias, if it exists.

        Args:
            alias: Its name.
        """

    def drop(self, name: str) -> None:
        """Remove a collection.

        Args:
            name: Of the collection.
        """

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Remove the remains of killed builds and return their names.

        Args:
            needed: Collections that are kept.
        """


def alias_name(value: object) -> str:
    """Return the name of an alias, checked.

    Args:
        value: Not trusted.

    Raises:
        ValueError: it is not a plain name.
    """
    return plain_name(value, what="an alias")


def require_alias_name(alias: str) -> None:
    """Check the name of an alias.

    Args:
        alias: As the user gave it.

    Raises:
        ConfigError: it is not a plain name.
    """
    try:
        alias_name(alias)
    except ValueError as error:
        raise ConfigError(str(error), code="bad-alias", remedy="Choose another name for the alias") from error
