"""Timelines and moments over the API, of a real index and videos with numbered frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from tests.media.editing.numbered import frames_in, write_numbered
from tests.serving.colours import video_id_of_colour, write_colour_archive
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_media.ids import clip_id_of

PATIENT = {"timeout_seconds": 90, "decode_timeout_seconds": 80}  # other work may run on the machine of a test


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The videos of red, green and blue are there; white's is not, and green's is forgotten."""
    root = tmp_path_factory.mktemp("editing")
    (root / "params.yaml").write_text("ingest: {source: videos}\n")
    for colour, timecode in (("red", "10:00:00:00"), ("green", ""), ("blue", "")):
        path = root / "videos" / "tapes" / f"{colour}.mp4"
        write_numbered(path, Fraction(25), 75, timecode=timecode, sound=colour == "red")
    archive = write_colour_archive(root)
    forgotten = ForgottenVideo(video_id_of_colour("green"), ("tapes/green.mp4",), (), "", "2026-01-01T00:00:00Z")
    write_forgotten(archive.decisions, [forgotten])
    return archive


@pytest.fixture(scope="module")
def client(archive: Archive) -> Iterator[TestClient]:
    settings = ServeSettings(max_moments=5, max_moment_seconds=2, **PATIENT)
    engine = Engine(lambda: open_archive(archive, Settings()), settings, Places.of(archive))
    with TestClient(create_app(engine), base_url="http://127.0.0.1", raise_server_exceptions=False) as one:
        yield one
    engine.close()


def clip_of(colour: str, second: int = 0) -> str:
    return str(clip_id_of(video_id_of_colour(colour), 1000 * second, 1000 * second + 1000))


def export(client: TestClient, *moments: dict[str, Any], **more: Any) -> Any:
    return client.post("/v1/export", json={"format": "json", "moments": list(moments), **more})


def test_export__has_the_frames_and_leaves_out_what_is_gone(client: TestClient, archive: Archive) -> None:
    answer = export(
        client, {"clip_id": clip_of("red"), "start_ms": 400, "end_ms": 1500}, {"clip_id": clip_of("green")},
        {"clip_id": clip_of("white")}, {"clip_id": clip_of("blue", 1)}, {"clip_id": clip_of("red", 9)}, handles="5f",
    )
    made = answer.json()
    assert answer.status_code == 200, made
    first, second = json.loads(made["content"])["events"]
    assert (first["source_in"], first["source_out"], first["handle_before"]) == ("10:00:00:05", "10:00:01:18", 5)
    assert (second["first_frame"], second["end_frame"], second["file"]) == (20, 55, "tapes/blue.mp4")
    assert (made["num_events"], len(made["notes"])) == (2, 1)
    assert {each["clip_id"]: each["code"] for each in made["left_out"]} == {
        clip_of("green"): "clip-not-found", clip_of("white"): "media-not-found", clip_of("red", 9): "clip-not-found",
    }
    assert str(archive.root) not in answer.text


@pytest.mark.parametrize("name", ["otio", "edl", "fcpxml", "csv"])
def test_export__in_every_format(client: TestClient, name: str) -> None:
    pytest.importorskip("opentimelineio")
    made = export(client, {"clip_id": clip_of("red")}, format=name, name="a/b\nc", media_root="/Volumes/My Archive").json()
    assert made["file_name"] == f"a_b_c.{name}"
    assert "file:///Volumes/My%20Archive/tapes/red.mp4" in made["content"]


@pytest.mark.parametrize(("body", "fault"), [
    ({"moments": []}, "nothing-to-export"), ({"moments": [{"clip_id": clip_of("white")}]}, "nothing-to-export"),
    ({"moments": [{"clip_id": clip_of("red")}] * 6}, "too-many-events"),
    ({"moments": [{"clip_id": clip_of("red")}], "handles": "x"}, "bad-handles"),
    ({"moments": [{"clip_id": clip_of("red"), "start_ms": 5, "end_ms": 5}]}, "span-outside"),
    ({"moments": [{"clip_id": clip_of("red")}], "format": "aaf"}, "invalid-request"),
    ({"moments": [{"clip_id": "../x"}]}, "invalid-request"),
])
def test_export__refuses(client: TestClient, body: dict[str, Any], fault: str) -> None:
    answer = client.post("/v1/export", json={"format": "json", **body})
    assert (answer.status_code, answer.json()["error"]["fault"]) == (422, fault)


def test_moment__is_a_file_with_exactly_its_frames(client: TestClient, tmp_path: Path) -> None:
    answer = client.get(f"/v1/clips/{clip_of('red')}/moment", params={"start_ms": 400, "end_ms": 1500})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "video/mp4" and "red_400-1500.mp4" in answer.headers["content-disposition"]
    (tmp_path / "moment.mp4").write_bytes(answer.content)
    assert [number for _, number in frames_in(tmp_path / "moment.mp4")] == list(range(10, 38))
    whole = client.get(f"/v1/clips/{clip_of('blue', 1)}/moment")
    (tmp_path / "whole.mp4").write_bytes(whole.content)
    assert [number for _, number in frames_in(tmp_path / "whole.mp4")] == list(range(25, 50))


@pytest.mark.parametrize(("colour", "span", "status", "fault"), [
    ("red", {"start_ms": 0, "end_ms": 2001}, 422, "moment-too-long"),
    ("red", {"start_ms": 9000, "end_ms": 9500}, 422, "span-outside"),
    ("red", {"start_ms": 700, "end_ms": 500}, 422, "span-outside"), ("white", {}, 404, "media-not-found"),
    ("green", {}, 404, "clip-not-found"), ("red", {"start_ms": -1}, 422, "invalid-request"),
])
def test_moment__refuses(client: TestClient, colour: str, span: dict[str, int], status: int, fault: str) -> None:
    answer = client.get(f"/v1/clips/{clip_of(colour)}/moment", params=span)
    assert (answer.status_code, answer.json()["error"]["fault"]) == (status, fault)
