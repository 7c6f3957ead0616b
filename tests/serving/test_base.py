"""Two models in one service: the live one, and the base that is asked for by name."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving import model as model_module
from serving.app import create_app
from serving.engine import Base, Engine, Places
from serving.model import open_archive
from tests.serving.colours import (
    BASE_VERSION,
    VERSION,
    picture,
    publish_base,
    publish_colours,
    video,
    video_id_of_colour,
    write_colour_archive,
)
from tests.waiting import wait_until
from vidseek.actions.base import remove_base
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings

BASE = {"text": "green", "model": "base"}


@contextmanager
def serving(archive: Archive, settings: ServeSettings | None = None) -> Iterator[TestClient]:
    engine = Engine(
        lambda: open_archive(archive, Settings()), settings or ServeSettings(), Places.of(archive),
        base=Base.of(archive, Settings()),
    )
    with TestClient(create_app(engine), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
    engine.close()


@pytest.fixture(autouse=True)
def no_wait_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "RETRY_SECONDS", 0.0)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """The colours, and a base that takes green for red."""
    archive = write_colour_archive(tmp_path)
    publish_base(tmp_path)
    return archive


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def best(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["hits"][0]["video_id"])


def test_search__each_model_finds_its_own_and_says_which_it_is(archive: Archive) -> None:
    with serving(archive) as client:
        live, base = client.post("/v1/search", json={"text": "green"}), client.post("/v1/search", json=BASE)
        assert best(live) == best(client.post("/v1/search", json={"text": "green", "model": "vidseek"}))
        assert (best(live), best(base)) == (video_id_of_colour("green"), video_id_of_colour("red"))
        assert (live.json()["encoder_version"], base.json()["encoder_version"]) == (VERSION, BASE_VERSION)
        assert base.json()["collection"] == archive.backend().aliases()["base"].collection
        assert live.json()["collection"] == archive.backend().aliases()["clips"].collection


@pytest.mark.slow
def test_search__pictures_clips_and_examples_by_the_base(archive: Archive, tmp_path: Path) -> None:
    with serving(archive) as client:
        query = {"query": '{"model": "base"}'}
        red = video_id_of_colour("red")
        assert best(client.post("/v1/search", files={"image": picture("green")}, data=query)) == red
        assert best(client.post("/v1/search", files={"clip": video("green", tmp_path / "a.mp4")}, data=query)) == red
        hit = client.post("/v1/search", json=BASE).json()["hits"][0]
        alike = client.post("/v1/search", json={"clip_id": hit["best_clip_id"], "model": "base"})
        assert alike.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-5) and best(alike) == red


@pytest.mark.slow
def test_search__pages_of_the_base_stay_on_its_collection(archive: Archive, tmp_path: Path) -> None:
    with serving(archive) as client:
        whole = client.post("/v1/search", json={**BASE, "limit": 4}).json()
        first = client.post("/v1/search", json={**BASE, "limit": 2}).json()
        rest = {**BASE, "limit": 2, "offset": first["next_offset"], "collection": first["collection"]}
        assert first["hits"] + client.post("/v1/search", json=rest).json()["hits"] == whole["hits"]
        # Neither model answers on the other's collection.
        of_live = client.post("/v1/search", json={"text": "green"}).json()["collection"]
        assert problem(client.post("/v1/search", json={**rest, "collection": of_live})) == (404, "collection_gone")
        other = {"text": "green", "collection": first["collection"]}
        assert problem(client.post("/v1/search", json=other)) == (404, "collection_gone")
        # A new one took its place, and the old one is let go.
        new = publish_base(tmp_path, folder="moved")
        assert new != first["collection"]
        assert client.post("/v1/search", json=BASE).json()["collection"] == new  # without a restart
        assert problem(client.post("/v1/search", json=rest)) == (404, "collection_gone")


def test_search__another_base_is_picked_up(archive: Archive, tmp_path: Path) -> None:
    with serving(archive) as client:
        assert client.post("/v1/search", json=BASE).json()["encoder_version"] == BASE_VERSION
        publish_base(tmp_path, encoder_version="feedfeedfeedfeed")
        assert client.post("/v1/search", json=BASE).json()["encoder_version"] == "feedfeedfeedfeed"


def test_search__without_a_base_it_is_a_404_that_says_what_to_do_and_then_it_is_there(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    with serving(archive) as client:
        for ask in (lambda: client.post("/v1/search", json=BASE),
                    lambda: client.post("/v1/embeddings", json={"model": "base", "input": "red"})):
            assert problem(ask()) == (404, "model_not_found") and "vidseek base" in ask().json()["error"]["remedy"]
        assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["vidseek"]
        wrong = client.post("/v1/search", json={"text": "green", "model": "gpt"})
        assert problem(wrong) == (422, "invalid_request") and "base" in wrong.json()["error"]["message"]
        publish_base(tmp_path)
        assert client.post("/v1/search", json=BASE).status_code == 200
        remove_base(archive)
        assert problem(client.post("/v1/search", json=BASE)) == (404, "model_not_found")
        assert client.get("/readyz").status_code == 200


def test_ready__does_not_depend_on_the_base(archive: Archive) -> None:
    (archive.seen_by("base").bundle / "fp32" / "text.onnx").write_bytes(b"broken")
    with serving(archive) as client:
        assert client.get("/readyz").status_code == 200
        assert problem(client.post("/v1/search", json=BASE)) == (503, "not_ready")
        assert client.get("/readyz").status_code == 200
        assert best(client.post("/v1/search", json={"text": "green"})) == video_id_of_colour("green")


def test_start__does_not_open_the_base_before_somebody_asks(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = open_archive
    monkeypatch.setattr("serving.engine.open_archive", lambda archive, settings: opened.append(archive.model) or real(
        archive, settings
    ))
    with serving(archive) as client:
        for ask in ("/readyz", "/metrics", "/v1/models"):
            assert client.get(ask).status_code == 200
        assert client.post("/v1/search", json={"text": "green"}).status_code == 200
        assert opened == []
        assert client.post("/v1/search", json=BASE).status_code == 200
        assert client.post("/v1/search", json=BASE).status_code == 200
    assert opened == ["base"]


@pytest.mark.slow
def test_search__base_that_opens_slowly_is_there_for_who_asks_next(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = threading.Event(), open_archive
    opened: list[str] = []

    def slow(archive: Archive, settings: Settings) -> Any:
        opened.append(archive.model)
        return gate.wait(300) and real(archive, settings)

    monkeypatch.setattr("serving.engine.open_archive", slow)
    with serving(archive, ServeSettings(timeout_seconds=0.5)) as client:
        assert problem(client.post("/v1/search", json=BASE)) == (504, "timeout")
        wait_until(lambda: client.get("/readyz").status_code == 200)  # meanwhile
        gate.set()
        answers: list[Any] = []

        def is_open() -> bool:
            answers.append(client.post("/v1/search", json=BASE))
            return bool(answers[-1].status_code != 504)

        wait_until(is_open)
        assert best(answers[-1]) == video_id_of_colour("red")
    assert opened == ["base"]


@pytest.mark.slow
def test_confidence__is_the_live_one_s_and_null_for_the_base(asked_archive: Archive) -> None:
    publish_base(asked_archive.root)
    with serving(asked_archive) as client:
        hits = client.post("/v1/search", json={"text": "green"}).json()["hits"]
        assert all(hit["confidence"] is not None for hit in hits)
        assert {hit["confidence"] for hit in client.post("/v1/search", json=BASE).json()["hits"]} == {None}
        assert problem(client.post("/v1/search", json={**BASE, "min_confidence": 0.5})) == (422, "input_rejected")
        told = {each["id"]: each["has_confidence"] for each in client.get("/v1/models").json()["data"]}
        assert told == {"vidseek": True, "base": False}


def test_metrics__of_the_base_are_apart(asked_archive: Archive) -> None:
    publish_base(asked_archive.root)
    with serving(asked_archive) as client:
        def figures() -> dict[str, float]:
            lines = re.findall(r"^(vidseek_\S+) (\S+)$", client.get("/metrics").text, re.M)
            return {name: float(value) for name, value in lines}

        client.post("/v1/search", json={"text": "green"})
        before = figures()
        client.post("/v1/search", json=BASE)
        client.post("/v1/search", json={**BASE, "filters": {"duration_ms": {"lt": 1}}})
        after = figures()
    apart = ("vidseek_search_seconds", "vidseek_best", "vidseek_empty", "vidseek_drift", "vidseek_index_points",
             'vidseek_batch_size_count{work="text"}', 'vidseek_work_seconds_count{work="text"}')
    assert before['vidseek_batch_size_count{work="text"}'] == 1
    for name, value in after.items():
        if name.startswith(apart) and "_created" not in name:
            assert value == before[name], name
    assert after['vidseek_batch_size_count{work="base_text"}'] == 2


def test_models__say_whether_the_base_is_of_the_archive_as_it_is_now(archive: Archive, tmp_path: Path) -> None:
    with serving(archive) as client:
        live, base = client.get("/v1/models").json()["data"]
        for found, name, version in ((live, "vidseek", VERSION), (base, "base", BASE_VERSION)):
            assert (found["id"], found["encoder_version"], found["num_clips"]) == (name, version, 12)
            assert found["is_current"] is True
        publish_colours(tmp_path, folder="moved")
        assert [each["is_current"] for each in client.get("/v1/models").json()["data"]] == [True, False]
        publish_base(tmp_path, folder="moved")
        assert [each["is_current"] for each in client.get("/v1/models").json()["data"]] == [True, True]
        # Taught anew: other vectors of the same clips.
        publish_colours(tmp_path, folder="moved", turned=2)
        assert [each["is_current"] for each in client.get("/v1/models").json()["data"]] == [True, True]


def test_models__are_listed_as_clients_of_openai_expect(archive: Archive) -> None:
    openai = pytest.importorskip("openai")
    with serving(archive) as client:
        other = openai.OpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=client)
        assert [each.id for each in other.models.list().data] == ["vidseek", "base"]
        answer = other.embeddings.create(model="base", input="red", encoding_format="float")
        assert answer.model == BASE_VERSION
