"""Builds a Qdrant Edge shard, in a child process if it is large, and converts Edge's errors."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from numpy.typing import NDArray

from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.difference.record import POINT_ROW, point_row
from vidseek_retrieval.index.edge.records import joined_rows, write_rows
from vidseek_retrieval.index.edge.spans import ROW, row_of
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.records import vectors_of
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.vectors.registry import index_vector

SHARD_FOLDER = "shard"
LOAD_BATCH = 1000
CHILD_FROM_POINTS = 5000
"""Fewer points are written in the process that asks for it: they take a few MB."""
LAST_LINES = 20
"""Of what a child says, to tell why it failed."""
FULL_SCAN_KB = 10_000
"""Below this Qdrant compares with every vector: exact, and as fast."""
BUILT_SEGMENTS = 1
"""One segment is one graph: the fewest steps a search can take."""
GROWN_SEGMENTS = 8
"""Of a shard that grows: at one, each few thousand new points would be merged into the large graph, which takes minutes."""
MOST_DELETED = 0.9
"""Above this share Edge writes a segment anew by itself: a publish decides it before (`publish.compact_share`)."""

_FIELD_INDEXES = {
    "keyword": qdrant.KeywordIndexParams, "integer": qdrant.IntegerIndexParams, "float": qdrant.FloatIndexParams,
    "datetime": qdrant.DatetimeIndexParams,
}
REBUILD_REMEDY = "Run `dvc repro --force --single-item publish` to build it again"
SPACE_REMEDY = "See that the disk has room and can be written, then publish again"


@dataclass(frozen=True)
class Growth:
    """What is taken from a collection before the points are written into a copy of its shard."""

    base: Path
    """The folder of the collection that the shard was copied from."""
    removed: tuple[str, ...]
    """Ids of its points that are removed."""


def build_shard(
    folder: Path, metadata: CollectionMetadata, points: Iterable[Point], growth: Growth | None = None, *, num_changed: int
) -> None:
    """Write `shard/`, spans.npy and points.npy into a folder, in a child process if many points are written or removed.

    Edge writes through memory-mapped files. If the disk is full, the kernel ends the process by a signal; in a child process
    this becomes an error, and the live collection stays.

    Args:
        folder: The collection's folder.
        metadata: Vectors and settings of the collection.
        points: Its points.
        growth: Given where `shard/` is a copy already and `points` are those that are written into it.
        num_changed: Points that are written or removed.

    Raises:
        ServiceError: the child process was ended by a signal.
        Exception: any error of Edge.
    """
    if num_changed < CHILD_FROM_POINTS:
        if growth is None:
            load_shard(folder, metadata, points)
        else:
            grow_shard(folder, metadata, points, growth)
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.Popen(
        [sys.executable, "-m", "vidseek_retrieval.index.edge.builder", str(folder)],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )
    assert child.stdin is not None and child.stderr is not None
    said: deque[bytes] = deque(maxlen=LAST_LINES)
    # Read while writing: a child with more output than its pipe holds would block, and so would we.
    listener = threading.Thread(target=said.extend, args=(child.stderr,), daemon=True)
    listener.start()
    try:
        with suppress(BrokenPipeError), child.stdin as pipe:  # a child that died is told of below
            pickle.dump((metadata, growth), pipe)
            remaining = iter(points)
            while batch := list(islice(remaining, LOAD_BATCH)):
                pickle.dump(batch, pipe)
            pickle.dump([], pipe)  # nothing more: a pipe that breaks off ends without it
        child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        listener.join()
        child.stderr.close()
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ServiceError(
            f"building {metadata.name} was ended by {name}: the disk or the memory is full",
            code="index-build-ended", remedy=SPACE_REMEDY
        )
    if child.returncode:
        raise RuntimeError(b"".join(said).decode(errors="replace").strip().rsplit("\n", 1)[-1])


def load_shard(folder: Path, metadata: CollectionMetadata, points: Iterable[Point]) -> None:
    """Write `shard/`, spans.npy and points.npy into a folder in this process.

    Args:
        folder: The collection's folder.
        metadata: Vectors and settings of the collection.
        points: Its points.
    """
    path = str(folder / SHARD_FOLDER)
    shard = qdrant.EdgeShard.create(path, _config(metadata, BUILT_SEGMENTS))
    try:
        rows = _write(shard, metadata, points)
    finally:
        shard.close()
    write_rows(folder, *rows)


def grow_shard(folder: Path, metadata: CollectionMetadata, points: Iterable[Point], growth: Growth) -> None:
    """Remove and write points in a copied shard in this process, and write spans.npy and points.npy beside it.

    Args:
        folder: The collection's folder, with a copy of the base's shard.
        metadata: Vectors and settings of the collection.
        points: The points to write.
        growth: The base, and the points to remove.
    """
    path = str(folder / SHARD_FOLDER)
    shard = qdrant.EdgeShard.load(path, _config(metadata, GROWN_SEGMENTS))
    try:
        remaining: Iterator[int | uuid.UUID | str] = iter(growth.removed)
        while batch := list(islice(remaining, LOAD_BATCH)):
            shard.update(qdrant.UpdateOperation.delete_points(batch))
        rows = _write(shard, metadata, points)
    finally:
        shard.close()
    write_rows(folder, *joined_rows(growth.base, growth.removed, *rows))


def _write(
    shard: Any, metadata: CollectionMetadata, points: Iterable[Point]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Write points, optimise and flush; return their rows of spans.npy and points.npy."""
    known = shard.info().payload_schema
    for field, kind in payload_indexes(metadata.declared).items():
        if field not in known:
            # Mapped, and not read into memory at each opening, which took most of its time; filters are as fast.
            shard.update(qdrant.UpdateOperation.create_field_index(field, _FIELD_INDEXES[kind](on_disk=True)))
    spans, records = [np.empty(0, ROW)], [np.empty(0, POINT_ROW)]
    remaining = iter(points)
    while batch := list(islice(remaining, LOAD_BATCH)):
        spans.append(np.array([row_of(point) for point in batch], ROW))
        records.append(np.array([point_row(point, metadata.settings.vectors) for point in batch], POINT_ROW))
        shard.update(qdrant.UpdateOperation.upsert_points([_edge_point(point) for point in batch]))
    shard.optimize()
    shard.flush()
    return np.concatenate(spans), np.concatenate(records)


