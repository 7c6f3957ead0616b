"""The learning loop over the API: what is suggested, who may write captions, and what is written down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.serving.api.test_admin import ADMIN_KEY, KEY, bearer, problem, serving
from tests.serving.colours import video_id_of_colour
from tests.serving.live_api import write_taught_archive
from vidseek.archive import Archive
from vidseek.client import Api
from vidseek_media.ids import clip_id_of
from vidseek_media.text.written_captions import read_written

RED = video_id_of_colour("red")
CLIP = str(clip_id_of(RED, 0, 1000))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return write_taught_archive(tmp_path)


@pytest.fixture
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


def test_suggestions__a_captioned_clip_is_suggested_no_more(client: TestClient, archive: Archive) -> None:
    found = client.get("/v1/admin/suggestions", params={"limit": 50}).json()
    assert found["num_open"] and found["num_open"] + found["num_captioned"] + found["num_held_out"] == found["num_clips"]
    first = found["suggestions"][0]
    answer = client.post(f"/v1/clips/{first['clip_id']}/captions", json={"text": "a  red\nsquare", "who": "ann"})
    assert (answer.status_code, answer.json()["text"], answer.json()["start_ms"]) == (201, "a red square", first["start_ms"])
    assert [(each.text, each.who, each.video_id) for each in read_written(archive.decisions)] == [
        ("a red square", "ann", first["video_id"])]
    later = client.get("/v1/admin/suggestions", params={"limit": 50}).json()
    assert first["clip_id"] not in {each["clip_id"] for each in later["suggestions"]}
    assert later["num_captioned"] > found["num_captioned"]


def test_judgements__are_hits_that_may_be_wrong_and_once_judged_asked_no_more(client: TestClient) -> None:
    def asked() -> list[dict[str, object]]:
        found: list[dict[str, object]] = client.get(
            "/v1/admin/suggestions", params={"kind": "judgements"}).json()["questions"]
        return found

    first, *_ = found = asked()
    assert len({each["text"] for each in found}) == len(found) == len({each["clip_id"] for each in found})
    said = {"query": first["text"], "clip_id": first["clip_id"], "relevant": False}
    assert client.post("/v1/feedback", json=said).status_code == 201
    assert (first["text"], first["clip_id"]) not in {(each["text"], each["clip_id"]) for each in asked()}


def test_captions__that_cannot_be_are_refused(client: TestClient, archive: Archive) -> None:
    assert problem(client.post(f"/v1/clips/{CLIP[:-4]}0000/captions", json={"text": "a"})) == (404, "clip_not_found")
    for body in ({"text": "x" * 1001}, {}, {"text": "a", "other": 1}, {"text": "a\0"}):
        assert client.post(f"/v1/clips/{CLIP}/captions", json=body).status_code == 422
    assert client.get("/v1/admin/suggestions", params={"limit": 0}).status_code == 422
    assert client.get("/v1/admin/suggestions", params={"kind": "others"}).status_code == 422
    assert read_written(archive.decisions) == []


def test_suggestions__of_an_archive_without_pairs_are_told_why(client: TestClient, archive: Archive) -> None:
    archive.pairs_table.unlink()
    answer = client.get("/v1/admin/suggestions")
    assert answer.status_code == 503 and "pairs.parquet" in answer.json()["error"]["message"]


def test_captions__want_the_admin_key(archive: Archive) -> None:
    with serving(archive, key=KEY, admin_key=ADMIN_KEY) as client:
        path = f"/v1/clips/{CLIP}/captions"
        assert problem(client.post(path, json={"text": "a"}, headers=bearer(KEY))) == (401, "key_wrong")
        assert problem(client.get("/v1/admin/suggestions", headers=bearer(KEY))) == (401, "key_wrong")
        assert Api("http://127.0.0.1", key=ADMIN_KEY, client=client).caption_clip(CLIP, "red")["text"] == "red"
