"""The server backend before a server as Qdrant Cloud has it: strict mode, 429, lost answers, colours, versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from tests.raising import raises
from tests.retrieval.archive import VERSION, random_archive, unit_rows
from tests.retrieval.index.test_backends import WORDS, facts_of, points
from tests.retrieval.qdrant_stand_in import STRICT, QdrantStandIn, standing
from vidseek_media.errors import ArtifactError, ConfigError, ServiceError
from vidseek_retrieval.index import verification
from vidseek_retrieval.index.aliases import use_collection
from vidseek_retrieval.index.backend import Alias, TimeRange
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant import alias_table, building
from vidseek_retrieval.index.qdrant import backend as server
from vidseek_retrieval.index.qdrant import requests as qdrant_requests
from vidseek_retrieval.index.qdrant.backend import QdrantBackend
from vidseek_retrieval.index.qdrant.build_reader import BuildReader
from vidseek_retrieval.index.qdrant.collection import QdrantCollection
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.requests import ServerBusy, ServerRefused
from vidseek_retrieval.index.verification import exact_nearest, verify_collection
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.searcher import Searcher

FEW = points(4)
FACTS = facts_of(FEW)
LIMITED = [
    ("max_points_count", 3), ("max_payload_index_count", 2), ("max_collection_vector_size_bytes", 100),
]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantStandIn]:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(building, "POLL_SECONDS", 0.001)
    with standing() as server_:
        yield server_


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client waited, in place of waiting."""
    waited: list[float] = []
    monkeypatch.setattr(qdrant_requests.time, "sleep", waited.append)
    return waited


def built(backend: QdrantBackend) -> None:
    with backend.building():
        backend.build(FACTS, FEW)
        backend.move_alias("clips", Alias(FACTS.name))


@pytest.mark.parametrize(("limit", "allowed"), LIMITED)
def test_build__a_limit_that_is_too_low_is_told_and_the_lock_is_free_at_once(
    stand_in: QdrantStandIn, limit: str, allowed: int
) -> None:
    stand_in.strict = models.StrictModeConfig(enabled=True, **{limit: allowed})
    with raises(ServiceError, code="server-limit", naming=(limit, allowed), remedy=limit):
        built(QdrantBackend.connect(stand_in.url))
    assert [each.name for each in stand_in.client.get_collections().collections] == [server.STATE]
    stand_in.strict = None
    built(QdrantBackend.connect(stand_in.url))


def test_building__a_server_that_refuses_every_filtered_update_gets_its_lock_back(stand_in: QdrantStandIn) -> None:
    stand_in.strict = STRICT.model_copy(update={"max_payload_index_count": 0})
    with raises(ServerRefused, code="server-refused"), QdrantBackend.connect(stand_in.url).building():
        raise AssertionError("the lock cannot have an index")
    assert stand_in.client.count(server.STATE).count == 0
    stand_in.strict = None
    backend = QdrantBackend.connect(stand_in.url)
    with pytest.raises(RuntimeError), backend.building():
        stand_in.strict, stand_in.indexed[server.STATE] = STRICT, {}
        raise RuntimeError
    assert stand_in.client.count(server.STATE).count == 0


@pytest.mark.parametrize("status", ["403", "404", "409"])
def test_building__a_lock_that_cannot_be_read_back_is_let_go(stand_in: QdrantStandIn, status: str) -> None:
    stand_in.faults = [(f"POST /collections/{server.STATE}/points$", status)]
    backend = QdrantBackend.connect(stand_in.url)
    with raises(ServerRefused, code="server-refused"), backend.building():
        raise AssertionError("never")
    built(backend)


def test_strict_mode__that_is_off_limits_nothing(stand_in: QdrantStandIn) -> None:
    stand_in.strict = STRICT.model_copy(update={"enabled": False})
    info = QdrantBackend.connect(stand_in.url)
    with info.building():
        assert Limits.of(info._client.get_collection(server.STATE)) == Limits()


def test_state__is_replicated(stand_in: QdrantStandIn) -> None:
    built(QdrantBackend.connect(stand_in.url))
    body = stand_in.created[server.STATE]
    assert (body["replication_factor"], body["write_consistency_factor"], body["shard_number"]) == (3, 2, 1)
    assert stand_in.indexed[server.STATE] == {"token": "keyword"}


