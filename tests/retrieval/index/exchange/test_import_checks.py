"""A file that a colleague sends: what it says is checked before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.raising import raises
from tests.retrieval.archive import VERSION, random_archive
from tests.retrieval.index.test_backends import facts_of, points
from vidseek_media.errors import ArtifactError, ConfigError, GateFailed, ServiceError
from vidseek_retrieval.index import publish
from vidseek_retrieval.index import trial_search as trial
from vidseek_retrieval.index.backend import Alias
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange import import_checks as imported
from vidseek_retrieval.index.exchange import transfer
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.verification import verify_collection


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported collection of eight clips."""
    root = tmp_path_factory.mktemp("good")
    backend, content = EdgeBackend(root / "index"), points(8)
    backend.build(facts_of(content), content)
    backend.move_alias("clips", Alias(facts_of(content).name))
    export_collection(backend, root / "good.parquet")
    return root / "good.parquet"


def changed(good: Path, out: Path, *, rows: Callable[[list[dict[str, Any]]], object] | None = None, **metadata: Any) -> Path:
    """The export with other facts, or other rows."""
    table = pq.read_table(good)
    said = {**json.loads(table.schema.metadata[b"vidseek"]), **metadata}
    if rows is not None:
        made = table.to_pylist()
        for row in made:
            row["payload"] = json.loads(row["payload"])
        rows(made)
        table = pa.Table.from_pylist(
            [{**row, "payload": json.dumps(row["payload"])} for row in made], schema=table.schema
        )
    pq.write_table(table.replace_schema_metadata({b"vidseek": json.dumps(said).encode()}), out)
    return out


def payload(**fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[3]["payload"].update(fields)

    return change


def column(name: str, value: Any, *, row: int = 2) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][name] = value

    return change


def twice(rows: list[dict[str, Any]]) -> None:
    rows[1] = rows[0]


def check_here(path: Path) -> None:
    """As `check_file`, in this process: most tests are of what is checked, and not of how it is confined."""
    with imported.opened(path) as export:
        assert list(export.points())


NAME = collection_name(VERSION, "0" * 12)
BAD_FACTS: dict[str, dict[str, Any]] = {
    "an absolute name": {"name": "/tmp/elsewhere"}, "a relative name": {"name": "../../photos"}, "no name": {"name": ""},
    "a name with a line end": {"name": NAME + "\n"}, "a name that is none": {"name": 7},
    "another build": {"build": "1" * 12},
    "a build with a path": {"build": "../../../a", "name": f"clips-{VERSION}-../../../a"},
    "another encoder_version": {"encoder_version": "f" * 16, "name": f"clips-{'f' * 16}-{'0' * 12}"},
    "an encoder_version with a path": {"encoder_version": "../../../../../a"}, "a count": {"num_points": 9},
    "a negative count": {"num_points": -1}, "captions": {"num_captions": 8}, "words": {"num_words": 0},
    "a dimension": {"dimension": 4}, "a huge dimension": {"dimension": 2**40}, "settings": {"settings": []},
    "a vector": {"settings": {"vectors": ["video", "../../x"]}}, "a language": {"settings": {"language": "../x"}},
    "a graph of millions": {"settings": {"m": 10**9}}, "a calibration": {"calibration": {"weights": {}}},
    "a time": {"created_at": "x" * 1000}, "no time": {"created_at": "x"},
    "no moment": {"created_at": ""}, "a time before all": {"created_at": "0001-01-01T00:00:00"},
    "the longest clip": {"longest_ms": 5}, "content": {"content": "../x"},
}
NAN = float("nan")
BAD_ROWS: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a clip id": column("clip_id", "not-a-uuid"), "a clip id as a path": column("clip_id", "../../x"),
    "a clip id of another clip": column("clip_id", "6f1c2a52-8f0e-5b57-9a3e-1d6f0f7e7c11"), "a clip twice": twice,
    "no vector": column("video", None), "a short vector": column("video", [1.0]),
    "a long vector": column("video", [0.25] * 17),
    "no numbers": column("video", [NAN] * 16), "not unit": column("video", [1.0] * 16),
    "a caption": column("caption", [NAN] * 16),
    "words without weights": column("words_values", None), "a word twice": column("words_indices", [1, 1, 1]),
    "a weight": column("words_values", [NAN, 1.0, 1.0]), "no table": column("payload", []),
    "a video id": payload(video_id="../../x"), "a field of ours": payload(encoder_version="f" * 16),
    "a field of nobody": payload(command="rm"), "a text as a start": payload(start_ms="0"), "an end": payload(end_ms=-5),
    "a huge end": payload(end_ms=10**40), "a time": payload(published_at="soon"),
    "a script": payload(thumbnail_url="javascript:a"),
    "a control byte": payload(title="\x1b[2J"), "a long title": payload(title="x" * 10_000),
    "a list": payload(channel=["a"]),
    "an original": payload(duplicate_of="/x"),
}


