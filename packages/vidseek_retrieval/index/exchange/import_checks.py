"""Checks an exported collection from elsewhere: it is read with limits, and every row is checked before anything is built.

The file may be malicious. It is first read completely by a process with limits on memory and time, since the footer of a
Parquet file does not reveal the unpacked size of its pages. Then it is read again with the same checks, and built.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_media import names
from vidseek_media.errors import ArtifactError, VidseekError
from vidseek_media.files.json_files import parse_json
from vidseek_media.ids import clip_ids_of
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.embedding.embedding_parts import UNIT_TOLERANCE
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, is_number
from vidseek_retrieval.index.payload import payload_fields
from vidseek_retrieval.index.values import CAPTION_VECTOR, VIDEO_VECTOR, WORDS_VECTOR, SparseVector, Value
from vidseek_retrieval.vectors.registry import evidence_vectors, filter_fields, vector_names

FACTS_KEY = b"vidseek"
ROWS = 1000
"""Read at once."""
MOST_FACTS_BYTES = 64 * 2**20
MOST_PAYLOAD_BYTES = 64 * 2**10
MOST_LETTERS = 8192
"""Of a text in a payload."""
MOST_WORDS = 8192
"""Different words of a clip."""
MOST_MS = 2**53
MEMORY_BYTES = 2 * 2**30
"""That the reading process may take beside what it takes to start: a batch of the widest vectors has 128 MB."""
SECONDS = 60.0
"""Computing time for a file of a few MB; a second more for each MB. By the clock it may be ten times as much: other work may
have the processors."""

_REMEDY = "Export it again"
_OPTIONS: Mapping[str, Any] = {"buffer_size": 2**20, "pre_buffer": False, "page_checksum_verification": True}


def columns_of(metadata: CollectionMetadata) -> list[tuple[str, pa.DataType]]:
    """Return the columns of an exported collection and their types, those of earlier versions first."""
    # Lists of no fixed size: pyarrow reads no null among those (seen in 25.0).
    vector, indices = pa.list_(pa.float32()), pa.list_(pa.int64())
    columns = [
        ("clip_id", pa.string()), (VIDEO_VECTOR, vector), (CAPTION_VECTOR, vector), (f"{WORDS_VECTOR}_indices", indices),
        (f"{WORDS_VECTOR}_values", vector), ("payload", pa.string()),
    ]
    for name in _others(metadata):
        is_dense = name in vector_names("dense")
        columns += [(name, vector)] if is_dense else [(f"{name}_indices", indices), (f"{name}_values", vector)]
    return columns


def _others(metadata: CollectionMetadata) -> list[str]:
    return [
        name for name in vector_names()
        if name in metadata.settings.vectors and name not in (VIDEO_VECTOR, CAPTION_VECTOR, WORDS_VECTOR)
    ]


def check_file(path: Path) -> None:
    """Read the whole file in a process of its own, and check all of it.

    Raises:
        ArtifactError: it is missing, broken, none of ours, or takes more memory or time than such a file may.
    """
    try:
        seconds = SECONDS + path.stat().st_size / 2**20
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", code="import-unreadable", remedy=_REMEDY) from error
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", ""),
                   "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-m", "vidseek_retrieval.index.exchange.import_checks", str(path), str(math.ceil(seconds))]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=10 * seconds, check=False
        )
    except subprocess.TimeoutExpired:
        returncode, said = -signal.SIGXCPU, ""
    else:
        returncode, said = done.returncode, done.stdout.decode(errors="replace")
    if returncode == 0:
        return
    if returncode == -signal.SIGXCPU:
        raise ArtifactError(
            f"{path} takes longer than {seconds:.0f} s to read", code="import-too-slow", remedy=_REMEDY,
        )
    if returncode == ArtifactError.exit_code and said.strip():
        raise ArtifactError(said.strip(), code="import-broken", remedy=_REMEDY)
    raise ArtifactError(
        f"{path} cannot be read within {MEMORY_BYTES // 2**20} MiB of memory: it is broken, or made to fill the memory",
        code="import-too-large",
        remedy=_REMEDY,
    )


@contextmanager
def opened(path: Path) -> Iterator[ExportFile]:
    """Open an exported collection and read its metadata from the footer.

    Raises:
        ArtifactError: the file is missing, not Parquet, or not an exported collection.
    """
    with _read_errors(path):
        file = pq.ParquetFile(path, **_OPTIONS)
    with file:
        with _read_errors(path):
            metadata = _facts_of(file)
        yield ExportFile(path, file, metadata)


@dataclass(frozen=True)
class ExportFile:
    """An exported collection, open for reading."""

    path: Path
    file: pq.ParquetFile
    metadata: CollectionMetadata

    def points(self) -> Iterator[Point]:
        """Yield the points, each checked.

        Raises:
            ArtifactError: the file is broken, or a row is none of a collection of these facts.
        """
        with _read_errors(self.path):
            ids = bytearray()
            counts: Counter[str] = Counter()
            for batch in self.file.iter_batches(ROWS, use_threads=False):
                points = list(_batch(batch, self.metadata))
                ids += b"".join(uuid.UUID(point.clip_id).bytes for point in points)
                for point in points:
                    counts.update(point.vectors.keys())
                yield from points
            rows = np.frombuffer(ids, "V16")
            if len(np.unique(rows)) != len(rows):
                raise ValueError("it holds a clip twice")
            for name in vector_names():
                if counts[name] != self.metadata.num_with(name):
                    raise ValueError(
                        f"it holds {counts[name]} points with {name}, its facts say {self.metadata.num_with(name)}"
                    )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except VidseekError as error:
        raise ArtifactError(
            f"{path} is no exported collection: {error.message}", code="import-broken", remedy=_REMEDY,
        ) from error
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, MemoryError):
            raise
        raise ArtifactError(f"{path} cannot be read as Parquet: {error}", code="not-parquet", remedy=_REMEDY) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        why = str(error) if isinstance(error, ValueError) else repr(error)
        raise ArtifactError(f"{path} is no exported collection: {why}", code="import-broken", remedy=_REMEDY) from error


def _facts_of(file: pq.ParquetFile) -> CollectionMetadata:
    schema = file.schema_arrow
    kinds = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
    said = (schema.metadata or {}).get(FACTS_KEY, b"")
    if not 0 < len(said) <= MOST_FACTS_BYTES:
        raise ValueError(f"its facts have {len(said)} bytes, wanted at least 1 and at most {MOST_FACTS_BYTES}")
    metadata = CollectionMetadata.from_json(parse_json(said))
    wanted = columns_of(metadata)
    if list(kinds) != [name for name, _ in wanted] or not all(_is_of(kinds[name], kind) for name, kind in wanted):
        shown = ", ".join(name for name, _ in wanted)
        raise ValueError(f"its columns are {names.shown(schema.names)}, wanted {shown} of their types")
    if file.metadata.num_rows != metadata.num_points:
        raise ValueError(f"it has {file.metadata.num_rows} rows, its facts say {metadata.num_points}")
    if metadata.calibration is not None:
        _check_calibration(Calibration.from_json(metadata.calibration), metadata)
    return metadata


def _check_calibration(calibration: Calibration, metadata: CollectionMetadata) -> None:
    if calibration.encoder_version != metadata.encoder_version:
        raise ValueError(
            f"its calibration is of encoder_version {names.shown(calibration.encoder_version)}, the collection is of "
            f"{metadata.encoder_version}"
        )
    known = calibration.familiarity
    if known is not None and len(known.mean) != metadata.dimension:
        raise ValueError(f"its calibration is for vectors of {len(known.mean)} values, wanted {metadata.dimension}")


def _is_of(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column is of this type, whatever the name of a list's values."""
    if pa.types.is_list(wanted):
        return pa.types.is_list(kind) and kind.value_type.equals(wanted.value_type)
    return kind.equals(wanted)