def test_verify__where_exact_search_is_forbidden_measures_the_same_recall(stand_in: QdrantStandIn) -> None:
    backend = QdrantBackend.connect(stand_in.url)
    built(backend)
    free = verify_collection(backend, FACTS.name, min_recall=0.99)
    stand_in.strict = STRICT
    assert verify_collection(backend, FACTS.name, min_recall=0.99) == free and free.passed
    assert any(each.endswith("/scroll") for each in stand_in.requests)


def test_scan_of_all_points__gives_the_exact_ranking() -> None:
    content = points(40)
    backend = QdrantBackend(QdrantClient(":memory:"))
    backend.build(facts_of(content), content)
    collection, queries = backend.open(FACTS.name), list(unit_rows(5, 16, seed=4))
    wanted = list(map(verification._exactly(collection, "video"), queries))
    found = exact_nearest(np.stack(queries), verification._scanned(collection, "video"), verification.NEIGHBOURS + 1)
    for ranking, exact in zip(found, wanted, strict=True):
        assert [clip_id for clip_id, _ in ranking] == [clip_id for clip_id, _ in exact]
        np.testing.assert_allclose([score for _, score in ranking], [score for _, score in exact], atol=2e-6)


@pytest.fixture(scope="module")
def forty() -> QdrantBackend:
    backend = QdrantBackend(QdrantClient(":memory:"))
    backend.build(facts_of(points()), points())
    return backend


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    page=st.integers(1, 50), conditions=st.integers(1, 12), size=st.integers(1, 5), limit=st.integers(1, 45),
    hidden=st.sets(st.integers(0, 3), max_size=3), channels=st.sets(st.integers(0, 2), max_size=3),
    time_ranges=st.lists(st.integers(0, 3), max_size=4),
)
def test_search__within_any_limits_finds_what_it_finds_without(
    forty: QdrantBackend, page: int, conditions: int, size: int, limit: int, hidden: set[int], channels: set[int],
    time_ranges: list[int],
) -> None:
    wanted = [
        *([Condition("video_id", none_of=tuple(f"{each:032x}" for each in sorted(hidden)))] if hidden else []),
        *([Condition("channel", any_of=tuple(f"channel {each}" for each in sorted(channels)))] if channels else []),
    ]
    within = [TimeRange(f"{each:032x}", 0, 30_000) for each in time_ranges]
    free = forty.open(FACTS.name)
    limits = Limits(
        max_query_limit=page, filter_max_conditions=conditions, condition_max_size=size, search_max_hnsw_ef=2,
    )
    limited = QdrantCollection(BuildReader(forty._client, FACTS.name, FACTS.name, limits=limits), free.metadata)
    (query,) = unit_rows(1, 16, seed=9)
    for exact in (True, False):
        both = [
            each.search(query, limit=limit, exact=exact, conditions=wanted, time_ranges=within) for each in (free, limited)
        ]
        assert both[0] == both[1]
    words = WORDS.query("red crane 8")
    assert sorted(limited.search_words(words, limit=limit, conditions=wanted)) == sorted(
        free.search_words(words, limit=limit, conditions=wanted)
    )
    assert [each.clip_id for each in limited.scroll()] == [each.clip_id for each in free.scroll()]
    limits = Limits(max_query_limit=page, allows_exact=False)
    unexact = QdrantCollection(BuildReader(forty._client, FACTS.name, FACTS.name, limits=limits), free.metadata)
    assert [unexact.count(name) for name in (None, "caption")] == [free.count(name) for name in (None, "caption")]


def test_request__429_is_waited_for_as_told(stand_in: QdrantStandIn, waits: list[float]) -> None:
    stand_in.faults = [("/aliases", "429 3"), ("/aliases", "429 2"), ("/aliases", "429")]
    assert QdrantBackend.connect(stand_in.url).aliases() == {}
    assert waits == [3.0, 2.0, qdrant_requests.WAIT_WITHOUT_WORD_SECONDS] and len(stand_in.requests) == 4


