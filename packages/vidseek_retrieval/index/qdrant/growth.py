"""Adds a build to a collection on a Qdrant server, and removes the points that no build shows.

1. A number is taken, and the name of the build noted: what a killed publish left is known by it.
2. Points that are new or changed are written, marked as added by this build: no earlier build shows them.
3. Those that went or changed are marked as removed by it: all earlier builds show them as before. Then the same for the
   digests of videos.
4. The build's metadata are written: from here on it exists.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, require_facts
from vidseek_retrieval.index.difference.record import Difference, StoredPoint, point_row
from vidseek_retrieval.index.qdrant.build_reader import BuildReader
from vidseek_retrieval.index.qdrant.building import LOAD_BATCH, ServerBuilder, struct_of
from vidseek_retrieval.index.qdrant.builds import (
    ADDED,
    BUILDS_KEY,
    CLIP,
    DIGEST,
    REMOVED,
    Builds,
    of_no_build,
    removed_later,
)
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import BuilderLock
from vidseek_retrieval.index.qdrant.requests import request
from vidseek_retrieval.index.qdrant.video_rows import (
    digest_in,
    digest_text,
    read_rows,
    row_structs,
    rows_hash,
    rows_of,
)
from vidseek_retrieval.settings import Vector

GRACE_SECONDS = 2.0
"""From the moment when a build is dropped until its points go: readers look at the aliases once a second."""

log = logging.getLogger("vidseek.index")


@dataclass(frozen=True)
class QdrantRecord:
    """The digests of a build: a `Record`.

    Args:
        metadata: Of the build.
        videos: Rows of `VIDEO_ROW`, sorted by video.
        row_ids: Row for row, their ids on the server.
        points: Reads its points.
        builds: Of its collection.
        growth: Adds a build to its collection.
    """

    metadata: CollectionMetadata
    videos: NDArray[np.void]
    row_ids: Sequence[str]
    points: BuildReader
    builds: Builds
    growth: Growth

    @property
    def can_grow(self) -> bool:
        """Whether it is the newest build of its collection, which the next one is made from."""
        return self.builds.newest == self.metadata.name

    def points_of(self, video_ids: Collection[str]) -> Mapping[str, StoredPoint]:
        """Return the points of videos by clip id."""
        return {clip_id: _stored(text) for clip_id, text in self.points.digests(sorted(video_ids)).items()}

    def grow(self, metadata: CollectionMetadata, difference: Difference) -> None:
        """Make a collection from this one, as a build of the same collection on the server."""
        self.growth.add(self, metadata, difference)


def first_structs(points: Iterable[Point], names: Sequence[Vector]) -> Iterator[models.PointStruct]:
    """Yield the points of a first build, with their digests.

    Args:
        points: The points.
        names: The vectors of the collection's settings.
    """
    return (struct_of(point, more={DIGEST: _noted(point, names)}) for point in points)


class Growth:
    """Writes builds into one collection on the server, whose lock is held.

    Args:
        client: Of the server.
        builder: Writes points.
        lock: Renewed between requests.
        stored_as: The collection on the server, with the prefix.
        limits: Of the server.
    """

    def __init__(
        self, client: QdrantClient, builder: ServerBuilder, lock: BuilderLock, stored_as: str, limits: Limits
    ) -> None:
        self._client = client
        self._builder = builder
        self._lock = lock
        self._stored_as = stored_as
        self._limits = limits

    def record(self, builds: Builds, name: str, points: BuildReader) -> QdrantRecord | None:
        """Return the digests of a build; None if it has none, or they are not those that were written.

        Args:
            builds: Of the collection.
            name: Of the build.
            points: Reads its points.
        """
        metadata, build = builds.metadata(name), builds.builds[name]
        if metadata is None or not build.rows:
            return None
        try:
            videos, row_ids = read_rows(replace(points, stored_as=rows_of(self._stored_as)))
        except (ArtifactError, KeyError, TypeError, ValueError):
            return None
        if rows_hash(videos) != build.rows:
            return None
        return QdrantRecord(metadata, videos, row_ids, points, builds, self)

    def add(self, base: QdrantRecord, metadata: CollectionMetadata, difference: Difference) -> None:
        """Add a build.

        Args:
            base: Of the newest build.
            metadata: Of the new build.
            difference: How it differs from the newest.

        Raises:
            ArtifactError: the server's limits leave no room for points that are there twice.
            ServiceError: the server does not take it. Nothing of it is left, or the next publish removes it.
        """
        require_facts(metadata)
        self._require_room(metadata, difference)
        builds = base.builds
        if builds.dropped_at:  # the points of a newer build would be in this one
            self.sweep(builds)
            builds = builds.swept()
        reserved = builds.reserving(metadata.name)
        self._note(reserved)
        try:
            if metadata.declared != difference.base.declared:
                self._builder.add_indexes(self._stored_as, metadata, self._limits)
            self._write_points(base.points, builds.following, difference)
            self._write_rows(base, builds.following, difference)
            self._builder.settle(self._stored_as)
            self._note(reserved.adding(metadata, builds.following, rows_hash(difference.videos)))
        except BaseException:
            self._try_to_sweep(reserved)
            raise

    def sweep(self, builds: Builds) -> None:
        """Remove the points that no build shows, once no reader can be at them.

        Args:
            builds: What is noted of the collection.
        """
        if builds.dropped_at:
            time.sleep(max(0.0, min(GRACE_SECONDS, builds.dropped_at + GRACE_SECONDS - time.time())))
        for stored_as in (rows_of(self._stored_as), self._stored_as):
            for unneeded in of_no_build(builds.kept):
                request(self._client.delete, stored_as, models.FilterSelector(filter=unneeded), wait=True)
                self._lock.renew()
            request(
                self._client.delete_payload, stored_as, [REMOVED],
                models.FilterSelector(filter=removed_later(builds.kept)), wait=True,
            )
        self._note(builds.swept())

    def drop(self, builds: Builds, name: str) -> None:
        """Drop a build; the next sweep removes its points.

        Args:
            builds: What is noted of the collection.
            name: Of the build.
        """
        self._note(builds.dropping(name, time.time()))

    def _note(self, builds: Builds) -> None:
        self._builder.note(self._stored_as, {BUILDS_KEY: builds.to_json()})

    def _require_room(self, metadata: CollectionMetadata, difference: Difference) -> None:
        there = request(self._client.get_collection, self._stored_as).points_count or 0
        wanted = there + len(difference.written)
        if not self._limits.allows_points(wanted, metadata):
            raise ArtifactError(
                f"the strict mode of the Qdrant server has no room for {wanted} points in {self._stored_as}",
                code="collection-full", remedy="Raise max_points_count or max_collection_vector_size_bytes",
            )

    def _write_points(self, base: BuildReader, number: int, difference: Difference) -> None:
        written = [point.clip_id for point in difference.written]
        replaced = base.point_ids([*difference.removed, *written])
        taken = {
            str(each.id) for start in range(0, len(written), LOAD_BATCH)
            for each in request(
                self._client.retrieve, self._stored_as, written[start : start + LOAD_BATCH], with_payload=False
            )
        }
        names = difference.base.settings.vectors
        structs = (_added(point, number, names, is_taken=point.clip_id in taken) for point in difference.written)
        self._builder.load(self._stored_as, structs, self._limits)
        self._mark_removed(self._stored_as, sorted(replaced.values()), number)

    def _write_rows(self, base: QdrantRecord, number: int, difference: Difference) -> None:
        stored_as = rows_of(self._stored_as)
        before, after = ([row.tobytes() for row in videos] for videos in (base.videos, difference.videos))
        known, stayed = set(before), set(after)
        is_new = np.array([row not in known for row in after], bool)
        self._builder.load(stored_as, row_structs(difference.videos[is_new], number), self._limits)
        gone = [row_id for row, row_id in zip(before, base.row_ids, strict=True) if row not in stayed]
        self._mark_removed(stored_as, gone, number)

    def _mark_removed(self, stored_as: str, ids: Sequence[str], number: int) -> None:
        remaining = iter(ids)
        while some := list(islice(remaining, self._limits.batch(LOAD_BATCH))):
            request(self._client.set_payload, stored_as, {REMOVED: number}, points=some, wait=True)
            self._lock.renew()

    def _try_to_sweep(self, builds: Builds) -> None:
        try:
            self.sweep(builds)
        except ServiceError:
            log.warning("points of %s stay on the server until the next publish", builds.unfinished)


def _added(point: Point, number: int, names: Sequence[Vector], *, is_taken: bool) -> models.PointStruct:
    more: dict[str, Any] = {ADDED: number, DIGEST: _noted(point, names)}
    if not is_taken:
        return struct_of(point, more=more)
    point_id = str(uuid.uuid5(uuid.UUID(point.clip_id), str(number)))
    return struct_of(point, point_id=point_id, more={**more, CLIP: point.clip_id})


def _noted(point: Point, names: Sequence[Vector]) -> str:
    digest, bits = point_row(point, names)
    return f"{digest_text(digest)}{bits:x}"


def _stored(noted: str) -> StoredPoint:
    """Read what `_noted` wrote; a point that has nothing like it counts as changed."""
    try:
        return StoredPoint(digest_in(noted[:32]), int(noted[32:], 16))
    except ValueError:
        return StoredPoint((0, 0), 0)
