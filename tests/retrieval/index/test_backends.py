"""One contract, two backends: the folder, and a Qdrant server.

The server is in memory, or the one that QDRANT_URL names (under a prefix of its own); and a stand-in on loopback with every
limit of strict mode, as Qdrant Cloud has it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tests.raising import raises
from tests.retrieval.archive import VERSION, random_archive, unit_rows
from tests.retrieval.qdrant_stand_in import STRICT, borrowed_backend, standing
from vidseek_media.errors import ArtifactError, GateFailed, ServiceError
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.index import verification
from vidseek_retrieval.index.aliases import list_collections, prune, rollback, verify
from vidseek_retrieval.index.backend import Alias, IndexBackend, Point, TimeRange
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.open_backend import open_backend
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant import backend as server
from vidseek_retrieval.index.qdrant import collection as qdrant_collection
from vidseek_retrieval.index.qdrant import lock as qdrant_lock
from vidseek_retrieval.index.qdrant import requests as qdrant_requests
from vidseek_retrieval.search.denylist import FilteredCollection
from vidseek_retrieval.search.filters import parse_filters
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import IndexSettings

NUM = 40
DIMENSION = 16
WORDS = WordEncoder()


BACKENDS = ["embedded", "server", pytest.param("strict", marks=pytest.mark.slow)]


@contextmanager
def backend_at(kind: str, root: Path, *, strict: models.StrictModeConfig = STRICT) -> Iterator[IndexBackend]:
    if kind == "embedded":
        yield EdgeBackend(root / "index")
    elif kind == "strict":
        with standing(strict=strict) as stand_in:
            yield server.QdrantBackend.connect(stand_in.url)
    elif os.environ.get("QDRANT_URL"):
        with borrowed_backend(os.environ["QDRANT_URL"]) as borrowed:
            yield borrowed
    else:
        yield server.QdrantBackend(QdrantClient(":memory:"))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IndexBackend]:
    with backend_at(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module", params=BACKENDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexBackend]:
    """Has the collection of `points()`; of all tests that only read it."""
    with backend_at(request.param, tmp_path_factory.mktemp("built")) as opened:
        content = points()
        opened.build(facts_of(content), content)
        yield opened


def points(num: int = NUM, *, seed: int = 0) -> list[Point]:
    """Every second point has a caption and words; months and channels go round."""
    made = []
    for place, (vector, caption) in enumerate(
        zip(unit_rows(num, DIMENSION, seed=seed), unit_rows(num, DIMENSION, seed=seed + 100), strict=True)
    ):
        payload = {
            "video_id": f"{place % 4:032x}", "start_ms": 1000 * place, "end_ms": 1000 * place + 3000,
            "channel": f"channel {place % 3}", "duration_ms": 10_000 * (place % 5),
            "published_at": f"2024-{place % 12 + 1:02d}-01T00:00:00Z", "encoder_version": VERSION,
        }
        has_text = place % 2 == 0
        made.append(Point(
            str(clip_id_of(payload["video_id"], payload["start_ms"], payload["end_ms"])), vector, payload,
            caption=caption if has_text else None,
            words=WORDS.document(f"a {'red' if place % 4 else 'blue'} crane {place}") if has_text else None,
        ))
    return made


def facts_of(content: list[Point], *, build: str = "0" * 12, **settings: object) -> CollectionMetadata:
    return CollectionMetadata(
        name=collection_name(VERSION, build), encoder_version=VERSION, build=build, dimension=DIMENSION,
        num_points=len(content), settings=IndexSettings(**settings), created_at=f"2024-01-01T00:00:{int(build[0], 16):02}",  # type: ignore[arg-type]
        num_captions=sum(point.caption is not None for point in content),
        num_words=sum(point.words is not None for point in content),
    )


def expected(content: list[Point], query: np.ndarray, *, using: str = "vector") -> list[str]:
    """Clip ids by cosine, best first, by numpy."""
    having = [point for point in content if getattr(point, using) is not None]
    scores = [round(float(getattr(point, using) @ query), 6) for point in having]
    return [having[place].clip_id for place in np.argsort([-score for score in scores], kind="stable")]


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_search__is_numpys_ranking_for_each_dense_vector(backend: IndexBackend, quantization: str) -> None:
    content = points()
    metadata = facts_of(content, quantization=quantization)
    backend.build(metadata, content)
    collection = backend.open(metadata.name)
    (query,) = unit_rows(1, DIMENSION, seed=9)
    for using, field in (("video", "vector"), ("caption", "caption")):
        found = collection.search(query, limit=NUM, using=using, exact=True)  # type: ignore[arg-type]
        assert [clip.clip_id for clip in found] == expected(content, query, using=field)
        near = collection.search(query, limit=5, using=using)  # type: ignore[arg-type]
        assert [clip.clip_id for clip in near] == expected(content, query, using=field)[:5]
    by_id = {point.clip_id: point for point in content}
    best = collection.search(query, limit=1)[0]
    payload = by_id[best.clip_id].payload
    assert (best.video_id, best.start_ms, best.end_ms) == (payload["video_id"], payload["start_ms"], payload["end_ms"])
    assert best.score == pytest.approx(float(by_id[best.clip_id].vector @ query), abs=1e-5)
    whole = collection.search(query, limit=NUM, exact=True)
    assert collection.search(query, limit=NUM, exact=True, score_threshold=whole[6].score) == whole[:7]


def test_search_words__finds_rare_words_first_and_nothing_else(built: IndexBackend) -> None:
    content = points()
    metadata = facts_of(content)
    collection = built.open(metadata.name)
    by_id = {point.clip_id: place for place, point in enumerate(content)}
    found = [by_id[clip.clip_id] for clip in collection.search_words(WORDS.query("blue crane 8"), limit=NUM)]
    assert found[0] == 8 and set(found) == set(range(0, NUM, 2))
    assert set(found[:10]) == set(range(0, NUM, 4))  # blue is rarer than crane, which all have
    assert collection.search_words(WORDS.query("nowhere"), limit=NUM) == []
    assert collection.search_words(WORDS.query("!"), limit=NUM) == []


def test_search_words__scores_are_equal_in_both_backends(tmp_path: Path) -> None:
    content = points()
    metadata, scores = facts_of(content), []
    for each in (EdgeBackend(tmp_path), server.QdrantBackend(QdrantClient(":memory:"))):
        each.build(metadata, content)
        found = each.open(metadata.name).search_words(WORDS.query("red crane 2"), limit=NUM)
        scores.append({clip.clip_id: clip.score for clip in found})
    assert scores[0].keys() == scores[1].keys()
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize(("filters", "fits"), [
    ({"channel": "channel 1"}, lambda place: place % 3 == 1),
    ({"channel": ["channel 0", "channel 2"]}, lambda place: place % 3 != 1),
    ({"duration_ms": {"gte": 20_000, "lt": 40_000}}, lambda place: place % 5 in (2, 3)),
    ({"duration_ms": 30_000}, lambda place: place % 5 == 3),
    ({"published_at": {"gte": "2024-03-01", "lte": "2024-05-01T00:00:00Z"}}, lambda place: place % 12 in (2, 3, 4)),
    ({"video_id": f"{2:032x}", "channel": "channel 1"}, lambda place: place % 4 == 2 and place % 3 == 1),
    ({"category": "none has it"}, lambda place: False),
])
def test_search__filters_hold_for_every_vector(
    built: IndexBackend, filters: dict[str, object], fits: Callable[[int], bool]
) -> None:
    content = points()
    metadata = facts_of(content)
    collection, conditions = built.open(metadata.name), parse_filters(filters)
    (query,) = unit_rows(1, DIMENSION, seed=9)
    wanted = {point.clip_id for place, point in enumerate(content) if fits(place)}
    captioned = {point.clip_id for place, point in enumerate(content) if fits(place) and place % 2 == 0}
    found = collection.search(query, limit=NUM, conditions=conditions)
    assert {clip.clip_id for clip in found} == wanted
    found = collection.search(query, limit=NUM, using="caption", conditions=conditions)
    assert {clip.clip_id for clip in found} == captioned
    found = collection.search_words(WORDS.query("crane"), limit=NUM, conditions=conditions)
    assert {clip.clip_id for clip in found} == captioned


@pytest.mark.parametrize("most", [1, 2, 32])  # stretches that a server is asked for at a time
def test_search__in_stretches_finds_what_begins_in_them(
    built: IndexBackend, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(qdrant_collection, "MOST_TIME_RANGES", most)
    content = points()
    metadata = facts_of(content)
    collection = built.open(metadata.name)
    (query,) = unit_rows(1, DIMENSION, seed=9)
    time_ranges = [
        TimeRange(f"{1:032x}", 5000, 13_000), TimeRange(f"{2:032x}", -3000, 2000), TimeRange(f"{1:032x}", 12_000, 17_000),
        TimeRange(f"{3:032x}", 4000, 6999), TimeRange(f"{9:032x}", 0, 99_000),  # nothing begins there, no such video
    ]
    of_channel = parse_filters({"channel": "channel 2"})
    for conditions, wanted in (((), {1: (5, 9, 13, 17), 2: (2,)}), (of_channel, {1: (5, 17), 2: (2,)})):
        found = collection.search(query, limit=NUM, exact=True, conditions=conditions, time_ranges=time_ranges)
        assert sorted((int(clip.video_id, 16), clip.start_ms // 1000) for clip in found) == [
            (video, place) for video, places in wanted.items() for place in places
        ]
        whole = collection.search(query, limit=NUM, exact=True)
        assert found == [clip for clip in whole if clip in found]
        assert collection.search(query, limit=2, exact=True, conditions=conditions, time_ranges=time_ranges) == found[:2]
        shown = FilteredCollection(collection, lambda: frozenset({f"{1:032x}"}))
        hidden = shown.search(query, limit=NUM, exact=True, conditions=conditions, time_ranges=time_ranges)
        assert hidden == [clip for clip in found if clip.video_id == f"{2:032x}"]
    assert collection.search(query, limit=NUM, exact=True, time_ranges=time_ranges[-2:]) == []


def test_search__what_is_hidden_is_in_no_ranking(built: IndexBackend) -> None:
    content = points()
    hidden = {f"{0:032x}", f"{3:032x}"}
    shown = FilteredCollection(built.open(facts_of(content).name), lambda: frozenset(hidden))
    wanted = {point.clip_id for point in content if point.payload["video_id"] not in hidden}
    query = content[0].vector
    assert {clip.clip_id for clip in shown.search(query, limit=NUM)} == wanted
    assert {clip.clip_id for clip in shown.search(query, limit=NUM, exact=True)} == wanted
    assert {clip.video_id for clip in shown.search(query, limit=NUM, using="caption")} == {f"{2:032x}"}
    assert {clip.video_id for clip in shown.search_words(WORDS.query("crane"), limit=NUM)} == {f"{2:032x}"}
    both = shown.search(query, limit=NUM, conditions=parse_filters({"channel": "channel 1"}))
    assert {clip.clip_id for clip in both} == {
        point.clip_id for point in content if point.clip_id in wanted and point.payload["channel"] == "channel 1"
    }
    every = [point.clip_id for point in content]
    assert set(shown.payloads(every)) == {point.clip_id for point in shown.points(every)} == wanted
    assert {point.clip_id for point in shown.scroll()} == wanted
    hidden.clear()
    assert len(shown.search(query, limit=NUM)) == NUM



def test_collection__gives_back_what_was_put_in(built: IndexBackend) -> None:
    content = points()
    metadata = facts_of(content)
    collection = built.open(metadata.name)
    assert collection.metadata == metadata
    assert [collection.count(name) for name in (None, "video", "caption", "words")] == [NUM, NUM, NUM // 2, NUM // 2]
    back = list(collection.scroll(batch=7))
    assert [point.clip_id for point in back] == sorted(point.clip_id for point in content)
    of = {point.clip_id: point for point in content}
    for point in back:
        was = of[point.clip_id]
        assert dict(point.payload) == was.payload
        np.testing.assert_allclose(point.vector, was.vector, atol=1e-6)
        assert (point.caption is None) == (was.caption is None)
        if was.caption is not None and was.words is not None:
            assert point.caption is not None and point.words is not None
            np.testing.assert_allclose(point.caption, was.caption, atol=1e-6)
            assert dict(zip(*point.words, strict=True)) == pytest.approx(dict(zip(*was.words, strict=True)), abs=1e-6)
    ids = [content[3].clip_id, str(uuid.uuid4()), content[1].clip_id]
    assert [point.clip_id for point in collection.points(ids)] == [ids[0], ids[2]]
    assert set(collection.payloads(ids)) == {ids[0], ids[2]}
    assert collection.sample(5, seed=1) == collection.sample(5, seed=1) and len(collection.sample(500, seed=0)) > 30


def test_collection__without_captions_and_words(backend: IndexBackend) -> None:
    content = [replace(point, caption=None, words=None) for point in points(4)]
    metadata = facts_of(content, vectors=("video",))
    backend.build(metadata, content)
    collection = backend.open(metadata.name)
    (query,) = unit_rows(1, DIMENSION)
    assert collection.search(query, limit=4, using="caption") == []
    assert collection.search_words(WORDS.query("crane"), limit=4) == []
    assert collection.count("caption") == 0 and len(collection.search(query, limit=9)) == 4


def test_backend__aliases_move_and_remember(backend: IndexBackend) -> None:
    assert backend.aliases() == {} and backend.collections() == []
    names = []
    with backend.building():
        for build in ("1" * 12, "2" * 12):
            content = points(4)
            metadata = facts_of(content, build=build)
            backend.build(metadata, content)
            names.append(metadata.name)
        backend.move_alias("clips", Alias(names[0]))
        backend.move_alias("clips", Alias(names[1], (names[0],)))
    assert backend.aliases() == {"clips": Alias(names[1], (names[0],))}
    assert [metadata.name for metadata in backend.collections()] == names
    backend.move_alias("base", Alias(names[0]))
    assert backend.aliases() == {"base": Alias(names[0]), "clips": Alias(names[1], (names[0],))}
    for _ in range(2):
        backend.drop_alias("base")
        assert backend.aliases() == {"clips": Alias(names[1], (names[0],))}
    backend.drop(names[0])
    assert [metadata.name for metadata in backend.collections()] == names[1:]
    with raises(ArtifactError, code="collection-absent", naming=names[0]):
        backend.open(names[0])
    for wrong in ("../x", "clips"):
        with raises(ArtifactError, code=("bad-collection-name", "collection-absent"), naming=wrong):
            backend.open(wrong)


def test_backend__one_builder_at_a_time(backend: IndexBackend) -> None:
    busy = raises(ServiceError, code="publish-running", naming=f"process {os.getpid()}")
    with backend.building(), busy, backend.building():
        pass
    with backend.building():
        pass


def test_backend__a_failed_build_leaves_nothing(backend: IndexBackend) -> None:
    def broken() -> Iterator[Point]:
        yield from points(4)
        raise ValueError("the disk is on fire")

    metadata = facts_of(points(5))
    with backend.building(), pytest.raises((ValueError, ServiceError), match="on fire"):
        backend.build(metadata, broken())
    assert backend.collections() == []
    with backend.building():
        assert backend.remove_unfinished() == []


def test_publish__the_whole_life_of_a_collection(backend: IndexBackend, tmp_path: Path) -> None:
    first = publish(**random_archive(tmp_path, seed=0), index=backend)
    assert first.built and first.moved and first.verification.passed and first.num_points == 232
    again = publish(**random_archive(tmp_path, seed=0), index=backend)
    assert not again.built and not again.moved
    second = publish(**random_archive(tmp_path, seed=1), index=backend)
    assert backend.aliases()["clips"] == Alias(second.collection, (first.collection,))
    assert [each.live_as for each in list_collections(backend)] == [(), ("clips",)]
    (query,) = unit_rows(1, 16, seed=3)
    searcher = Searcher(backend, None)
    assert searcher.search_vector(query, VERSION).collection == second.collection
    assert rollback(backend) == first.collection
    assert searcher.search_vector(query, VERSION).collection == first.collection
    assert verify(backend).passed and prune(backend) == []


@pytest.mark.slow
def test_publish__failed_verification_leaves_the_live_one(
    backend: IndexBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = publish(**random_archive(tmp_path, seed=0), index=backend).collection
    monkeypatch.setattr(verification, "_recall", lambda *_, **__: 0.5)
    with raises(GateFailed, code="publish-not-verified", naming=("recall@10 is 0.5000", "stays live")):
        publish(**random_archive(tmp_path, seed=1), index=backend)
    assert backend.aliases()["clips"].collection == live
    assert [each.metadata.name for each in list_collections(backend)] == [live]


class Failing:
    """A client whose calls of one method fail some times before they come through."""

    def __init__(self, client: QdrantClient, method: str, error: Exception, times: int) -> None:
        self.client, self.method, self.error, self.left = client, method, error, times

    def __getattr__(self, name: str) -> object:
        call = getattr(self.client, name)
        if name != self.method:
            return call

        def fail(*args: object, **named: object) -> object:
            if self.left:
                self.left -= 1
                raise self.error
            return call(*args, **named)

        return fail


CUT_OFF = ResponseHandlingException(ConnectionResetError("reset by peer"))
TOO_BUSY = UnexpectedResponse(503, "busy", b"later", {})  # type: ignore[arg-type]
REFUSED = UnexpectedResponse(400, "bad", b"no room", {})  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("error", [CUT_OFF, TOO_BUSY])
@pytest.mark.parametrize("method", ["upsert", "create_payload_index", "update_collection", "query_points"])
def test_server__comes_back_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, method: str
) -> None:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    backend = server.QdrantBackend(Failing(QdrantClient(":memory:"), method, error, qdrant_requests.TRIES - 1))  # type: ignore[arg-type]
    report = publish(**random_archive(tmp_path), index=backend)
    assert report.moved and report.verification.num_points == report.num_points == 232


@pytest.mark.slow
@pytest.mark.parametrize(("error", "times"), [(CUT_OFF, 99), (TOO_BUSY, 99), (REFUSED, 1)])
def test_server__gone_for_good_leaves_the_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, times: int
) -> None:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    client = QdrantClient(":memory:")
    live = publish(**random_archive(tmp_path, seed=0), index=server.QdrantBackend(client)).collection
    failing = server.QdrantBackend(Failing(client, "create_payload_index", error, times))  # type: ignore[arg-type]
    with raises(ServiceError, code="server-no-answer" if error is CUT_OFF else "server-refused"):
        publish(**random_archive(tmp_path, seed=1), index=failing)
    backend = server.QdrantBackend(client)
    assert backend.aliases()["clips"].collection == live
    assert [metadata.name for metadata in backend.collections()] == [live]
    assert publish(**random_archive(tmp_path, seed=1), index=backend).moved  # the lock was let go


def test_server__a_dead_builders_lock_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, other = (server.QdrantBackend(client) for client in [QdrantClient(":memory:")] * 2)
    dead = backend.building()
    dead.__enter__()
    with raises(ServiceError, code="publish-running"), other.building():
        pass
    now = qdrant_lock.time.time
    monkeypatch.setattr(qdrant_lock.time, "time", lambda: now() + qdrant_lock.LEASE_SECONDS + 1)
    with other.building(), raises(ServiceError, code="lock-lost"):
        backend._lock.renew()
    dead.__exit__(None, None, None)


def test_server__what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    left = facts_of(points(4), build="a" * 12)
    backend._builder.create(left.name, left, numbered=True)
    assert backend.collections() == []
    report = publish(**random_archive(tmp_path), index=backend)
    assert report.removed == (left.name,)


def test_open_backend__by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_URL", raising=False)
    assert isinstance(open_backend(tmp_path), EdgeBackend)
    monkeypatch.setenv("QDRANT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    backend = open_backend(tmp_path)
    assert isinstance(backend, server.QdrantBackend)
    with raises(ServiceError, code="server-no-answer"):
        backend.aliases()
