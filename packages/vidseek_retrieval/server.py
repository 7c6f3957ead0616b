"""The server home: a Qdrant server or cluster over qdrant-client, with the history of aliases and the lock that it lacks.

A collection of ours carries its facts as metadata, written last: one without them is what a killed build left. What has
no other place lies in the collection `vidseek-state`: a point for each alias (where it pointed before), and one that is
the builder's lock. Aliases are Qdrant's own, so that any other client of the server finds the live collection too.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, VidseekError
from vidseek_media.names import shown
from vidseek_retrieval.filters import Condition
from vidseek_retrieval.index import (
    COLLECTION_NAME,
    PAYLOAD_INDEXES,
    WORDS_VECTOR,
    Alias,
    CollectionFacts,
    Dense,
    Point,
    ServerSettings,
    Stretch,
    Vector,
    Words,
    require_facts,
)
from vidseek_retrieval.moments import SCORE_DIGITS, RankedClip, rank_order
from vidseek_retrieval.qdrant_points import draw_ids, point_of, points_in_order, threshold_of, vectors_of

STATE = "vidseek-state"
LOAD_BATCH = 256
LEASE_SECONDS = 600.0
"""A builder that was killed holds the lock no longer than this; one that lives renews it with each batch."""
TRIES = 4
FIRST_WAIT_SECONDS = 0.25
"""After the first try; doubled after each other."""
OPTIMISE_TIMEOUT_SECONDS = 6 * 3600.0
POLL_SECONDS = 0.1
SETTLED_POLLS = 3
MOST_STRETCHES = 32
"""In one search: each clip of their videos is held against each of them."""
INDEXING_THRESHOLD_KB = 10_000
"""Segments above it get a graph: Qdrant's own default."""

_SCHEMAS = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "datetime": models.PayloadSchemaType.DATETIME,
}
_SPAN_FIELDS = ["video_id", "start_ms", "end_ms", "duplicate_of"]
_REMEDY = "See that the server of QDRANT_URL is up and has room, then try again"
_NAMESPACE = uuid.UUID("3b1d3f6e-58a5-5d0a-9d5c-7d7a8c1b2e90")
_LOCK_ID = str(uuid.uuid5(_NAMESPACE, "lock"))
_LOCK_STAYS = (
    f"the server did not take the lock back: a publish from another machine waits for it, {LEASE_SECONDS / 60:.0f} minutes "
    "at most"
)

log = logging.getLogger("vidseek.index")

Result = TypeVar("Result")


