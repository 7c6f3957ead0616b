"""The server home: a Qdrant server or cluster over qdrant-client, with the history of aliases and the lock that it lacks.

A collection of ours carries its facts as metadata, written last: one without them is what a killed build left. Aliases are
Qdrant's own, so that any other client of the server finds the live collection too. The history of `clips` is in aliases as
well: `clips~0` is where we moved it last, `clips~1`, `clips~2`, ... where it was before. All of them move in one step, one
request reads them, and a cluster keeps them by consensus. The collection `vidseek-state` has one point, the builder's lock.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any

from qdrant_client import QdrantClient, models

from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, VidseekError
from vidseek_media.names import shown
from vidseek_retrieval.index.backend import (
    COLLECTION_NAME,
    Alias,
    CollectionMetadata,
    Point,
    alias_name,
    require_facts,
)
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.collection import QdrantCollection, sparse_vector
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import LEASE_SECONDS, LOCK_ID, NAMESPACE, BuilderLock
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
LIVE_SECONDS = 1.0
"""How long `live` takes what it was told for true."""
OPTIMISE_TIMEOUT_SECONDS = 6 * 3600.0
CHECK_TIMEOUT_SECONDS = 60.0
"""How long `check` waits for a collection that the server still optimises."""
POLL_SECONDS = 0.1
MOST_POLL_SECONDS = 5.0
SETTLED_POLLS = 3
INDEXING_THRESHOLD_KB = 10_000
"""Segments above it get a graph: Qdrant's own default."""

