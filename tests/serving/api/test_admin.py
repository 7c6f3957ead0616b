"""The admin routes: who may ask, what the archive came to, rollback, feedback, near-duplicates."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

from serving.api.admin import Admin
from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from tests.serving.colours import publish_base, publish_colours, video, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import write_tiny_bundle
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import REJECTED, write_table
from vidseek_retrieval.dedup.decisions import key_of, read_decisions
from vidseek_retrieval.dedup.video_matches import Duplicate

KEY, ADMIN_KEY = "a key for everybody", "a key for those who run it"
RED, BLUE = video_id_of_colour("red"), video_id_of_colour("blue")
ROW = Duplicate(RED, 0, 3000, BLUE, 0, 3000, "whole", 0.98)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    (tmp_path / "params.yaml").write_text("ingest: {source: videos}\n")
    (tmp_path / "videos" / "tapes").mkdir(parents=True)
    video("red", tmp_path / "videos" / "tapes" / "red.mp4")
    return write_colour_archive(tmp_path)


@contextmanager
def serving(archive: Archive, **keys: str | None) -> Iterator[TestClient]:
    engine = Engine(lambda: open_archive(archive, Settings()), ServeSettings(), Places.of(archive))
    admin = Admin(archive, engine)
    with TestClient(
        create_app(engine, admin=admin, **keys), base_url="http://127.0.0.1", raise_server_exceptions=False  # type: ignore[arg-type]
    ) as client:
        yield client
        client.portal.call(admin.close)  # type: ignore[union-attr]
    engine.close()


@pytest.fixture
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def write_found(archive: Archive, *rows: Duplicate) -> None:
    """As a search for near-duplicates leaves it."""
    report = {
        "collection": "clips-0123456789abcdef-000000000000", "threshold": {"precision": 0.95, "recall": 0.7, "target": 0.95},
        "duplicates": [vars(row) for row in rows], "uris": {RED: "tapes/red.mp4", BLUE: "tapes/blue.mp4"},
    }
    archive.state.mkdir(exist_ok=True)
    (archive.state / "duplicates.json").write_text(json.dumps({"found_at": "2026-01-01T00:00:00Z", "report": report}))


def test_guard__admin_key_is_another_one_and_opens_all(archive: Archive) -> None:
    with serving(archive, key=KEY, admin_key=ADMIN_KEY) as client:
        assert problem(client.get("/v1/admin/archive")) == (401, "key_wrong")
        assert problem(client.get("/v1/admin/archive", headers=bearer(KEY))) == (401, "key_wrong")
        assert client.get("/v1/admin/archive", headers=bearer(ADMIN_KEY)).status_code == 200
        assert client.get("/v1/facets", headers=bearer(ADMIN_KEY)).status_code == 200
        assert client.get("/v1/facets", headers=bearer(KEY)).status_code == 200
        assert problem(client.get("/v1/facets", headers=bearer("another"))) == (401, "key_wrong")


def test_guard__admin_routes_are_off_where_there_is_a_key_and_no_admin_key(archive: Archive) -> None:
    with serving(archive, key=KEY) as client:
        assert problem(client.get("/v1/admin/archive", headers=bearer(KEY))) == (403, "admin_off")


def test_guard__without_keys_only_this_machine_by_its_name(archive: Archive, client: TestClient) -> None:
    assert client.get("/v1/admin/archive").status_code == 200
    assert problem(client.get("/v1/admin/archive", headers={"Host": "evil.example"})) == (403, "key_needed")


def test_guard__admin_key_alone_leaves_searching_to_this_machine(archive: Archive) -> None:
    with serving(archive, admin_key=ADMIN_KEY) as client:
        assert problem(client.get("/v1/admin/archive")) == (401, "key_wrong")
        assert client.get("/v1/facets").status_code == 200


def test_archive__tells_the_base_s_collection_from_what_is_live(client: TestClient, archive: Archive) -> None:
    live, base = archive.backend().aliases()["clips"].collection, publish_base(archive.root)
    said = client.get("/v1/admin/archive").json()
    marks = {each["name"]: (each["is_live"], each["is_kept"], each["is_base"]) for each in said["collections"]}
    assert marks == {live: (True, False, False), base: (False, False, True)}
    assert (said["live"], said["previous"]) == (live, None)


def test_archive__says_what_there_is_and_null_for_what_has_not_run(client: TestClient, archive: Archive) -> None:
    rows: list[dict[str, object]] = [{"id": "<b>.mp4", "stage": "ingest", "reason": "not decodable"}] * 60
    write_table(archive.root / "data" / "ingest" / "rejected.parquet", rows, REJECTED)
    gate = archive.root / "reports" / "gates" / "pairs"
    gate.mkdir(parents=True)
    failure = {"rule": "captions are short", "num_offending": 3, "observed": None, "ids": []}
    (gate / "result.json").write_text(json.dumps({"passed": False, "failures": [failure]}))
    said = client.get("/v1/admin/archive").json()
    assert said["videos"] == {"num": 4, "total_ms": 240_000} and said["num_clips"] == 12
    assert [(each["stage"], each["num"], len(each["first"])) for each in said["rejected"]] == [("ingest", 60, 50)]
    assert said["gates"] == [{"name": "pairs", "passed": False, "failures": ["captions are short: 3"]}]
    assert (said["figures"], said["previous"], said["reports"]) == ([], None, [])
    assert said["model"]["encoder_version"] == "0123456789abcdef"
    assert [each["is_live"] for each in said["collections"]] == [True] and said["collections"][0]["name"] == said["live"]


def test_report__is_shown_without_rights_or_is_404(client: TestClient, archive: Archive) -> None:
    assert problem(client.get("/v1/admin/reports/pairs")) == (404, "report_not_found")
    assert problem(client.get("/v1/admin/reports/..%2f..%2fparams.yaml"))[0] == 404
    page = archive.root / "reports" / "gates" / "pairs" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>pairs</h1>")
    answer = client.get("/v1/admin/reports/pairs")
    assert answer.text == "<h1>pairs</h1>" and answer.headers["content-security-policy"].startswith("sandbox;")


def test_rollback__makes_the_one_before_live_once(client: TestClient, archive: Archive) -> None:
    first = client.get("/v1/admin/archive").json()["live"]
    second = publish_colours(archive.root, folder="elsewhere")
    assert problem(client.post("/v1/admin/rollback", json={"live": first})) == (409, "live_changed")
    assert client.post("/v1/admin/rollback", json={"live": second}).json() == {"live": first}
    # Who saw the same page and presses the same button changes nothing more.
    assert problem(client.post("/v1/admin/rollback", json={"live": second})) == (409, "live_changed")
    assert client.get("/readyz").json()["collection"] == first


def test_rollback__to_nothing_or_to_another_model_is_refused(client: TestClient, archive: Archive) -> None:
    live = client.get("/v1/admin/archive").json()["live"]
    assert problem(client.post("/v1/admin/rollback", json={"live": live})) == (409, "no_rollback")
    publish_colours(archive.root, encoder_version="fedcba9876543210")
    bundle = archive.root / "models" / "encoder"
    bundle.rename(archive.root / "models" / "old")
    write_tiny_bundle(bundle, encoder_version="fedcba9876543210")
    live = client.get("/v1/admin/archive").json()["live"]
    refused = client.post("/v1/admin/rollback", json={"live": live})
    assert problem(refused) == (409, "no_rollback") and "another model" in refused.json()["error"]["message"]


def test_feedback__is_listed_newest_first_and_frozen(client: TestClient, archive: Archive) -> None:
    clip_id = str(clip_id_of(RED, 0, 1000))
    for relevant in (True, False):
        client.post("/v1/feedback", json={"query": "red", "clip_id": clip_id, "relevant": relevant})
    said = client.get("/v1/admin/feedback", params={"limit": 1}).json()
    assert said["num"] == 2 and [each["relevant"] for each in said["said"]] == [False]
    assert client.post("/v1/admin/feedback/freeze", json={}).json() == {"num_said": 2, "num_rows": 1, "num_broken": 0}
    assert pd.read_parquet(archive.decisions / "feedback.parquet")["relevant"].tolist() == [False]


def test_feedback__freeze_wants_json_so_that_no_other_page_can_ask(client: TestClient) -> None:
    plain = client.post("/v1/admin/feedback/freeze", content=b"{}", headers={"content-type": "text/plain"})
    assert problem(plain) == (415, "unsupported_media_type")


def test_duplicates__nobody_has_looked(client: TestClient) -> None:
    said = client.get("/v1/admin/duplicates").json()
    assert (said["state"], said["rows"], said["threshold"]) == ("never", [], None)


def test_duplicates__decisions_are_written_and_shown(client: TestClient, archive: Archive) -> None:
    write_found(archive, ROW)
    said = client.get("/v1/admin/duplicates").json()
    assert [(row["decision"], row["uri"], row["of_uri"]) for row in said["rows"]] == [
        ("open", "tapes/red.mp4", "tapes/blue.mp4")
    ]
    asked = {"revision": said["revision"], "accept": [key_of(ROW)]}
    done = client.post("/v1/admin/duplicates/decide", json=asked)
    assert done.json()["num_accepted"] == 1 and read_decisions(archive.decisions).accepted == (ROW,)
    assert client.get("/v1/admin/duplicates").json()["rows"][0]["decision"] == "accepted"
    assert problem(client.post("/v1/admin/duplicates/decide", json=asked)) == (409, "decisions_changed")
    unknown = {"revision": done.json()["revision"], "accept": ["nonsense"]}
    assert problem(client.post("/v1/admin/duplicates/decide", json=unknown)) == (422, "input_rejected")


@pytest.mark.slow
def test_duplicates__search_that_cannot_be_says_why(client: TestClient) -> None:
    assert client.post("/v1/admin/duplicates/find", json={}).status_code == 202
    assert problem(client.post("/v1/admin/duplicates/find", json={})) == (409, "already_running")
    for _ in range(900):
        said = client.get("/v1/admin/duplicates").json()
        if said["state"] != "running":
            break
        time.sleep(0.1)
    assert said["state"] == "failed" and "data/frames" in said["problem"]  # the colours have no frames
    assert "Traceback" not in said["problem"]


def test_still__is_a_frame_of_the_video(client: TestClient) -> None:
    answer = client.get(f"/v1/admin/videos/{RED}/still", params={"at_ms": 500})
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (64, 48) and picture.getpixel((32, 24))[0] > 200  # type: ignore[index]
    assert problem(client.get(f"/v1/admin/videos/{BLUE}/still")) == (404, "media_not_found")
    assert problem(client.get(f"/v1/admin/videos/{'f' * 32}/still")) == (404, "video_not_found")
