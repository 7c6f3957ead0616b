"""The index on a Qdrant server or cluster.

A collection of ours carries its metadata on the server, written last: a collection without them is the remains of a killed
build. `alias_table.py` keeps aliases and their history, `lock.py` the builder's lock in the collection `vidseek-state`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, VidseekError
from vidseek_media.names import shown
from vidseek_retrieval.index.backend import Alias, Point
from vidseek_retrieval.index.collection_metadata import COLLECTION_NAME, CollectionMetadata, require_facts
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.alias_table import AliasTable, require_alias_name
from vidseek_retrieval.index.qdrant.collection import QdrantCollection, sparse_vector
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import LEASE_SECONDS, BuilderLock
from vidseek_retrieval.index.qdrant.records import vectors_of
from vidseek_retrieval.index.qdrant.requests import (
    BUILDER_PATIENCE_SECONDS,
    UNREACHABLE_REMEDY,
    ServerRefused,
    patience,
    request,
    require_version,
)
from vidseek_retrieval.settings import ServerSettings
from vidseek_retrieval.vectors.registry import index_vector

STATE = "vidseek-state"
LOAD_BATCH = 256
OPTIMISE_TIMEOUT_SECONDS = 6 * 3600.0
CHECK_TIMEOUT_SECONDS = 60.0
"""How long `check` waits while the server optimises a collection."""
POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 5.0
SETTLED_POLLS = 3
INDEXING_THRESHOLD_KB = 10_000
"""Segments larger than this get a graph; Qdrant's default."""

_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "datetime": models.PayloadSchemaType.DATETIME,
}
_LOCK_STAYS = (
    f"the server did not take the lock back: a publish from another machine waits for it, {LEASE_SECONDS / 60:.0f} minutes "
    "at most"
)

log = logging.getLogger("vidseek.index")


