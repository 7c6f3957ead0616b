"""The embedded home: Qdrant Edge shards in a folder, with the aliases, facts and lock that Edge does not have.

<root>/aliases.json                    replaced by rename; readers look at it before each search
<root>/.lock                           flock: held while a build or a move runs, and freed by the kernel at any end
<root>/<collection>/shard/             the Edge shard; never written again once it is finished
<root>/<collection>/collection.json    written last: a folder without it is what a killed build left
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from numpy.typing import NDArray

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError, ServiceError, VidseekError
from vidseek_retrieval.index import (
    COLLECTION_NAME,
    PAYLOAD_INDEXES,
    VIDEO_VECTOR,
    Alias,
    CollectionFacts,
    FoundClip,
    Point,
)

ALIASES_FILE = "aliases.json"
COLLECTION_FILE = "collection.json"
LOCK_FILE = ".lock"
SHARD_FOLDER = "shard"
LOAD_BATCH = 1000
FULL_SCAN_KB = 10_000
"""Below this Qdrant compares with every vector: exact, and as fast."""

_SCHEMAS = {
    "keyword": qdrant.PayloadSchemaType.Keyword,
    "integer": qdrant.PayloadSchemaType.Integer,
    "datetime": qdrant.PayloadSchemaType.Datetime,
}


class EdgeCollection:
    """A finished Edge shard, open for reading."""

    def __init__(self, facts: CollectionFacts, shard: Any) -> None:
        self._facts = facts
        self._shard = shard

    @property
    def facts(self) -> CollectionFacts:
        """What collection.json says."""
        return self._facts

    def search(self, vector: NDArray[np.float32], *, limit: int, exact: bool = False) -> list[FoundClip]:
        """The nearest clips by the vector `video`, best first; approximate unless `exact`."""
        request = qdrant.QueryRequest(
            query=qdrant.Query.Nearest(vector.tolist(), using=VIDEO_VECTOR),
            limit=limit,
            with_payload=True,
            params=qdrant.SearchParams(hnsw_ef=self._facts.settings.hnsw_ef, exact=exact),
        )
        with self._broken_is_ours():
            found = self._shard.query(request)
        return [FoundClip(str(point.id), point.score, point.payload or {}) for point in found]

    def count(self) -> int:
        """How many points there are, counted."""
        with self._broken_is_ours():
            return int(self._shard.count(qdrant.CountRequest(exact=True)))

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
        by_id = {
            str(record.id): Point(
                str(record.id), np.asarray(record.vector[VIDEO_VECTOR], dtype=np.float32), record.payload or {}
            )
            for record in records
        }
        return [by_id[clip_id] for clip_id in clip_ids if clip_id in by_id]

    def close(self) -> None:
        """Give back memory and files."""
        with self._broken_is_ours():
            self._shard.close()

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
        return EdgeCollection(facts, shard)

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
                _build_shard(folder / SHARD_FOLDER, facts, points)
            with _write_errors(self.root):
                _write_json(folder / COLLECTION_FILE, {**facts.to_json(), "files": _digests(folder / SHARD_FOLDER)})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def check(self, name: str) -> list[str]:
        """Compare the files of a collection with the sha256 recorded when it was finished."""
        recorded: dict[str, str] = self._content(name)["files"]
        wrong = []
        for file, digest in recorded.items():
            try:
                if file_sha256(self.root / name / SHARD_FOLDER / file) != digest:
                    wrong.append(f"{file} was changed")
            except OSError as error:
                wrong.append(f"{file} is missing or cannot be read: {error.strerror}")
        return wrong

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, by one rename."""
        aliases = {**self.aliases(), alias: to}
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


_REMOVED = ".removed-"
_REMEDY = "Run `dvc repro publish --force` to build it again"
_SPACE_REMEDY = "See that the disk has room and can be written, then publish again"


def _require_space(root: Path, facts: CollectionFacts) -> None:
    """Edge writes through mapped files: where the disk fills up, the process is killed by a signal, with no error."""
    # Vectors are there up to three times while segments are merged; the rest is payload, graph, and a fixed part.
    wanted = facts.num_points * (3 * 4 * facts.dimension + 1024) + 8 * 2**20
    free = shutil.disk_usage(root).free
    if free < wanted:
        raise ServiceError(
            f"the disk of {root} has {free // 2**20} MiB free, {facts.num_points} points want about {wanted // 2**20}",
            remedy=_SPACE_REMEDY,
        )


def _build_shard(folder: Path, facts: CollectionFacts, points: Iterable[Point]) -> None:
    settings = facts.settings
    config = qdrant.EdgeConfig(
        vectors={VIDEO_VECTOR: qdrant.EdgeVectorParams(facts.dimension, qdrant.Distance.Cosine)},
        hnsw_config=qdrant.HnswIndexConfig(settings.m, settings.ef_construct, FULL_SCAN_KB),
        # One segment is one graph: the fewest steps a search can take.
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1),
        # A shard that is written once needs no log, and without one any number of processes can open it.
        wal_enabled=False,
    )
    shard = qdrant.EdgeShard.create(str(folder), config)
    try:
        for field, kind in PAYLOAD_INDEXES.items():
            shard.update(qdrant.UpdateOperation.create_field_index(field, _SCHEMAS[kind]))
        remaining = iter(points)
        while batch := list(islice(remaining, LOAD_BATCH)):
            shard.update(qdrant.UpdateOperation.upsert_points([_edge_point(point) for point in batch]))
        shard.optimize()
        shard.flush()
    finally:
        shard.close()
    # The first opening tidies journals away: done here, so that readers find files that never change.
    qdrant.EdgeShard.load(str(folder)).close()


def _edge_point(point: Point) -> Any:
    return qdrant.Point(point.clip_id, {VIDEO_VECTOR: point.vector.tolist()}, dict(point.payload))


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


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
