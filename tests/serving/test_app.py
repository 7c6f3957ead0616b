"""The routes over a real bundle and a real index, asked in the process."""

from __future__ import annotations

import base64
import gc
import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from serving import model as model_module
from serving.api.answer_schemas import ClipAnswer, SearchAnswer
from serving.app import create_app, key_from_environment
from serving.engine import Engine, Places
from serving.inputs import decoding as decoding_module
from serving.logs import JsonLines
from serving.model import Opened, open_archive
from tests.raising import raises
from tests.serving.colours import VERSION, picture, publish_colours, video, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from tests.waiting import wait_until
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.errors import ConfigError
from vidseek_media.files.fetching import Fetcher
from vidseek_media.files.folders import whole_folder
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_retrieval.search.query import QueryInputs, SearchOptions

LIMITS = ServeSettings(max_text_length=40, max_body_mb=1, max_image_megapixels=1, max_embed=4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("colours"))


def asking(app: FastAPI, *, host: str = "127.0.0.1") -> TestClient:
    """A client that asks this machine by this name."""
    return TestClient(app, base_url=f"http://{host}", raise_server_exceptions=False)


@contextmanager
def serving(archive: Archive, settings: ServeSettings = LIMITS) -> Iterator[TestClient]:
    engine = Engine(lambda: open_archive(archive, Settings()), settings, Places.of(archive))
    with asking(create_app(engine)) as client:
        yield client
    engine.close()


@pytest.fixture(scope="module")
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


@pytest.fixture(autouse=True)
def no_wait_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "RETRY_SECONDS", 0.0)


def is_error(answer: Any, status: int, code: str) -> bool:
    """The answer has this status and the one shape that all errors have."""
    body = answer.json()
    assert set(body) == {"error", "request_id"} and set(body["error"]) == {"code", "fault", "message", "remedy"}
    assert body["error"]["message"] and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", body["error"]["fault"])
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


def test_search__url_is_fetched_only_from_hosts_that_are_named(
    archive: Archive, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_error(client.post("/v1/search", json={"url": "http://pictures.test/a.png"}), 422, "url_refused")
    monkeypatch.setattr(Fetcher, "_read", lambda self, connection, parts, until: picture(parts.path.strip("/")))
    named = ServeSettings(url_hosts=("pictures.test",))
    with serving(archive, named) as other:
        monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: [(0, 0, 0, "", ("10.0.0.1", 80))])
        answer = other.post("/v1/search", json={"url": "http://pictures.test/green"})
        assert is_error(answer, 422, "url_refused") and "open internet" in answer.text
        monkeypatch.setattr("socket.getaddrinfo", lambda *args, **options: [(0, 0, 0, "", ("8.8.8.8", 80))])
        answer = other.post("/v1/search", json={"url": ["http://pictures.test/green"]})
        assert first_video(answer) == video_id_of_colour("green")


def test_search__no_more_urls_at_once_than_may_wait(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_module, "MAX_FETCHING", 1)
    with serving(archive) as client:
        urls = ["http://pictures.test/green"] * 2
        assert is_error(client.post("/v1/search", json={"url": urls}), 503, "busy")
        assert is_error(client.post("/v1/search", json={"url": urls[:1]}), 422, "url_refused")


