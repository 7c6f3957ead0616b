"""Creates collections on a Qdrant server and writes points into them, while the builder's lock is held."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from qdrant_client import QdrantClient, models

from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.builds import BUILD_INDEXES, FACTS_KEY
from vidseek_retrieval.index.qdrant.collection import sparse_vector
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import BuilderLock
from vidseek_retrieval.index.qdrant.records import vectors_of
from vidseek_retrieval.index.qdrant.requests import UNREACHABLE_REMEDY, ServerRefused, request
from vidseek_retrieval.index.qdrant.video_rows import ROW_INDEXES, rows_of
from vidseek_retrieval.settings import ServerSettings
from vidseek_retrieval.vectors.registry import FieldKind, index_vector

LOAD_BATCH = 256
OPTIMISE_TIMEOUT_SECONDS = 6 * 3600.0
POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 5.0
SETTLED_POLLS = 3
INDEXING_THRESHOLD_KB = 10_000
"""Segments larger than this get a graph; Qdrant's default."""

_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "datetime": models.PayloadSchemaType.DATETIME,
}


class ServerBuilder:
    """Writes collections, by the names that the server has for them.

    Args:
        client: Of the server.
        lock: Renewed between requests.
        settings: Of new collections.
    """

    def __init__(self, client: QdrantClient, lock: BuilderLock, settings: ServerSettings) -> None:
        self._client = client
        self._lock = lock
        self._settings = settings

    def create(self, stored_as: str, metadata: CollectionMetadata, *, numbered: bool) -> tuple[Limits, bool]:
        """Create a collection, empty and with its payload indexes.

        Args:
            stored_as: Its name.
            metadata: Of the first build.
            numbered: Whether it is to take more builds.

        Returns:
            The server's limits on it, and whether it takes more builds: not where there is no room for their indexes.
        """
        self.try_to_delete(stored_as)
        settings = metadata.settings
        self._create_once(
            stored_as,
            vectors_config={name: _vector_params(metadata, name) for name in metadata.dense_vectors},
            sparse_vectors_config={
                name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in metadata.sparse_vectors
            } or None,
            hnsw_config=models.HnswConfigDiff(m=settings.m, ef_construct=settings.ef_construct),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),  # no graph while points are loaded
        )
        limits = Limits.of(request(self._client.get_collection, stored_as))
        limits.require_room(metadata)
        indexes = payload_indexes(metadata.declared)
        both = {**indexes, **BUILD_INDEXES}  # other clients filter by a build whether there are several or not
        has_room = limits.allows_indexes(len(both))
        self._index(stored_as, both if has_room else indexes)
        return limits, numbered and has_room

    def add_indexes(self, stored_as: str, metadata: CollectionMetadata, limits: Limits) -> None:
        """Add the indexes of fields that were declared since a collection was created. No filter of an earlier build uses
        them.

        Args:
            stored_as: Name of the collection.
            metadata: Of the build that has the fields.
            limits: Of the server.

        Raises:
            ArtifactError: the collection has an index of another type on one of them, or the server allows no more.
        """
        known = request(self._client.get_collection, stored_as).payload_schema
        wanted = payload_indexes(metadata.declared)
        other = [name for name in sorted(set(known) & set(wanted)) if known[name].data_type != _SCHEMAS[wanted[name]]]
        if other or not limits.allows_indexes(len({*known, *wanted})):
            raise ArtifactError(
                f"the collection {stored_as} has an index of another type on {other[0]}" if other else
                f"the server allows no more payload indexes on {stored_as}",
                code="fields-changed", remedy="All points are written into a new collection",
            )
        self._index(stored_as, {name: kind for name, kind in wanted.items() if name not in known})

    def create_rows(self, stored_as: str) -> None:
        """Create the collection of the digests of videos beside a collection.

        Args:
            stored_as: Name of the collection that they are of.
        """
        self._create_once(rows_of(stored_as), vectors_config={})
        self._index(rows_of(stored_as), ROW_INDEXES)

    def load(self, stored_as: str, points: Iterable[models.PointStruct], limits: Limits) -> None:
        """Write points. Upserts are idempotent, so that a batch may be repeated.

        Args:
            stored_as: Name of the collection.
            points: The points.
            limits: Of the server.
        """
        remaining = iter(points)
        while batch := list(islice(remaining, limits.batch(LOAD_BATCH))):
            request(self._client.upsert, stored_as, batch, wait=True)
            self._lock.renew()

    def optimise(self, stored_as: str) -> None:
        """Let the server make the graphs, and wait for them."""
        request(
            self._client.update_collection, stored_as,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXING_THRESHOLD_KB),
        )
        self.settle(stored_as)

    def settle(self, stored_as: str) -> None:
        """Wait until the server has optimised a collection.

        Raises:
            ServiceError: it has not, after hours, or there was an error.
        """
        deadline = time.monotonic() + OPTIMISE_TIMEOUT_SECONDS
        for _ in range(SETTLED_POLLS):  # green once may mean that the optimizer has not started
            if problem := self.unsettled(stored_as, seconds=deadline - time.monotonic()):
                raise ServiceError(problem, code="server-not-settled", remedy=UNREACHABLE_REMEDY)
            time.sleep(POLL_SECONDS)

    def unsettled(self, stored_as: str, *, seconds: float) -> str:
        """Wait until the server reports green; return "" then, else what it reports.

        Yellow means a running optimisation. Grey means one that waits for an update, as after a restart of the server; an
        empty update starts it. Red means an error and ends the wait.

        Args:
            stored_as: Name of the collection.
            seconds: How long to wait.
        """
        deadline = time.monotonic() + seconds
        wait, woken = POLL_SECONDS, False
        while True:
            info = request(self._client.get_collection, stored_as)
            if info.status == models.CollectionStatus.GREEN:
                return ""
            if info.status == models.CollectionStatus.RED:
                said = getattr(info.optimizer_status, "error", "") or "a failed operation, which its log names"
                return f"the server says that {stored_as} is red: {said}"
            if time.monotonic() > deadline:
                return f"the server says that {stored_as} is {info.status.value} after {seconds:.0f} s"
            if info.status == models.CollectionStatus.GREY and not woken:
                request(
                    self._client.update_collection, stored_as, optimizers_config=models.OptimizersConfigDiff()
                )
                woken = True
            self._lock.renew()
            time.sleep(max(0.0, min(wait, deadline - time.monotonic())))
            wait = min(2 * wait, MOST_POLL_SECONDS)

    def note(self, stored_as: str, metadata: Mapping[str, Any]) -> None:
        """Write some of the server's metadata of a collection, in one step."""
        request(self._client.update_collection, stored_as, metadata=dict(metadata))

    def delete(self, stored_as: str) -> None:
        """Remove a collection, and the digests of its videos before it."""
        for each in (rows_of(stored_as), stored_as):
            if info_of(self._client, each) is not None:
                request(self._client.delete_collection, each)

    def try_to_delete(self, stored_as: str) -> bool:
        """Remove a collection, and return whether it is gone. If not, the next publish removes it, as it has no metadata."""
        try:
            self.delete(stored_as)
        except ServiceError:
            return False
        return True

    def _create_once(self, stored_as: str, **config: Any) -> None:
        settings = self._settings
        try:
            request(
                self._client.create_collection, stored_as, shard_number=settings.shards,
                replication_factor=settings.replicas, write_consistency_factor=settings.write_consistency, **config,
            )
        except ServerRefused as error:
            # The first request's answer was lost, and the retry finds the collection that it created.
            if error.status != 409 or not self._is_empty(stored_as):
                raise

    def _is_empty(self, stored_as: str) -> bool:
        info = info_of(self._client, stored_as)
        return info is not None and not info.points_count and FACTS_KEY not in (info.config.metadata or {})

    def _index(self, stored_as: str, fields: Mapping[str, FieldKind]) -> None:
        for field, kind in fields.items():
            request(self._client.create_payload_index, stored_as, field, field_schema=_SCHEMAS[kind], wait=True)


def info_of(client: QdrantClient, stored_as: str) -> models.CollectionInfo | None:
    """Return the server's information on a collection; None if it does not exist.

    Args:
        client: Of the server.
        stored_as: Name of the collection.
    """
    try:
        return request(client.get_collection, stored_as)
    except ServerRefused as error:
        if error.status == 404:
            return None
        raise
    except ValueError:  # the client's in-memory mode raises this for a missing collection
        return None


def struct_of(point: Point, *, point_id: str = "", more: Mapping[str, Any] | None = None) -> models.PointStruct:
    """Return a point as the client takes it.

    Args:
        point: The point.
        point_id: Its id on the server; "" for its clip_id.
        more: Fields of its payload that only vidseek reads.
    """
    payload = {**point.payload, **(more or {})}
    return models.PointStruct(
        id=point_id or point.clip_id, vector=vectors_of(point, sparse_vector), payload=payload
    )


def _vector_params(metadata: CollectionMetadata, name: str) -> models.VectorParams:
    is_quantized = metadata.settings.quantization == "int8" and index_vector(name).quantized
    return models.VectorParams(
        size=metadata.dimension, distance=models.Distance.COSINE, on_disk=metadata.settings.on_disk,
        quantization_config=models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )) if is_quantized else None,
    )
