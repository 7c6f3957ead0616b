"""The embedded home: Qdrant Edge shards in a folder, with the aliases, facts and lock that Edge does not have.

<root>/aliases.json                    replaced by rename; readers look at it before each search
<root>/.lock                           flock: held while a build or a move runs, and freed by the kernel at any end
<root>/<collection>/shard/             the Edge shard; nothing in it changes once it is finished
<root>/<collection>/spans.npy          video and span of each clip, mapped: moments form from 1,000 clips of a search,
                                       and reading so many payloads takes Edge longer than the search
<root>/<collection>/collection.json    written last: a folder without it is what a killed build left
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from numpy.typing import NDArray

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError, ServiceError, VidseekError
from vidseek_media.folders import whole_file
from vidseek_retrieval.filters import Condition
from vidseek_retrieval.index import (
    CAPTION_VECTOR,
    COLLECTION_NAME,
    PAYLOAD_INDEXES,
    VIDEO_VECTOR,
    WORDS_VECTOR,
    Alias,
    CollectionFacts,
    Dense,
    Point,
    Vector,
    Words,
    canonical_json,
)
from vidseek_retrieval.moments import SCORE_DIGITS, RankedClip

ALIASES_FILE = "aliases.json"
COLLECTION_FILE = "collection.json"
LOCK_FILE = ".lock"
SHARD_FOLDER = "shard"
SPANS_FILE = "spans.npy"
SPANS = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("clip_id", "S36"), ("video_id", "S32"), ("start_ms", "<i8"), ("end_ms", "<i8"),
     ("duplicate_of", "S32")]
)
"""A row for each point, sorted by its id's upper and lower half."""
LOAD_BATCH = 1000
CHILD_FROM_POINTS = 5000
"""Below this a shard is of a few MB, and is built in the process that asks for it."""
FULL_SCAN_KB = 10_000
"""Below this Qdrant compares with every vector: exact, and as fast."""

_SCHEMAS = {
    "keyword": qdrant.PayloadSchemaType.Keyword,
    "integer": qdrant.PayloadSchemaType.Integer,
    "datetime": qdrant.PayloadSchemaType.Datetime,
}