class QdrantBackend:
    """The collections of a Qdrant server.

    Args:
        client: Of the server.
        settings: Of new collections.
        prefix: Before the names of all collections and aliases, so that several archives can share a server.
    """

    def __init__(self, client: QdrantClient, settings: ServerSettings | None = None, *, prefix: str = "") -> None:
        self._client = client
        self._settings = settings or ServerSettings()
        self._prefix = prefix
        self._state_name = f"{prefix}{STATE}"
        self._lock = BuilderLock(client, self._state_name)
        self._version_is_known = False
        self._aliases = AliasTable(client, prefix=prefix)

    @classmethod
    def connect(
        cls, url: str, *, api_key: str | None = None, settings: ServerSettings | None = None, prefix: str = ""
    ) -> QdrantBackend:
        """Return the backend of a server. No request is sent yet.

        Args:
            url: Of the server, with its port.
            api_key: None for a server without one.
            settings: Of new collections; None for the defaults.
            prefix: Before the names of all collections and aliases.
        """
        client = QdrantClient(url=url, api_key=api_key, timeout=60, check_compatibility=False)
        return cls(client, settings, prefix=prefix)

    def aliases(self) -> dict[str, Alias]:
        """Implement `IndexBackend.aliases`."""
        return self._aliases.aliases()

    def live(self, alias: str) -> str | None:
        """Implement `IndexBackend.live`."""
        return self._aliases.live(alias)

    def lost_aliases(self) -> list[str]:
        """Implement `IndexBackend.lost_aliases`."""
        return self._aliases.lost()

    def collections(self) -> list[CollectionMetadata]:
        """Implement `IndexBackend.collections`."""
        metadata = [found for name in self._names() if (found := self._facts(name)) is not None]
        return sorted(metadata, key=lambda each: (each.created_at, each.name))

    def stored(self) -> list[str]:
        """Implement `IndexBackend.stored`; includes collections whose metadata another version wrote."""
        return [name for name in self._names() if "vidseek" in _metadata(self._info(name))]

    def open(self, name: str) -> QdrantCollection:
        """Open a finished collection.

        Args:
            name: Of the collection.

        Raises:
            ArtifactError: it does not exist, or is not finished.
            ConfigError: the server is too old.
            ServiceError: the server does not answer.
        """
        self._require_version()
        info = self._info(name) if COLLECTION_NAME.fullmatch(name) else None
        metadata = _facts_in(info, name)
        if info is None or metadata is None:
            self._aliases.forget()  # a remembered alias may have led here
            raise ArtifactError(
                f"there is no collection {name} on the server", code="collection-absent", remedy="Publish, or import it"
            )
        return QdrantCollection(self._client, metadata, Limits.of(info), stored_as=self._on_server(name))

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the builder's lock: a point that only one process can insert, with an expiry that is renewed.

        The lock is released at once when the work ends, also by an error.

        Raises:
            ConfigError: the server is too old.
            ServiceError: another process holds it.
        """
        with patience(BUILDER_PATIENCE_SECONDS):
            self._require_version()
            state = self._info_of(self._state_name)
            self._lock.prepare(state, replicas=self._settings.replicas)
            self._lock.take()
            try:
                if state is not None:
                    self._aliases.take_over_notes(
                        self._state_name, Limits.of(state), stored=self.stored, move=self.move_alias
                    )
                yield
            except BaseException as error:
                if not self._lock.release():
                    _say_more(error, _LOCK_STAYS)
                raise
            if not self._lock.release():
                log.warning("what was written is whole, but %s", _LOCK_STAYS)

    def record(self, name: str) -> None:
        """None: each publish to a server builds a collection."""
        return

    def build(
        self, metadata: CollectionMetadata, points: Iterable[Point], videos: NDArray[np.void] | None = None
    ) -> None:
        """Build a collection: payload indexes, points with indexing deferred, optimisation, and last its metadata.

        Args:
            metadata: Of the collection.
            points: As many as `metadata` says.
            videos: Not stored.

        Raises:
            ArtifactError: the metadata are not valid. Nothing was changed.
            ServiceError: a finished collection has that name, or the server cannot store it. Nothing of it is left.
        """
        if self._facts(require_facts(metadata).name) is not None:
            raise ServiceError(
                f"the server has a finished collection {metadata.name} already", code="collection-there",
                remedy="Drop it, or search that one",
            )
        try:
            limits = self._create(metadata)
            remaining = iter(points)
            while batch := list(islice(remaining, limits.batch(LOAD_BATCH))):
                structs = [_struct(point) for point in batch]
                # Upserts are idempotent, so `request` may repeat a batch.
                request(self._client.upsert, self._on_server(metadata.name), structs, wait=True)
                self._lock.renew()
            self._optimise(metadata.name)
            request(
                self._client.update_collection, self._on_server(metadata.name), metadata={"vidseek": metadata.to_json()}
            )
        except BaseException as error:
            if not self._try_to_delete(metadata.name):
                _say_more(error, f"what was built of {metadata.name} stays on the server until the next publish")
            raise

    def check(self, name: str) -> list[str]:
        """Implement `IndexBackend.check`; waits up to a minute for a running optimisation."""
        problem = self._unsettled(name, seconds=CHECK_TIMEOUT_SECONDS)
        return [problem] if problem else []

    def move_alias(self, alias: str, to: Alias) -> None:
        """Implement `IndexBackend.move_alias`; the history moves in the same request.

        Args:
            alias: Its name.
            to: The collection, and those kept for a rollback.

        Raises:
            ConfigError: it is not a valid alias name.
        """
        require_alias_name(alias)
        self._lock.renew(at_once=True)
        self._aliases.move(alias, to)

    def drop_alias(self, alias: str) -> None:
        """Implement `IndexBackend.drop_alias`."""
        self._aliases.drop(alias)

    def drop(self, name: str) -> None:
        """Implement `IndexBackend.drop`."""
        if not COLLECTION_NAME.fullmatch(name):  # the server may hold collections of other programs
            raise ArtifactError(f"{shown(name)} is no name of a collection", code="bad-collection-name")
        self._aliases.forget()
        request(self._client.delete_collection, self._on_server(name))

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Implement `IndexBackend.remove_unfinished`."""
        unfinished = sorted(set(self._names()) - set(self.stored()) - needed)
        for name in unfinished:
            self.drop(name)
        return unfinished

    def _on_server(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _require_version(self) -> None:
        if not self._version_is_known:
            require_version(self._client)
            self._version_is_known = True

    def _names(self) -> list[str]:
        found = request(self._client.get_collections).collections
        ours = [each.name.removeprefix(self._prefix) for each in found if each.name.startswith(self._prefix)]
        return sorted(name for name in ours if COLLECTION_NAME.fullmatch(name))

    def _info(self, name: str) -> models.CollectionInfo | None:
        return self._info_of(self._on_server(name))

    def _info_of(self, stored_as: str) -> models.CollectionInfo | None:
        """Return the server's information on a collection; None if it does not exist."""
        try:
            return request(self._client.get_collection, stored_as)
        except ServerRefused as error:
            if error.status == 404:
                return None
            raise
        except ValueError:  # the client's in-memory mode raises this for a missing collection
            return None

    def _facts(self, name: str) -> CollectionMetadata | None:
        """Return the metadata of a collection; None if it does not exist or is not finished."""
        return _facts_in(self._info(name), name)

    def _create(self, metadata: CollectionMetadata) -> Limits:
        """Create the collection, empty and with its payload indexes, and return the server's limits on it."""
        settings, cluster = metadata.settings, self._settings
        self._try_to_delete(metadata.name)
        stored_as = self._on_server(metadata.name)
        try:
            request(
                self._client.create_collection, stored_as,
                vectors_config={name: _vector_params(metadata, name) for name in metadata.dense_vectors},
                sparse_vectors_config={
                    name: models.SparseVectorParams(modifier=models.Modifier.IDF) for name in metadata.sparse_vectors
                } or None,
                shard_number=cluster.shards, replication_factor=cluster.replicas,
                write_consistency_factor=cluster.write_consistency,
                hnsw_config=models.HnswConfigDiff(m=settings.m, ef_construct=settings.ef_construct),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),  # no graph while points are loaded
            )
        except ServerRefused as error:
            # The first request's answer was lost, and the retry finds the collection that it created.
            if error.status != 409 or not self._is_empty(metadata.name):
                raise
        limits = Limits.of(request(self._client.get_collection, stored_as))
        limits.require_room(metadata)
        for field, kind in payload_indexes().items():
            request(self._client.create_payload_index, stored_as, field, field_schema=_SCHEMAS[kind], wait=True)
        return limits

    def _is_empty(self, name: str) -> bool:
        info = self._info(name)
        return info is not None and not info.points_count and "vidseek" not in _metadata(info)

    def _optimise(self, name: str) -> None:
        request(
            self._client.update_collection, self._on_server(name),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXING_THRESHOLD_KB),
        )
        deadline = time.monotonic() + OPTIMISE_TIMEOUT_SECONDS
        for _ in range(SETTLED_POLLS):  # green once may mean that the optimizer has not started
            if problem := self._unsettled(name, seconds=deadline - time.monotonic()):
                raise ServiceError(problem, code="server-not-settled", remedy=UNREACHABLE_REMEDY)
            time.sleep(POLL_SECONDS)

    def _unsettled(self, name: str, *, seconds: float) -> str:
        """Wait until the server reports green; return "" then, else what it reports.

        Yellow means a running optimisation. Grey means one that waits for an update, as after a restart of the server; an
        empty update starts it. Red means an error and ends the wait.
        """
        deadline = time.monotonic() + seconds
        wait, woken = POLL_SECONDS, False
        while True:
            info = request(self._client.get_collection, self._on_server(name))
            if info.status == models.CollectionStatus.GREEN:
                return ""
            if info.status == models.CollectionStatus.RED:
                said = getattr(info.optimizer_status, "error", "") or "a failed operation, which its log names"
                return f"the server says that {name} is red: {said}"
            if time.monotonic() > deadline:
                return f"the server says that {name} is {info.status.value} after {seconds:.0f} s"
            if info.status == models.CollectionStatus.GREY and not woken:
                request(
                    self._client.update_collection, self._on_server(name),
                    optimizers_config=models.OptimizersConfigDiff(),
                )
                woken = True
            self._lock.renew()
            time.sleep(max(0.0, min(wait, deadline - time.monotonic())))
            wait = min(2 * wait, MOST_POLL_SECONDS)

    def _try_to_delete(self, name: str) -> bool:
        """Delete a collection, and return whether it is gone. If not, the next publish removes it, as it has no metadata."""
        try:
            if self._info(name) is not None:
                self.drop(name)
        except ServiceError:
            return False
        return True