def _batch(batch: pa.RecordBatch, metadata: CollectionMetadata) -> Iterator[Point]:
    texts = batch.column("payload")
    if texts.null_count or max(pc.binary_length(texts).to_pylist(), default=0) > MOST_PAYLOAD_BYTES:
        raise ValueError(f"a payload is empty, or larger than {MOST_PAYLOAD_BYTES} bytes")
    payloads = [_payload(parse_json(text), metadata) for text in texts.to_pylist()]
    clip_ids = [names.clip_id(value) for value in batch.column("clip_id").to_pylist()]
    spans = ([each[name] for each in payloads] for name in ("video_id", "start_ms", "end_ms"))
    for clip_id, wanted in zip(clip_ids, clip_ids_of(*spans), strict=True):
        if clip_id != wanted:
            raise ValueError(f"the clip {clip_id} is not that of its video and span, which is {wanted}")
    values: dict[str, Iterator[Value | None]] = {}
    for name in (VIDEO_VECTOR, CAPTION_VECTOR, WORDS_VECTOR, *_others(metadata)):
        is_dense = name in vector_names("dense")
        values[name] = iter(_vectors(batch.column(name), metadata, name)) if is_dense else _sparse(batch, name, clip_ids)
    for clip_id, payload in zip(clip_ids, payloads, strict=True):
        found = {name: value for name, each in values.items() if (value := next(each)) is not None}
        if VIDEO_VECTOR not in found:
            raise ValueError(f"the clip {clip_id} has no vector")
        yield Point(clip_id, payload=payload, vectors=found)


