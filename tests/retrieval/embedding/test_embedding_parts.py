from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.raising import raises
from tests.retrieval.archive import unit_rows
from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_retrieval.embedding.embedding_parts import read_parts, write_part


def write(folder: Path, name: str, clip_ids: list[str], **changes: object) -> None:
    arguments = {"vectors": unit_rows(len(clip_ids), 4), "encoder_version": "v1", "variant": "fp32", **changes}
    write_part(folder / f"{name}.parquet", clip_ids=clip_ids, **arguments)  # type: ignore[arg-type]


def test_parts__read_back_in_order(tmp_path: Path) -> None:
    write(tmp_path, "b", ["c3"], vectors=unit_rows(1, 4, seed=1))
    write(tmp_path, "a", ["c1", "c2"])
    write(tmp_path, "c", [])  # a shard of which every clip was rejected
    clip_ids, vectors, encoder_version, digests = read_parts(tmp_path)
    assert digests == ["", "", ""]
    assert (clip_ids, encoder_version) == (["c1", "c2", "c3"], "v1")
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.concatenate([unit_rows(2, 4), unit_rows(1, 4, seed=1)]))


def test_parts__equal_rows_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, ["c1", "c2"])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_parts__an_empty_archive(tmp_path: Path) -> None:
    write(tmp_path, "a", [])
    assert read_parts(tmp_path).vectors.shape == (0, 4)


def test_parts__none(tmp_path: Path) -> None:
    with raises(ArtifactError, code="no-embeddings", remedy="dvc repro"):
        read_parts(tmp_path / "none")


def test_parts__mixed_versions(tmp_path: Path) -> None:
    write(tmp_path, "a", ["c1"])
    write(tmp_path, "b", ["c2"], encoder_version="v2")
    with raises(ArtifactError, code="versions-mixed", naming="v1, v2"):
        read_parts(tmp_path)


def test_parts__mixed_dimensions(tmp_path: Path) -> None:
    write(tmp_path, "a", ["c1"])
    write(tmp_path, "b", ["c2"], vectors=unit_rows(1, 5))
    with raises(ArtifactError, code="versions-mixed", naming="[4, 5]"):
        read_parts(tmp_path)


def test_parts__clip_twice(tmp_path: Path) -> None:
    write(tmp_path, "a", ["c1", "c2"])
    write(tmp_path, "b", ["c2"])
    with raises(ArtifactError, code="clips-repeated", naming=" c2"):
        read_parts(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 2.0])
def test_parts__vector_that_is_not_unit_is_named(tmp_path: Path, bad: float) -> None:
    vectors = unit_rows(3, 4)
    vectors[1] *= np.float32(bad)
    write(tmp_path, "a", ["c1", "c2", "c3"], vectors=vectors)
    with raises(GateFailed, code="vectors-not-unit", naming=("1 of 3", " c2 ")):
        read_parts(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 500])
def test_parts__truncated(tmp_path: Path, keep: int) -> None:
    write(tmp_path, "a", ["c1", "c2"])
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:keep])
    with raises(ArtifactError, code="not-parquet", naming="a.parquet"):
        read_parts(tmp_path)


def test_parts__another_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": ["c1"]}), tmp_path / "a.parquet")
    with raises(ArtifactError, code="wrong-schema", naming="a.parquet"):
        read_parts(tmp_path)
