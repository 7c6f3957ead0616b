"""A published collection to one Parquet file and back: how an archive moves between the two homes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidseek_media.errors import ArtifactError
from vidseek_media.folders import whole_file
from vidseek_retrieval.index import CollectionFacts, IndexHome, Point, Words, canonical_json
from vidseek_retrieval.publish import Published, go_live, require_published

ROWS = 10_000
"""Of a row group: what is in memory at once."""
_FACTS = b"vidseek"
_REMEDY = "Export it again"


@dataclass(frozen=True)
class Export:
    """What was written."""

    collection: str
    num_points: int
    path: Path


def export_collection(
    home: IndexHome, path: Path, *, alias: str = "clips", collection: str | None = None
) -> Export:
    """Write the collection that `alias` points to (or `collection`) to the file `path`, whole or not at all.

    Columns: clip_id, video, caption (null where there is none), words_indices, words_values, payload (JSON); its facts
    are in the file's metadata.

    Raises:
        ArtifactError: nothing was published, or there is no such collection.
        OSError: the disk does not take it.
    """
    opened = home.open(collection or require_published(home, alias).collection)
    num = 0
    schema = _schema(opened.facts)
    with closing(opened), whole_file(path) as beside:
        with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
            remaining = opened.scroll()
            while points := list(islice(remaining, ROWS)):
                num += len(points)
                writer.write_table(pa.Table.from_pylist([_row(point) for point in points], schema=schema))
        if num != opened.facts.num_points:
            raise ArtifactError(
                f"{opened.facts.name} gave {num} points, wanted {opened.facts.num_points}",
                remedy="Run `vidseek index verify`",
            )
    return Export(opened.facts.name, num, path)


def import_collection(
    home: IndexHome, path: Path, *, alias: str = "clips", keep_previous: int = 1, min_recall: float = 0.99
) -> Published:
    """Build the collection of the file `path` in `home`, verify it, and only then move `alias`: as `publish` does.

    Raises:
        ArtifactError: the file is missing, broken, or none of ours.
        GateFailed: the new collection does not verify; the live one stays.
        ServiceError: another publish runs, or the home does not take it.
    """
    try:
        file = pq.ParquetFile(path)
        facts = CollectionFacts.from_json(json.loads((file.schema_arrow.metadata or {})[_FACTS]))
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read as Parquet: {error}", remedy=_REMEDY) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no exported collection: {error!r}", remedy=_REMEDY) from error
    with file:
        if file.metadata.num_rows != facts.num_points:
            raise ArtifactError(f"{path} has {file.metadata.num_rows} rows, wanted {facts.num_points}", remedy=_REMEDY)
        return go_live(
            home, facts, _points(file, path), alias=alias, keep_previous=keep_previous, min_recall=min_recall
        )


def _schema(facts: CollectionFacts) -> pa.Schema:
    vector = pa.list_(pa.float32())  # of no fixed size: pyarrow reads no null among those (seen in 25.0)
    fields = [
        ("clip_id", pa.string()), ("video", vector), ("caption", vector), ("words_indices", pa.list_(pa.int64())),
        ("words_values", pa.list_(pa.float32())), ("payload", pa.string()),
    ]
    return pa.schema(fields, metadata={_FACTS: canonical_json(facts.to_json()).encode()})


def _row(point: Point) -> dict[str, Any]:
    return {
        "clip_id": point.clip_id,
        "video": point.vector,
        "caption": point.caption,
        "words_indices": point.words.indices if point.words else None,
        "words_values": point.words.values if point.words else None,
        "payload": canonical_json(dict(point.payload)),
    }


def _points(file: pq.ParquetFile, path: Path) -> Iterator[Point]:
    try:
        for batch in file.iter_batches(ROWS):
            yield from map(_point, batch.to_pylist())
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", remedy=_REMEDY) from error


def _point(row: dict[str, Any]) -> Point:
    indices: Sequence[int] | None = row["words_indices"]
    return Point(
        row["clip_id"],
        np.asarray(row["video"], dtype=np.float32),
        json.loads(row["payload"]),
        caption=None if row["caption"] is None else np.asarray(row["caption"], dtype=np.float32),
        words=None if indices is None else Words(tuple(indices), tuple(row["words_values"])),
    )
