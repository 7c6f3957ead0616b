"""Writes a data set as Parquet files that `datasets.load_dataset` reads: `data/<split>-00000-of-00001.parquet`.

The schema's metadata names the features as the library does, so that frames load as images and it needs no script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseek.dataset_export.records import ClipContent, DatasetClip, Layout
from vidseek_media.fields.declared import DeclaredFields, FieldKind

FOLDER = "data"
BATCH_BYTES = 2**26
"""Of frames, media and vectors in a row group: what is in memory at once for each split."""
BATCH_ROWS = 1000
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CAPTION = pa.struct([
    ("text", _TEXT), ("writer", _TEXT), ("gallery", _TEXT), ("contrast", _TEXT), ("axis", _TEXT), ("is_pair", pa.bool_()),
])
_FIELD_TYPES: Mapping[FieldKind, pa.DataType] = {
    "keyword": _TEXT, "text": _TEXT, "datetime": _TEXT, "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_(),
}
_VALUE_NAMES = {pa.string(): "string", pa.int64(): "int64", pa.int32(): "int32", pa.float64(): "float64",
                pa.float32(): "float32", pa.bool_(): "bool", pa.binary(): "binary"}


def schema_of(layout: Layout) -> pa.Schema:
    """Return the columns of a data set, with the library's features in the metadata.

    Args:
        layout: What every clip has.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("key", _TEXT), ("clip_id", _TEXT), ("video_id", _TEXT), ("uri", _TEXT), ("title", _TEXT), ("channel", _TEXT),
        ("category", _TEXT), ("published_at", _TEXT), ("start_ms", pa.int64()), ("end_ms", pa.int64()),
        ("index", pa.int32()), ("cut", _TEXTS), ("captions", pa.list_(_CAPTION)), ("video_captions", _TEXTS),
        ("duplicate_of", _TEXT), ("quality_flags", _TEXTS),
    ]
    special: dict[str, Any] = {}
    if layout.declared:
        columns.append(("fields", _fields_type(layout.declared)))
    if layout.has_frames:
        columns += [("frames", pa.list_(_FILE)), ("frame_times_ms", pa.list_(pa.int64()))]
        special["frames"] = {"feature": {"_type": "Image"}, "_type": "List"}
    if layout.dimension:
        columns.append(("embedding", pa.list_(pa.float32(), layout.dimension)))
    if layout.has_media:
        columns.append(("media", _FILE))
        special["media"] = {"decode": False, "_type": "Video"}  # its decoder needs torchcodec
    features = {name: special.get(name) or _feature_of(kind) for name, kind in columns}
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})


class ParquetWriter:
    """Columns of a clip: those of its row, `frames`, `frame_times_ms`, `embedding`, `media`.

    Args:
        folder: Where `data/` is written.
        layout: What every clip has.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir()
        self._schema = schema_of(layout)
        self._layout = layout
        self._splits: dict[str, _Split] = {}

    def add(self, clip: DatasetClip, content: ClipContent) -> None:
        """Write a clip."""
        row = {name: value for name, value in asdict(clip).items() if name in self._schema.names}
        row["key"] = clip.key
        num_bytes = sum(map(len, content.frames)) + 4 * self._layout.dimension
        if content.frames:
            row["frames"] = [
                {"bytes": frame, "path": f"{clip.key}.{number:02d}.jpg"} for number, frame in enumerate(content.frames)
            ]
            row["frame_times_ms"] = content.times_ms
        if content.embedding is not None:
            row["embedding"] = content.embedding
        if content.media is not None:
            media = content.media.read_bytes()
            content.media.unlink()
            row["media"] = {"bytes": media, "path": f"{clip.key}.mp4"}
            num_bytes += len(media)
        if clip.split not in self._splits:
            self._splits[clip.split] = _Split(self._folder, clip.split, self._schema, self._layout.shard_bytes)
        self._splits[clip.split].add(row, num_bytes)

    def close(self) -> None:
        """Write what is left, and name the files by how many there are."""
        for split in self._splits.values():
            split.close()


class _Split:
    """The files of one split."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, shard_bytes: int) -> None:
        self._folder, self._name, self._schema, self._shard_bytes = folder, name, schema, shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._files: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._in_file = 0

    def add(self, row: dict[str, Any], num_bytes: int) -> None:
        self._rows.append(row)
        self._num_bytes += num_bytes
        if self._num_bytes >= min(BATCH_BYTES, self._shard_bytes) or len(self._rows) >= BATCH_ROWS:
            self._write()

    def close(self) -> None:
        if self._rows:
            self._write()
        if self._writer is not None:
            self._writer.close()
        for number, path in enumerate(self._files):
            path.rename(self._folder / f"{self._name}-{number:05d}-of-{len(self._files):05d}.parquet")

    def _write(self) -> None:
        if self._writer is not None and self._in_file >= self._shard_bytes:
            self._writer.close()
            self._writer = None
        if self._writer is None:
            self._files.append(self._folder / f"{self._name}.{len(self._files)}.part")
            self._writer = pq.ParquetWriter(self._files[-1], self._schema)
            self._in_file = 0
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._in_file += self._num_bytes
        self._rows, self._num_bytes = [], 0


def _fields_type(declared: DeclaredFields) -> pa.DataType:
    kinds = {name: _FIELD_TYPES[each.kind] for name, each in declared.items()}
    return pa.struct([(name, pa.list_(kind) if declared[name].many else kind) for name, kind in kinds.items()])


def _feature_of(kind: pa.DataType) -> Any:
    """Return a feature as `datasets.Features.to_dict` does."""
    if pa.types.is_struct(kind):
        return {each.name: _feature_of(each.type) for each in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature_of(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature_of(kind.value_type), "_type": "List"}
    return {"dtype": _VALUE_NAMES[kind], "_type": "Value"}
