"""The embedded backend: Qdrant Edge shards in a folder, with the aliases, facts and lock that Edge does not have.

<root>/aliases.json                    replaced by rename; readers look at it before each search
<root>/.lock                           flock: held while a build or a move runs, and freed by the kernel at any end
<root>/<collection>/shard/             the Edge shard; nothing in it changes once it is finished
<root>/<collection>/spans.npy          video and span of each clip
<root>/<collection>/points.npy         a digest of each point, row for row
<root>/<collection>/videos.npy         a digest of what each video's points were made from; not of imported collections
<root>/<collection>/collection.json    written last: a folder without it is what a killed build left
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, foreign
from vidseek_media.files.folders import sync_path
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.names import relative_file, shown
from vidseek_retrieval.index.backend import USE_REMEDY, Alias, Point, alias_name, require_alias_name
from vidseek_retrieval.index.collection_metadata import (
    COLLECTION_NAME,
    CollectionMetadata,
    name_of_collection,
    require_facts,
)
from vidseek_retrieval.index.difference.record import Difference
from vidseek_retrieval.index.edge.collection import EdgeCollection
from vidseek_retrieval.index.edge.copying import bytes_to_copy, copy_file, copy_shard, is_shared
from vidseek_retrieval.index.edge.file_digests import digest_of
from vidseek_retrieval.index.edge.records import POINTS_FILE, VIDEOS_FILE, EdgeRecord
from vidseek_retrieval.index.edge.shard import REBUILD_REMEDY, SHARD_FOLDER, SPACE_REMEDY, Growth, build_shard
from vidseek_retrieval.index.edge.spans import SPANS_FILE

ALIASES_FILE = "aliases.json"
COLLECTION_FILE = "collection.json"
LOCK_FILE = ".lock"
_REMOVED = ".removed-"
COPIES = 5
"""Tries to copy a small file that readers write anew while it is copied."""
_SETTLED_NS = 50_000_000
"""A file that was written this long before it is looked at has another time if it is written again: clocks of file systems
tick every few milliseconds."""


class EdgeBackend:
    """A folder of Edge collections."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fresh: dict[Path, tuple[tuple[int, ...], str]] = {}
        """State and digest of files of collections that were finished and not checked since."""
        self._finished: dict[str, EdgeCollection] = {}
        """Collections that were opened as they were finished, for who opens them first."""

    def aliases(self) -> dict[str, Alias]:
        """Return all aliases; empty where nothing was published.

        Raises:
            ArtifactError: aliases.json is broken.
        """
        path = self.root / ALIASES_FILE
        try:
            content = read_json(path)
            return {
                alias_name(name): Alias(
                    name_of_collection(entry["collection"]), tuple(map(name_of_collection, entry["previous"]))
                )
                for name, entry in content.items()
            }
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(
                f"{path} is broken: {error}", code="aliases-broken",
                remedy=f"Move that one file to another name; the collections beside it stay. Then {USE_REMEDY}",
            ) from error

    def live(self, alias: str) -> str | None:
        """Implement `IndexBackend.live`; never out of date."""
        found = self.aliases().get(alias)
        return found.collection if found else None

    def lost_aliases(self) -> list[str]:
        """Implement `IndexBackend.lost_aliases`: none, since all aliases are in one table."""
        return []

    def collections(self) -> list[CollectionMetadata]:
        """Implement `IndexBackend.collections`."""
        metadata = [metadata for name in self.stored() if (metadata := self._facts_or_none(name)) is not None]
        return sorted(metadata, key=lambda each: (each.created_at, each.name))

    def stored(self) -> list[str]:
        """Implement `IndexBackend.stored`."""
        names = [path.parent.name for path in self.root.glob(f"*/{COLLECTION_FILE}")]
        return sorted(name for name in names if COLLECTION_NAME.fullmatch(name))

    def open(self, name: str) -> EdgeCollection:
        """Implement `IndexBackend.open`. Any number of processes may have it open."""
        facts = self._facts(name)
        finished = self._finished.pop(name, None)
        return finished or EdgeCollection.open(self.root / name, facts)

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
                    code="publish-running",
                    remedy="Wait for it to end, then publish again",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                for name in list(self._finished):
                    self._close_finished(name)

    def build(
        self, metadata: CollectionMetadata, points: Iterable[Point], videos: NDArray[np.void] | None = None
    ) -> None:
        """Make a collection: payload indexes first, load, optimise, flush, close; then collection.json.

        Raises:
            ArtifactError: the facts cannot be those of a collection: their name is no name, say. Nothing was touched.
            ServiceError: a folder of that name is there, or the disk or Edge does not take it. Nothing of ours is left.
        """
        with self._new_folder(metadata) as folder:
            with _write_errors(self.root):
                (folder / SHARD_FOLDER).mkdir()
                _require_space(self.root, metadata)
            with _build_errors(metadata):
                build_shard(folder, metadata, points, num_changed=metadata.num_points)
                self._open_finished(folder, metadata)
            with _write_errors(self.root):
                if videos is not None:
                    np.save(folder / VIDEOS_FILE, videos)
                self._finish(folder, metadata, {})

    def record(self, name: str) -> EdgeRecord | None:
        """Return the digests of a collection; None of an imported one, or one of an earlier version."""
        return EdgeRecord.read(self.root / name, self._facts(name), self._grow)

    def _grow(self, metadata: CollectionMetadata, difference: Difference) -> None:
        """Make a collection from a stored one: copy its shard, remove and write points, optimise, flush; collection.json.

        Files that Edge never writes are shared with the stored one by hard links. Its copied files are held against its
        record: what is broken is not copied on.

        Raises:
            ArtifactError: a file of the stored collection was changed.
            ServiceError: a folder of that name is there, or the disk or Edge does not take it. Nothing of ours is left.
        """
        base = self.root / difference.base.name
        recorded: dict[str, str] = self._content(difference.base.name)["files"]
        with self._new_folder(metadata) as folder:
            with _write_errors(self.root):
                _require_space_to_grow(self.root, base, metadata, difference)
                copied = copy_shard(base / SHARD_FOLDER, folder / SHARD_FOLDER)
                own = [path.relative_to(folder).as_posix() for path in copied]
                _require_unchanged(base, folder, own, recorded)
            with _build_errors(metadata):
                build_shard(
                    folder, metadata, difference.written, Growth(base, difference.removed),
                    num_changed=difference.num_changed,
                )
                self._open_finished(folder, metadata)
            with _write_errors(self.root):
                np.save(folder / VIDEOS_FILE, difference.videos)
                shared = {name: digest for name, digest in recorded.items() if name not in own}
                self._finish(folder, metadata, shared)

    @contextmanager
    def _new_folder(self, metadata: CollectionMetadata) -> Iterator[Path]:
        """Make the folder of a collection; remove it where the block fails."""
        folder = self.root / require_facts(metadata).name
        with _write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()  # fails where anything is there: what follows removes this folder, and so only what it made
        try:
            yield folder
        except BaseException:
            self._close_finished(metadata.name)
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _open_finished(self, folder: Path, metadata: CollectionMetadata) -> None:
        """Open a new collection before its files are hashed: the first opening tidies journals away, so that readers find
        files that never change. It stays open for its verification.
        """
        self._finished[metadata.name] = EdgeCollection.open(folder, metadata)

    def _close_finished(self, name: str) -> None:
        finished = self._finished.pop(name, None)
        if finished is not None:
            finished.close()

    def _finish(self, folder: Path, metadata: CollectionMetadata, known: Mapping[str, str]) -> None:
        """Write collection.json, with the digests of all files, once these are on the disk.

        Of shared files it takes those that are known: where one was changed, the verification says so.
        """
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        files = {}
        for name, path in paths.items():
            is_known = name in known and is_shared(path)
            if not is_known:
                sync_path(path)
            files[name] = known[name] if is_known else self._hashed(path)
        write_json(folder / COLLECTION_FILE, {**metadata.to_json(), "files": files}, sync=True)

    def _hashed(self, path: Path) -> str:
        """Return the digest of a file that was just written, and keep it for the next `check`."""
        begun, state = time.time_ns(), _state_of(path)
        digest = digest_of(path)
        if state == _state_of(path) and begun - max(state[-2:]) > _SETTLED_NS:
            self._fresh[path] = state, digest
        return digest

    def check(self, name: str) -> list[str]:
        """Compare the files of a collection with the sha256 recorded when it was finished.

        Files that this process hashed as it finished the collection, and that have the same inode, size and times since, are
        not read again by the first check.
        """
        recorded: dict[str, str] = self._content(name)["files"]
        wrong = []
        for file, digest in recorded.items():
            try:
                path = self.root / name / relative_file(file, what="a file of the collection")
                state, found = self._fresh.pop(path, ((), ""))
                if (found if state == _state_of(path) else digest_of(path, recorded=digest)) != digest:
                    wrong.append(f"{file} was changed")
            except ValueError as error:
                wrong.append(str(error))
            except OSError as error:
                wrong.append(f"{file} is missing or cannot be read: {error.strerror}")
        return wrong

    def move_alias(self, alias: str, to: Alias) -> None:
        """Implement `IndexBackend.move_alias`, by one rename."""
        require_alias_name(alias)
        self._write_aliases({**self.aliases(), alias: to})

    def drop_alias(self, alias: str) -> None:
        """Implement `IndexBackend.drop_alias`."""
        aliases = self.aliases()
        if aliases.pop(alias, None) is not None:
            self._write_aliases(aliases)

    def _write_aliases(self, aliases: Mapping[str, Alias]) -> None:
        content = {
            name: {"collection": each.collection, "previous": list(each.previous)} for name, each in aliases.items()
        }
        with _write_errors(self.root):
            write_json(self.root / ALIASES_FILE, dict(sorted(content.items())), sync=True)

    def drop(self, name: str) -> None:
        """Remove a collection. Who has it open goes on reading: its files live as long as they are mapped."""
        folder = self.root / self._checked(name)
        self._close_finished(name)
        with _write_errors(self.root):
            # First the file that makes it a collection: killed after this, the rest is unfinished and goes next time.
            (folder / COLLECTION_FILE).unlink(missing_ok=True)
        self._remove(name)

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Implement `IndexBackend.remove_unfinished`."""
        for left in self.root.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        names = sorted(path.name for path in self.root.iterdir() if COLLECTION_NAME.fullmatch(path.name))
        unfinished = sorted(set(names) - set(self.stored()) - needed)
        for name in unfinished:
            self._remove(name)
        return unfinished

    def _facts_or_none(self, name: str) -> CollectionMetadata | None:
        try:
            return self._facts(name)
        except ArtifactError:
            return None

    def _remove(self, name: str) -> None:
        # A reader that opens or lets go of a shard rewrites two small files of it. It finds no renamed folder, and what
        # it does put back beside us goes next time.
        with _write_errors(self.root):
            renamed = (self.root / name).rename(self.root / f"{_REMOVED}{name}-{os.getpid()}")
        shutil.rmtree(renamed, ignore_errors=True)

    def _facts(self, name: str) -> CollectionMetadata:
        try:
            metadata = CollectionMetadata.from_json(self._content(name))
            if metadata.name != name:
                raise ValueError(f"it says that it is {metadata.name}")
            return metadata
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            path = self.root / name / COLLECTION_FILE
            raise ArtifactError(f"{path} is broken: {error!r}", code="collection-broken", remedy=REBUILD_REMEDY) from error

    def _checked(self, name: str) -> str:
        if not COLLECTION_NAME.fullmatch(name):  # a name may come from outside: it is never a path
            raise ArtifactError(
                f"{shown(name)} is no name of a collection", code="bad-collection-name", remedy=REBUILD_REMEDY,
            )
        return name

    def _content(self, name: str) -> dict[str, Any]:
        path = self.root / self._checked(name) / COLLECTION_FILE
        try:
            content = read_json(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactError(
                f"there is no collection {name} in {self.root}", code="collection-absent", remedy=REBUILD_REMEDY,
            ) from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is broken: {error}", code="collection-broken", remedy=REBUILD_REMEDY) from error
        if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
            raise ArtifactError(f"{path} is broken: it lists no files", code="collection-broken", remedy=REBUILD_REMEDY)
        return content


def _require_space(root: Path, metadata: CollectionMetadata) -> None:
    """Edge writes through mapped files: where the disk fills up, the process is killed by a signal, with no error."""
    # Vectors are there up to three times while segments are merged; the rest is payload, graph, and a fixed part: pages
    # that Edge takes beforehand, 83 MiB for the smallest shard where a file system keeps no holes (tmpfs).
    num_vectors = sum(metadata.num_with(name) for name in metadata.dense_vectors)
    wanted = num_vectors * 3 * 4 * metadata.dimension + metadata.num_points * 1024 + 128 * 2**20
    _require_free(root, wanted, f"{metadata.num_points} points")


def _require_space_to_grow(root: Path, base: Path, metadata: CollectionMetadata, difference: Difference) -> None:
    num_vectors = sum(len(point.vectors) for point in difference.written)
    tables = sum((base / name).stat().st_size for name in (SPANS_FILE, POINTS_FILE))
    wanted = bytes_to_copy(base / SHARD_FOLDER) + tables + num_vectors * 3 * 4 * metadata.dimension + 128 * 2**20
    _require_free(root, wanted, f"{difference.num_changed} points that changed")


def _require_free(root: Path, wanted: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if free < wanted:
        raise ServiceError(
            f"the disk of {root} has {free // 2**20} MiB free, {what} want about {wanted // 2**20}",
            code="no-space",
            remedy=SPACE_REMEDY,
        )


def _require_unchanged(base: Path, folder: Path, copied: Sequence[str], recorded: Mapping[str, str]) -> None:
    """Hold the copied files of a shard, and the tables that are read in their old place, against the base's record."""
    read = {name: base / name for name in (SPANS_FILE, POINTS_FILE, VIDEOS_FILE)}
    for name, path in {**read, **{each: folder / each for each in copied}}.items():
        wanted = recorded.get(name)
        for _ in range(COPIES):
            if wanted == digest_of(path, recorded=wanted):
                break
            if name not in read:  # a reader that opens the base writes a small file of it anew at this moment
                path.unlink()
                copy_file(base / name, path)
        else:
            raise ArtifactError(f"{name} of {base.name} was changed", code="collection-broken", remedy=REBUILD_REMEDY)


def _state_of(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written or replaced: device, inode, size, and the times of bytes and inode."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _build_errors(metadata: CollectionMetadata) -> AbstractContextManager[None]:
    said = f"the collection {metadata.name} cannot be built"
    return foreign(ServiceError, said, code="index-not-writable", remedy=SPACE_REMEDY, errors=Exception)


def _write_errors(root: Path) -> AbstractContextManager[None]:
    return foreign(ServiceError, f"the index {root} cannot be written", code="index-not-writable", remedy=SPACE_REMEDY)