def _sparse(batch: pa.RecordBatch, name: str, clip_ids: Sequence[str]) -> Iterator[SparseVector | None]:
    columns = [batch.column(f"{name}_{part}") for part in ("indices", "values")]
    for column, part in zip(columns, ("indices", "values"), strict=True):
        _check_lengths(column, MOST_WORDS, f"{name}_{part}")
    indices, values = (column.to_pylist() for column in columns)
    return map(_words, clip_ids, indices, values)


def _vectors(column: pa.ListArray, metadata: CollectionMetadata, name: str) -> list[NDArray[np.float32] | None]:
    _check_lengths(column, metadata.dimension, name, least=metadata.dimension)
    flat = column.flatten()
    if flat.null_count:
        raise ValueError(f"a vector {name} has empty values")
    matrix = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, metadata.dimension)
    if not (np.abs(np.linalg.norm(matrix, axis=1) - 1) <= UNIT_TOLERANCE).all():  # NaN is wrong too
        raise ValueError(f"a vector {name} is not of length 1")
    rows = iter(matrix)
    return [next(rows) if valid else None for valid in column.is_valid().to_pylist()]


def _check_lengths(column: pa.ListArray, most: int, name: str, *, least: int = 1) -> None:
    lengths = column.value_lengths().drop_null().to_numpy(zero_copy_only=False)
    if len(lengths) and not least <= lengths.min() <= lengths.max() <= most:
        raise ValueError(f"{name} has {lengths.min()} to {lengths.max()} values in a row, wanted {least} to {most}")


def _words(clip_id: str, indices: list[int] | None, values: list[float] | None) -> SparseVector | None:
    if indices is None and values is None:
        return None
    if indices is None or values is None or len(indices) != len(values) or len(set(indices)) != len(indices):
        raise ValueError(f"the words of {clip_id} are not as many different numbers as weights")
    if not all(index is not None and 0 <= index < 2**32 for index in indices):
        raise ValueError(f"the words of {clip_id} have numbers beyond 32 bits")
    if not all(value is not None and 0 < value < 1e6 for value in values):
        raise ValueError(f"the words of {clip_id} have weights that are no finite numbers above 0")
    return SparseVector(tuple(indices), tuple(values))


