"""Publishing by difference on a Qdrant server: what is written, what readers see meanwhile, and what a kill leaves.

The server is the client's in-memory mode, whose requests a test counts, watches and cuts off; and a stand-in with every
limit of strict mode.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from tests.raising import raises
from tests.retrieval.archive import VERSION, unit_rows
from tests.retrieval.growing import CLIPS_OF_A_VIDEO, DIMENSION, GrowingArchive
from tests.retrieval.qdrant_stand_in import STRICT, borrowed_backend, standing
from vidseek_media.errors import ArtifactError, GateFailed, InputRejected
from vidseek_retrieval.index import verification
from vidseek_retrieval.index.aliases import list_collections, prune, rollback, verify
from vidseek_retrieval.index.backend import Collection, CollectionRemoved, IndexBackend, Point, TimeRange
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.collection_points import read_points
from vidseek_retrieval.index.difference.content import TableContent
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.publish import PublishReport, compact, go_live
from vidseek_retrieval.index.qdrant import alias_table, building, growth
from vidseek_retrieval.index.qdrant import backend as server
from vidseek_retrieval.index.qdrant import requests as qdrant_requests
from vidseek_retrieval.index.qdrant.backend import QdrantBackend
from vidseek_retrieval.index.qdrant.builds import ADDED, BUILD_FIELDS, REMOVED, shows
from vidseek_retrieval.index.verification import are_same
from vidseek_retrieval.search.denylist import FilteredCollection
from vidseek_retrieval.search.filters import parse_filters
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import IndexSettings, PublishSettings, ServerSettings

WORDS = WordEncoder()
(QUERY,) = unit_rows(1, DIMENSION, seed=99)
WRITES = frozenset({
    "upsert", "set_payload", "delete", "delete_payload", "update_collection", "update_collection_aliases",
    "create_collection", "delete_collection", "create_payload_index",
})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for, few searches verify a collection, and readers see each move at once."""
    monkeypatch.setattr(building, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(growth, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(alias_table, "LIVE_SECONDS", -1.0)
    monkeypatch.setattr(verification, "SAMPLE", 3)


class Watched:
    """A client that counts its calls, tells of each write before it, and dies at a write whose number is given."""

    def __init__(self, client: QdrantClient, *, dies_at: int = 0, watch: Callable[[], None] | None = None) -> None:
        self.client, self.dies_at, self.watch = client, dies_at, watch
        self.writes: list[tuple[str, str]] = []
        self.num_points: Counter[str] = Counter()
        self.num_calls = 0
        self.is_dead = False

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        if not callable(call):
            return call

        def ask(*args: Any, **named: Any) -> Any:
            self.num_calls += 1
            if name in WRITES:
                self.writes.append((name, str(args[0]) if args and isinstance(args[0], str) else ""))
                self.is_dead = self.is_dead or len(self.writes) == self.dies_at
                if self.watch is not None:
                    self.watch()
            if self.is_dead:
                raise KeyboardInterrupt
            if name == "upsert":
                self.num_points[str(args[0])] += len(args[1])
            return call(*args, **named)

        return ask


def archive_in(root: Path, backend: IndexBackend, *, num_videos: int = 5) -> GrowingArchive:
    archive = GrowingArchive(root, num_videos=num_videos, captions=True)
    archive.index = backend  # type: ignore[assignment]
    return archive


def content_of(archive: GrowingArchive) -> TableContent:
    """What the archive's tables say now."""
    tables = archive.write()
    points = read_points(
        tables["embed_dir"], tables["cut_dir"], tables["ingest_dir"], tables["caption_dir"], cut="windows",
        settings=IndexSettings(), duplicates=archive.duplicates,
    )
    return TableContent(points, None)


def answers(collection: Collection) -> dict[str, Any]:
    """What a collection answers to each kind of request."""
    ids = sorted(point.clip_id for point in collection.scroll(batch=7))
    of_channel = parse_filters({"duration_ms": {"gte": 1}})
    words = WORDS.query("caption 1 title")
    return {
        "search": collection.search(QUERY, limit=500, exact=True),
        "captions": sorted(collection.search(QUERY, limit=500, using="caption", conditions=of_channel)),
        "words": sorted(collection.search_words(words, limit=500)),
        "filtered words": sorted(collection.search_words(words, limit=500, conditions=of_channel)),
        "ranges": collection.search(QUERY, limit=500, time_ranges=[TimeRange(f"{2:032x}", 0, 4000)]),
        "points": [(point.clip_id, dict(point.payload), sorted(point.vectors)) for point in collection.points(ids)],
        "payloads": collection.payloads(ids[::3]),
        "counts": [collection.count(name) for name in (None, "video", "caption", "words")],
        "facet": collection.facet("video_id", limit=500),
        "bounds": collection.bounds("start_ms"),
        "sample": set(collection.sample(5, seed=1)) - set(ids),
        "order": [point.clip_id for point in collection.scroll(batch=7)] == ids,
    }


def built_at_once(content: TableContent) -> dict[str, Any]:
    """The answers of a server that has this content and nothing else."""
    backend = QdrantBackend(QdrantClient(":memory:"))
    metadata, points, videos = content.whole()
    backend.build(metadata, points, videos)
    return answers(backend.open(metadata.name))


def live_answers(backend: IndexBackend) -> dict[str, Any]:
    return answers(backend.open(backend.aliases()["clips"].collection))


def require_clean(client: QdrantClient) -> None:
    """All points and rows are of a build that is kept, and nothing else is on the server."""
    every = {each.name for each in client.get_collections().collections}
    backend = QdrantBackend(client)
    held = {each.builds.stored_as: each.builds for each in backend._held()}
    assert every == {server.STATE, *held, *(f"{name}-videos" for name, of in held.items() if of.is_numbered)}
    for name, builds in held.items():
        assert (builds.unfinished, builds.dropped_at) == ("", 0.0)
        for stored_as in (name, f"{name}-videos") if builds.is_numbered else ():
            for point in client.scroll(stored_as, limit=10_000, with_payload=True)[0]:
                assert any(shows(number, point.payload or {}) for number in builds.kept)
                assert (point.payload or {}).get(REMOVED, 0) <= builds.kept[-1]
    assert client.count(server.STATE).count == 0


@pytest.fixture(params=["embedded", "server", pytest.param("strict", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IndexBackend]:
    if request.param == "embedded":
        yield EdgeBackend(tmp_path / "index")
    elif request.param == "strict":
        with standing(strict=STRICT) as stand_in:
            yield QdrantBackend.connect(stand_in.url)
    elif os.environ.get("QDRANT_URL"):
        with borrowed_backend(os.environ["QDRANT_URL"]) as borrowed:
            yield borrowed
    else:
        yield QdrantBackend(QdrantClient(":memory:"))


def points_of(backend: IndexBackend, name: str) -> list[Point]:
    collection = backend.open(name)
    found = list(collection.scroll())
    collection.close()
    return found


def require_content(archive: GrowingArchive, backend: IndexBackend, name: str) -> None:
    """A collection holds the points of the archive's tables, in order of clip id."""
    wanted, found = list(content_of(archive).points), points_of(backend, name)
    assert len(found) == len(wanted) and all(are_same(one, other) for one, other in zip(found, wanted, strict=True))


def test_backend__the_whole_life_of_an_archive_that_grows(backend: IndexBackend, tmp_path: Path) -> None:
    archive = archive_in(tmp_path, backend)
    first = archive.publish()
    archive.add(1)
    archive.titles[archive.names[1]] = "title one"
    second = archive.publish()
    assert (second.num_written, second.num_deleted, second.num_changed) == (20, 0, 20)
    require_content(archive, backend, second.collection)
    searcher, hidden = Searcher(backend, None), {archive.names[2]}
    page = searcher.search_vector(QUERY, VERSION, limit=3)
    following = searcher.search_vector(QUERY, VERSION, limit=3, offset=3)
    archive.remove(archive.names[0])
    third = archive.publish()
    assert (third.num_written, third.num_deleted, third.removed) == (0, 10, (first.collection,))
    assert searcher.search_vector(QUERY, VERSION, limit=3, offset=3, collection=page.collection) == following
    assert rollback(backend) == second.collection and searcher.search_vector(QUERY, VERSION, limit=3) == page
    assert rollback(backend) == third.collection
    shown = FilteredCollection(backend.open(third.collection), lambda: frozenset(hidden))
    assert {clip.video_id for clip in shown.search(QUERY, limit=100)} == set(archive.names) - hidden
    require_content(archive, backend, third.collection)
    assert verify(backend).passed and [each.metadata.name for each in list_collections(backend)] == [
        second.collection, third.collection,
    ]
    again = archive.publish()
    assert (again.built, again.num_written) == (False, 0)
    whole = compact(backend, settings=PublishSettings(keep_previous=0))
    assert (whole.num_written, whole.metadata.num_changed, backend.stored()) == (50, 0, [whole.collection])
    assert prune(backend) == []
    archive.change("caption", 1)
    assert 0 < archive.publish().num_written <= CLIPS_OF_A_VIDEO
    require_content(archive, backend, backend.aliases()["clips"].collection)


@pytest.mark.parametrize("kind", ["server", pytest.param("embedded", marks=pytest.mark.slow)])
def test_export__of_a_collection_that_grew_is_whole(tmp_path: Path, kind: str) -> None:
    backend = QdrantBackend(QdrantClient(":memory:"))
    archive = archive_in(tmp_path, backend)
    archive.publish()
    archive.titles[archive.names[0]] = "another"
    grown = archive.publish()
    export_collection(backend, tmp_path / "archive.parquet")
    other: IndexBackend = QdrantBackend(QdrantClient(":memory:")) if kind == "server" else EdgeBackend(tmp_path / "index")
    imported = import_collection(other, tmp_path / "archive.parquet")
    require_content(archive, other, imported.collection)
    assert imported.collection == grown.collection
    archive.index = other  # type: ignore[assignment]
    archive.add(1)
    assert archive.publish().num_written == 60  # nothing tells what changed since an import


def test_publish__one_more_video_writes_its_points_and_its_row(tmp_path: Path) -> None:
    client = Watched(QdrantClient(":memory:"))
    archive = archive_in(tmp_path, QdrantBackend(client))  # type: ignore[arg-type]
    name = archive.publish().collection
    assert client.num_points == {name: 50, f"{name}-videos": 5, server.STATE: 1}
    archive.publish(keep_previous=0)
    counted = []
    for change in (lambda: archive.add(1), lambda: archive.remove(archive.names[0]), lambda: archive.add(4)):
        client.num_points.clear()
        client.writes.clear()
        change()
        report = archive.publish(keep_previous=0)
        points = {each: num for each, num in client.num_points.items() if each != server.STATE}
        counted.append((points, report.num_written, report.num_deleted, Counter(each for each, _ in client.writes)))
    rows = f"{name}-videos"
    assert counted[0][:3] == ({name: CLIPS_OF_A_VIDEO, rows: 1}, 10, 0)
    assert counted[1][:3] == ({}, 0, 10)
    assert counted[2][:3] == ({name: 40, rows: 4}, 40, 0)
    swept = Counter({"delete": 4, "delete_payload": 2, "update_collection": 1})  # of what the publish before dropped
    assert counted[2][3] == counted[0][3] + swept
    assert [sum(each[3].values()) for each in counted] == [10, 17, 17] and "create_collection" not in counted[2][3]


KINDS = ("add", "remove", "vector", "title", "caption", "duplicate", "publish", "rollback", "prune", "compact")


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), min_size=2, max_size=6))
def test_publish__any_changes_answer_as_if_nothing_else_were_stored(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_as_built_at_once(steps, tmp_path_factory.mktemp("archive"))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)  # of a second or two; `make properties` draws others
@given(steps=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), min_size=2, max_size=12))
def test_publish__many_changes_answer_as_if_nothing_else_were_stored(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_as_built_at_once(steps, tmp_path_factory.mktemp("archive"))


def require_as_built_at_once(steps: list[tuple[str, int]], root: Path) -> None:
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(root, backend)
    archive.publish()
    for kind, number in steps:
        if kind == "publish":
            archive.publish()
        elif kind == "rollback" and backend.aliases()["clips"].previous:
            rollback(backend)
        elif kind == "prune":
            prune(backend)
        elif kind == "compact":
            compact(backend)
        else:
            archive.change(kind, number)
    report = archive.publish()
    assert live_answers(backend) == built_at_once(content_of(archive))
    previous = {name: answers(backend.open(name)) for name in report.previous}
    archive.change("title", 7)
    archive.publish(keep_previous=5)
    assert previous == {name: answers(backend.open(name)) for name in report.previous}
    prune(backend)
    require_clean(client)


@pytest.mark.slow
def test_publish__meanwhile_each_answer_is_of_one_build_and_pages_stay(tmp_path: Path) -> None:
    """Another process reads before each request that writes."""
    client = QdrantClient(":memory:")
    reader = QdrantBackend(client)
    seen: list[tuple[str, bool]] = []
    known: dict[str, dict[str, Any]] = {}
    searcher = Searcher(reader, None)

    def look() -> None:
        name = reader.aliases()["clips"].collection
        found = answers(reader.open(name))
        seen.append((name, known.setdefault(name, found) == found))
        assert searcher.search_vector(QUERY, VERSION, limit=3, offset=3, collection=page.collection) == following

    watched = Watched(client)
    archive = archive_in(tmp_path, QdrantBackend(watched))  # type: ignore[arg-type]
    names = [archive.publish().collection]
    page = searcher.search_vector(QUERY, VERSION, limit=3)
    following = searcher.search_vector(QUERY, VERSION, limit=3, offset=3, collection=page.collection)
    watched.watch = look
    archive.add(1)
    archive.remove(archive.names[0])
    for kind in ("title", "caption", "vector"):
        archive.change(kind, 2)
    names.append(archive.publish().collection)
    assert all(same for _, same in seen) and [name for name, _ in seen] == sorted(
        (name for name, _ in seen), key=names.index
    ) and {name for name, _ in seen} == set(names)
    assert known[names[1]] == built_at_once(content_of(archive))


@pytest.mark.parametrize("what", ["publish", "prune"])
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_kill__at_a_request_that_writes_leaves_the_old_answers(tmp_path: Path, what: str, step: int) -> None:
    """The process dies with all of its requests; another one reads, and publishes again. In steps of 1: at each."""
    dies_at, ended = 0, False
    after: dict[str, Any] = {}  # the same each time
    while not ended:
        dies_at += step
        client = QdrantClient(":memory:")
        backend = QdrantBackend(client)
        archive = archive_in(tmp_path / str(dies_at), backend)
        before = archive.publish().collection
        old = live_answers(backend)
        archive.add(1)
        archive.titles[archive.names[0]] = "another title"
        archive.remove(archive.names[1])
        if what == "prune":
            before, old = archive.publish().collection, live_answers(backend)
            archive.publish(keep_previous=0, alias="other")
            backend.drop_alias("other")
            backend.move_alias("clips", replace(backend.aliases()["clips"], previous=()))
        dying = QdrantBackend(Watched(client, dies_at=dies_at))  # type: ignore[arg-type]
        archive.index = dying  # type: ignore[assignment]
        try:
            archive.publish() if what == "publish" else prune(dying)
            ended = True
        except KeyboardInterrupt:
            pass
        live = backend.aliases()["clips"].collection
        after = after or built_at_once(content_of(archive))
        assert live_answers(backend) == (old if live == before else after)
        free_lock(client)
        archive.index = backend  # type: ignore[assignment]
        report = archive.publish()
        assert live_answers(backend) == after
        assert report.collection == backend.aliases()["clips"].collection and report.num_written <= 20
        prune(backend)
        require_clean(client)
    assert dies_at > (11 if what == "publish" else 6)


def free_lock(client: QdrantClient) -> None:
    """Give back the lock of a dead process: here it is our own, which lives."""
    client.delete(server.STATE, models.FilterSelector(filter=models.Filter()))


REQUESTS = {"query_points": "query_filter", "scroll": "scroll_filter", "count": "count_filter", "facet": "facet_filter"}


def test_reader__every_request_names_its_build(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Recording(Watched):
        def __getattr__(self, name: str) -> Any:
            call = getattr(self.client, name)

            def ask(*args: Any, **named: Any) -> Any:
                asked.append((name, named))
                return call(*args, **named)

            return ask if callable(call) else call

    client = QdrantClient(":memory:")
    archive = archive_in(tmp_path, QdrantBackend(client))
    archive.publish()
    archive.titles[archive.names[0]] = "another"
    name = archive.publish().collection
    collection = QdrantBackend(Recording(client)).open(name)  # type: ignore[arg-type]
    asked.clear()
    answers(collection)
    made = {each for each, _ in inspect.getmembers(Collection, inspect.isfunction) if not each.startswith("_")}
    assert made == {"bounds", "close", "count", "facet", "payloads", "points", "sample", "scroll", "search", "search_words"}
    assert {each for each, _ in asked} - {"get_aliases"} == {*REQUESTS, "retrieve"}
    wanted = [{"key": ADDED, "gt": 1.0}, {"key": REMOVED, "lte": 1.0}]
    for each, named in asked:
        if each in REQUESTS:
            others = named[REQUESTS[each]].must_not
            assert [
                {"key": one.key, **one.range.model_dump(exclude_none=True)} for one in others if one.range is not None
            ][-2:] == wanted
        if each == "query_points" and isinstance(named["query"], models.SparseVector):
            assert named["search_params"].idf.corpus.must_not == named["query_filter"].must_not[-2:]


def test_reader__of_a_build_that_was_dropped_says_so(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(tmp_path, backend)
    archive.publish()
    archive.remove(archive.names[0])
    gone = archive.publish().collection
    searcher = Searcher(backend, None)
    page = searcher.search_vector(QUERY, VERSION, limit=3)
    opened = backend.open(gone)
    assert page.collection == gone
    for _ in range(3):
        archive.add(1)
        archive.publish()
    with raises(CollectionRemoved, code="collection-removed", naming=gone):
        opened.search(QUERY, limit=3)
    with raises(InputRejected, code="no-such-collection", naming=gone):
        searcher.search_vector(QUERY, VERSION, limit=3, offset=3, collection=gone)
    with raises(ArtifactError, code="collection-absent", naming=gone):
        backend.open(gone)
    backend.drop(gone)  # once more: the collection on the server has other builds
    assert live_answers(backend) == built_at_once(content_of(archive))


@pytest.mark.slow
def test_publish__after_a_rollback_is_made_from_the_newest_build(tmp_path: Path) -> None:
    backend = QdrantBackend(QdrantClient(":memory:"))
    archive = archive_in(tmp_path, backend)
    first = archive.publish()
    archive.add(1)
    archive.publish()
    assert rollback(backend) == first.collection
    archive.add(1)
    archive.restore(archive.names[0], unit_rows(CLIPS_OF_A_VIDEO, DIMENSION, seed=77))
    report = archive.publish()
    assert (report.num_written, report.previous) == (20, (first.collection,))
    assert live_answers(backend) == built_at_once(content_of(archive))


def test_publish__back_to_what_the_first_build_had_once_that_is_gone(tmp_path: Path) -> None:
    """A collection on the server may have the name of a build that it holds no more."""
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(tmp_path, backend)
    first = archive.publish()
    archive.add(1)
    archive.publish(keep_previous=0)
    archive.remove(archive.names[-1])
    back = archive.publish(compact_share=0.0, keep_previous=0)
    assert (back.collection, back.num_changed) == (first.collection, 0)
    assert live_answers(backend) == built_at_once(content_of(archive))
    assert prune(backend) == [] and rollback_is_refused(backend)
    require_clean(client)


def rollback_is_refused(backend: IndexBackend) -> bool:
    with raises(ArtifactError, code="no-earlier-collection"):
        rollback(backend)
    return True


def test_publish__a_build_that_does_not_verify_leaves_the_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(tmp_path, backend)
    first = archive.publish()
    old = live_answers(backend)
    archive.add(1)
    with monkeypatch.context() as wrong:
        wrong.setattr(verification, "_recall", lambda *_, **__: 0.5)
        with raises(GateFailed, code="publish-not-verified", naming="stays live"):
            archive.publish()
    assert backend.stored() == [first.collection] and live_answers(backend) == old
    assert archive.publish().num_written == 10
    prune(backend)
    require_clean(client)


@pytest.mark.slow
def test_publish__onto_what_an_earlier_version_built_builds_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = QdrantBackend(QdrantClient(":memory:"))
    archive = archive_in(tmp_path, backend)
    with monkeypatch.context() as older:
        older.setattr(server, "BUILDS_FROM_VERSION", (99, 0))
        old = archive.publish()
    assert not backend._held()[0].builds.is_numbered
    assert live_answers(backend) == built_at_once(content_of(archive))
    archive.add(1)
    whole = archive.publish()
    assert (whole.num_written, whole.previous) == (60, (old.collection,)) and rollback(backend) == old.collection
    archive.add(1)
    assert archive.publish().num_written == 10
    assert live_answers(backend) == built_at_once(content_of(archive))


def test_publish__where_other_clients_cannot_filter_builds_anew(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    archive = archive_in(tmp_path, QdrantBackend(client))
    archive.publish()
    archive.add(1)
    archive.index = QdrantBackend(client, ServerSettings(by_difference=False))  # type: ignore[assignment]
    assert archive.publish(keep_previous=0).num_written == 60
    archive.add(1)
    assert archive.publish(keep_previous=0).num_written == 70
    assert not any(held.builds.is_numbered for held in QdrantBackend(client)._held())


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "allowed"), [
    ("max_payload_index_count", 9), ("max_points_count", 69), ("max_collection_vector_size_bytes", 7000),
])
def test_publish__limits_without_room_for_builds_build_anew(tmp_path: Path, limit: str, allowed: int) -> None:
    with standing(strict=models.StrictModeConfig(enabled=True, **{limit: allowed})) as stand_in:
        archive = archive_in(tmp_path, QdrantBackend.connect(stand_in.url))
        archive.publish()
        archive.titles = dict.fromkeys(archive.names[:2], "another")
        assert archive.publish().num_written == 50


@pytest.mark.slow
@pytest.mark.parametrize(("version", "written"), [("1.18.2", 60), ("dev", 60)])
def test_publish__where_words_are_counted_over_all_points_builds_anew(
    tmp_path: Path, version: str, written: int
) -> None:
    with standing(version=version) as stand_in:
        archive = archive_in(tmp_path, QdrantBackend.connect(stand_in.url))
        archive.publish()
        archive.add(1)
        assert archive.publish().num_written == written


LOST = (
    "PUT .*-videos/points", "PUT .*/points", "POST .*/points/payload$", "POST .*/points/payload/delete", "PATCH ", "PATCH ",
    "POST /collections/aliases", "POST .*/points/delete", "POST .*/scroll", "POST .*/points$",
)


@pytest.mark.slow
def test_publish__answers_that_are_lost_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    with standing(strict=STRICT) as stand_in:
        archive = archive_in(tmp_path, QdrantBackend.connect(stand_in.url), num_videos=3)
        archive.publish()
        archive.change("title", 0)
        archive.publish(keep_previous=0)
        archive.change("title", 1)
        stand_in.faults = [(each, "lost") for each in LOST]
        report = archive.publish()
        assert (report.num_written, stand_in.faults) == (10, [])
        require_content(archive, QdrantBackend(stand_in.client), report.collection)


def test_record__digests_of_videos_that_are_not_whole_are_no_base(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(tmp_path, backend)
    name = archive.publish().collection
    (row, *_), _ = client.scroll(f"{name}-videos", limit=1)
    client.delete(f"{name}-videos", [row.id])
    archive.add(1)
    assert archive.publish().num_written == 60
    name = backend.aliases()["clips"].collection
    client.delete_collection(f"{name}-videos")
    archive.add(1)
    assert archive.publish().num_written == 70
    assert live_answers(backend) == built_at_once(content_of(archive))


def test_payload__no_answer_has_the_fields_of_builds(tmp_path: Path) -> None:
    backend = QdrantBackend(QdrantClient(":memory:"))
    archive = archive_in(tmp_path, backend)
    archive.publish()
    archive.titles[archive.names[0]] = "another"
    collection = backend.open(archive.publish().collection)
    payloads = [dict(point.payload) for point in collection.scroll()]
    payloads += collection.payloads([point.clip_id for point in collection.scroll()]).values()
    assert len(payloads) == 100 and not any(BUILD_FIELDS & payload.keys() for payload in payloads)


def test_prune__waits_for_readers_that_have_not_seen_what_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    archive = archive_in(tmp_path, QdrantBackend(client), num_videos=3)
    archive.publish()
    archive.change("title", 0)
    archive.publish(keep_previous=0)
    waits: list[float] = []
    monkeypatch.setattr(growth.time, "sleep", waits.append)
    monkeypatch.setattr(growth, "GRACE_SECONDS", 1000.0)
    assert prune(archive.index) == []
    assert 900 < max(waits) <= 1000
    require_clean(client)


def test_go_live__two_aliases_share_a_collection_on_the_server(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    backend = QdrantBackend(client)
    archive = archive_in(tmp_path, backend)
    main = archive.publish()
    archive.add(1)
    settings = PublishSettings(keep_previous=0, min_recall=0.9, compact_share=0.9)
    trial = go_live(backend, content_of(archive), alias="trial", settings=settings)
    assert trial.num_written == 10 and backend.aliases()["clips"].collection == main.collection
    assert len(client.get_aliases().aliases) == 4
    archive.remove(archive.names[0])
    report: PublishReport = archive.publish(keep_previous=0)
    assert report.num_deleted == 10 and backend.aliases()["trial"].collection == trial.collection
    assert backend.stored() == sorted([trial.collection, report.collection])
    assert np.isclose(backend.open(trial.collection).count(), 60)
    backend.drop_alias("trial")
    assert prune(backend) == [trial.collection]
    require_clean(client)