def test_search__clip_and_query_as_parts(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(
        "/v1/search", files={"clip": video("blue", tmp_path / "a.mp4")}, data={"query": json.dumps({"limit": 1})}
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
    ({"clip_id": "../../etc/passwd"}, "invalid_request"),
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
    assert is_error(client.post("/v1/search", files={"video": b"x"}), 422, "invalid_request")
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
        self.spec, self.variant = real.encoder.spec, real.encoder.variant
        self.gate, self.entered = threading.Event(), threading.Event()
        self._real = real.encoder

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        self.entered.set()
        assert self.gate.wait(60)
        return self._real.embed_texts(texts)


@contextmanager
def stuck(archive: Archive, settings: ServeSettings) -> Iterator[tuple[TestClient, StuckEncoder]]:
    real = open_archive(archive, Settings())
    encoder = StuckEncoder(real)
    engine = Engine(lambda: Opened(encoder, real.searcher), settings, Places.of(archive))  # type: ignore[arg-type]
    with asking(create_app(engine)) as client:
        yield client, encoder
    engine.close()


def test_search__full_queue_is_503(archive: Archive) -> None:
    with stuck(archive, ServeSettings(max_queue=1, timeout_seconds=300.0)) as (client, encoder):
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(client.post("/v1/search", json={"text": "red"})))
                  for _ in range(4)]
        threads[0].start()
        assert encoder.entered.wait(60)  # it is taken out of the queue: only then the next one waits
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(answers) == 2)  # one runs, one waits, two are sent away
        encoder.gate.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [503, 503, 200, 200]
        assert {answer.json()["error"]["code"] for answer in answers[:2]} == {"busy"}