class EdgeCollection:
    """A finished Edge shard, open for reading."""

    def __init__(self, facts: CollectionFacts, shard: Any, spans: NDArray[np.void]) -> None:
        self._facts = facts
        self._shard = shard
        self._spans = spans

    @property
    def facts(self) -> CollectionFacts:
        """What collection.json says."""
        return self._facts

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        exact: bool = False,
        using: Dense = "video",
        conditions: Sequence[Condition] = (),
    ) -> list[RankedClip]:
        """The nearest clips by the vector `using`, best first; approximate unless `exact`."""
        settings = self._facts.settings
        if not self._facts.has(using):
            return []
        params = qdrant.SearchParams(
            hnsw_ef=settings.hnsw_ef, exact=exact,
            quantization=qdrant.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=settings.oversampling)
            if settings.quantization != "none" else None,
        )
        return self._query(qdrant.Query.Nearest(vector.tolist(), using=using), limit, conditions, params)

    def search_words(self, words: Words, *, limit: int, conditions: Sequence[Condition] = ()) -> list[RankedClip]:
        """The clips in whose text some of `words` stand, best first, by BM25."""
        if not self._facts.has(WORDS_VECTOR) or not words.indices:
            return []
        query = qdrant.Query.Nearest(_sparse(words), using=WORDS_VECTOR)
        return self._query(query, limit, conditions, None)

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The payloads of these points, by id; those that are not there are left out."""
        with self._broken_is_ours():
            records = self._shard.retrieve(list(clip_ids), with_payload=True, with_vector=False)
        return {str(record.id): record.payload or {} for record in records}

    def count(self, vector: Vector | None = None) -> int:
        """How many points there are (with such a vector), counted."""
        if vector is not None and not self._facts.has(vector):
            return 0
        having = qdrant.Filter(must=[qdrant.HasVectorCondition(vector)]) if vector else None
        with self._broken_is_ours():
            return int(self._shard.count(qdrant.CountRequest(exact=True, filter=having)))

    def sample(self, num: int, *, seed: int) -> list[str]:
        """The clip ids of up to `num` points, the same ones for the same seed."""
        # Clip ids are hashes: the first one after a random id is a fair draw.
        draws = random.Random(seed)
        found: set[str] = set()
        for _ in range(num):
            start = str(uuid.UUID(int=draws.getrandbits(128), version=5))
            for offset in (start, None):
                with self._broken_is_ours():
                    records, _ = self._shard.scroll(qdrant.ScrollRequest(offset=offset, limit=1, with_payload=False))
                if records:
                    found.add(str(records[0].id))
                    break
        return sorted(found)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """The points with these ids, in this order; those that are not there are left out."""
        with self._broken_is_ours():
            records = self._shard.retrieve(list(clip_ids), with_payload=True, with_vector=True)
        by_id = {str(record.id): _point_of(record) for record in records}
        return [by_id[clip_id] for clip_id in clip_ids if clip_id in by_id]

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """All points, in order of clip id, `batch` in memory at once."""
        offset = None
        while True:
            request = qdrant.ScrollRequest(offset=offset, limit=batch, with_payload=True, with_vector=True)
            with self._broken_is_ours():
                records, offset = self._shard.scroll(request)
            yield from map(_point_of, records)
            if offset is None:
                return

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """The values of a payload field of words, and how many points have each: the most frequent first."""
        with self._broken_is_ours():
            request = qdrant.FacetRequest(field, limit=limit, exact=True, filter=_filter(conditions))
            hits = self._shard.facet(request).hits
        return {str(hit.value): hit.count for hit in hits}

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of a payload field of numbers or times; None where no point has one."""
        ends = []
        for direction in (qdrant.Direction.Asc, qdrant.Direction.Desc):
            request = qdrant.ScrollRequest(limit=1, with_payload=True, order_by=qdrant.OrderBy(field, direction=direction))
            with self._broken_is_ours():
                records, _ = self._shard.scroll(request)
            ends += [record.payload[field] for record in records]
        return (ends[0], ends[1]) if ends else None

    def close(self) -> None:
        """Give back memory and files."""
        with self._broken_is_ours():
            self._shard.close()

    def _query(self, query: Any, limit: int, conditions: Sequence[Condition], params: Any) -> list[RankedClip]:
        request = qdrant.QueryRequest(
            query=query, limit=limit, with_payload=False, filter=_filter(conditions), params=params
        )
        with self._broken_is_ours():
            found = self._shard.query(request)
        spans = self._spans_of(b"".join([point.id.bytes for point in found]))
        columns = [
            [name.decode() for name in spans["clip_id"].tolist()],
            [name.decode() for name in spans["video_id"].tolist()],
            spans["start_ms"].tolist(),
            spans["end_ms"].tolist(),
            [round(point.score, SCORE_DIGITS) for point in found],
            [name.decode() for name in spans["duplicate_of"].tolist()],
        ]
        return list(map(RankedClip._make, zip(*columns, strict=True)))

    def _spans_of(self, ids: bytes) -> NDArray[np.void]:
        """The rows of the spans table for these ids, 16 bytes each."""
        highs, lows = np.frombuffer(ids, dtype=">u8").astype(np.uint64).reshape(-1, 2).T
        rows = np.searchsorted(self._spans["high"], highs)
        # Two ids may share their upper half.
        while True:
            rows = np.minimum(rows, len(self._spans) - 1)
            other = (self._spans["high"][rows] == highs) & (self._spans["low"][rows] < lows)
            if not other.any():
                break
            rows = rows + other
        spans = self._spans[rows]
        if (spans["high"] != highs).any() or (spans["low"] != lows).any():
            raise ArtifactError(f"{SPANS_FILE} of {self._facts.name} lacks clips of its shard", remedy=_REMEDY)
        return spans

    @contextmanager
    def _broken_is_ours(self) -> Iterator[None]:
        with _edge_errors(ArtifactError, f"the collection {self._facts.name} does not answer", _REMEDY):
            yield