class QdrantCollection:
    """A finished collection on a server, for reading."""

    def __init__(self, client: QdrantClient, facts: CollectionFacts) -> None:
        self._client = client
        self._facts = facts

    @property
    def facts(self) -> CollectionFacts:
        """What its metadata says."""
        return self._facts

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        exact: bool = False,
        at_least: float = -math.inf,
        using: Dense = "video",
        conditions: Sequence[Condition] = (),
        stretches: Sequence[Stretch] = (),
    ) -> list[RankedClip]:
        """The nearest clips by the vector `using`, best first; approximate unless `exact`."""
        if not self._facts.has(using):
            return []
        if len(stretches) > MOST_STRETCHES:
            parts = [
                self.search(
                    vector, limit=limit, exact=exact, at_least=at_least, using=using, conditions=conditions,
                    stretches=stretches[start : start + MOST_STRETCHES],
                )
                for start in range(0, len(stretches), MOST_STRETCHES)
            ]
            return sorted({clip for part in parts for clip in part}, key=rank_order)[:limit]
        params = models.SearchParams(
            hnsw_ef=self._facts.search_ef, exact=exact,
            quantization=models.QuantizationSearchParams(
                ignore=exact, rescore=True, oversampling=self._facts.oversampling(limit)
            ) if self._facts.settings.quantization != "none" else None,
        )
        return self._query(vector.tolist(), using, limit, params, _filter(conditions, stretches), at_least)

    def search_words(self, words: Words, *, limit: int, conditions: Sequence[Condition] = ()) -> list[RankedClip]:
        """The clips in whose text some of `words` stand, best first, by BM25."""
        if not self._facts.has(WORDS_VECTOR) or not words.indices:
            return []
        found = self._query(_sparse(words), WORDS_VECTOR, limit, None, _filter(conditions))
        # The in-memory mode gives clips that share no word as well, with a score of 0.
        return [clip for clip in found if clip.score > 0]

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The payloads of these points, by id; those that are not there are left out."""
        records = _call(self._client.retrieve, self._facts.name, list(clip_ids), with_payload=True)
        return {str(record.id): record.payload or {} for record in records}

    def count(self, vector: Vector | None = None) -> int:
        """How many points there are (with such a vector), counted."""
        if vector is not None and not self._facts.has(vector):
            return 0
        having = models.Filter(must=[models.HasVectorCondition(has_vector=vector)]) if vector else None
        return _call(self._client.count, self._facts.name, count_filter=having, exact=True).count

    def sample(self, num: int, *, seed: int) -> list[str]:
        """The clip ids of up to `num` points, the same ones for the same seed."""
        def first_from(offset: str | None) -> str | None:
            records, _ = _call(self._client.scroll, self._facts.name, limit=1, offset=offset, with_payload=False)
            return str(records[0].id) if records else None

        return draw_ids(num, seed=seed, first_from=first_from)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """The points with these ids, in this order; those that are not there are left out."""
        records = _call(
            self._client.retrieve, self._facts.name, list(clip_ids), with_payload=True, with_vectors=True
        )
        return points_in_order(records, clip_ids)

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """All points, in order of clip id, `batch` in memory at once."""
        offset: Any = None
        while True:
            records, offset = _call(
                self._client.scroll, self._facts.name, limit=batch, offset=offset, with_payload=True, with_vectors=True
            )
            yield from map(point_of, records)
            if offset is None:
                return

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """The values of a payload field of words, and how many points have each: the most frequent first."""
        hits = _call(
            self._client.facet, self._facts.name, field, facet_filter=_filter(conditions), limit=limit, exact=True
        ).hits
        return {str(hit.value): hit.count for hit in hits}

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of a payload field of numbers or times; None where no point has one."""
        ends = []
        for direction in (models.Direction.ASC, models.Direction.DESC):
            order = models.OrderBy(key=field, direction=direction)
            records, _ = _call(self._client.scroll, self._facts.name, limit=1, order_by=order, with_payload=True)
            ends += [(record.payload or {})[field] for record in records]
        return (ends[0], ends[1]) if ends else None

    def close(self) -> None:
        """Nothing is held: the client is the home's."""

    def _query(
        self, query: Any, using: str, limit: int, params: models.SearchParams | None, fitting: models.Filter | None,
        at_least: float = -math.inf,
    ) -> list[RankedClip]:
        found = _call(
            self._client.query_points, self._facts.name, query=query, using=using, limit=limit,
            query_filter=fitting, search_params=params, with_payload=_SPAN_FIELDS,
            score_threshold=threshold_of(at_least),
        ).points
        return [_ranked(point) for point in found]