def _metadata(info: models.CollectionInfo | None) -> dict[str, Any]:
    return dict(info.config.metadata or {}) if info else {}


def _facts_in(info: models.CollectionInfo | None, name: str) -> CollectionMetadata | None:
    """Return the metadata that a collection carries; None if it does not exist or is not finished."""
    try:
        metadata = CollectionMetadata.from_json(_metadata(info)["vidseek"])
    except (KeyError, TypeError, ValueError, ConfigError):
        return None
    return metadata if metadata.name == name else None


def _say_more(error: BaseException, what: str) -> None:
    """Append `what` to the remedy of an error of ours; log it for another error."""
    if isinstance(error, VidseekError):
        error.remedy = f"{error.remedy}; {what}" if error.remedy else what
    else:
        log.warning("%s", what)


def _vector_params(metadata: CollectionMetadata, name: str) -> models.VectorParams:
    is_quantized = metadata.settings.quantization == "int8" and index_vector(name).quantized
    return models.VectorParams(
        size=metadata.dimension, distance=models.Distance.COSINE, on_disk=metadata.settings.on_disk,
        quantization_config=models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )) if is_quantized else None,
    )


def _struct(point: Point) -> models.PointStruct:
    return models.PointStruct(id=point.clip_id, vector=vectors_of(point, sparse_vector), payload=dict(point.payload))
