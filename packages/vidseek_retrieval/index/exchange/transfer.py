"""Exports a published collection to one Parquet file and imports it, which moves an archive between the two backends."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import whole_file
from vidseek_retrieval.index.aliases import require_published
from vidseek_retrieval.index.backend import IndexBackend, Point, require_alias_name
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, canonical_json
from vidseek_retrieval.index.difference.content import ImportedContent
from vidseek_retrieval.index.exchange.import_checks import FACTS_KEY, check_file, columns_of, opened
from vidseek_retrieval.index.publish import Published, go_live
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.settings import PublishSettings

ROWS = 10_000
"""Of a row group: what is in memory at once."""


@dataclass(frozen=True)
class Export:
    """The result of an export."""

    collection: str
    num_points: int
    path: Path


def export_collection(
    backend: IndexBackend, path: Path, *, alias: str = "clips", collection: str | None = None
) -> Export:
    """Write a collection to a file, whole or not at all.

    Columns: clip_id, video, caption (null if missing), words_indices, words_values, payload (JSON), and the same for each
    other
    vector. The file's metadata holds the collection's metadata.

    Args:
        backend: The index.
        path: The file to write.
        alias: Alias of the collection.
        collection: Name of the collection; None takes the one that `alias` points to.

    Raises:
        ArtifactError: nothing was published, or the collection does not exist.
        OSError: the disk cannot hold it.
    """
    source = backend.open(collection or require_published(backend, alias).collection)
    num = 0
    schema = _schema(source.metadata)
    with closing(source), whole_file(path) as beside:
        with pq.ParquetWriter(beside, schema, compression="zstd", write_page_checksum=True) as writer:
            remaining = source.scroll()
            while points := list(islice(remaining, ROWS)):
                num += len(points)
                writer.write_table(pa.Table.from_pylist([_row(point) for point in points], schema=schema))
        if num != source.metadata.num_points:
            raise ArtifactError(
                f"{source.metadata.name} gave {num} points, wanted {source.metadata.num_points}", code="export-incomplete",
                remedy="Run `vidseek index verify`",
            )
    return Export(source.metadata.name, num, path)


def import_collection(
    backend: IndexBackend, path: Path, *, alias: str = "clips", encoder_version: str | None = None
) -> Published:
    """Build the collection of an exported file, verify it, try it, and then move the alias, as `publish` does.

    The whole file is checked before anything is built: names, types, ranges and counts (`import_checks`).

    Args:
        backend: The index to build it in.
        path: A file that `export_collection` wrote.
        alias: The alias to move.
        encoder_version: 16 hex digits of the encoder that will search it; None if there is none yet.

    Raises:
        ArtifactError: the file is missing, broken, or not an exported collection; or its encoder_version differs.
        ConfigError: `alias` is not a valid name.
        GateFailed: the new collection does not verify; the live one stays.
        ServiceError: another publish is running, or the backend cannot store it.
    """
    require_alias_name(alias)
    check_file(path)
    with opened(path) as export:
        if encoder_version is not None and export.metadata.encoder_version != encoder_version:
            raise ArtifactError(
                f"{path} is of encoder_version {export.metadata.encoder_version}, the encoder here is of {encoder_version}: "
                "no search could ask it",
                code="other-encoder", remedy="Take the encoder bundle that it was made with along, or export the other one",
            )
        content = ImportedContent(replace(export.metadata, imported=True, num_changed=0), export.points())
        return go_live(backend, content, alias=alias, settings=PublishSettings())


def _schema(metadata: CollectionMetadata) -> pa.Schema:
    return pa.schema(columns_of(metadata), metadata={FACTS_KEY: canonical_json(metadata.to_json()).encode()})


def _row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {"clip_id": point.clip_id, "payload": canonical_json(dict(point.payload))}
    for name, value in point.vectors.items():
        if isinstance(value, SparseVector):
            row |= {f"{name}_indices": value.indices, f"{name}_values": value.values}
        else:
            row[name] = value
    return row