class QdrantHome:
    """The collections of a Qdrant server."""

    def __init__(self, client: QdrantClient, settings: ServerSettings | None = None) -> None:
        self._client = client
        self._settings = settings or ServerSettings()
        self._token = ""

    @classmethod
    def connect(cls, url: str, *, api_key: str | None = None, settings: ServerSettings | None = None) -> QdrantHome:
        """The server at `url`. Nothing is asked of it yet."""
        return cls(QdrantClient(url=url, api_key=api_key, timeout=60, check_compatibility=False), settings)

    def aliases(self) -> dict[str, Alias]:
        """All aliases of collections of ours; empty where nothing was published."""
        ours = self._pointers()
        notes = self._notes() if ours else {}
        return {name: Alias(live, _previous_in(notes.get(name, {}), live) or ()) for name, live in ours.items()}

    def lost_aliases(self) -> list[str]:
        """Aliases that are noted and not on the server, or that something else than vidseek has moved."""
        ours = self._pointers()
        lost = []
        for name, note in sorted(self._notes().items()):
            if name not in ours:
                lost.append(f"the alias {name!r} is noted in {STATE}, and is not on the server")
            elif _previous_in(note, ours[name]) is None:
                lost.append(f"the alias {name!r} names {ours[name]}, and {STATE} has noted otherwise")
        return lost

    def collections(self) -> list[CollectionFacts]:
        """The finished collections that can be read, oldest first."""
        facts = [found for name in self._names() if (found := self._facts(name)) is not None]
        return sorted(facts, key=lambda each: (each.created_at, each.name))

    def stored(self) -> list[str]:
        """The names of the finished collections, sorted; also of those whose metadata another version wrote."""
        return [name for name in self._names() if "vidseek" in self._metadata(name)]

    def open(self, name: str) -> QdrantCollection:
        """Open a finished collection.

        Raises:
            ArtifactError: it is not there, or not finished.
            ServiceError: the server does not answer.
        """
        facts = self._facts(name) if COLLECTION_NAME.fullmatch(name) else None
        if facts is None:
            raise ArtifactError(f"there is no collection {name} on the server", remedy="Publish, or import it")
        return QdrantCollection(self._client, facts)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the builder's lock, a point that only one can insert, with an end that is put off while we live.

        Raises:
            ServiceError: another one holds it.
        """
        if not self._exists(STATE):
            _call(self._client.create_collection, STATE, vectors_config={})
        token = uuid.uuid4().hex
        self._take_lock(token)
        self._token = token
        try:
            yield
        except BaseException as error:
            if not self._let_go(token):
                _say_more(error, _LOCK_STAYS)
            raise
        if not self._let_go(token):
            log.warning("what was written is whole, but %s", _LOCK_STAYS)

    def build(self, facts: CollectionFacts, points: Iterable[Point]) -> None:
        """Make a collection: payload indexes first, load with indexing deferred, optimise; then its facts.

        Raises:
            ArtifactError: the facts cannot be those of a collection. Nothing was touched.
            ServiceError: the server has a finished one of that name, or does not take it. Nothing of ours is left.
        """
        if self._facts(require_facts(facts).name) is not None:
            raise ServiceError(
                f"the server has a finished collection {facts.name} already", remedy="Drop it, or search that one"
            )
        try:
            self._create(facts)
            remaining = iter(points)
            while batch := list(islice(remaining, LOAD_BATCH)):
                structs = [_struct(point) for point in batch]
                # The same ids again are the same points: a batch that was cut off is sent once more.
                _call(self._client.upsert, facts.name, structs, wait=True)
                self._renew_lock()
            self._optimise(facts)
            _call(self._client.update_collection, facts.name, metadata={"vidseek": facts.to_json()})
        except BaseException as error:
            if not self._try_to_delete(facts.name):
                _say_more(error, f"what was built of {facts.name} stays on the server until the next publish")
            raise

    def check(self, name: str) -> list[str]:
        """What the server says is wrong with a collection; empty if nothing is."""
        status = _call(self._client.get_collection, name).status
        return [] if status == models.CollectionStatus.GREEN else [f"the server says that {name} is {status.value}"]

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, in one step.

        Its history is noted first, for where it goes and for where it is: whichever it names after a death in between,
        the note has the history that belongs to it.
        """
        current = self.aliases().get(alias)
        entries = {each.collection: list(each.previous) for each in (current, to) if each is not None}
        self._put_state(_note_id(alias), {"kind": "alias", "alias": alias, "history": entries})
        operations: list[Any] = [_deletion(alias)] if current is not None else []
        operations.append(models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=to.collection, alias_name=alias)
        ))
        _call(self._client.update_collection_aliases, operations)

    def drop_alias(self, alias: str) -> None:
        """Let `alias` point nowhere; nothing where it does not point anywhere."""
        if alias in self._pointers():
            if self._exists(STATE):  # first: an alias without a note is whole, a note without an alias is a loss
                _call(self._client.delete, STATE, models.PointIdsList(points=[_note_id(alias)]), wait=True)
            _call(self._client.update_collection_aliases, [_deletion(alias)])

    def drop(self, name: str) -> None:
        """Remove a collection."""
        if not COLLECTION_NAME.fullmatch(name):  # the server may have others than ours
            raise ArtifactError(f"{shown(name)} is no name of a collection")
        _call(self._client.delete_collection, name)

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Remove what a killed build left, but for collections that are `needed`, and say what it was."""
        unfinished = sorted(set(self._names()) - set(self.stored()) - needed)
        for name in unfinished:
            self.drop(name)
        return unfinished

    def _names(self) -> list[str]:
        found = _call(self._client.get_collections).collections
        return sorted(each.name for each in found if COLLECTION_NAME.fullmatch(each.name))

    def _exists(self, name: str) -> bool:
        return _call(self._client.collection_exists, name)

    def _facts(self, name: str) -> CollectionFacts | None:
        """The facts of a finished collection; None for one that is not there or not finished."""
        if not self._exists(name):
            return None
        try:
            facts = CollectionFacts.from_json(self._metadata(name)["vidseek"])
        except (KeyError, TypeError, ValueError, ConfigError):
            return None
        return facts if facts.name == name else None

    def _metadata(self, name: str) -> dict[str, Any]:
        return dict(_call(self._client.get_collection, name).config.metadata or {})

    def _create(self, facts: CollectionFacts) -> None:
        settings, cluster = facts.settings, self._settings
        self._try_to_delete(facts.name)
        vector = models.VectorParams(
            size=facts.dimension, distance=models.Distance.COSINE, on_disk=settings.on_disk
        )
        _call(
            self._client.create_collection, facts.name,
            vectors_config={name: vector for name in settings.vectors if facts.has(name) and name != WORDS_VECTOR},
            sparse_vectors_config={WORDS_VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
            if facts.has(WORDS_VECTOR) else None,
            shard_number=cluster.shards, replication_factor=cluster.replicas,
            write_consistency_factor=cluster.write_consistency,
            hnsw_config=models.HnswConfigDiff(m=settings.m, ef_construct=settings.ef_construct),
            quantization_config=models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=0.99, always_ram=True
            )) if settings.quantization == "int8" else None,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),  # 0: no graph while it is loaded
        )
        for field, kind in PAYLOAD_INDEXES.items():
            _call(
                self._client.create_payload_index, facts.name, field, field_schema=_SCHEMAS[kind], wait=True
            )

    def _optimise(self, facts: CollectionFacts) -> None:
        _call(
            self._client.update_collection, facts.name,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=INDEXING_THRESHOLD_KB),
        )
        deadline = time.monotonic() + OPTIMISE_TIMEOUT_SECONDS
        num_settled = 0
        while num_settled < SETTLED_POLLS:  # green once may mean that the optimizer has not begun
            problems = self.check(facts.name)
            if time.monotonic() > deadline:
                raise ServiceError(f"{problems[0]} after {OPTIMISE_TIMEOUT_SECONDS / 3600:.0f} h", remedy=_REMEDY)
            num_settled = 0 if problems else num_settled + 1
            self._renew_lock()
            time.sleep(POLL_SECONDS)

    def _try_to_delete(self, name: str) -> bool:
        """Whether it is gone; where not, the next publish removes it: it has no facts."""
        try:
            if self._exists(name):
                self.drop(name)
        except ServiceError:
            return False
        return True

    def _let_go(self, token: str) -> bool:
        """Whether the lock is given back; where not, it ends by itself."""
        self._token = ""
        try:
            self._drop_lock(token)
        except ServiceError:
            return False
        return True

    def _take_lock(self, token: str) -> None:
        for _ in range(2):
            self._insert_lock(token)
            held = self._state(_LOCK_ID)
            if held.get("token") == token:
                return
            if held.get("until", 0.0) > time.time() and not _is_dead(held):
                break
            self._drop_lock(str(held.get("token", "")))  # its holder was killed
        left = max(0.0, float(held.get("until", 0.0)) - time.time())
        raise ServiceError(
            f"another publish (process {held.get('process', 'unknown')}) is writing to the server",
            remedy=f"Wait for it to end, then publish again; if it was killed, its lock ends in {left:.0f} s",
        )

    def _insert_lock(self, token: str) -> None:
        payload = {"kind": "lock", "token": token, "until": time.time() + LEASE_SECONDS,
                   "process": f"{os.getpid()} on {socket.gethostname()}", "pid": os.getpid(), "machine": _machine()}
        point = models.PointStruct(id=_LOCK_ID, vector={}, payload=payload)
        _call(self._client.upsert, STATE, [point], wait=True, update_mode=models.UpdateMode.INSERT_ONLY)

    def _renew_lock(self) -> None:
        """Put off the lock's end, where we hold one.

        Raises:
            ServiceError: it is not ours any more.
        """
        if not self._token:
            return
        mine = _with_token(self._token)
        _call(self._client.set_payload, STATE, {"until": time.time() + LEASE_SECONDS}, points=mine, wait=True)
        if self._state(_LOCK_ID).get("token") != self._token:
            raise ServiceError("the lock was taken by another publish", remedy="Wait for it to end, then publish again")

    def _drop_lock(self, token: str) -> None:
        _call(self._client.delete, STATE, models.FilterSelector(filter=_with_token(token)), wait=True)

    def _state(self, point_id: str) -> dict[str, Any]:
        records = _call(self._client.retrieve, STATE, [point_id], with_payload=True)
        return dict(records[0].payload or {}) if records else {}

    def _put_state(self, point_id: str, payload: dict[str, Any]) -> None:
        point = models.PointStruct(id=point_id, vector={}, payload=payload)
        _call(self._client.upsert, STATE, [point], wait=True)

    def _pointers(self) -> dict[str, str]:
        """What the server itself says: collections of ours by alias."""
        found = _call(self._client.get_aliases).aliases
        return {each.alias_name: each.collection_name for each in found if COLLECTION_NAME.fullmatch(each.collection_name)}

    def _notes(self) -> dict[str, dict[str, Any]]:
        """What is noted of aliases, by their names."""
        if not self._exists(STATE):
            return {}
        records, _ = _call(self._client.scroll, STATE, limit=10_000, with_payload=True)
        payloads = [dict(record.payload or {}) for record in records]
        return {str(each["alias"]): each for each in payloads if each.get("kind") == "alias" and "alias" in each}


def _note_id(alias: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"alias:{alias}"))


def _previous_in(note: Mapping[str, Any], live: str) -> tuple[str, ...] | None:
    """What was live before `live`, as the note of its alias says; None where it knows nothing of it."""
    history, previous = note.get("history"), note.get("previous")
    if not isinstance(history, dict):  # as earlier versions wrote it: of where it was to go alone
        history = {note["of"]: previous} if isinstance(note.get("of"), str) else {}
        if isinstance(previous, list) and live in previous and live not in history:  # killed before the alias moved
            history = {live: previous[previous.index(live) + 1 :]}
    known = history.get(live)
    if not isinstance(known, list):
        return None
    return tuple(str(name) for name in known if COLLECTION_NAME.fullmatch(str(name)))


def _machine() -> str:
    """This machine, and the space of its process numbers: in two containers of one machine they mean other processes."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}" if space else ""


