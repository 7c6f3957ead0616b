"""A vector of the index is one file: two that are made here, from outside, go through publish, search, export and verify."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from qdrant_client import QdrantClient

from tests.raising import assert_names, raises
from tests.retrieval.archive import VERSION, random_archive, unit_rows
from tests.retrieval.index.exchange.test_import_checks import check_here
from tests.retrieval.qdrant_stand_in import STRICT, standing
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_retrieval.index import verification
from vidseek_retrieval.index.backend import Collection, IndexBackend, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange import transfer
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant.backend import QdrantBackend
from vidseek_retrieval.index.values import SparseVector, Tables, Value
from vidseek_retrieval.index.verification import verify_collection
from vidseek_retrieval.search.filters import parse_filters
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import IndexSettings, PublishSettings, SearchSettings, Weights
from vidseek_retrieval.vectors import registry
from vidseek_retrieval.vectors.registry import FieldKind, IndexVector, vector_names

FILE = "gist.json"


def read(tables: Tables) -> dict[str, Any]:
    return dict(json.loads((tables.embed_dir / FILE).read_text()))


class Gist(IndexVector):
    """A dense vector, from a file beside the embeddings, with a field to filter by."""

    name = "gist"
    kind = "dense"
    quantized = False
    filter_fields: ClassVar[Mapping[str, FieldKind]] = {"mood": "keyword", "loudness": "integer"}

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        found = read(tables)
        return lambda clip_id: np.array(found[clip_id]["gist"], np.float32) if clip_id in found else None

    def fields(self, tables: Tables) -> Callable[[str], Mapping[str, Any]]:
        found = read(tables)
        return lambda clip_id: {name: found[clip_id][name] for name in self.filter_fields} if clip_id in found else {}


class Tags(IndexVector):
    """A sparse vector: numbers of tags."""

    name = "tags"
    kind = "sparse"

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        found = read(tables)
        return lambda clip_id: SparseVector((found[clip_id]["tag"],), (1.0,)) if clip_id in found else None

    def query(self, direction: np.ndarray, text: str, *, language: str) -> Value | None:
        return SparseVector((int(text),), (1.0,)) if text.isdecimal() else None


@pytest.fixture
def registered() -> Iterator[None]:
    """Both vectors, as an installed package brings them."""
    for each in (Gist, Tags):
        registry.register(each)
    yield
    for each in (Gist, Tags):
        del registry.REGISTRY.registered[each.name]


@pytest.fixture(params=["embedded", "server", pytest.param("strict", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IndexBackend]:
    with ExitStack() as stack:
        if request.param == "embedded":
            yield EdgeBackend(tmp_path / "index")
        elif request.param == "server":
            yield QdrantBackend(QdrantClient(":memory:"))
        else:
            yield QdrantBackend.connect(stack.enter_context(standing(strict=STRICT)).url)


SETTINGS = IndexSettings(vectors=("video",), quantization="int8")


def archive(root: Path, *, seed: int = 7) -> tuple[dict[str, Path], dict[str, dict[str, Any]]]:
    """An archive of which every second clip has a gist, a mood, and a tag."""
    tables = random_archive(root, num_videos=1)
    clip_ids = sorted(point.clip_id for point in published_points(tables))
    vectors = unit_rows(len(clip_ids), 16, seed=seed)
    content = {
        clip_id: {"gist": vector.tolist(), "mood": ("calm", "wild")[place % 3 == 0], "loudness": place, "tag": place % 4}
        for place, (clip_id, vector) in enumerate(zip(clip_ids, vectors, strict=True)) if place % 2 == 0
    }
    (tables["embed_dir"] / FILE).write_text(json.dumps(content))
    return tables, content


def published_points(tables: Mapping[str, Path]) -> list[Point]:
    from vidseek_retrieval.index.collection_points import read_points

    return list(read_points(**tables, caption_dir=None, cut="windows", settings=SETTINGS, duplicates=()))  # type: ignore[arg-type]


def by_cosine(content: Mapping[str, Any], query: np.ndarray) -> list[str]:
    scores = {clip_id: float(np.dot(np.float32(each["gist"]), query)) for clip_id, each in content.items()}
    return sorted(scores, key=lambda clip_id: -scores[clip_id])


def check(collection: Collection, content: Mapping[str, Any]) -> None:
    """Counts, searches by each of the two vectors, filters, and what comes back."""
    counts = {name: collection.count(name) for name in ("video", "gist", "tags", "caption")}
    assert counts == {"video": 58, "gist": 29, "tags": 29, "caption": 0}
    (query,) = unit_rows(1, 16, seed=3)
    found = collection.search(query, limit=58, using="gist", exact=True)
    assert [clip.clip_id for clip in found] == by_cosine(content, query)
    tagged = collection.search_words(SparseVector((2,), (1.0,)), limit=58, using="tags")
    assert {clip.clip_id for clip in tagged} == {clip_id for clip_id, each in content.items() if each["tag"] == 2}
    calm = parse_filters({"mood": "calm", "loudness": {"gte": 10}})
    wanted = {clip_id for clip_id, each in content.items() if each["mood"] == "calm" and each["loudness"] >= 10}
    assert {clip.clip_id for clip in collection.search(query, limit=58, conditions=calm)} == wanted
    for point in collection.scroll():
        kept = content.get(point.clip_id)
        assert set(point.vectors) == ({"video", "gist", "tags"} if kept else {"video"})
        if kept:
            np.testing.assert_allclose(np.asarray(point.vectors["gist"]), kept["gist"], atol=1e-6)
            assert point.vectors["tags"] == SparseVector((kept["tag"],), (1.0,)) and point.payload["mood"] == kept["mood"]


@pytest.mark.slow
def test_vectors__that_a_file_adds_are_published_searched_exported_and_verified(
    registered: None, backend: IndexBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "check_file", check_here)  # the process that checks knows installed packages alone
    tables, content = archive(tmp_path / "archive")
    settings = PublishSettings(index=IndexSettings(vectors=("video", "gist", "tags"), quantization="int8"))
    report = publish(**tables, index=backend, settings=settings)
    assert report.verification.passed and not publish(**tables, index=backend, settings=settings).built
    collection = backend.open(report.collection)
    assert collection.metadata.num_others == {"gist": 29, "tags": 29}
    assert set(collection.metadata.score_spread) == {"video", "gist"}
    check(collection, content)

    (query,) = unit_rows(1, 16, seed=3)
    searcher = Searcher(backend, None, settings=SearchSettings(weights=Weights(video=0, gist=1)))
    best = searcher.search(Query.of_vector(query, VERSION)).hits[0]
    first = by_cosine(content, query)[0]
    assert best.best_clip_id == first and best.score == pytest.approx(float(np.dot(content[first]["gist"], query)), abs=1e-5)
    both = SearchOptions(limit=100, weights=Weights(video=0, gist=1, tags=1), filters={"mood": "wild"})
    hits = searcher.search(Query.of_vector(query, VERSION, words="2"), both).hits
    wild = {clip_id for clip_id, each in content.items() if each["mood"] == "wild"}
    assert hits and {clip_id for hit in hits for clip_id in hit.clip_ids} <= wild
    assert content[hits[0].best_clip_id]["tag"] == 2 and hits[0].score > 0.5
    with raises(InputRejected, code="nothing-to-rank-by") as caught:  # a text that has no tag, and nothing else to rank by
        searcher.search(Query.of_vector(query, VERSION, words="a crane"), SearchOptions(weights=Weights(video=0, tags=1)))
    assert caught.value.code == "nothing-to-rank-by"

    export_collection(backend, tmp_path / "export.parquet")
    for other in (EdgeBackend(tmp_path / "other"), QdrantBackend(QdrantClient(":memory:"))):
        import_collection(other, tmp_path / "export.parquet")
        check(other.open(report.collection), content)


def test_verify__counts_and_lengths_of_a_vector_that_a_file_adds(registered: None, tmp_path: Path) -> None:
    tables, _ = archive(tmp_path / "archive")
    backend = EdgeBackend(tmp_path / "index")
    settings = PublishSettings(index=IndexSettings(vectors=("video", "gist")))
    name = publish(**tables, index=backend, settings=settings).collection
    metadata = backend.open(name).metadata
    wrong = CollectionMetadata.from_json({**metadata.to_json(), "num_others": {"gist": 30}})
    (problem,) = verify_collection(backend, name, min_recall=0.99, expected=wrong).problems
    assert "29 points with the vector gist" in problem and "30" in problem
    bad = Point("a", np.eye(16, dtype=np.float32)[0], {"encoder_version": VERSION}, gist=2 * np.eye(16, dtype=np.float32)[0])
    (problem,) = verification._point_problems(bad, metadata)
    assert "gist" in problem


def test_publish__other_values_are_another_collection(registered: None, tmp_path: Path) -> None:
    backend = EdgeBackend(tmp_path / "index")
    settings = PublishSettings(index=IndexSettings(vectors=("video", "gist")))
    first, second = (
        publish(**archive(tmp_path / "archive", seed=seed)[0], index=backend, settings=settings).collection
        for seed in (7, 8)
    )
    assert first != second


def test_names__that_nobody_registered_are_errors() -> None:
    assert vector_names() == ("video", "caption", "ocr", "speech", "words")
    assert vector_names("sparse") == ("ocr", "speech", "words")
    for make in (
        lambda: Weights(gist=1.0), lambda: IndexSettings(vectors=("video", "gist")),
        lambda: SearchSettings.of({"weights": {"gist": 1.0}}),
    ):
        with raises(ConfigError, code="setting-out-of-range") as caught:
            make()
        assert_names(caught.value.message, ["gist", *vector_names()])
    with raises(InputRejected, code="unknown-filter", naming="mood"):
        parse_filters({"mood": "calm"})


@pytest.mark.parametrize(("found", "code"), [(object, "vector-not-loaded"), (ImportError("gone"), "vector-not-loaded")])
def test_entry_points__that_are_no_vector_are_named(found: object, code: str) -> None:
    def load() -> object:
        if isinstance(found, Exception):
            raise found
        return found

    point: Any = SimpleNamespace(name="gist", value="other.package:Gist", load=load)
    with raises(ConfigError, code="vector-not-loaded") as caught:
        registry.REGISTRY.load_point(point)
    assert caught.value.code == code and "other.package:Gist" in caught.value.message


def test_entry_points__one_that_is_a_vector_is_registered_and_two_of_a_name_are_an_error() -> None:
    point: Any = SimpleNamespace(name="gist", value="other.package:Gist", load=lambda: Gist)
    try:
        registry.REGISTRY.load_point(point)
        assert vector_names() == ("video", "caption", "gist", "ocr", "speech", "words")

        class Other(Gist):
            """Another class of the same name."""

        with raises(ConfigError, code="vector-twice") as caught:
            registry.register(Other)
        assert caught.value.code == "vector-twice"
    finally:
        registry.REGISTRY.registered.pop("gist", None)
