"""Saved searches over the API: who may save them, what is refused, what is listed, and feeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from tests.serving.api.test_admin import ADMIN_KEY, KEY, bearer, problem, serving
from tests.vidseek.saved.saved_archive import SURE, Growing, first_of, video_id
from vidseek.client import Api
from vidseek.saved.looking import look

FIRST = {1: ["red", "blue"]}
ASKED = {"text": "red", "min_score": SURE, "name": "reds"}


@pytest.fixture
def world(tmp_path: Path) -> Growing:
    return first_of(tmp_path, FIRST)


@pytest.fixture
def client(world: Growing) -> Iterator[TestClient]:
    with serving(world.archive) as one:
        yield one


def test_saved__is_listed_with_what_was_new(client: TestClient, world: Growing) -> None:
    assert client.get("/v1/saved").json() == {"saved": []}
    answer = client.post("/v1/saved", json=ASKED)
    assert answer.status_code == 201
    saved = answer.json()
    assert (saved["name"], saved["num_new"], saved["error"], saved["webhook_host"]) == ("reds", 0, None, None)
    world.publish({**FIRST, 3: ["blue", "red"]})
    assert len(look(world.archive).new) == 1
    [listed] = client.get("/v1/saved").json()["saved"]
    [moment] = listed["moments"]
    assert (moment["video_id"], moment["start_ms"], moment["delivery"]) == (video_id(3), 1000, None)
    assert client.get(f"/v1/saved/{saved['id']}").json() == listed
    feed = client.get(f"/v1/saved/{saved['id']}/feed.json")
    assert feed.headers["content-type"].startswith("application/feed+json")
    assert [each["id"] for each in feed.json()["items"]] == [f"urn:uuid:{moment['id']}"]
    atom = client.get(f"/v1/saved/{saved['id']}/feed.atom")
    assert atom.headers["content-type"].startswith("application/atom+xml")
    assert len(ElementTree.fromstring(atom.content)) == 5
    assert client.delete(f"/v1/saved/{saved['id']}").json() == {"removed": saved["id"]}
    for path in (f"/v1/saved/{saved['id']}", f"/v1/saved/{saved['id']}/feed.atom"):
        assert problem(client.get(path)) == (404, "saved_not_found")
    assert problem(client.delete(f"/v1/saved/{saved['id']}")) == (404, "saved_not_found")


def test_saved__what_cannot_be_saved_is_refused(client: TestClient) -> None:
    for body, fault in (
        ({"text": "red"}, "saved-without-threshold"), ({**ASKED, "filters": {"colour": "x"}}, "unknown-filter"),
        ({**ASKED, "webhook": "https://hooks.example/"}, "webhooks-off"), ({"min_score": 0.5}, "empty-query"),
        ({**ASKED, "clip_id": "0d5a6f9e-5f0f-5e0e-9d2c-3f6f3f1f2a11"}, "unknown-example"),
    ):
        answer = client.post("/v1/saved", json=body)
        assert (answer.status_code, answer.json()["error"]["fault"]) == (422, fault)
    assert client.post("/v1/saved", json={**ASKED, "limit": 3}).status_code == 422
    assert client.get("/v1/saved/..").status_code in (404, 422)
    assert client.get("/v1/saved").json() == {"saved": []}


def test_saved__is_read_with_the_key_and_written_with_the_admin_key(world: Growing) -> None:
    with serving(world.archive, key=KEY, admin_key=ADMIN_KEY) as client:
        assert problem(client.get("/v1/saved")) == (401, "key_wrong")
        assert problem(client.post("/v1/saved", json=ASKED, headers=bearer(KEY))) == (401, "key_wrong")
        asked = Api("http://127.0.0.1", key=ADMIN_KEY, client=client)
        saved = asked.save_search(ASKED)
        client.headers.pop("Authorization", None)
        assert client.get("/v1/saved", headers=bearer(KEY)).json()["saved"][0]["id"] == saved["id"]
        assert client.get(f"/v1/saved/{saved['id']}/feed.json", headers=bearer(KEY)).status_code == 200
        assert problem(client.delete(f"/v1/saved/{saved['id']}", headers=bearer(KEY))) == (401, "key_wrong")
        Api("http://127.0.0.1", key=ADMIN_KEY, client=client).remove_saved(saved["id"])
        assert Api("http://127.0.0.1", key=ADMIN_KEY, client=client).saved() == []
    with serving(world.archive, key=KEY) as client:
        assert problem(client.post("/v1/saved", json=ASKED, headers=bearer(KEY))) == (403, "admin_off")
