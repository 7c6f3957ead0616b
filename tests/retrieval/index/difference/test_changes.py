from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as qdrant
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from tests.retrieval.archive import VERSION, unit_rows
from tests.retrieval.growing import DIMENSION, GrowingArchive
from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.index import collection_points
from vidseek_retrieval.index.aliases import list_collections, rollback, verify
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_points import read_points
from vidseek_retrieval.index.edge import copying
from vidseek_retrieval.index.edge.backend import COLLECTION_FILE, EdgeBackend
from vidseek_retrieval.index.edge.collection import EdgeCollection
from vidseek_retrieval.index.publish import PublishReport, compact, publish
from vidseek_retrieval.index.verification import are_same
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import IndexSettings


def content_of(index: Path, name: str) -> list[Point]:
    collection = EdgeBackend(index).open(name)
    points = list(collection.scroll())
    collection.close()
    return points


def require_same_content(archive: GrowingArchive, report: PublishReport, *, fresh: Path | None = None) -> None:
    """The collection holds what one holds that is built at once from the same tables, and its metadata says the same.

    What is built lies in the index `fresh`, and is kept there for tests that compare with the same again.
    """
    fresh = fresh or archive.root / f"fresh-{report.collection}"
    whole = publish(**archive.write(), index=fresh)
    assert whole.collection == report.collection or report.num_changed == 0
    grown, built = (content_of(index, each.collection) for index, each in ((archive.index, report), (fresh, whole)))
    assert len(grown) == len(built) and all(are_same(one, other) for one, other in zip(grown, built, strict=True))
    facts = [EdgeBackend(index).open(each.collection).metadata for index, each in ((archive.index, report), (fresh, whole))]
    assert replace(facts[0], created_at="", num_changed=0, name="", build="") == replace(
        facts[1], created_at="", num_changed=0, name="", build=""
    )
    records = [EdgeBackend(index).record(each.collection) for index, each in ((archive.index, report), (fresh, whole))]
    assert all(records)
    for field in ("videos", "points", "spans"):
        one, other = (getattr(record, field) for record in records)
        assert one.tobytes() == other.tobytes(), field


def test_publish__writes_what_changed_and_nothing_else(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    first = archive.publish()
    assert (first.num_written, first.num_deleted, first.num_changed) == (200, 0, 0)
    archive.add(1)
    added = archive.publish()
    assert (added.built, added.num_written, added.num_deleted, added.num_changed) == (True, 10, 0, 10)
    archive.remove(archive.names[3])
    removed = archive.publish()
    assert (removed.num_written, removed.num_deleted, removed.num_changed, removed.num_points) == (0, 10, 20, 200)
    archive.vectors[archive.names[5]][2] *= -1
    archive.titles[archive.names[6]] = "another title"
    changed = archive.publish()
    assert (changed.num_written, changed.num_deleted) == (11, 0)
    again = archive.publish()
    assert (again.built, again.moved, again.num_written) == (False, False, 0)
    require_same_content(archive, again)
    assert verify(archive.index).passed


def test_publish__opens_the_new_shard_twice_and_compares_no_query_with_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    archive.publish()
    opened: list[str] = []
    load, search = qdrant.EdgeShard.load, EdgeCollection.search

    class Counted:
        create = qdrant.EdgeShard.create

        @staticmethod
        def load(path: str, *arguments: Any) -> Any:
            opened.append(path)
            return load(path, *arguments)

    def approximate(self: EdgeCollection, *arguments: Any, **options: Any) -> Any:
        assert not options.get("exact") or options["conditions"]  # among the clips of one video
        return search(self, *arguments, **options)

    monkeypatch.setattr(qdrant, "EdgeShard", Counted)
    monkeypatch.setattr(EdgeCollection, "search", approximate)
    archive.add(1)
    report = archive.publish()
    new = str(archive.index / report.collection / "shard")
    assert opened == [new, new]  # to grow; then to tidy up, for the digests and the verification
    assert report.verification.num_sampled > 32 and report.verification.recall_at_10 == 1.0


def test_nearest__is_what_the_collection_finds_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    report = archive.publish()
    tables = archive.write()
    points = read_points(
        tables["embed_dir"], tables["cut_dir"], tables["ingest_dir"], tables.get("caption_dir"), cut="windows",
        settings=tables.get("settings") or IndexSettings(), duplicates=(),
    )
    queries = unit_rows(7, DIMENSION, seed=5)
    collection = EdgeBackend(archive.index).open(report.collection)
    wanted = [
        [(clip.clip_id, pytest.approx(clip.score, abs=2e-6)) for clip in collection.search(query, limit=11, exact=True)]
        for query in queries
    ]
    collection.close()
    assert points.nearest(queries, 11) == wanted
    monkeypatch.setattr(collection_points, "_ROWS_AT_ONCE", 7)  # fewer than are wanted, and no divisor of all
    assert points.nearest(queries, 11) == wanted
    assert [len(each) for each in points.nearest(queries, 10**4)] == [len(points)] * 7


KINDS = ("add", "remove", "vector", "title", "caption", "duplicate")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), min_size=1, max_size=5)