@pytest.mark.parametrize("told", ["1", "4", "11", "3600", ""])
def test_request__429_without_end_is_an_error_that_says_when(stand_in: QdrantStandIn, waits: list[float], told: str) -> None:
    stand_in.faults = [("/aliases", f"429 {told}".strip())] * 100
    with raises(ServerBusy, code="server-busy") as caught:
        QdrantBackend.connect(stand_in.url).aliases()
    assert caught.value.retry_after_s == float(told or 1)
    assert sum(waits) <= qdrant_requests.READER_PATIENCE_SECONDS < sum(waits) + float(told or 1)


@pytest.mark.slow
def test_publish__goes_through_a_limited_rate(stand_in: QdrantStandIn, tmp_path: Path, waits: list[float]) -> None:
    stand_in.faults = [("PUT .*/points", "429 20"), ("PUT .*/points", "429 40"), ("POST .*/query", "429 60")]
    assert publish(**random_archive(tmp_path), index=QdrantBackend.connect(stand_in.url)).moved
    assert {20.0, 40.0, 60.0} <= set(waits)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [
    "PUT /collections/vidseek-state$", "PUT /collections/clips-[^/]*$", "PUT .*/index", "PUT .*/points", "PATCH ",
    "POST /collections/aliases", "DELETE ", "POST .*/query", "POST .*/delete",
])
def test_publish__an_answer_that_is_lost_is_no_failure(stand_in: QdrantStandIn, tmp_path: Path, lost: str) -> None:
    backend = QdrantBackend.connect(stand_in.url)
    left = facts_of(FEW, build="a" * 12)
    backend._builder.create(left.name, left, numbered=True)  # what a killed build left: it is removed
    stand_in.faults = [(lost, "lost"), (lost, "lost")]
    report = publish(**random_archive(tmp_path), index=backend)
    assert report.moved and stand_in.faults == [] and report.num_points == report.verification.num_points == 232
    assert stand_in.client.count(server.STATE).count == 0  # the lock was let go


def test_build__a_full_collection_that_cannot_be_removed_is_not_taken_for_ours(stand_in: QdrantStandIn) -> None:
    backend = QdrantBackend.connect(stand_in.url)
    backend._builder.create(FACTS.name, FACTS, numbered=True)
    stand_in.client.upsert(FACTS.name, [building.struct_of(FEW[0])])
    stand_in.faults = [("DELETE", "500")] * qdrant_requests.TRIES
    with raises(ServerRefused, code="server-refused") as caught, backend.building():
        backend.build(FACTS, FEW)
    assert caught.value.status == 409
    built(backend)