@pytest.mark.parametrize("what", BAD_FACTS)
def test_import__facts_that_cannot_be_are_refused_and_nothing_is_made(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(transfer, "check_file", check_here)
    victim = tmp_path / "elsewhere"
    victim.mkdir()
    (victim / "thesis.txt").write_text("mine")
    metadata = {name: str(victim) if value == "/tmp/elsewhere" else value for name, value in BAD_FACTS[what].items()}
    path = changed(good, tmp_path / "bad.parquet", **metadata)
    with raises(ArtifactError, code="import-broken", naming="bad.parquet"):
        import_collection(EdgeBackend(tmp_path / "archive" / "index"), path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad.parquet", "elsewhere"]
    assert (victim / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("what", BAD_ROWS)
def test_import__a_row_that_cannot_be_is_refused_before_anything_is_built(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(transfer, "check_file", check_here)
    path = changed(good, tmp_path / "bad.parquet", rows=BAD_ROWS[what])
    with raises(ArtifactError, code="import-broken", naming="bad.parquet"):
        import_collection(EdgeBackend(tmp_path / "index"), path)
    assert not (tmp_path / "index").exists()


def test_import__secrets_of_urls_stay_with_who_made_the_file(good: Path, tmp_path: Path) -> None:
    url = "https://name:pass-1@host.example/a.jpg?X-Amz-Signature=sign-1#frag-1"
    path = changed(good, tmp_path / "signed.parquet", rows=payload(uri=url, thumbnail_url=url))
    backend = EdgeBackend(tmp_path / "index")
    import_collection(backend, path)
    export_collection(backend, tmp_path / "again.parquet")
    stored = "".join(pq.read_table(tmp_path / "again.parquet")["payload"].to_pylist())
    assert stored.count("https://host.example/a.jpg") == 2
    assert not any(secret in stored for secret in ("pass-1", "sign-1", "frag-1"))


@pytest.mark.slow
def test_import__names_are_checked_in_the_process_with_limits(good: Path, tmp_path: Path) -> None:
    with raises(ArtifactError, code="import-broken", naming="'../../photos'"):
        import_collection(EdgeBackend(tmp_path / "index"), changed(good, tmp_path / "a.parquet", name="../../photos"))
    with raises(ArtifactError, code="import-broken", naming="clip twice"):
        import_collection(EdgeBackend(tmp_path / "index"), changed(good, tmp_path / "b.parquet", rows=twice))


@pytest.mark.slow
def test_import__of_another_encoder_is_refused_before_anything_is_built(good: Path, tmp_path: Path) -> None:
    with raises(ArtifactError, code="other-encoder", naming="f" * 16):
        import_collection(EdgeBackend(tmp_path / "index"), good, encoder_version="f" * 16)
    assert not (tmp_path / "index").exists()
    assert import_collection(EdgeBackend(tmp_path / "index"), good, encoder_version=VERSION).moved


def test_import__an_alias_that_is_no_name_is_refused(good: Path, tmp_path: Path) -> None:
    with raises(ConfigError, code="bad-alias"):
        import_collection(EdgeBackend(tmp_path / "index"), good, alias="../clips")
    assert not (tmp_path / "index").exists()


def test_import__a_file_of_kilobytes_that_unpacks_to_gigabytes_is_refused(good: Path, tmp_path: Path) -> None:
    table = pq.read_table(good)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 900_000]))
    lists = pa.array([[0.25] * 16] * 20_000, pa.list_(pa.float32()))
    none = pa.nulls(20_000, pa.list_(pa.int64()))
    words = [none, none.cast(pa.list_(pa.float32()))]
    others = words * ((table.num_columns - 6) // 2)
    bomb = pa.table([texts, lists, lists, *words, texts, *others], names=table.column_names)
    metadata = {**json.loads(table.schema.metadata[b"vidseek"]), "num_points": 20_000}
    path = tmp_path / "bomb.parquet"
    pq.write_table(bomb.replace_schema_metadata({b"vidseek": json.dumps(metadata).encode()}), path)
    assert path.stat().st_size < 200_000
    with raises(ArtifactError, code="import-broken", naming="bomb.parquet"):
        import_collection(EdgeBackend(tmp_path / "index"), path)
    assert not (tmp_path / "index").exists()


def test_check_file__is_ended_in_time(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported, "SECONDS", 0.001)
    with raises(ArtifactError, code="import-too-slow"):
        imported.check_file(good)


@pytest.mark.slow
def test_import__the_alias_stays_where_a_trial_search_fails(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, content = EdgeBackend(tmp_path / "index"), points(9, seed=3)
    metadata = facts_of(content, build="1" * 12)
    backend.build(metadata, content)
    backend.move_alias("clips", Alias(metadata.name))
    monkeypatch.setattr(publish, "trial_problems", lambda *_: ["a trial search failed"])
    with raises(GateFailed, code="publish-not-verified", naming=(metadata.name, "trial search")):
        import_collection(backend, good)
    assert backend.aliases()["clips"] == Alias(metadata.name)
    assert [each.name for each in backend.collections()] == [metadata.name]


def test_trial_problems__a_collection_that_answers_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, content = EdgeBackend(tmp_path / "index"), points(8)
    metadata = facts_of(content)
    backend.build(metadata, content)
    collection = backend.open(metadata.name)
    assert trial.trial_problems(collection) == []
    monkeypatch.setattr("vidseek_retrieval.index.edge.collection.EdgeCollection.search", lambda *_, **__: [])
    assert "finds nothing" in trial.trial_problems(collection)[0]
    monkeypatch.setattr("vidseek_retrieval.index.edge.collection.EdgeCollection.search", lambda *_, **__: 1 / 0)
    assert "ZeroDivisionError" in trial.trial_problems(collection)[0]
    monkeypatch.undo()
    collection.close()
    with raises(ArtifactError, code="collection-absent", naming=metadata.name):
        verify_collection(EdgeBackend(tmp_path / "none"), metadata.name, min_recall=0.9, checks=[trial.trial_problems])


@pytest.mark.slow
def test_publish__what_was_imported_under_the_same_name_is_built_anew_where_it_is_something_else(tmp_path: Path) -> None:
    folders = random_archive(tmp_path / "data", num_videos=1)
    report = publish.publish(**folders, index=tmp_path / "first")
    first = EdgeBackend(tmp_path / "first")
    export_collection(first, tmp_path / "same.parquet")

    def forge(rows: list[dict[str, Any]]) -> None:
        rows[0]["video"], rows[1]["video"] = rows[1]["video"], rows[0]["video"]

    changed(tmp_path / "same.parquet", tmp_path / "forged.parquet", rows=forge)
    for name, is_built in (("same", False), ("forged", True)):
        backend = EdgeBackend(tmp_path / name)
        import_collection(backend, tmp_path / f"{name}.parquet")
        assert backend.collections()[0].imported
        again = publish.publish(**folders, index=backend)
        assert again.collection == report.collection and again.built is is_built
        mine, theirs = (each.open(report.collection) for each in (first, backend))
        for one, other in zip(mine.scroll(), theirs.scroll(), strict=True):
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "clips-0", ""])
def test_build__facts_whose_name_is_none_touch_nothing(tmp_path: Path, name: str) -> None:
    content = points(4)
    metadata = replace(facts_of(content), name=name and name.replace("/elsewhere", str(tmp_path / "elsewhere")))
    with raises(ArtifactError, code="bad-collection"):
        EdgeBackend(tmp_path / "index").build(metadata, content)
    assert list(tmp_path.iterdir()) == []


def test_build__what_is_there_is_not_removed(tmp_path: Path) -> None:
    content = points(4)
    metadata = facts_of(content)
    folder = tmp_path / "index" / metadata.name
    for make in (lambda: (folder / "shard").mkdir(parents=True), lambda: folder.symlink_to(tmp_path / "mine")):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "thesis.txt").write_text("mine")
        make()
        with raises(ServiceError, code="index-not-writable"):
            EdgeBackend(tmp_path / "index").build(metadata, content)
        assert folder.exists() and (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
        folder.unlink() if folder.is_symlink() else [(folder / "shard").rmdir(), folder.rmdir()]


@pytest.mark.parametrize("content", [
    {"clips": {"collection": "../../x", "previous": []}}, {"../x": {"collection": NAME, "previous": []}},
    {"clips": {"collection": NAME, "previous": ["/etc"]}}, {"clips": {"collection": NAME, "previous": None}}, [],
    {"clips": 5},
])
def test_aliases__names_that_are_none_are_a_broken_table(tmp_path: Path, content: Any) -> None:
    (tmp_path / "aliases.json").write_text(json.dumps(content))
    with raises(ArtifactError, code="aliases-broken"):
        EdgeBackend(tmp_path).aliases()


def test_collection_json__of_another_name_is_broken(tmp_path: Path) -> None:
    content, backend = points(4), EdgeBackend(tmp_path)
    metadata = facts_of(content)
    backend.build(metadata, content)
    other = collection_name(VERSION, "2" * 12)
    (tmp_path / metadata.name).rename(tmp_path / other)
    with raises(ArtifactError, code="collection-broken"):
        backend.open(other)


def test_facts__read_back_are_the_same() -> None:
    metadata = replace(facts_of(points(4)), longest_ms=3000, content="0" * 16)
    assert CollectionMetadata.from_json(json.loads(json.dumps(metadata.to_json()))) == metadata