@settings(max_examples=2, deadline=None)
@given(steps=STEPS)
def test_publish__any_changes_give_what_a_whole_build_gives(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_as_built_at_once(steps, tmp_path_factory)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)  # of one to two seconds; `make properties` draws others
@given(steps=STEPS)
def test_publish__many_changes_give_what_a_whole_build_gives(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_as_built_at_once(steps, tmp_path_factory)


def require_as_built_at_once(steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = GrowingArchive(tmp_path_factory.mktemp("archive"), num_videos=12, captions=True)
    archive.publish()
    for kind, number in steps:
        archive.change(kind, number)
    report = archive.publish()
    assert report.num_written + report.num_deleted < report.num_points
    require_same_content(archive, report)


def test_publish__a_share_of_changed_points_builds_all_again(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    archive.publish()
    archive.add(2)
    assert archive.publish(compact_share=0.1).num_written == 20
    archive.add(1)
    whole = archive.publish(compact_share=0.1)
    assert (whole.num_written, whole.num_changed) == (230, 0)


def test_publish__settings_of_searches_write_no_point(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    archive.publish()
    searched = archive.publish(index=IndexSettings(hnsw_ef=100, oversampling=2.0))
    assert (searched.built, searched.moved, searched.num_written) == (True, True, 0)
    assert EdgeBackend(archive.index).open(searched.collection).metadata.settings.hnsw_ef == 100
    assert archive.publish(index=IndexSettings(m=8)).num_written == 200


def test_publish__a_duplicate_whose_original_goes_and_comes_back(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    copy, original = archive.names[4], archive.names[9]
    archive.duplicates = [Duplicate(copy, 0, 60_000, original, 0, 60_000, "whole", 1.0)]
    first = archive.publish()

    def links(report: PublishReport) -> set[str]:
        return {point.payload.get("duplicate_of", "") for point in content_of(archive.index, report.collection)
                if point.payload["video_id"] == copy}

    assert links(first) == {original}
    kept = archive.vectors[original]
    archive.remove(original)
    gone = archive.publish()
    assert (gone.num_written, gone.num_deleted) == (10, 10) and links(gone) == {""}
    archive.restore(original, kept)
    back = archive.publish()
    assert back.collection == first.collection and not back.built and links(back) == {original}


def test_publish__rollback_and_previous_survive_differences(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    names = [archive.publish().collection]
    for _ in range(2):
        archive.add(1)
        names.append(archive.publish().collection)
    assert [each.metadata.name for each in list_collections(archive.index)] == names[1:]
    assert rollback(archive.index) == names[1]
    assert len(content_of(archive.index, names[1])) == 210 and verify(archive.index).passed
    archive.add(1)
    after = archive.publish()  # made from what is live now
    assert (after.num_written, after.previous) == (20, (names[1],))
    require_same_content(archive, after)


def test_publish__the_collection_before_stays_as_it_is(tmp_path: Path) -> None:
    """Files are shared with it: what is written into the new one must not show in it."""
    archive = GrowingArchive(tmp_path, num_videos=20)
    first = archive.publish()
    before = content_of(archive.index, first.collection)
    archive.add(1)
    archive.remove(archive.names[0])
    archive.publish()
    assert EdgeBackend(archive.index).check(first.collection) == []
    after = content_of(archive.index, first.collection)
    assert [point.clip_id for point in before] == [point.clip_id for point in after]


def test_publish__searches_meanwhile_are_whole_and_pages_stay(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=12)
    names = [archive.publish().collection]
    searcher, stop = Searcher(EdgeBackend(archive.index), None), threading.Event()
    query = np.ones(DIMENSION, np.float32) / 4
    page = searcher.search_vector(query, VERSION, limit=5)
    wanted = searcher.search_vector(query, VERSION, limit=5, offset=5).hits

    def search() -> list[tuple[str, int]]:
        found = []
        while not stop.is_set():
            answer = searcher.search_vector(query, VERSION, limit=1000)
            found.append((answer.collection, len({hit.video_id for hit in answer.hits})))
        return found

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(search)
        archive.add(1)
        archive.remove(archive.names[0])
        names.append(archive.publish().collection)
        next_page = searcher.search_vector(query, VERSION, limit=5, offset=5, collection=page.collection)
        stop.set()
    assert (next_page.collection, next_page.hits) == (names[0], wanted)
    assert {num for _, num in asked.result()} == {12} and {name for name, _ in asked.result()} <= set(names)
    assert searcher.search_vector(query, VERSION).collection == names[1]


def test_publish__a_damaged_collection_is_no_base(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    first = archive.publish()
    (archive.index / first.collection / "points.npy").write_bytes(b"\x93NUMPY")
    archive.add(1)
    assert archive.publish().num_written == 210
    largest = max((archive.index / archive.publish().collection / "shard").rglob("page_0.dat"),
                  key=lambda path: path.stat().st_blocks)
    content = bytearray(largest.read_bytes())
    content[100] ^= 1
    largest.write_bytes(content)
    archive.add(1)
    assert archive.publish().num_written == 220


def test_publish__a_collection_of_an_earlier_version_is_a_base(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20)
    live = archive.publish().collection
    path = archive.index / live / COLLECTION_FILE
    content = read_json(path)
    content["files"] = {
        name: digest if name.endswith(".json") else file_sha256(archive.index / live / name)  # as they were before blocks
        for name, digest in content["files"].items()
    }
    write_json(path, content)
    assert EdgeBackend(archive.index).check(live) == []
    archive.add(1)
    added = archive.publish()
    assert (added.num_written, added.num_deleted) == (10, 0) and verify(archive.index).passed
    content["files"]["spans.npy"] = "0" * 64
    write_json(path, content)
    assert EdgeBackend(archive.index).check(live) == ["spans.npy was changed"]


@pytest.mark.slow
def test_compact__builds_the_live_points_at_once(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=20, captions=True)
    assert not (first := archive.publish()).num_changed
    assert compact(archive.index).collection == first.collection  # nothing to do
    archive.add(1)
    grown = archive.publish()
    whole = compact(archive.index)
    assert whole.built and whole.moved and whole.previous == (grown.collection,)
    assert (whole.metadata.identity, whole.metadata.num_changed) == (
        EdgeBackend(archive.index).open(grown.collection).metadata.identity, 0
    )
    again = archive.publish()
    assert (again.collection, again.built) == (whole.collection, False)
    require_same_content(archive, again)
    archive.add(1)
    assert archive.publish().num_written == 10


def test_publish__nothing_to_compact_where_nothing_is(tmp_path: Path) -> None:
    with raises(ArtifactError, code="not-published"):
        compact(tmp_path / "index")


def test_copy_file__keeps_holes_and_content(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.seek(3 * 2**20)
        file.write(b"end")
        file.truncate(8 * 2**20)
    copying.copy_file(source, target)
    assert source.read_bytes() == target.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    empty = tmp_path / "empty"
    empty.touch()
    copying.copy_file(empty, tmp_path / "empty copy")
    assert (tmp_path / "empty copy").read_bytes() == b""


def test_copy_shard__links_what_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = tmp_path / "shard" / "segment" / "vector_storage-video"
    storage.mkdir(parents=True)
    for name in ("matrix.dat", "quantized.data", "deleted.dat"):
        (storage / name).write_bytes(name.encode())
    (storage.parent / "quantized.data").write_bytes(b"of a segment that takes points")
    copied = copying.copy_shard(tmp_path / "shard", tmp_path / "copy")
    assert sorted(path.name for path in copied) == ["deleted.dat", "quantized.data"]
    assert (tmp_path / "copy/segment/vector_storage-video/matrix.dat").stat().st_nlink == 2

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert len(copying.copy_shard(tmp_path / "shard", tmp_path / "plain")) == 4
    assert (tmp_path / "plain/segment/vector_storage-video/matrix.dat").read_bytes() == b"matrix.dat"
