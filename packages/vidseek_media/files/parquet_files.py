"""Writes Parquet whole or not at all; reads files from elsewhere with limits, since a small one may unpack to any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidseek_media.files.folders import whole_file

MOST_BYTES = 2**28
"""Unpacked size in bytes that any file may have."""
ROWS = 65_536
"""Rows read at once."""
MOST_GROWTH = 1000
"""Unpacked size that a larger file may have, as a multiple of its own size."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}


def write_parquet(path: Path, table: pa.Table, *, sync: bool = False, vectors: str = "") -> None:
    """Write a table whole or not at all. Equal rows give equal bytes.

    Args:
        path: The file to write.
        table: The rows.
        sync: Whether to wait until the file is on the disk.
        vectors: Name of a column of lists of numbers that neither repeat nor compress: it is stored as it is, which takes
            less room, and half the time to read.

    Raises:
        OSError: the disk does not take it.
    """
    with whole_file(path, sync=sync) as beside:
        if not vectors:
            pq.write_table(table, beside, compression="zstd")
            return
        others = [name for name in table.schema.names if name != vectors]
        compression = {**dict.fromkeys(others, "zstd"), f"{vectors}.list.element": "none"}
        pq.write_table(table, beside, compression=compression, use_dictionary=others)


def read_bounded(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file with a limit on its unpacked size.

    Texts are read as dictionary indices first, as they are stored: a file of two megabytes may repeat a text of one megabyte
    in
    every row.

    Args:
        path: The file.
        columns: Columns to read; None reads all.

    Raises:
        ValueError: it would unpack to more than `MOST_BYTES` and `MOST_GROWTH` times its size.
        OSError, pa.ArrowException: it cannot be read.
    """
    limit = max(MOST_BYTES, MOST_GROWTH * path.stat().st_size)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
    texts = [path for path, kind in _leaves(metadata) if kind == "BYTE_ARRAY"]
    _require(_stored_bytes(metadata), limit)
    batches: list[pa.RecordBatch] = []
    num_bytes = 0
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts, pre_buffer=False) as file:
        schema = file.schema_arrow
        names = schema.names if columns is None else list(columns)
        plain = pa.schema([_plain_field(schema.field(name)) for name in names], metadata=schema.metadata)
        for group in range(metadata.num_row_groups):  # pyarrow reads no dictionaries within lists over several groups
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=names):
                num_bytes += sum(map(_written_out, batch.columns))
                _require(num_bytes, limit)
                batches.append(batch.select(names).cast(plain))
    return pa.Table.from_batches(batches, plain).combine_chunks()


def _leaves(metadata: pq.FileMetaData) -> list[tuple[str, str]]:
    """Return path and physical type of each column that holds values."""
    schema = metadata.schema
    columns = [schema.column(number) for number in range(len(schema.names))]
    return [(each.path, each.physical_type) for each in columns]


def _stored_bytes(metadata: pq.FileMetaData) -> int:
    """Return the unpacked size in bytes that the footer states."""
    total = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            total += max(chunk.total_uncompressed_size, chunk.num_values * _WIDTHS.get(chunk.physical_type, 8))
    return total


def _written_out(array: pa.Array) -> int:
    """Return the size in bytes of a column if each text is written out."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return array.nbytes if not _has_texts(kind.value_type) else 8 * len(array) + _written_out(array.flatten())
    if not pa.types.is_dictionary(kind):
        return int(array.nbytes)
    lengths = pc.binary_length(array.dictionary)
    each = pc.take(lengths, array.indices)
    return 8 * len(array) + int(pc.sum(each.cast(pa.int64())).as_py() or 0)


def _has_texts(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or pa.types.is_list(kind)


def _plain_field(field: pa.Field) -> pa.Field:
    """Return the field with its texts as texts."""
    return field.with_type(_plain_type(field.type))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind


def _require(num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        raise ValueError(f"it unpacks to {num_bytes // 2**20} MiB, wanted at most {limit // 2**20}")