def _is_dead(held: Mapping[str, Any]) -> bool:
    """Whether the holder of a lock was a process of this machine, and is no more."""
    machine, pid = _machine(), held.get("pid")
    if not machine or held.get("machine") != machine or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _say_more(error: BaseException, what: str) -> None:
    """Put `what` behind the remedy of an error of ours."""
    if isinstance(error, VidseekError):
        error.remedy = f"{error.remedy}; {what}" if error.remedy else what
    else:
        log.warning("%s", what)


def _call(ask: Callable[..., Result], *args: Any, **named: Any) -> Result:
    """Ask the server, and again where it did not answer: everything that is asked may be asked twice."""
    for wait in [*(FIRST_WAIT_SECONDS * 2**number for number in range(TRIES - 1)), None]:
        try:
            return ask(*args, **named)
        except UnexpectedResponse as error:
            if wait is None or (error.status_code or 0) < 500:
                raise ServiceError(f"the Qdrant server says {error.status_code}: {_said(error)}", remedy=_REMEDY) from error
        except (ResponseHandlingException, OSError) as error:
            if wait is None:
                raise ServiceError(f"the Qdrant server does not answer: {error}", remedy=_REMEDY) from error
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _said(error: UnexpectedResponse) -> str:
    return error.content.decode(errors="replace")[:300] if error.content else str(error.reason_phrase)


