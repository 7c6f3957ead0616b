"""The routes over a real bundle and a real index, asked in the process."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving import engine as engine_module
from serving.app import create_app
from serving.engine import Engine, Opened, open_archive
from serving.schemas import SearchAnswer
from tests.serving.colours import film, picture, publish_colours, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import write_tiny_bundle
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.settings import ServeSettings, Settings

LIMITS = ServeSettings(max_text_length=40, max_body_mb=1, max_image_megapixels=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("colours"))


@contextmanager
def serving(archive: Archive, settings: ServeSettings = LIMITS) -> Iterator[TestClient]:
    engine = Engine(lambda: open_archive(archive, Settings()), settings)
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        yield client
    engine.close()


@pytest.fixture(scope="module")
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


@pytest.fixture(autouse=True)
def no_wait_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "RETRY_SECONDS", 0.0)


def is_error(answer: Any, status: int, code: str) -> bool:
    """The answer has this status and the one shape that all errors have."""
    body = answer.json()
    assert set(body) == {"error", "request_id"} and set(body["error"]) == {"code", "message", "remedy"}
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert (answer.headers.get("retry-after") is not None) == (status == 503)
    return (answer.status_code, body["error"]["code"]) == (status, code)


def first_video(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["hits"][0]["video_id"])


def test_search__text_gives_what_the_command_gives(client: TestClient, archive: Archive) -> None:
    answer = client.post("/v1/search", json={"text": "green", "limit": 2})
    settings = Settings().search
    searcher = open_searcher(archive, settings, load_encoder(archive, settings, text_only=True))
    assert answer.json() == searcher.search_text("green", limit=2).to_json()
    assert SearchAnswer.model_validate(answer.json()).hits[0].video_id == video_id_of_colour("green")


def test_search__neighbours_of_one_video_are_one_moment(client: TestClient) -> None:
    hit = client.post("/v1/search", json={"text": "blue"}).json()["hits"][0]
    assert (hit["start_ms"], hit["end_ms"], len(hit["clip_ids"])) == (0, 3000, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_search__picture_as_a_part(client: TestClient, kind: str) -> None:
    files = {"image": ("../../etc/passwd", picture("red", kind=kind), "image/anything")}
    assert first_video(client.post("/v1/search", files=files)) == video_id_of_colour("red")


def test_search__picture_in_json(client: TestClient) -> None:
    image = base64.b64encode(picture("white")).decode()
    assert first_video(client.post("/v1/search", json={"image": image})) == video_id_of_colour("white")


def test_search__clip_and_query_as_parts(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(
        "/v1/search", files={"clip": film("blue", tmp_path / "a.mp4")}, data={"query": json.dumps({"limit": 1})}
    )
    assert first_video(answer) == video_id_of_colour("blue")
    assert len(answer.json()["hits"]) == 1


def test_search__pages_follow_one_another(client: TestClient) -> None:
    whole = client.post("/v1/search", json={"text": "red", "limit": 4}).json()
    first = client.post("/v1/search", json={"text": "red", "limit": 3}).json()
    second = client.post("/v1/search", json={
        "text": "red", "limit": 3, "offset": first["next_offset"], "collection": first["collection"],
    }).json()
    assert first["hits"] + second["hits"] == whole["hits"]
    assert second["next_offset"] is None


@pytest.mark.parametrize(("body", "code"), [
    ({}, "input_rejected"),
    ({"text": "  "}, "input_rejected"),
    ({"text": "x" * 41}, "input_rejected"),
    ({"text": "red", "image": ""}, "input_rejected"),
    ({"image": "AAAA"}, "input_rejected"),
    ({"clip": "AAAA"}, "input_rejected"),
    ({"image": "***"}, "invalid_request"),
    ({"text": "red", "limit": 0}, "invalid_request"),
    ({"text": "red", "limit": 1001}, "invalid_request"),
    ({"text": "red", "offset": -1}, "invalid_request"),
    ({"text": "red", "nonsense": 1}, "invalid_request"),
    ({"text": 7}, "invalid_request"),
    ({"text": "red", "collection": "../../etc"}, "invalid_request"),
    ([], "invalid_request"),
])
def test_search__wrong_query_is_422(client: TestClient, body: object, code: str) -> None:
    assert is_error(client.post("/v1/search", json=body), 422, code)


def test_search__body_that_is_no_json(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    assert is_error(client.post("/v1/search", content=b"{", headers=headers), 422, "invalid_request")
    assert is_error(client.post("/v1/search", content=b'{"text": "\xff"}', headers=headers), 422, "invalid_request")
    lone = client.post("/v1/search", content=rb'{"text": "red \ud800"}', headers=headers)
    assert lone.status_code == 422  # half a surrogate pair is no text
    assert is_error(client.post("/v1/search", content=b"red"), 415, "unsupported_media_type")


def test_search__multipart_that_is_wrong(client: TestClient) -> None:
    assert is_error(client.post("/v1/search", files={"film": b"x"}), 422, "invalid_request")
    both = {"query": json.dumps({"image": "AAAA"})}
    assert is_error(client.post("/v1/search", files={"image": b"x"}, data=both), 422, "invalid_request")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert is_error(client.post("/v1/search", content=b"nonsense", headers=broken), 400, "invalid_request")
    nameless = client.post("/v1/search", content=b"x", headers={"content-type": "multipart/form-data"})
    assert is_error(nameless, 400, "invalid_request")


def test_search__body_over_the_limit_is_413(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(32):
            yield b"x" * 65536

    assert is_error(client.post("/v1/search", json={"text": "x" * 2**20}), 413, "too_large")
    headers = {"content-type": "application/json"}
    assert is_error(client.post("/v1/search", content=chunks(), headers=headers), 413, "too_large")
    assert is_error(client.post("/v1/search", files={"image": b"x" * 2**21}), 413, "too_large")


def test_search__picture_over_the_limit_is_422(client: TestClient) -> None:
    bomb = client.post("/v1/search", files={"image": picture("red", width=2000, height=1000)})
    assert is_error(bomb, 422, "input_rejected") and "2000 x 1000" in bomb.text


def test_routes__unknown_path_and_method_have_the_same_shape(client: TestClient) -> None:
    assert is_error(client.get("/v2/search"), 404, "not_found")
    assert is_error(client.get("/v1/search"), 405, "method_not_allowed")


def test_request_id__is_the_callers_where_it_is_plain(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/healthz", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_ready__names_bundle_and_collection(client: TestClient, archive: Archive) -> None:
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready" and ready["collection"].startswith(f"clips-{ready['encoder_version']}-")
    assert client.get("/healthz").json() == {"status": "ok"}


def test_search__before_anything_is_published_then_after(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    with serving(archive) as client:
        assert client.get("/healthz").status_code == 200
        assert is_error(client.get("/readyz"), 503, "not_ready")
        assert is_error(client.post("/v1/search", json={"text": "red"}), 503, "not_ready")
        write_colour_archive(tmp_path)
        assert first_video(client.post("/v1/search", json={"text": "red"})) == video_id_of_colour("red")


def test_search__follows_the_alias_and_keeps_to_a_named_collection(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    with serving(archive) as client:
        old = client.post("/v1/search", json={"text": "red"}).json()
        new = publish_colours(tmp_path, folder="moved")
        assert client.post("/v1/search", json={"text": "red"}).json()["hits"][0]["uri"] == "moved/red.mp4"
        page = client.post("/v1/search", json={"text": "red", "collection": old["collection"]}).json()
        assert page["collection"] == old["collection"] != new
        gone = {"text": "red", "collection": f"clips-{'0' * 16}-00"}
        assert is_error(client.post("/v1/search", json=gone), 404, "collection_gone")


def test_search__other_encoder_is_picked_up_or_refused_never_mixed(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    with serving(archive) as client:
        assert client.post("/v1/search", json={"text": "red"}).status_code == 200
        other = "fedcba9876543210"
        publish_colours(tmp_path, encoder_version=other)
        assert is_error(client.post("/v1/search", json={"text": "red"}), 503, "not_ready")  # the bundle is the old one
        shutil.rmtree(archive.bundle)
        write_tiny_bundle(archive.bundle, encoder_version=other)
        assert client.post("/v1/search", json={"text": "red"}).json()["encoder_version"] == other


class StuckEncoder:
    """Answers when it is let."""

    def __init__(self, real: Opened) -> None:
        self.spec = real.encoder.spec
        self.gate = threading.Event()
        self._real = real.encoder

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        assert self.gate.wait(10)
        return self._real.embed_texts(texts)


def test_search__full_queue_is_503_and_slow_answer_504(archive: Archive) -> None:
    real = open_archive(archive, Settings())
    stuck = StuckEncoder(real)
    settings = ServeSettings(max_queue=1, timeout_seconds=0.3)
    engine = Engine(lambda: Opened(stuck, real.searcher), settings)  # type: ignore[arg-type]
    with TestClient(create_app(engine)) as client:
        answers: list[Any] = []
        asking = [threading.Thread(target=lambda: answers.append(client.post("/v1/search", json={"text": "red"})))
                  for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [503, 503, 504, 504]  # one ran, one waited, two were sent away
        assert {answer.json()["error"]["code"] for answer in answers} == {"busy", "timeout"}
        stuck.gate.set()
        assert first_video(client.post("/v1/search", json={"text": "red"})) == video_id_of_colour("red")
    engine.close()


def test_search__fault_of_ours_is_500_without_its_insides(archive: Archive) -> None:
    class Broken:
        spec = open_archive(archive, Settings()).encoder.spec

        def embed_texts(self, texts: list[str]) -> np.ndarray:
            raise RuntimeError("secret path")

    engine = Engine(lambda: Opened(Broken(), None), LIMITS)  # type: ignore[arg-type]
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        answer = client.post("/v1/search", json={"text": "red"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    engine.close()


def test_openapi__shows_both_bodies_and_the_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    search = document["paths"]["/v1/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"200", "404", "413", "415", "422", "503", "504"} <= set(search["responses"])
    schema = search["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/SearchAnswer"}
