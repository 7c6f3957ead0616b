from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient

from tests.raising import raises
from tests.retrieval.archive import VERSION, unit_rows
from tests.retrieval.index.test_backends import WORDS, facts_of, points
from vidseek_media.errors import ArtifactError
from vidseek_retrieval.index.backend import Alias, IndexBackend
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.qdrant.backend import QdrantBackend


@pytest.mark.parametrize("way", ["to the server", "to the folder"])
def test_transfer__between_the_homes_answers_stay_the_same(tmp_path: Path, way: str) -> None:
    backends: list[IndexBackend] = [EdgeBackend(tmp_path / "index"), QdrantBackend(QdrantClient(":memory:"))]
    here, there = backends if way == "to the server" else backends[::-1]
    content = points()
    metadata = facts_of(content)
    with here.building():
        here.build(metadata, content)
        here.move_alias("clips", Alias(metadata.name))
    done = export_collection(here, tmp_path / "archive.parquet")
    assert (done.collection, done.num_points) == (metadata.name, len(content))
    live = import_collection(there, tmp_path / "archive.parquet")
    assert live.built and live.moved and live.verification.passed and live.collection == metadata.name
    (query,) = unit_rows(1, 16, seed=5)
    mine, theirs = here.open(metadata.name), there.open(metadata.name)
    assert theirs.metadata == metadata
    for using in ("video", "caption"):
        found = [backend.search(query, limit=20, using=using) for backend in (mine, theirs)]  # type: ignore[arg-type]
        assert [clip.clip_id for clip in found[0]] == [clip.clip_id for clip in found[1]]
        np.testing.assert_allclose([clip.score for clip in found[0]], [clip.score for clip in found[1]], atol=2e-6)
    words = WORDS.query("red crane 2")
    found = [backend.search_words(words, limit=50) for backend in (mine, theirs)]
    assert {clip.clip_id for clip in found[0]} == {clip.clip_id for clip in found[1]}
    payloads = [backend.payloads([point.clip_id for point in content]) for backend in (mine, theirs)]
    assert payloads[0] == payloads[1]
    again = import_collection(there, tmp_path / "archive.parquet")
    assert not again.built and not again.moved


def test_export__nothing_published(tmp_path: Path) -> None:
    with raises(ArtifactError, code="not-published"):
        export_collection(EdgeBackend(tmp_path), tmp_path / "archive.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_import__what_is_no_export_is_refused_and_the_live_one_stays(tmp_path: Path) -> None:
    backend = EdgeBackend(tmp_path / "index")
    content = points(8)
    metadata = facts_of(content)
    with backend.building():
        backend.build(metadata, content)
        backend.move_alias("clips", Alias(metadata.name))
    file = tmp_path / "archive.parquet"
    export_collection(backend, file)
    table = pq.read_table(file)
    for name, broken in (("short", table.slice(0, 5)), ("none", pa.table({"a": [1]}))):
        pq.write_table(broken, tmp_path / name)
        with raises(ArtifactError, code="import-broken", naming=name):
            import_collection(backend, tmp_path / name)
    (tmp_path / "cut").write_bytes(file.read_bytes()[:200])
    for name, code in (("cut", "import-broken"), ("missing", "import-unreadable")):
        with raises(ArtifactError, code=code, naming=name):
            import_collection(backend, tmp_path / name)
    assert backend.aliases()["clips"].collection == metadata.name and VERSION in metadata.name