class EdgeHome:
    """A folder of Edge collections."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def aliases(self) -> dict[str, Alias]:
        """All aliases; empty where nothing was published.

        Raises:
            ArtifactError: aliases.json is broken.
        """
        path = self.root / ALIASES_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {
                name: Alias(str(entry["collection"]), tuple(str(each) for each in entry["previous"]))
                for name, entry in content.items()
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{path} is broken: {error}", remedy="Remove it and publish again") from error

    def collections(self) -> list[CollectionFacts]:
        """The finished collections, oldest first."""
        names = [path.parent.name for path in self.root.glob(f"*/{COLLECTION_FILE}")]
        facts = [self._facts(name) for name in names if COLLECTION_NAME.fullmatch(name)]
        return sorted(facts, key=lambda each: (each.created_at, each.name))

    def open(self, name: str) -> EdgeCollection:
        """Open a finished collection. Any number of processes may have it open.

        Raises:
            ArtifactError: it is not there, or broken.
        """
        facts = self._facts(name)
        with _edge_errors(ArtifactError, f"the collection {name} in {self.root} cannot be opened", _REMEDY):
            shard = qdrant.EdgeShard.load(str(self.root / name / SHARD_FOLDER))
        return EdgeCollection(facts, shard, self._spans(facts))

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the builder's lock. A process that is killed holds it no longer.

        Raises:
            ServiceError: another one holds it, or the folder cannot be written.
        """
        with _write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / LOCK_FILE).open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise ServiceError(
                    f"another publish (process {file.read().strip() or 'unknown'}) is writing to {self.root}",
                    remedy="Wait for it to end, then publish again",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def build(self, facts: CollectionFacts, points: Iterable[Point]) -> None:
        """Make a collection: payload indexes first, load, optimise, flush, close; then collection.json.

        Raises:
            ServiceError: the disk or Edge does not take it. Nothing is left.
        """
        folder = self.root / facts.name
        try:
            with _write_errors(self.root):
                (folder / SHARD_FOLDER).mkdir(parents=True)
                _require_space(self.root, facts)
            with _edge_errors(ServiceError, f"the collection {facts.name} cannot be built", _SPACE_REMEDY):
                build_shard(folder, facts, points)
            with _write_errors(self.root):
                _write_json(folder / COLLECTION_FILE, {**facts.to_json(), "files": _digests(folder)})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def check(self, name: str) -> list[str]:
        """Compare the files of a collection with the sha256 recorded when it was finished."""
        recorded: dict[str, str] = self._content(name)["files"]
        wrong = []
        for file, digest in recorded.items():
            try:
                if _digest(self.root / name / file) != digest:
                    wrong.append(f"{file} was changed")
            except OSError as error:
                wrong.append(f"{file} is missing or cannot be read: {error.strerror}")
        return wrong

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, by one rename."""
        self._write_aliases({**self.aliases(), alias: to})

    def drop_alias(self, alias: str) -> None:
        """Let `alias` point nowhere; nothing where it does not point anywhere."""
        aliases = self.aliases()
        if aliases.pop(alias, None) is not None:
            self._write_aliases(aliases)

    def _write_aliases(self, aliases: Mapping[str, Alias]) -> None:
        content = {
            name: {"collection": each.collection, "previous": list(each.previous)} for name, each in aliases.items()
        }
        with _write_errors(self.root):
            _write_json(self.root / ALIASES_FILE, dict(sorted(content.items())))

    def drop(self, name: str) -> None:
        """Remove a collection. Who has it open goes on reading: its files live as long as they are mapped."""
        folder = self.root / name
        with _write_errors(self.root):
            # First the file that makes it a collection: killed after this, the rest is unfinished and goes next time.
            (folder / COLLECTION_FILE).unlink(missing_ok=True)
        self._remove(name)

    def remove_unfinished(self) -> list[str]:
        """Remove what a killed build left and what cannot be read, and say what it was."""
        for left in self.root.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        names = sorted(path.name for path in self.root.iterdir() if COLLECTION_NAME.fullmatch(path.name))
        unfinished = [name for name in names if not self._is_finished(name)]
        for name in unfinished:
            self._remove(name)
        return unfinished

    def _spans(self, facts: CollectionFacts) -> NDArray[np.void]:
        path = self.root / facts.name / SPANS_FILE
        try:
            spans: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ArtifactError(f"{path} is missing or broken: {error}", remedy=_REMEDY) from error
        if spans.dtype != SPANS or spans.shape != (facts.num_points,):
            raise ArtifactError(
                f"{path} has {spans.shape} rows of {spans.dtype}, wanted {facts.num_points} of {SPANS}: "
                "it is broken, or of another version of vidseek", remedy=_REMEDY,
            )
        return spans

    def _is_finished(self, name: str) -> bool:
        try:
            self._facts(name)
        except ArtifactError:
            return False
        return True

    def _remove(self, name: str) -> None:
        # A reader that opens or lets go of a shard rewrites two small files of it. It finds no renamed folder, and what
        # it does put back beside us goes next time.
        with _write_errors(self.root):
            renamed = (self.root / name).rename(self.root / f"{_REMOVED}{name}-{os.getpid()}")
        shutil.rmtree(renamed, ignore_errors=True)

    def _facts(self, name: str) -> CollectionFacts:
        try:
            return CollectionFacts.from_json(self._content(name))
        except (KeyError, TypeError) as error:
            path = self.root / name / COLLECTION_FILE
            raise ArtifactError(f"{path} is broken: {error!r}", remedy=_REMEDY) from error

    def _content(self, name: str) -> dict[str, Any]:
        if not COLLECTION_NAME.fullmatch(name):  # a name may come from outside: it is never a path
            raise ArtifactError(f"{name!r} is no name of a collection", remedy=_REMEDY)
        path = self.root / name / COLLECTION_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactError(f"there is no collection {name} in {self.root}", remedy=_REMEDY) from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is broken: {error}", remedy=_REMEDY) from error
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            raise ArtifactError(f"{path} is broken: it lists no files", remedy=_REMEDY)
        return content


_LOW = 2**64 - 1
_REMOVED = ".removed-"
_REMEDY = "Run `dvc repro --force --single-item publish` to build it again"
_SPACE_REMEDY = "See that the disk has room and can be written, then publish again"


def _require_space(root: Path, facts: CollectionFacts) -> None:
    """Edge writes through mapped files: where the disk fills up, the process is killed by a signal, with no error."""
    # Vectors are there up to three times while segments are merged; the rest is payload, graph, and a fixed part: pages
    # that Edge takes beforehand, 83 MiB for the smallest shard where a file system keeps no holes (tmpfs).
    num_vectors = facts.num_points + facts.num_captions
    wanted = num_vectors * 3 * 4 * facts.dimension + facts.num_points * 1024 + 128 * 2**20
    free = shutil.disk_usage(root).free
    if free < wanted:
        raise ServiceError(
            f"the disk of {root} has {free // 2**20} MiB free, {facts.num_points} points want about {wanted // 2**20}",
            remedy=_SPACE_REMEDY,
        )


def build_shard(folder: Path, facts: CollectionFacts, points: Iterable[Point]) -> None:
    """Write `shard/` and spans.npy into `folder`: in a process of its own where there are many points.

    Edge writes through mapped files, and where the disk fills up the kernel ends its process by a signal: the child's
    end is told as an error, and the collection that is live stays.

    Raises:
        ServiceError: the process was ended by a signal.
        Exception: whatever Edge raises.
    """
    if facts.num_points < CHILD_FROM_POINTS:
        load_shard(folder, facts, points)
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen(
        [sys.executable, "-m", "vidseek_retrieval.edge_builder", str(folder)], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    )
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as pipe:  # a child that died is told of below
            pickle.dump(facts, pipe)
            remaining = iter(points)
            while batch := list(islice(remaining, LOAD_BATCH)):
                pickle.dump(batch, pipe)
            pickle.dump([], pipe)  # nothing more: a pipe that breaks off ends without it
        child.stdin = None
        _, said = child.communicate()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ServiceError(
            f"building {facts.name} was ended by {name}: the disk or the memory is full", remedy=_SPACE_REMEDY
        )
    if child.returncode:
        raise RuntimeError(said.decode(errors="replace").strip().rsplit("\n", 1)[-1])


def load_shard(folder: Path, facts: CollectionFacts, points: Iterable[Point]) -> None:
    """Write `shard/` and spans.npy into `folder`, in this process."""
    path = str(folder / SHARD_FOLDER)
    spans = np.zeros(facts.num_points, dtype=SPANS)
    settings = facts.settings
    config = qdrant.EdgeConfig(
        vectors={name: _vector_params(facts) for name in settings.vectors if facts.has(name) and name != WORDS_VECTOR},
        sparse_vectors={WORDS_VECTOR: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)}
        if facts.has(WORDS_VECTOR) else None,
        hnsw_config=qdrant.HnswIndexConfig(settings.m, settings.ef_construct, FULL_SCAN_KB),
        quantization_config=qdrant.ScalarQuantizationConfig(
            qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned
        ) if settings.quantization == "int8" else None,
        # One segment is one graph: the fewest steps a search can take.
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=FULL_SCAN_KB),
        # A shard that is written once needs no log, and without one any number of processes can open it.
        wal_enabled=False,
    )
    shard = qdrant.EdgeShard.create(path, config)
    try:
        for field, kind in PAYLOAD_INDEXES.items():
            shard.update(qdrant.UpdateOperation.create_field_index(field, _SCHEMAS[kind]))
        remaining = iter(points)
        num = 0
        while batch := list(islice(remaining, LOAD_BATCH)):
            spans[num : num + len(batch)] = [_span(point) for point in batch]
            num += len(batch)
            shard.update(qdrant.UpdateOperation.upsert_points([_edge_point(point) for point in batch]))
        shard.optimize()
        shard.flush()
    finally:
        shard.close()
    # The first opening tidies journals away: done here, so that readers find files that never change.
    qdrant.EdgeShard.load(path).close()
    np.save(folder / SPANS_FILE, np.sort(spans, order=["high", "low"]))


def _span(point: Point) -> tuple[int, int, bytes, bytes, int, int, bytes]:
    number, payload = uuid.UUID(point.clip_id).int, point.payload
    return (
        number >> 64,
        number & _LOW,
        point.clip_id.encode(),
        payload["video_id"].encode(),
        payload["start_ms"],
        payload["end_ms"],
        payload.get("duplicate_of", "").encode(),
    )


def _vector_params(facts: CollectionFacts) -> Any:
    memory = qdrant.Memory.Cold if facts.settings.on_disk else qdrant.Memory.Cached
    return qdrant.EdgeVectorParams(facts.dimension, qdrant.Distance.Cosine, memory=memory)


def _edge_point(point: Point) -> Any:
    vectors: dict[str, Any] = {VIDEO_VECTOR: point.vector.tolist()}
    if point.caption is not None:
        vectors[CAPTION_VECTOR] = point.caption.tolist()
    if point.words is not None:
        vectors[WORDS_VECTOR] = _sparse(point.words)
    return qdrant.Point(point.clip_id, vectors, dict(point.payload))


def _point_of(record: Any) -> Point:
    caption, words = record.vector.get(CAPTION_VECTOR), record.vector.get(WORDS_VECTOR)
    return Point(
        str(record.id),
        np.asarray(record.vector[VIDEO_VECTOR], dtype=np.float32),
        record.payload or {},
        caption=None if caption is None else np.asarray(caption, dtype=np.float32),
        words=None if words is None else Words(tuple(words.indices), tuple(words.values)),
    )


def _sparse(words: Words) -> Any:
    return qdrant.SparseVector(list(words.indices), list(words.values))


def _filter(conditions: Sequence[Condition]) -> Any:
    if not conditions:
        return None
    return qdrant.Filter(
        must=[_edge_condition(each) for each in conditions if not each.none_of],
        must_not=[_edge_condition(each) for each in conditions if each.none_of],
    )


def _edge_condition(condition: Condition) -> Any:
    if values := condition.any_of or condition.none_of:
        return qdrant.FieldCondition(condition.field, match=qdrant.MatchAny(list(values)))  # type: ignore[arg-type]
    if PAYLOAD_INDEXES[condition.field] == "integer":
        bounds: dict[str, Any] = {name: float(value) for name, value in condition.bounds}  # type: ignore[arg-type]
        return qdrant.FieldCondition(condition.field, range=qdrant.RangeFloat(**bounds))
    times = {name: value.isoformat() for name, value in condition.bounds}  # type: ignore[union-attr]
    return qdrant.FieldCondition(condition.field, range=qdrant.RangeDateTime(**times))


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    """The sha256 of a file; of what it says, where it is JSON: Edge writes its keys anew, in any order, as it opens."""
    if path.suffix != ".json":
        return file_sha256(path)
    try:
        content = canonical_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return ""
    return hashlib.sha256(content.encode()).hexdigest()


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    with whole_file(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceError(f"the index {root} cannot be written: {error}", remedy=_SPACE_REMEDY) from error


@contextmanager
def _edge_errors(kind: type[VidseekError], message: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except VidseekError:
        raise
    except Exception as error:  # Edge raises bare Exception
        raise kind(f"{message}: {error}", remedy=remedy) from error
    except BaseException as error:
        # A panic inside Edge is no Exception; an interrupt by the user is none of ours.
        if type(error).__name__ != "PanicException":
            raise
        raise kind(f"{message}: {error}", remedy=remedy) from error