def _payload(payload: object, metadata: CollectionMetadata) -> dict[str, Any]:
    if not isinstance(payload, Mapping):
        raise ValueError(f"a payload is {names.shown(payload)}, wanted a table")
    declared = metadata.declared
    unknown = sorted(set(payload) - set(payload_fields()) - set(declared))
    lacking = sorted({"video_id", "start_ms", "end_ms", "encoder_version"} - set(payload))
    if unknown or lacking:
        raise ValueError(f"a payload has the unknown fields {names.shown(unknown)} and lacks {lacking}")
    for field, value in payload.items():
        if not (declared[field].fits(value) if field in declared else _fits(field, value)):
            raise ValueError(f"the field {field} of a payload is {names.shown(value)}, which it cannot be")
    if payload["encoder_version"] != metadata.encoder_version:
        raise ValueError(
            f"a point is of encoder_version {names.shown(payload['encoder_version'])}, the collection is of "
            f"{metadata.encoder_version}"
        )
    length_ms = payload["end_ms"] - payload["start_ms"]
    if length_ms <= 0 or (metadata.longest_ms and length_ms > metadata.longest_ms):
        raise ValueError(f"a clip is {length_ms} ms long, wanted more than 0 and at most {metadata.longest_ms or MOST_MS}")
    # A URL with a password or signature is a secret of the file's author; it would be shown and exported again.
    bare = {"uri": bare_url, "thumbnail_url": bare_address}
    return {name: bare[name](value) if name in bare else value for name, value in payload.items()}


def _is_text(value: object) -> bool:
    """Whether a value is a text without control characters."""
    return isinstance(value, str) and len(value) <= MOST_LETTERS and not any(
        unicodedata.category(letter) == "Cc" and letter not in "\t\n\r" for letter in value
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_MS


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and len(value) <= 40 and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _is_video_id(value: object) -> bool:
    try:
        return bool(names.video_id(value))
    except ValueError:
        return False


def _is_address(value: object) -> bool:
    return isinstance(value, str) and _is_text(value) and value.startswith(("http://", "https://"))


def _is_segment(value: object) -> bool:
    """Whether a value is a segment: start_ms, end_ms and text."""
    return isinstance(value, list) and len(value) == 3 and all(map(_is_whole, value[:2])) and _is_text(value[2])


def _fits(field: str, value: object) -> bool:
    if field in _FITS:
        return _FITS[field](value)
    if field in evidence_vectors():
        return isinstance(value, list) and len(value) <= MOST_WORDS and all(map(_is_segment, value))
    return {
        "keyword": _is_text, "integer": _is_whole, "float": is_number, "datetime": _is_time,
    }[filter_fields()[field]](value)


_FITS: Mapping[str, Callable[[object], bool]] = {
    "video_id": _is_video_id, "duplicate_of": _is_video_id, "published_at": _is_time, "thumbnail_url": _is_address,
    **dict.fromkeys(("start_ms", "end_ms", "duration_ms", "index"), _is_whole),
    **dict.fromkeys(("title", "uri", "channel", "category", "encoder_version"), _is_text),
}


def _limit(more_bytes: int, seconds: int) -> None:
    """Let this process compute so long and take so much address space more than it has now, and leave no dump of its memory.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def main() -> int:
    """Check the file named as first argument, in so many seconds as the second; print what is wrong with it."""
    path, seconds = Path(sys.argv[1]), int(sys.argv[2])
    pa.set_memory_pool(pa.system_memory_pool())
    _limit(MEMORY_BYTES, seconds)
    try:
        with opened(path) as export:
            for _ in export.points():
                pass
    except VidseekError as error:
        sys.stdout.write(json.dumps(error.message)[1:-1] if not error.message.isprintable() else error.message)
        return ArtifactError.exit_code
    except MemoryError:
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
