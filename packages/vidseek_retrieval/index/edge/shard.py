"""Builds a Qdrant Edge shard, in a child process if it is large, and converts Edge's errors."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.edge.spans import ROW, SPANS_FILE, row_of, write_spans
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.records import vectors_of
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.vectors.registry import index_vector

SHARD_FOLDER = "shard"
LOAD_BATCH = 1000
CHILD_FROM_POINTS = 5000
"""Below this a shard is of a few MB, and is built in the process that asks for it."""
LAST_LINES = 20
"""Of what a child says, to tell why it failed."""
FULL_SCAN_KB = 10_000
"""Below this Qdrant compares with every vector: exact, and as fast."""

_SCHEMAS = {
    "keyword": qdrant.PayloadSchemaType.Keyword,
    "integer": qdrant.PayloadSchemaType.Integer,
    "datetime": qdrant.PayloadSchemaType.Datetime,
}
REBUILD_REMEDY = "Run `dvc repro --force --single-item publish` to build it again"
SPACE_REMEDY = "See that the disk has room and can be written, then publish again"


def build_shard(folder: Path, metadata: CollectionMetadata, points: Iterable[Point]) -> None:
    """Write `shard/` and spans.npy into a folder, in a child process if there are many points.

    Edge writes through memory-mapped files. If the disk is full, the kernel ends the process by a signal; in a child process
    this becomes an error, and the live collection stays.

    Args:
        folder: The collection's folder.
        metadata: Vectors and settings of the collection.
        points: Its points.

    Raises:
        ServiceError: the child process was ended by a signal.
        Exception: any error of Edge.
    """
    if metadata.num_points < CHILD_FROM_POINTS:
        load_shard(folder, metadata, points)
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
            pickle.dump(metadata, pipe)
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
    """Write `shard/` and spans.npy into a folder in this process.

    Args:
        folder: The collection's folder.
        metadata: Vectors and settings of the collection.
        points: Its points.
    """
    path = str(folder / SHARD_FOLDER)
    spans = np.zeros(metadata.num_points, dtype=ROW)
    settings = metadata.settings
    config = qdrant.EdgeConfig(
        vectors={name: _vector_params(metadata, name) for name in metadata.dense_vectors},
        sparse_vectors={
            name: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf) for name in metadata.sparse_vectors
        } or None,
        hnsw_config=qdrant.HnswIndexConfig(settings.m, settings.ef_construct, FULL_SCAN_KB),
        # One segment is one graph: the fewest steps a search can take.
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=FULL_SCAN_KB),
        # A shard that is written once needs no log, and without one any number of processes can open it.
        wal_enabled=False,
    )
    shard = qdrant.EdgeShard.create(path, config)
    try:
        for field, kind in payload_indexes().items():
            shard.update(qdrant.UpdateOperation.create_field_index(field, _SCHEMAS[kind]))
        remaining = iter(points)
        num = 0
        while batch := list(islice(remaining, LOAD_BATCH)):
            spans[num : num + len(batch)] = [row_of(point) for point in batch]
            num += len(batch)
            shard.update(qdrant.UpdateOperation.upsert_points([_edge_point(point) for point in batch]))
        shard.optimize()
        shard.flush()
    finally:
        shard.close()
    # The first opening tidies journals away: done here, so that readers find files that never change.
    qdrant.EdgeShard.load(path).close()
    write_spans(folder / SPANS_FILE, spans)


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