_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "datetime": models.PayloadSchemaType.DATETIME,
}
_LOCK_ID = LOCK_ID
_HISTORY = re.compile(r"(?P<alias>.+)~(?P<place>[0-9]+)")
"""No name of an alias of ours has a `~`."""
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
        prefix: Before the names of all collections and aliases on the server: so several archives may share one.
    """

    def __init__(self, client: QdrantClient, settings: ServerSettings | None = None, *, prefix: str = "") -> None:
        self._client = client
        self._settings = settings or ServerSettings()
        self._prefix = prefix
        self._state_name = f"{prefix}{STATE}"
        self._lock = BuilderLock(client, self._state_name)
        self._version_is_known = False
        self._live: tuple[float, dict[str, str]] | None = None

    @classmethod
    def connect(
        cls, url: str, *, api_key: str | None = None, settings: ServerSettings | None = None, prefix: str = ""
    ) -> QdrantBackend:
        """The server at `url`. Nothing is asked of it yet."""
        client = QdrantClient(url=url, api_key=api_key, timeout=60, check_compatibility=False)
        return cls(client, settings, prefix=prefix)

    def aliases(self) -> dict[str, Alias]:
        """All aliases of collections of ours; empty where nothing was published."""
        table = self._table()
        return {name: Alias(live, _history(table, name, live)) for name, live in table.items() if "~" not in name}

    def live(self, alias: str) -> str | None:
        """The collection that `alias` points to; up to a second old where another process moved it."""
        known = self._live
        if known is None or time.monotonic() - known[0] > LIVE_SECONDS:
            known = self._live = (time.monotonic(), self._table())
        return known[1].get(alias)

    def lost_aliases(self) -> list[str]:
        """Aliases that we moved and that are not on the server, or that something else than vidseek has moved."""
        table = self._table()
        lost = []
        for name in sorted({found["alias"] for each in table if (found := _HISTORY.fullmatch(each))}):
            live, noted = table.get(name), table.get(f"{name}~0")
            if live is None:
                lost.append(f"the alias {name!r} is noted (as {name}~0), and is not on the server")
            elif live != noted:
                lost.append(f"the alias {name!r} names {live}, and {name}~0 has noted otherwise")
        return lost

    def collections(self) -> list[CollectionMetadata]:
        """The finished collections that can be read, oldest first."""
        metadata = [found for name in self._names() if (found := self._facts(name)) is not None]
        return sorted(metadata, key=lambda each: (each.created_at, each.name))

    def stored(self) -> list[str]:
        """The names of the finished collections, sorted; also of those whose metadata another version wrote."""
        return [name for name in self._names() if "vidseek" in _metadata(self._info(name))]

    def open(self, name: str) -> QdrantCollection:
        """Open a finished collection.

        Raises:
            ArtifactError: it is not there, or not finished.
            ConfigError: the server is too old.
            ServiceError: the server does not answer.
        """
        self._require_version()
        info = self._info(name) if COLLECTION_NAME.fullmatch(name) else None
        metadata = _facts_in(info, name)
        if info is None or metadata is None:
            self._live = None  # an alias that we remember may have led here
            raise ArtifactError(
                f"there is no collection {name} on the server", code="collection-absent", remedy="Publish, or import it"
            )
        return QdrantCollection(self._client, metadata, Limits.of(info), stored_as=self._on_server(name))

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the builder's lock, a point that only one can insert, with an end that is put off while we live.

        Whatever ends the work, an error of the server too, the lock is given back at once.

        Raises:
            ConfigError: the server is too old.
            ServiceError: another one holds it.
        """
        with patience(BUILDER_PATIENCE_SECONDS):
            self._require_version()
            state = self._info_of(self._state_name)
            self._lock.prepare(state, replicas=self._settings.replicas)
            self._lock.take()
            try:
                if state is not None:
                    self._take_over_notes(Limits.of(state))
                yield
            except BaseException as error:
                if not self._lock.release():
                    _say_more(error, _LOCK_STAYS)
                raise
            if not self._lock.release():
                log.warning("what was written is whole, but %s", _LOCK_STAYS)

    def build(self, metadata: CollectionMetadata, points: Iterable[Point]) -> None:
        """Make a collection: payload indexes first, load with indexing deferred, optimise; then its facts.

        Raises:
            ArtifactError: the facts cannot be those of a collection. Nothing was touched.
            ServiceError: the server has a finished one of that name, or does not take it. Nothing of ours is left.
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
                # The same ids again are the same points: a batch that was cut off is sent once more.
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
        """What the server says is wrong with a collection; empty if nothing is. Optimisations are waited for a minute."""
        problem = self._unsettled(name, seconds=CHECK_TIMEOUT_SECONDS)
        return [problem] if problem else []

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, with its history, in one step.

        Raises:
            ConfigError: it cannot be the name of an alias.
        """
        try:
            alias_name(alias)
        except ValueError as error:
            raise ConfigError(str(error), code="bad-alias", remedy="Choose another name for the alias") from error
        self._lock.renew(at_once=True)
        wanted = {alias: to.collection, f"{alias}~0": to.collection}
        wanted |= {f"{alias}~{place}": name for place, name in enumerate(to.previous, start=1)}
        # First what is made, then what goes: what is refused on the way has then taken nothing away.
        operations: list[Any] = [self._creation(name, collection) for name, collection in wanted.items()]
        operations += [self._deletion(name) for name in _entries(self._table(), alias) if name not in wanted]
        self._change_aliases(operations)

    def drop_alias(self, alias: str) -> None:
        """Let `alias` point nowhere; nothing where it does not point anywhere."""
        table = self._table()
        if alias in table:
            self._change_aliases([self._deletion(name) for name in _entries(table, alias)])

    def drop(self, name: str) -> None:
        """Remove a collection."""
        if not COLLECTION_NAME.fullmatch(name):  # the server may have others than ours
            raise ArtifactError(f"{shown(name)} is no name of a collection", code="bad-collection-name")
        self._live = None
        request(self._client.delete_collection, self._on_server(name))

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Remove what a killed build left, but for collections that are `needed`, and say what it was."""
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
        """What the server says of a collection; None where it has none of that name."""
        try:
            return request(self._client.get_collection, stored_as)
        except ServerRefused as error:
            if error.status == 404:
                return None
            raise
        except ValueError:  # as the client's in-memory mode says it
            return None

    def _facts(self, name: str) -> CollectionMetadata | None:
        """The facts of a finished collection; None for one that is not there or not finished."""
        return _facts_in(self._info(name), name)

    def _create(self, metadata: CollectionMetadata) -> Limits:
        """Make the collection, empty and with its payload indexes; gives what the server allows on it."""
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
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),  # 0: no graph while it is loaded
            )
        except ServerRefused as error:
            # The answer to our own request was lost, and the second try finds what the first one made.
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
        for _ in range(SETTLED_POLLS):  # green once may mean that the optimizer has not begun
            if problem := self._unsettled(name, seconds=deadline - time.monotonic()):
                raise ServiceError(problem, code="server-not-settled", remedy=UNREACHABLE_REMEDY)
            time.sleep(POLL_SECONDS)

    def _unsettled(self, name: str, *, seconds: float) -> str:
        """Why the collection is not as it should be after so long, or at once where waiting helps nothing; "" where it is.

        Yellow is an optimisation that runs. Grey is one that waits for an update, as after a restart of the server: an
        update that changes nothing wakes it. Red is an error.
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
        """Whether it is gone; where not, the next publish removes it: it has no facts."""
        try:
            if self._info(name) is not None:
                self.drop(name)
        except ServiceError:
            return False
        return True

    def _state(self, point_id: str) -> dict[str, Any]:
        return self._lock.read(point_id)

    def _table(self) -> dict[str, str]:
        """Collections of ours by alias, the entries of the history too, as the server has them now."""
        found = request(self._client.get_aliases).aliases
        pointers = {
            each.alias_name.removeprefix(self._prefix): each.collection_name.removeprefix(self._prefix)
            for each in found
            if each.alias_name.startswith(self._prefix) and each.collection_name.startswith(self._prefix)
        }
        return {alias: name for alias, name in pointers.items() if COLLECTION_NAME.fullmatch(name)}

    def _change_aliases(self, operations: Sequence[Any]) -> None:
        self._live = None
        request(self._client.update_collection_aliases, operations)

    def _creation(self, alias: str, collection: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(create_alias=models.CreateAlias(
            collection_name=self._on_server(collection), alias_name=self._on_server(alias)
        ))

    def _deletion(self, alias: str) -> models.DeleteAliasOperation:
        return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._on_server(alias)))

    def _take_over_notes(self, limits: Limits) -> None:
        """Make aliases of the histories that earlier versions noted as points of the state collection."""
        records: list[models.Record] = []
        offset: Any = None
        while True:
            found, offset = request(
                self._client.scroll, self._state_name, limit=limits.page(100), offset=offset, with_payload=True
            )
            records += found
            if offset is None:
                break
        for note in (dict(each.payload or {}) for each in records):
            if note.get("kind") == "alias":
                self._take_over_note(str(note.get("alias", "")), note)

    def _take_over_note(self, alias: str, note: Mapping[str, Any]) -> None:
        table, there = self._table(), set(self.stored())
        live, histories = table.get(alias), _histories_in_note(note, table.get(alias))
        if live in histories and f"{alias}~0" not in table:
            self.move_alias(alias, Alias(live, tuple(name for name in histories[live] if name in there)))
        elif f"{alias}~0" not in table and (known := sorted(there & set(histories))):
            # The alias is gone, or something else has moved it: `lost_aliases` sees it by this.
            self._change_aliases([self._creation(f"{alias}~0", known[0])])
        selected = models.PointIdsList(points=[_note_id(alias)])
        request(self._client.delete, self._state_name, selected, wait=True)