def _with_token(token: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="token", match=models.MatchValue(value=token))])


def _deletion(alias: str) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))


def _struct(point: Point) -> models.PointStruct:
    return models.PointStruct(id=point.clip_id, vector=vectors_of(point, _sparse), payload=dict(point.payload))


def _ranked(point: models.ScoredPoint) -> RankedClip:
    payload = point.payload or {}
    return RankedClip(
        str(point.id), str(payload["video_id"]), int(payload["start_ms"]), int(payload["end_ms"]),
        round(point.score, SCORE_DIGITS), str(payload.get("duplicate_of", "")),
    )


def _sparse(words: Words) -> models.SparseVector:
    return models.SparseVector(indices=list(words.indices), values=list(words.values))


def _filter(conditions: Sequence[Condition], stretches: Sequence[Stretch] = ()) -> models.Filter | None:
    if not conditions and not stretches:
        return None
    return models.Filter(
        must=[_field_condition(each) for each in conditions if not each.none_of],
        must_not=[_field_condition(each) for each in conditions if each.none_of],
        should=[_within(each) for each in stretches] or None,
    )


def _within(stretch: Stretch) -> models.Filter:
    begins = models.Range(gte=stretch.first_ms, lte=stretch.last_ms)
    return models.Filter(must=[
        models.FieldCondition(key="video_id", match=models.MatchValue(value=stretch.video_id)),
        models.FieldCondition(key="start_ms", range=begins),
    ])


def _field_condition(condition: Condition) -> models.FieldCondition:
    if values := condition.any_of or condition.none_of:
        return models.FieldCondition(key=condition.field, match=models.MatchAny(any=list(values)))  # type: ignore[arg-type]
    bounds: dict[str, Any] = dict(condition.bounds)
    if PAYLOAD_INDEXES[condition.field] == "integer":
        return models.FieldCondition(key=condition.field, range=models.Range(**bounds))
    return models.FieldCondition(key=condition.field, range=models.DatetimeRange(**bounds))
