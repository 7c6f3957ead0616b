from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_media.files import parquet_files
from vidseek_media.files.parquet_files import read_bounded, write_parquet
from vidseek_media.tables import REJECTED, read_table

SCHEMA = pa.schema([
    ("id", pa.string()), ("uris", pa.list_(pa.string())), ("hashes", pa.list_(pa.uint64())), ("start_ms", pa.int64()),
    ("values", pa.list_(pa.float32(), 2)), ("right", pa.bool_()), ("title", pa.string()),
])


def test_read_bounded__is_what_pyarrow_reads(tmp_path: Path) -> None:
    rows = [
        {"id": f"{n}", "uris": [f"a{n}", "b"] if n % 3 else None, "hashes": [2**63, n], "start_ms": n, "values": [0.5, n],
         "right": n % 2 == 0, "title": None if n % 2 else "same"} for n in range(1000)
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    assert read_bounded(tmp_path / "a.parquet").equals(table)
    assert read_bounded(tmp_path / "a.parquet", ["title", "uris"]).equals(table.select(["title", "uris"]))
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    assert read_bounded(tmp_path / "none.parquet").equals(table.slice(0, 0))


def test_write_parquet__vectors_are_stored_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    flat = pa.array(rng.standard_normal(2 * 3000).astype(np.float32))
    ids, vectors = [f"{n}" for n in range(3000)], pa.FixedSizeListArray.from_arrays(flat, 2)
    table = pa.table({"id": ids, "values": vectors, "variant": ["fp32"] * 3000})
    for name in ("vectors", "again"):
        write_parquet(tmp_path / name, table, vectors="values")
    write_parquet(tmp_path / "plain", table)
    assert all(read_bounded(tmp_path / name).equals(table) for name in ("vectors", "plain"))
    assert (tmp_path / "vectors").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "vectors").stat().st_size < (tmp_path / "plain").stat().st_size
    column = pq.read_metadata(tmp_path / "vectors").row_group(0).column(1)
    assert (column.path_in_schema, column.compression, column.has_dictionary_page) == (
        "values.list.element", "UNCOMPRESSED", False
    )


def test_read_bounded__a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 500_000]))
    retryable = pa.array([False] * 10_000)
    pq.write_table(
        pa.table({"id": texts, "stage": texts, "reason": texts, "kind": texts, "retryable": retryable}), path
    )
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="unpacks to"):
        read_bounded(path)
    with raises(ArtifactError, code="not-parquet"):
        read_table(path, REJECTED)


def test_read_bounded__lists_and_numbers_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "MOST_BYTES", 2**20)
    monkeypatch.setattr(parquet_files, "MOST_GROWTH", 10)
    for name, column in {
        "lists": pa.array([["x" * 1000] * 1000] * 4), "numbers": pa.array([0] * 200_000, pa.int64()),
        "empty": pa.array([[0.0] * 100_000] * 4, pa.list_(pa.float32())),
    }.items():
        pq.write_table(pa.table({name: column}), tmp_path / name)
        with pytest.raises(ValueError, match="unpacks to"):
            read_bounded(tmp_path / name)