def _config(metadata: CollectionMetadata, segments: int) -> Any:
    """Return the configuration of a shard.

    Args:
        metadata: Vectors and settings of the collection.
        segments: Beyond so many, the smallest are merged.
    """
    settings = metadata.settings
    return qdrant.EdgeConfig(
        vectors={name: _vector_params(metadata, name) for name in metadata.dense_vectors},
        sparse_vectors={
            name: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf) for name in metadata.sparse_vectors
        } or None,
        hnsw_config=qdrant.HnswIndexConfig(settings.m, settings.ef_construct, FULL_SCAN_KB),
        optimizers=qdrant.EdgeOptimizersConfig(
            default_segment_number=segments, indexing_threshold=FULL_SCAN_KB, deleted_threshold=MOST_DELETED,
        ),
        # A shard that is written once needs no log, and without one any number of processes can open it.
        wal_enabled=False,
    )


def _vector_params(metadata: CollectionMetadata, name: str) -> Any:
    memory = qdrant.Memory.Cold if metadata.settings.on_disk else qdrant.Memory.Cached
    is_quantized = metadata.settings.quantization == "int8" and index_vector(name).quantized
    return qdrant.EdgeVectorParams(
        metadata.dimension, qdrant.Distance.Cosine, memory=memory,
        quantization_config=qdrant.ScalarQuantizationConfig(
            qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned
        ) if is_quantized else None,
    )


def _edge_point(point: Point) -> Any:
    return qdrant.Point(point.clip_id, vectors_of(point, sparse_vector), dict(point.payload))


def sparse_vector(words: SparseVector) -> Any:
    """`words` as Edge takes them."""
    return qdrant.SparseVector(list(words.indices), list(words.values))