def test_search__slow_answer_is_504_and_the_next_one_is_answered(archive: Archive) -> None:
    with stuck(archive, ServeSettings(timeout_seconds=0.5)) as (client, encoder):
        answer = client.post("/v1/search", json={"text": "red"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        client.app.state.engine.live._timeout_seconds = 300.0  # type: ignore[attr-defined]
        encoder.gate.set()
        assert first_video(client.post("/v1/search", json={"text": "red"})) == video_id_of_colour("red")


def test_search__fault_of_ours_is_500_without_its_insides(archive: Archive) -> None:
    class Broken:
        spec = open_archive(archive, Settings()).encoder.spec

        def embed_texts(self, texts: list[str]) -> np.ndarray:
            raise RuntimeError("secret path")

    engine = Engine(lambda: Opened(Broken(), None), LIMITS, Places.of(archive))  # type: ignore[arg-type]
    with asking(create_app(engine)) as client:
        answer = client.post("/v1/search", json={"text": "red"})
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    engine.close()


def test_openapi__shows_bodies_errors_and_examples_that_are_taken(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    search = document["paths"]["/v1/search"]["post"]
    assert set(search["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"200", "401", "403", "404", "413", "415", "422", "503", "504"} <= set(search["responses"])
    schema = search["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/SearchAnswer"}
    examples = search["requestBody"]["content"]["application/json"]["schema"]["examples"]
    statuses = [client.post("/v1/search", json=each).status_code for each in examples]
    assert statuses == [200] * 4 + [404, 200]  # the fifth asks for the base, and none was published


def test_search__clip_of_the_archive_finds_its_like_but_not_itself(client: TestClient) -> None:
    clip_id = clip_of_colour(client, "green")
    hit = client.post("/v1/search", json={"clip_id": clip_id}).json()["hits"][0]
    assert hit["video_id"] == video_id_of_colour("green") and hit["score"] == pytest.approx(1, abs=1e-5)
    assert clip_id not in hit["clip_ids"]
    unknown = {"clip_id": "00000000-0000-0000-0000-000000000000"}
    assert is_error(client.post("/v1/search", json=unknown), 422, "input_rejected")


def test_search__several_examples_are_what_the_command_makes_of_them(client: TestClient, archive: Archive) -> None:
    settings = Settings().search
    encoder = load_encoder(archive, settings)
    searcher = open_searcher(archive, settings, encoder)
    red = np.asarray(Image.open(io.BytesIO(picture("red"))))
    wanted = QueryInputs(texts=("white", "green"), images=(red,), clip_ids=(clip_of_colour(client, "green"),))
    unwanted = QueryInputs(texts=("blue",), clip_ids=(clip_of_colour(client, "blue"),))
    options = SearchOptions(limit=3, offset=1, filters={"start_ms": {"lt": 2000}}, diversity=0.5)
    image = base64.b64encode(picture("red")).decode()
    answer = client.post("/v1/search", json={
        "text": list(wanted.texts), "image": image, "clip_id": wanted.clip_ids[0], "negative_text": "blue",
        "negative_clip_id": list(unwanted.clip_ids), "filters": dict(options.filters), "diversity": 0.5,
        "limit": 3, "offset": 1,
    })
    assert answer.json() == searcher.search(searcher.encode(wanted, unwanted), options).to_json()
    assert answer.json()["hits"]


def test_search__negative_turns_the_answer(client: TestClient) -> None:
    plain = client.post("/v1/search", json={"text": "red blue"}).json()["hits"]
    away = client.post("/v1/search", json={"text": "red blue", "negative_text": ["blue"]}).json()["hits"]
    assert {hit["video_id"] for hit in plain[:2]} == {video_id_of_colour("red"), video_id_of_colour("blue")}
    assert away[0]["video_id"] == video_id_of_colour("red") != away[1]["video_id"]


def test_search__earlier_names_mean_the_same_and_are_marked_in_the_document(client: TestClient) -> None:
    content = client.get("/openapi.json").json()["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    fields = content["application/json"]["schema"]["properties"]
    assert {name for name, field in fields.items() if field.get("deprecated")} == {"not", "not_image", "not_clip_id"}
    parts = content["multipart/form-data"]["schema"]["properties"]
    assert {name for name, field in parts.items() if field.get("deprecated")} == {"not_image"}
    image, clip_id = base64.b64encode(picture("green")).decode(), clip_of_colour(client, "blue")
    for name, value in (("text", ["blue"]), ("image", image), ("clip_id", clip_id)):
        before = client.post("/v1/search", json={"text": "red blue", "not" if name == "text" else f"not_{name}": value})
        now = client.post("/v1/search", json={"text": "red blue", f"negative_{name}": value})
        assert before.json() == now.json() and now.json()["hits"]
    both = client.post("/v1/search", json={"text": "red blue", "negative_text": "green", "not": "blue"}).json()
    assert both == client.post("/v1/search", json={"text": "red blue", "negative_text": ["green", "blue"]}).json()


def test_search__pictures_as_parts_are_looked_for_together(client: TestClient) -> None:
    files = [("image", picture("red")), ("image", picture("white")), ("negative_image", picture("blue"))]
    found = client.post("/v1/search", files=files).json()["hits"]
    assert found[0]["video_id"] in {video_id_of_colour("red"), video_id_of_colour("white")}


@pytest.mark.parametrize(("body", "code"), [
    ({"text": "red", "filters": {"colour": "red"}}, "input_rejected"),
    ({"text": "red", "filters": {"start_ms": "early"}}, "input_rejected"),
    ({"text": "red", "filters": [1]}, "invalid_request"),
    ({"text": "red", "weights": {"video": -1}}, "invalid_request"),
    ({"text": "red", "weights": "video"}, "invalid_request"),
    ({"text": "red", "weights": {}}, "input_rejected"),
    ({"text": "red", "weights": "words=1"}, "input_rejected"),
    ({"text": "red", "diversity": 2}, "invalid_request"),
    ({"text": "red", "min_confidence": 0.5}, "input_rejected"),
    ({"negative_text": "red"}, "input_rejected"),
    ({"text": "red", "not": " "}, "input_rejected"),
    ({"text": ["red"] * 17}, "invalid_request"),
])
def test_search__options_that_cannot_be(client: TestClient, body: object, code: str) -> None:
    assert is_error(client.post("/v1/search", json=body), 422, code)


def test_search__weights_in_both_forms(client: TestClient) -> None:
    forms = ["video=1, caption=0", {"video": 1}]
    answers = [client.post("/v1/search", json={"text": "red", "weights": form}) for form in forms]
    assert first_video(answers[0]) == first_video(answers[1]) == video_id_of_colour("red")


def clip_of_colour(client: TestClient, colour: str) -> str:
    return str(client.post("/v1/search", json={"text": colour}).json()["hits"][0]["best_clip_id"])


def vectors_of(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"], dtype=np.float32)


def test_embed__text_image_and_video_are_one_space(client: TestClient, tmp_path: Path) -> None:
    names = list(COLOURS)
    texts = vectors_of(client.post("/v1/embed/text", json={"texts": names}))
    files = [("images", picture(name)) for name in names]
    images = vectors_of(client.post("/v1/embed/image", files=files))
    clips = vectors_of(client.post("/v1/embed/video", files=[("clips", video("red", tmp_path / "a.mp4"))]))
    expected = np.stack([colour_vector(colour) for colour in COLOURS.values()])
    np.testing.assert_allclose(texts, expected, atol=1e-5)
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_allclose(clips, expected[:1], atol=0.03)  # H.264 is not exact


def test_embed__base64_is_the_same_numbers(client: TestClient, archive: Archive) -> None:
    plain = client.post("/v1/embed/text", json={"texts": ["red", "blue white"]}).json()
    packed = client.post("/v1/embed/text", json={"texts": ["red", "blue white"], "encoding": "base64"}).json()
    rows = [np.frombuffer(base64.b64decode(each), dtype="<f4") for each in packed["embeddings"]]
    np.testing.assert_array_equal(rows, np.array(plain["embeddings"], dtype=np.float32))
    assert packed["dimension"] == len(rows[0]) and packed["variant"] == "fp32"
    assert packed["encoder_version"] == load_encoder(archive, Settings().search).spec.encoder_version


@pytest.mark.parametrize(("route", "body", "status", "code"), [
    ("text", {"texts": []}, 422, "invalid_request"),
    ("text", {"texts": ["red", " "]}, 422, "input_rejected"),
    ("text", {"texts": ["x" * 41]}, 422, "input_rejected"),
    ("text", {"texts": ["red"] * 5}, 422, "input_rejected"),
    ("text", {"texts": ["red"], "encoding": "int8"}, 422, "invalid_request"),
    ("image", {}, 422, "invalid_request"),
    ("image", {"images": ["AAAA"]}, 422, "input_rejected"),
    ("video", {"clips": ["AAAA"]}, 422, "input_rejected"),
    ("sound", {"sounds": ["AAAA"]}, 404, "not_found"),
])
def test_embed__what_cannot_be_used(client: TestClient, route: str, body: object, status: int, code: str) -> None:
    assert is_error(client.post(f"/v1/embed/{route}", json=body), status, code)


def test_embed__text_takes_no_form(client: TestClient) -> None:
    assert is_error(client.post("/v1/embed/text", files={"texts": b"red"}), 415, "unsupported_media_type")


def test_embeddings__have_the_shape_that_clients_of_openai_know(client: TestClient) -> None:
    texts = ["red", "blue white"]
    answer = client.post("/v1/embeddings", json={"model": "vidseek", "input": texts}).json()
    same = client.post("/v1/embed/text", json={"texts": texts}).json()
    assert answer == {
        "object": "list", "model": same["encoder_version"], "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "data": [
            {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(same["embeddings"])
        ],
    }
    one = {"model": VERSION, "input": "red", "encoding_format": "base64", "dimensions": 4, "user": "me"}
    packed = client.post("/v1/embeddings", json=one).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed), "<f4"), same["embeddings"][0], atol=1e-7)


@pytest.mark.parametrize(("body", "status", "code"), [
    ({"input": "red"}, 422, "invalid_request"),
    ({"model": "vidseek", "input": []}, 422, "invalid_request"),
    ({"model": "vidseek", "input": [[1, 2]]}, 422, "invalid_request"),
    ({"model": "vidseek", "input": " "}, 422, "input_rejected"),
    ({"model": "vidseek", "input": ["red"] * 5}, 422, "input_rejected"),
    ({"model": "vidseek", "input": "red", "dimensions": 3}, 422, "input_rejected"),
    ({"model": "f" * 16, "input": "red"}, 404, "model_not_found"),
])
def test_embeddings__what_cannot_be_used(client: TestClient, body: object, status: int, code: str) -> None:
    assert is_error(client.post("/v1/embeddings", json=body), status, code)


def test_search__clip_longer_than_is_taken(archive: Archive, tmp_path: Path) -> None:
    with serving(archive, ServeSettings(max_clip_seconds=0.5)) as client:
        answer = client.post("/v1/search", files={"clip": video("red", tmp_path / "a.mp4")})
        assert is_error(answer, 422, "input_rejected") and "at most 0.5 s" in answer.text


def test_routes__without_a_key_only_this_machine_is_answered(archive: Archive) -> None:
    engine = Engine(lambda: open_archive(archive, Settings()), LIMITS, Places.of(archive))
    app = create_app(engine)
    for own in ("127.0.0.1:3000", "localhost", "[::1]:3000"):
        with asking(app) as client:
            assert client.post("/v1/search", json={"text": "red"}, headers={"host": own}).status_code == 200
    with asking(app, host="192.0.2.7") as client:
        for name in ("192.0.2.7", "localhost"):
            answer = client.post("/v1/search", json={"text": "red"}, headers={"host": name})
            assert is_error(answer, 403, "key_needed")
        assert client.get("/readyz").status_code == 200
    with asking(app) as client:  # a page whose name was made to point here
        answer = client.post("/v1/search", json={"text": "red"}, headers={"host": "evil.example"})
        assert is_error(answer, 403, "key_needed")
    engine.close()


def test_routes__with_a_key_it_is_asked_of_everybody(archive: Archive) -> None:
    key = "0123456789abcdef-secret"
    engine = Engine(lambda: open_archive(archive, Settings()), LIMITS, Places.of(archive))
    with asking(create_app(engine, key=key), host="192.0.2.7") as client:
        for wrong in ({}, {"authorization": "Bearer 0123456789abcdef"}, {"authorization": f"Basic {key}"},
                      {"authorization": key}, {"authorization": b"Bearer \xff"}):
            for route in ("/v1/search", "/openapi.json", "/metrics", "/nowhere"):
                answer = client.get(route, headers=wrong)
                assert is_error(answer, 401, "key_wrong") and answer.headers["www-authenticate"] == "Bearer"
        right = {"authorization": f"Bearer {key}"}
        assert client.post("/v1/search", json={"text": "red"}, headers=right).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    engine.close()


@pytest.mark.parametrize("key", ["", "short", "sixteen letters ", "sixteen\nletters!!", "schlüssel-schlüssel"])
def test_key_from_environment__refuses_what_protects_nothing(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_API_KEY", key)
    with raises(ConfigError, code="key-too-short", naming="VIDSEEK_API_KEY"):
        key_from_environment()


def test_clip__is_what_the_index_says(client: TestClient) -> None:
    clip_id = clip_of_colour(client, "blue")
    clip = ClipAnswer.model_validate(client.get(f"/v1/clips/{clip_id}").json())
    assert (clip.clip_id, clip.video_id, clip.uri) == (clip_id, video_id_of_colour("blue"), "tapes/blue.mp4")
    assert clip.end_ms - clip.start_ms == 1000 and clip.channel is None
    assert is_error(client.get("/v1/clips/00000000-0000-0000-0000-000000000000"), 404, "clip_not_found")
    assert is_error(client.get("/v1/clips/..%2f..%2fetc"), 404, "not_found")
    assert is_error(client.get("/v1/clips/nonsense"), 422, "invalid_request")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive whose red and blue videos are there."""
    root = tmp_path_factory.mktemp("recorded")
    archive = write_colour_archive(root)
    (root / "params.yaml").write_text("ingest: {source: videos}\n")
    (root / "videos" / "tapes").mkdir(parents=True)
    video("red", root / "videos" / "tapes" / "red.mp4")
    outside = root / "secret.mp4"
    outside.write_bytes(b"secret")
    (root / "videos" / "tapes" / "white.mp4").symlink_to(outside)
    return archive


def test_media__whole_file_and_ranges(recorded: Archive) -> None:
    content = (recorded.root / "videos" / "tapes" / "red.mp4").read_bytes()
    with serving(recorded) as client:
        route = f"/v1/clips/{clip_of_colour(client, 'red')}/media"
        whole = client.get(route)
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
        assert whole.headers["x-content-type-options"] == "nosniff"
        for asked, part in (("bytes=0-9", content[:10]), ("bytes=10-", content[10:]), ("bytes=-7", content[-7:])):
            answer = client.get(route, headers={"range": asked})
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{len(content)}")
        for nonsense in ("bytes=9-2", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", ""):
            assert client.get(route, headers={"range": nonsense}).status_code == 200
        beyond = client.get(route, headers={"range": f"bytes={len(content)}-"})
        assert is_error(beyond, 416, "range_not_satisfiable")
        head = client.head(route)
        assert head.content == b"" and head.headers["content-length"] == str(len(content))


def test_forget__a_running_service_shows_the_video_no_more(recorded: Archive) -> None:
    red = ForgottenVideo(video_id_of_colour("red"), ("tapes/red.mp4",), (), "", "")
    with serving(recorded) as client:
        clip_id = clip_of_colour(client, "red")
        routes = [f"/v1/clips/{clip_id}{what}" for what in ("", "/media", "/thumbnail")]
        assert [client.get(route).status_code for route in routes] == [200, 200, 200]
        write_forgotten(recorded.decisions, [red])
        try:
            hits = client.post("/v1/search", json={"text": "red"}).json()["hits"]
            assert hits and red.video_id not in {hit["video_id"] for hit in hits}
            for route in routes:
                assert is_error(client.get(route), 404, "clip_not_found")
            assert is_error(
                client.post("/v1/search", json={"clip_id": clip_id}), 422, "input_rejected"
            )
        finally:
            write_forgotten(recorded.decisions, [])
        assert clip_of_colour(client, "red") == clip_id


def test_media__nothing_outside_the_source_folder(recorded: Archive, client: TestClient) -> None:
    with serving(recorded) as at_home:
        for colour in ("white", "green"):  # a link that leads out, and a file that is not there
            clip_id = clip_of_colour(at_home, colour)
            for what in ("media", "thumbnail"):
                assert is_error(at_home.get(f"/v1/clips/{clip_id}/{what}"), 404, "media_not_found")
    # No source is named at all.
    assert is_error(client.get(f"/v1/clips/{clip_of_colour(client, 'red')}/media"), 404, "media_not_found")


def test_thumbnail__is_a_frame_of_the_clip_and_is_kept(recorded: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(recorded) as client:
        route = f"/v1/clips/{clip_of_colour(client, 'red')}/thumbnail"
        first = client.get(route)
        assert first.headers["content-type"] == "image/jpeg"
        pixels = np.asarray(Image.open(io.BytesIO(first.content)).convert("RGB")).reshape(-1, 3)
        np.testing.assert_allclose(pixels.mean(axis=0), COLOURS["red"], atol=12)
        monkeypatch.setattr(decoding_module, "decode_strip", None)
        assert client.get(route).content == first.content


def test_feedback__is_appended_and_frozen(recorded: Archive) -> None:
    with serving(recorded) as client:
        clip_id = clip_of_colour(client, "red")
        for relevant in (True, False):
            said = client.post("/v1/feedback", json={"query": "a red ü", "clip_id": clip_id, "relevant": relevant})
            assert said.status_code == 201, said.text
        unknown = {"query": "red", "clip_id": "00000000-0000-0000-0000-000000000000", "relevant": True}
        assert is_error(client.post("/v1/feedback", json=unknown), 404, "clip_not_found")
        assert is_error(client.post("/v1/feedback", json={**unknown, "relevant": "maybe"}), 422, "invalid_request")
        assert is_error(client.post("/v1/feedback", json={**unknown, "query": "  "}), 422, "input_rejected")
    (path,) = recorded.feedback.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["query"], line["clip_id"], line["relevant"]) for line in lines] == [
        ("a red ü", clip_id, True), ("a red ü", clip_id, False)
    ]
    assert {line["encoder_version"] for line in lines} == {VERSION}


def test_metrics__count_by_route_and_never_by_what_was_asked(archive: Archive) -> None:
    with serving(archive) as client:
        client.post("/v1/search", json={"text": "red"})
        client.post("/v1/search", json={"text": ""})
        client.get("/somewhere/secret")
        page = client.get("/metrics").text
    assert 'vidseek_requests_total{route="/v1/search",status="200"} 1.0' in page
    assert 'vidseek_requests_total{route="/v1/search",status="422"} 1.0' in page
    assert 'vidseek_requests_total{route="none",status="404"} 1.0' in page and "secret" not in page
    assert 'vidseek_batch_size_count{work="text"} 1.0' in page
    assert "vidseek_search_seconds_count 1.0" in page and "vidseek_best_score_count 1.0" in page
    assert 'vidseek_waiting{work="text"} 0.0' in page


def test_log__has_a_line_for_each_request_without_the_query(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vidseek.serving")
    with serving(archive) as client:
        client.post("/v1/search", json={"text": "red green"}, headers={"x-request-id": "abc-1"})
    (record,) = (each for each in caplog.records if each.name == "vidseek.serving")
    line = json.loads(JsonLines().format(record))
    assert (line["request_id"], line["route"], line["status"]) == ("abc-1", "/v1/search", 200)
    assert line["milliseconds"] > 0 and "green" not in json.dumps(line)


def test_search__under_load_batches_grow_and_a_lone_client_goes_alone(archive: Archive) -> None:
    with serving(archive) as client:
        engine = client.app.state.engine  # type: ignore[attr-defined]
        texts = engine.live.texts
        run, gate = texts._run, threading.Event()
        texts._run = lambda texts: gate.wait(60) and run(texts)
        with ThreadPoolExecutor(16) as clients:
            asked = [clients.submit(client.post, "/v1/search", json={"text": "red"})]
            wait_until(lambda: texts.num_batches)
            asked += [clients.submit(client.post, "/v1/search", json={"text": "red"}) for _ in range(15)]
            wait_until(lambda: texts.num_waiting == 15)
            gate.set()
            assert {each.result().status_code for each in asked} == {200}
        assert texts.num_batches == {1: 1, 15: 1}
        assert client.post("/v1/search", json={"text": "red"}).status_code == 200  # right after the burst
        assert texts.num_batches == {1: 2, 15: 1}


def test_search__index_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    with serving(archive) as client:
        assert client.post("/v1/search", json={"text": "red"}).status_code == 200
        archive.index.rename(tmp_path / "away")
        for _ in range(2):
            assert is_error(client.post("/v1/search", json={"text": "red"}), 503, "not_ready")
        assert is_error(client.get("/readyz"), 503, "not_ready")
        assert client.get("/healthz").status_code == 200
        (tmp_path / "away").rename(archive.index)
        assert first_video(client.post("/v1/search", json={"text": "red"})) == video_id_of_colour("red")
        assert client.get("/readyz").status_code == 200


def test_search__new_bundle_and_new_index_under_load_fail_no_request(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    other = "fedcba9876543210"
    answers: list[tuple[int, str]] = []
    is_over = threading.Event()
    with serving(archive) as client:

        def ask() -> None:
            while not is_over.is_set():
                answer = client.post("/v1/search", json={"text": "red"})
                answers.append((answer.status_code, answer.json().get("encoder_version", answer.text)))

        assert client.get("/readyz").status_code == 200
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        # As `dvc repro` does: the bundle first, which nobody reads yet, then the collection, whose alias moves last.
        with whole_folder(archive.bundle) as folder:
            write_tiny_bundle(folder, encoder_version=other)
        publish_colours(tmp_path, encoder_version=other)
        wait_until(lambda: answers[-1][1] == other)
        is_over.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {VERSION, other}


def test_close__gives_the_index_back(tmp_path: Path) -> None:
    def is_mapped() -> bool:
        gc.collect()
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    with serving(write_colour_archive(tmp_path)) as client:
        assert client.post("/v1/search", json={"text": "red"}).status_code == 200 and is_mapped()
    assert not is_mapped()
