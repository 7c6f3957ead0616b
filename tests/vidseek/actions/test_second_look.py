"""The second look of a search: opt in and out, one order over pages, and a first ranking that nothing can take away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from tests.serving.live_api import write_worded_archive
from tests.training.llm_servers import ReceivedRequest, Reply, Server, openai_reply, serve, write_noise
from tests.vidseek.calling import call
from vidseek.actions.second_look import AT_ONCE, BUSY, NO_MODEL, NO_PICTURES, NO_WORDS, SecondLook
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.cutting.cut import read_clips
from vidseek_media.frame_store.stored_clips import read_jpegs, stored_clips
from vidseek_retrieval.search.query import Answer, Hit, SearchOptions
from vidseek_retrieval.settings import RerankSettings
from vidseek_training.captioning.captioner import choose_pictures

COSTS = {"model": "seer-1", "usd_per_million_tokens_in": 0.0, "usd_per_million_tokens_out": 0.0}


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Red, green, blue and white, published, with frames; green says something of a harbour, which blue shows."""
    archive = write_worded_archive(tmp_path_factory.mktemp("framed"))
    clips = read_clips(archive.cut)
    write_noise(archive.frames, [(str(clip.clip_id), clip.video_id, clip.index) for clip in clips])
    return archive


@pytest.fixture
def archive(framed: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("VIDSEEK_HOME", str(framed.root))
    rerank = json.dumps({"num_hits": 3, "timeout_seconds": 20.0, **COSTS})
    framed.params.write_text(f"ingest: {{source: videos}}\nsearch: {{rerank: {rerank}}}\n")
    return framed


def backwards(request: ReceivedRequest, number: int) -> Reply:
    """Whatever is asked later fits better: the settings ask for one at a time."""
    return openai_reply(json.dumps({"score": min(100, 10 * number)}))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(backwards) as one:
        monkeypatch.setenv("VIDSEEK_LLM_URL", one.url)
        yield one


@pytest.fixture
def client(archive: Archive, server: Server) -> Iterator[TestClient]:
    settings = archive.settings()
    engine = Engine(
        lambda: open_archive(archive, Settings()), ServeSettings(), Places.of(archive),
        second_look=SecondLook(archive, settings.search.rerank),
    )
    with TestClient(create_app(engine), base_url="http://127.0.0.1") as one:
        yield one
    engine.close()


def searched(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/search", json={"text": "red", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def clip_ids(answer: dict[str, Any]) -> list[str]:
    return [hit["best_clip_id"] for hit in answer["hits"]]


def test_search__looks_again_only_where_a_request_wants_it(client: TestClient, server: Server) -> None:
    plain = searched(client, text="blue")
    assert "rerank" not in plain and not server.asked
    assert plain["hits"] and all("reranked" not in hit for hit in plain["hits"])
    again = searched(client, text="blue", rerank=True)
    report = again["rerank"]
    assert (report["is_done"], report["reason"], report["model"], report["num_hits"]) == (True, "", "openai/seer-1", 3)
    assert sorted(clip_ids(again)) == sorted(clip_ids(plain)) and clip_ids(again)[3:] == clip_ids(plain)[3:]
    before = {hit["best_clip_id"]: (place, hit) for place, hit in enumerate(plain["hits"], start=1)}
    scores = [hit["reranked"]["score"] for hit in again["hits"][:3]]
    assert scores == sorted(scores, reverse=True)
    for hit in again["hits"][:3]:
        place, first = before[hit["best_clip_id"]]
        assert (hit["reranked"]["first_rank"], hit["score"], hit["confidence"]) == (place, first["score"], None)
    pages = [searched(client, text="blue", rerank=True, limit=1, offset=offset) for offset in range(len(plain["hits"]))]
    assert [clip_ids(page)[0] for page in pages] == clip_ids(again)
    assert ["rerank" in page for page in pages] == [place < 3 for place in range(len(pages))]
    assert len(server.asked) == 3  # all of it was known


def test_search__of_no_words_says_why_the_first_ranking_stands(client: TestClient, server: Server) -> None:
    clip_id = clip_ids(searched(client))[0]
    answer = client.post("/v1/search", json={"clip_id": clip_id, "rerank": True}).json()
    assert answer["hits"] and (answer["rerank"]["is_done"], answer["rerank"]["reason"]) == (False, NO_WORDS)
    assert not server.asked


def test_search__shows_the_texts_that_hits_were_found_for(client: TestClient, server: Server) -> None:
    answer = searched(client, text="harbour", rerank=True)
    found_for = {hit["best_clip_id"]: [each["text"] for each in hit["evidence"]] for hit in answer["hits"][:3]}
    assert sum(map(bool, found_for.values())) == 2 and answer["rerank"]["num_hits"] == 3
    prompts = [asked.prompt for asked in server.asked]
    assert sorted(prompt.count("HARBOUR NEWS") for prompt in prompts) == [0, 0, 1]
    assert sorted(prompt.count('"speech: the harbour <b>reopens</b>"') for prompt in prompts) == [0, 0, 1]


def test_search__for_texts_alone_keeps_the_order_of_texts(client: TestClient, server: Server) -> None:
    body = {"text": "harbour", "in": ["speech", "ocr"]}
    plain, again = searched(client, **body), searched(client, **body, rerank=True)
    assert plain["hits"] and clip_ids(again) == clip_ids(plain) and not server.asked
    assert (again["rerank"]["is_done"], again["rerank"]["reason"]) == (False, NO_PICTURES)
    assert searched(client, text="harbour", rerank=True, **{"in": ["visual", "ocr"]})["rerank"]["is_done"]


def test_command__has_the_same_second_look(
    archive: Archive, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "search", "green", "--rerank", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["rerank"]["is_done"] and answer["hits"][0]["reranked"]["score"] <= 1
    assert call(monkeypatch, "search", "green", "--rerank") == 0
    assert "openai/seer-1 looked at the first 3 again (3 known" in " ".join(capsys.readouterr().out.split())
    assert call(monkeypatch, "search", "green", "--no-rerank", "--json") == 0
    assert "rerank" not in json.loads(capsys.readouterr().out)


def pictures_of(archive: Archive, clip_ids: Sequence[str]) -> dict[str, bytes]:
    """The first picture that a model is shown of each clip."""
    jpegs = dict(read_jpegs(archive.frames, stored_clips(archive.frames, clip_ids=clip_ids)))
    return {clip_id: choose_pictures(jpegs[clip_id], RerankSettings().num_frames)[0] for clip_id in clip_ids}


def look(archive: Archive, answer: Answer, **settings: Any) -> Answer:
    with SecondLook(archive, RerankSettings(**settings)) as one:
        return one.search(lambda options: answer, SearchOptions(), texts=("red",), wanted=True)


@pytest.mark.parametrize(("settings", "reason"), [
    ({}, NO_MODEL), ({"model": "m"}, NO_MODEL), ({**COSTS, "provider": "nobody"}, "nobody"),
])
def test_second_look__without_a_model_is_a_reason(archive: Archive, settings: dict[str, Any], reason: str) -> None:
    answer = Answer("v", "c", (), None)
    found = look(archive, answer, **settings)
    assert found.rerank is not None and reason in found.rerank.reason and found.hits == answer.hits


def test_second_look__the_best_of_several_clips_of_a_hit_counts(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d, e, f = [str(clip.clip_id) for clip in read_clips(archive.cut)][:6]
    hits = tuple(
        Hit("v", 0, 1, 0.5, 0.1, own[0], 0, tuple(own), "", "", None) for own in ((a, b), (c, d, e), ("no frames", f))
    )
    order = {picture: name for name, picture in pictures_of(archive, (a, b, c, d, e, f)).items()}
    scores = dict(zip((a, b, c, d, e, f), (10, 60, 20, 70, 90, 40), strict=True))

    def script(request: ReceivedRequest, number: int) -> Reply:
        return openai_reply(json.dumps({"score": scores[order[request.pictures[0]]]}))

    with serve(script) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        answer = Answer("v", "c", hits, None)
        found = [look(archive, answer, **COSTS, timeout_seconds=60.0, num_clips=num) for num in (1, 2, 3, 3)]
    assert [[hit.best_clip_id for hit in each.hits] for each in found] == [[c, a, "no frames"]] * 4
    said = [[(hit.reranked.score if hit.reranked else None) for hit in each.hits] for each in found]
    assert said == [[0.2, 0.1, None], [0.7, 0.6, 0.4], [0.9, 0.6, 0.4], [0.9, 0.6, 0.4]]
    told = [(each.rerank.num_hits, each.rerank.num_cached) for each in found if each.rerank]
    assert told == [(2, 0), (3, 0), (3, 2), (3, 3)]
    assert len(server.asked) == 6


def test_second_look__of_many_at_once_lets_some_go(archive: Archive, server: Server) -> None:
    with SecondLook(archive, RerankSettings(**COSTS)) as one:
        for _ in range(AT_ONCE):
            one._free.acquire()
        found = one.search(lambda options: Answer("v", "c", (), None), SearchOptions(), texts=("red",), wanted=True)
        assert found.rerank is not None and found.rerank.reason == BUSY
        for _ in range(AT_ONCE):
            one._free.release()


def test_second_look__of_as_many_as_may_be_at_once_asks_for_all_at_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip_ids = [str(clip.clip_id) for clip in read_clips(archive.cut)][:4]
    hits = tuple(Hit("v", 0, 1, 0.5, None, clip_id, 0, (), "", "", None) for clip_id in clip_ids)
    all_are_there = threading.Barrier(AT_ONCE * len(hits))

    def script(request: ReceivedRequest, number: int) -> Reply:
        all_are_there.wait(60)
        return openai_reply('{"score": 50}')

    with (
        serve(script) as server, ThreadPoolExecutor(AT_ONCE) as pool,
        SecondLook(archive, RerankSettings(**COSTS, num_hits=len(hits), timeout_seconds=60.0)) as one,
    ):
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        answer = Answer("v", "c", hits, None)
        found = list(pool.map(
            lambda text: one.search(lambda options: answer, SearchOptions(), texts=(text,), wanted=True), "abcd",
        ))
    assert [each.rerank.num_hits for each in found if each.rerank] == [len(hits)] * AT_ONCE
    assert server.most_at_once == AT_ONCE * len(hits)


def test_second_look__is_on_for_all_where_the_settings_say_so(tmp_path: Path) -> None:
    off, on = (SecondLook(Archive(tmp_path), RerankSettings(enabled=enabled)) for enabled in (False, True))
    options = SearchOptions()
    assert [off.is_wanted(options, wanted=wanted) for wanted in (None, True, False)] == [False, True, False]
    assert [on.is_wanted(options, wanted=wanted) for wanted in (None, True, False)] == [True, True, False]
    assert not on.is_wanted(SearchOptions(offset=10), wanted=True)