def _entries(table: Mapping[str, str], alias: str) -> list[str]:
    """The names in `table` of an alias and of its history."""
    return [
        name for name in table
        if name == alias or ((found := _HISTORY.fullmatch(name)) is not None and found["alias"] == alias)
    ]


def _history(table: Mapping[str, str], alias: str, live: str) -> tuple[str, ...]:
    """What was live before `live`, newest first; nothing where something else than vidseek moved the alias."""
    if table.get(f"{alias}~0") != live:
        return ()
    places = sorted(int(name.rpartition("~")[2]) for name in _entries(table, alias) if name != alias)
    return tuple(table[f"{alias}~{place}"] for place in places if place)


def _note_id(alias: str) -> str:
    return str(uuid.uuid5(NAMESPACE, f"alias:{alias}"))


def _histories_in_note(note: Mapping[str, Any], live: str | None) -> dict[str, tuple[str, ...]]:
    """What was live before a collection, by its name, as a note of an earlier version says."""
    histories, previous = note.get("history"), note.get("previous")
    if not isinstance(histories, dict):  # as still earlier versions wrote it: of where it was to go alone
        histories = {note["of"]: previous} if isinstance(note.get("of"), str) else {}
        if live and isinstance(previous, list) and live in previous and live not in histories:  # killed before it moved
            histories = {live: previous[previous.index(live) + 1 :]}
    return {
        str(of): tuple(str(name) for name in names if COLLECTION_NAME.fullmatch(str(name)))
        for of, names in histories.items() if isinstance(names, list)
    }


def _metadata(info: models.CollectionInfo | None) -> dict[str, Any]:
    return dict(info.config.metadata or {}) if info else {}


def _facts_in(info: models.CollectionInfo | None, name: str) -> CollectionMetadata | None:
    """The facts that a collection carries; None where it is not there or not finished."""
    try:
        metadata = CollectionMetadata.from_json(_metadata(info)["vidseek"])
    except (KeyError, TypeError, ValueError, ConfigError):
        return None
    return metadata if metadata.name == name else None


def _say_more(error: BaseException, what: str) -> None:
    """Put `what` behind the remedy of an error of ours."""
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
