"""The builds of one collection on a Qdrant server, and the filters that tell their points apart.

A publish by difference adds a build to the collection of the build before it. Each build has a number, and is a collection
of ours, with a name and metadata of its own. A point says which build added it and which removed it; a point without these
fields was there from the first build, number 0, and is in all builds. So the build with the number N has the points that are
not `build_added > N` and not `build_removed <= N`. A changed clip has two points: the new one has an id of its own while the
id that equals the clip_id is taken, and names its clip in `clip_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from qdrant_client import models

from vidseek_media.errors import ConfigError
from vidseek_retrieval.index.collection_metadata import COLLECTION_NAME, CollectionMetadata
from vidseek_retrieval.vectors.registry import FieldKind

FACTS_KEY = "vidseek"
"""In the server's metadata of a collection: those of its first build. Written last, so without it a build was killed."""
BUILDS_KEY = "vidseek-builds"
"""Beside it: all builds that are kept. Collections without it hold one build, and no publish adds another."""

ADDED, REMOVED, CLIP, DIGEST = "build_added", "build_removed", "clip_id", "build_digest"
BUILD_FIELDS = frozenset({ADDED, REMOVED, CLIP, DIGEST})
"""Fields of points that no answer shows."""
BUILD_INDEXES: Mapping[str, FieldKind] = {ADDED: "integer", REMOVED: "integer", CLIP: "keyword"}
FIRST = 0


class Build(NamedTuple):
    """One build of a collection on the server."""

    number: int
    facts: Mapping[str, Any]
    """The JSON of its `CollectionMetadata`, not checked."""
    rows: str
    """A hash of the digests of its videos; "" where there are none."""


@dataclass(frozen=True)
class Builds:
    """The builds of a finished collection on the server."""

    stored_as: str
    """Its name on the server, without the prefix."""
    builds: Mapping[str, Build]
    """By the name of our collection."""
    is_numbered: bool = True
    """Whether its points may be of several builds, so that each request must name one."""
    following: int = FIRST + 1
    """The number of the next build: none is given twice."""
    unfinished: str = ""
    """The collection whose points are being written, or were when the publish was killed."""
    dropped_at: float = field(default=0.0, compare=False)
    """When a build was dropped whose points are still there, in seconds since 1970; 0 for never."""

    @classmethod
    def of(cls, info: models.CollectionInfo | None, stored_as: str) -> Builds | None:
        """Read what the server's metadata of a collection say; None if it does not exist or is not finished.

        Args:
            info: The server's information.
            stored_as: The name on the server, without the prefix.
        """
        metadata = dict(info.config.metadata or {}) if info else {}
        if FACTS_KEY not in metadata:
            return None
        first = metadata[FACTS_KEY]
        alone = cls(stored_as, {stored_as: Build(FIRST, _table(first), "")}, is_numbered=BUILDS_KEY in metadata)
        content = metadata.get(BUILDS_KEY)
        if content is None:
            return alone
        try:
            builds = {
                str(each["name"]): Build(int(each["number"]), _table(each["facts"] or first), str(each["rows"]))
                for each in content["builds"] if COLLECTION_NAME.fullmatch(each["name"])
            }
            if not builds:
                raise ValueError("no build")
            return cls(
                stored_as, builds, is_numbered=bool(content["is_numbered"]), following=int(content["following"]),
                unfinished=str(content["unfinished"]), dropped_at=float(content["dropped_at"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return alone  # of a later version; nothing is added to it, as it has no rows

    def to_json(self) -> dict[str, Any]:
        """Return the content of `BUILDS_KEY`. The metadata of the first build are beside it."""
        builds = [  # a list is replaced as a whole, however deep the server merges
            {"name": name, **each._asdict(), "facts": None if each.number == FIRST else dict(each.facts)}
            for name, each in self.builds.items()
        ]
        return {
            "builds": builds, "is_numbered": self.is_numbered, "following": self.following, "unfinished": self.unfinished,
            "dropped_at": self.dropped_at,
        }

    def metadata(self, name: str) -> CollectionMetadata | None:
        """Return the metadata of a build; None if it is not here, or they cannot be read.

        Args:
            name: Of our collection.
        """
        try:
            metadata = CollectionMetadata.from_json(self.builds[name].facts)
        except (KeyError, TypeError, ValueError, ConfigError):
            return None
        return metadata if metadata.name == name else None

    def number(self, name: str) -> int | None:
        """Return the number that each request must name; None where the points are of one build.

        Args:
            name: Of our collection.
        """
        return self.builds[name].number if self.is_numbered else None

    @property
    def newest(self) -> str:
        """The build with the highest number, which the next one is made from."""
        return max(self.builds, key=lambda name: self.builds[name].number)

    @property
    def kept(self) -> list[int]:
        """The numbers of the builds, the lowest first."""
        return sorted(each.number for each in self.builds.values())

    def reserving(self, name: str) -> Builds:
        """Return the record before points of a new build are written: its number is `following` of this one."""
        return replace(self, following=self.following + 1, unfinished=name)

    def adding(self, metadata: CollectionMetadata, number: int, rows: str) -> Builds:
        """Return the record with a finished build."""
        return replace(
            self, builds={**self.builds, metadata.name: Build(number, metadata.to_json(), rows)}, unfinished=""
        )

    def dropping(self, name: str, now: float) -> Builds:
        """Return the record without a build; its points stay until a sweep."""
        return replace(self, builds={each: kept for each, kept in self.builds.items() if each != name}, dropped_at=now)

    def swept(self) -> Builds:
        """Return the record after a sweep."""
        return replace(self, unfinished="", dropped_at=0.0)


def outside(number: int) -> list[models.Condition]:
    """Return the conditions of which no point of a build may meet one.

    Args:
        number: Of the build.
    """
    return [_range(ADDED, gt=number), _range(REMOVED, lte=number)]


def shows(number: int, payload: Mapping[str, Any]) -> bool:
    """Return whether a build has a point, as `outside` has it.

    Args:
        number: Of the build.
        payload: Of the point, with the fields of builds.
    """
    return bool(payload.get(ADDED, FIRST) <= number) and (REMOVED not in payload or payload[REMOVED] > number)


def of_no_build(kept: Sequence[int]) -> Iterator[models.Filter]:
    """Yield filters that meet all points which none of the kept builds has.

    Args:
        kept: Numbers of builds, the lowest first; not empty.
    """
    yield models.Filter(must=[_range(REMOVED, lte=kept[0])])
    for lower, upper in pairwise(kept):
        yield models.Filter(must=[_range(ADDED, gt=lower), _range(REMOVED, lte=upper)])
    yield models.Filter(must=[_range(ADDED, gt=kept[-1])])


def removed_later(kept: Sequence[int]) -> models.Filter:
    """Return the filter of points that only a build which is not kept removed.

    Args:
        kept: Numbers of builds, the lowest first; not empty.
    """
    return models.Filter(must=[_range(REMOVED, gt=kept[-1])])


def _range(key: str, **bounds: float) -> models.FieldCondition:
    return models.FieldCondition(key=key, range=models.Range(**bounds))


def _table(content: object) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}