def test_check__grey_is_woken_yellow_waited_for_and_red_told(
    stand_in: QdrantStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = QdrantBackend.connect(stand_in.url)
    built(backend)
    assert stand_in.woken == 0
    stand_in.statuses = ["green", "grey", "yellow", "yellow", "green"]  # the first answer is of the look where it is
    assert backend.check(FACTS.name) == [] and stand_in.statuses == [] and stand_in.woken == 1
    stand_in.statuses = ["yellow", "red:the optimizer met a wall"]
    (problem,) = backend.check(FACTS.name)
    assert "red" in problem and "the optimizer met a wall" in problem
    monkeypatch.setattr(server, "CHECK_TIMEOUT_SECONDS", 0.02)
    stand_in.statuses = ["yellow"] * 100
    (problem,) = backend.check(FACTS.name)
    assert "yellow" in problem and len(stand_in.statuses) > 50


def test_build__red_ends_it_with_its_text_and_nothing_stays(stand_in: QdrantStandIn) -> None:
    backend = QdrantBackend.connect(stand_in.url)
    with raises(ServiceError, code="server-not-settled", naming="no space left"), backend.building():
        backend.build(FACTS, reddening(stand_in))
    assert backend.stored() == [] and backend._info(FACTS.name) is None


def reddening(stand_in: QdrantStandIn) -> Iterator[object]:
    """The points, after which the collection is red."""
    yield from FEW
    stand_in.statuses = ["yellow", "red:no space left"]


@pytest.mark.parametrize(("version", "is_old"), [
    ("1.12.4", True), ("0.11.0", True), ("1.16.3", True), ("1.17.0", False), ("1.19.1", False), ("2.0.0-rc1", False),
    ("v1.20.0", False), ("dev", False), ("1.16-rc1", True),
])
def test_version__an_old_server_is_told_before_anything_is_written(
    stand_in: QdrantStandIn, version: str, is_old: bool
) -> None:
    stand_in.version = version
    backend = QdrantBackend.connect(stand_in.url)
    if is_old:
        with raises(ConfigError, code="server-too-old", naming=("1.17", version)), backend.building():
            raise AssertionError("never")
        assert stand_in.client.get_collections().collections == []
        with raises(ConfigError, code="server-too-old"):
            backend.open(FACTS.name)
    else:
        built(backend)
        backend.open(FACTS.name)
        assert stand_in.requests.count("GET /") == 1


def test_version__a_proxy_that_does_not_tell_it_is_let_through(stand_in: QdrantStandIn) -> None:
    stand_in.faults = [("GET /$", "404")]
    backend = QdrantBackend.connect(stand_in.url)
    built(backend)
    assert "GET /" in stand_in.requests and backend.open(FACTS.name).metadata.name == FACTS.name


def test_key__a_wrong_one_is_named(stand_in: QdrantStandIn) -> None:
    stand_in.api_key = "right"
    with raises(ServerRefused, code="server-refused", remedy="QDRANT_API_KEY") as caught:
        QdrantBackend.connect(stand_in.url, api_key="wrong").aliases()
    assert caught.value.status == 401
    built(QdrantBackend.connect(stand_in.url, api_key="right"))


def test_live__is_one_request_and_none_for_a_while(stand_in: QdrantStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    built(QdrantBackend.connect(stand_in.url))
    monkeypatch.setattr(alias_table, "LIVE_SECONDS", 60.0)
    backend = QdrantBackend.connect(stand_in.url)
    searcher = Searcher(backend, None)
    searcher.search_vector(FEW[0].vector, VERSION)
    stand_in.requests.clear()
    searcher.search_vector(FEW[0].vector, VERSION)
    assert {each.rpartition("/")[2] for each in stand_in.requests} <= {"query", "points"} and stand_in.requests
    stand_in.requests.clear()
    monkeypatch.setattr(alias_table, "LIVE_SECONDS", -1.0)
    assert backend.live("clips") == FACTS.name and stand_in.requests == ["GET /aliases"]
    stand_in.requests.clear()
    assert backend.aliases() == {"clips": Alias(FACTS.name)} and stand_in.requests == ["GET /aliases"]


@pytest.mark.slow
def test_search__follows_where_the_collection_was_moved_and_removed_elsewhere(stand_in: QdrantStandIn) -> None:
    backend, other = QdrantBackend.connect(stand_in.url), QdrantBackend.connect(stand_in.url)
    built(other)
    searcher = Searcher(backend, None)
    first = searcher.search_vector(FEW[0].vector, VERSION)
    second = facts_of(FEW, build="2" * 12)
    with other.building():
        other.build(second, FEW)
        other.move_alias("clips", Alias(second.name))
        other.drop(FACTS.name)
    again = searcher.search_vector(FEW[0].vector, VERSION)
    assert (first.collection, again.collection) == (FACTS.name, second.name)
    assert replace(first, collection="") == replace(again, collection="")


def test_prefix__two_archives_share_a_server(stand_in: QdrantStandIn) -> None:
    mine, yours = (QdrantBackend.connect(stand_in.url, prefix=prefix) for prefix in ("", "team-b-"))
    built(mine)
    assert yours.aliases() == {} and yours.stored() == [] and yours.remove_unfinished() == []
    with mine.building(), yours.building():
        pass
    with yours.building():
        yours.build(facts_of(FEW, build="b" * 12), FEW)
        yours.move_alias("clips", Alias(facts_of(FEW, build="b" * 12).name))
    assert mine.stored() == [FACTS.name] and yours.stored() == [facts_of(FEW, build="b" * 12).name]
    assert mine.live("clips") == FACTS.name and yours.live("clips") == yours.stored()[0]
    assert use_collection(mine, FACTS.name).passed and math.isclose(
        yours.open(yours.stored()[0]).search(FEW[0].vector, limit=1)[0].score, 1.0, abs_tol=1e-5
    )
    with raises(ArtifactError, code="collection-absent"):
        mine.open(yours.stored()[0])
