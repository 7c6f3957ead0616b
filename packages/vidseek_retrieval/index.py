"""What an index home can do, whichever it is: collections built once and then only read, and aliases that move."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

COLLECTION_NAME = re.compile(r"clips-[0-9a-f]{16}-[0-9a-f]{12}")
"""`clips-<encoder_version>-<build>`"""

VIDEO_VECTOR = "video"
"""The named vector of a clip's frames. `caption` (dense) and `words` (sparse) come beside it."""

PAYLOAD_INDEXES: Mapping[str, Literal["keyword", "integer", "datetime"]] = {
    "video_id": "keyword",
    "channel": "keyword",
    "category": "keyword",
    "published_at": "datetime",
    "duration_ms": "integer",
    "start_ms": "integer",
}
"""The payload fields that have an index, so that a filter on them is fast."""

PAYLOAD_FIELDS = (*PAYLOAD_INDEXES, "end_ms", "index", "title", "uri", "thumbnail_url", "encoder_version")
"""All fields a payload may have; those without a value are left out."""


@dataclass(frozen=True)
class IndexSettings:
    """How a collection is built and searched."""

    m: int = 16
    """Edges of a node in the HNSW graph."""
    ef_construct: int = 200
    """Candidates while the graph is built."""
    hnsw_ef: int = 128
    """Candidates while it is searched; never fewer than the clips asked for."""


@dataclass(frozen=True)
class CollectionFacts:
    """What is known of a finished collection without opening it."""

    name: str
    """`clips-<encoder_version>-<build>`"""
    encoder_version: str
    build: str
    """A hash of all that was put in, and of the settings: equal content has an equal name."""
    dimension: int
    num_points: int
    settings: IndexSettings
    created_at: str
    """RFC 3339."""

    def to_json(self) -> dict[str, Any]:
        """As collection.json has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CollectionFacts:
        """The reverse of `to_json`.

        Raises:
            KeyError, TypeError: it is not that.
        """
        known = {name: content[name] for name in cls.__dataclass_fields__ if name != "settings"}
        return cls(**known, settings=IndexSettings(**content["settings"]))


@dataclass(frozen=True)
class Alias:
    """Where an alias points, and where it pointed before."""

    collection: str
    previous: tuple[str, ...] = ()
    """Newest first; kept for a rollback."""


@dataclass(frozen=True, slots=True)
class Point:
    """One clip, as it goes into a collection."""

    clip_id: str
    vector: NDArray[np.float32]
    """The vector `video`: shape (dimension,), unit."""
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundClip:
    """One clip, as a search gives it."""

    clip_id: str
    score: float
    """Cosine."""
    payload: Mapping[str, Any]


class Collection(Protocol):
    """A finished collection, open for reading. Safe to share between threads."""

    @property
    def facts(self) -> CollectionFacts:
        """What collection.json says."""

    def search(self, vector: NDArray[np.float32], *, limit: int, exact: bool = False) -> list[FoundClip]:
        """The nearest clips by the vector `video`, best first; approximate unless `exact`."""

    def count(self) -> int:
        """How many points there are, counted."""

    def sample(self, num: int, *, seed: int) -> list[str]:
        """The clip ids of up to `num` points, the same ones for the same seed."""

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """The points with these ids, in this order; those that are not there are left out."""

    def close(self) -> None:
        """Give back memory and files."""


class IndexHome(Protocol):
    """A place where collections live: a folder with Qdrant Edge shards, or a Qdrant server."""

    def aliases(self) -> dict[str, Alias]:
        """All aliases; empty where nothing was published."""

    def collections(self) -> list[CollectionFacts]:
        """The finished collections, oldest first."""

    def open(self, name: str) -> Collection:
        """Open a finished collection.

        Raises:
            ArtifactError: it is not there, or broken.
        """

    def building(self) -> AbstractContextManager[None]:
        """The builder's lock: whoever writes holds it.

        Raises:
            ServiceError: another one holds it.
        """

    def build(self, facts: CollectionFacts, points: Iterable[Point]) -> None:
        """Make a collection, searchable and immutable. It is finished or it is not there.

        Raises:
            ServiceError: the home does not take it.
        """

    def check(self, name: str) -> list[str]:
        """What is wrong with the stored files of a collection; empty if nothing is."""

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, in one step."""

    def drop(self, name: str) -> None:
        """Remove a collection."""

    def remove_unfinished(self) -> list[str]:
        """Remove what a killed build left and what cannot be read, and say what it was."""


def collection_name(encoder_version: str, build: str) -> str:
    """`clips-<encoder_version>-<build>`"""
    return f"clips-{encoder_version}-{build}"


def canonical_json(content: object) -> str:
    """JSON that is equal for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
