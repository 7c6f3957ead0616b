"""Facets, neighbours and strips over a real index and real videos."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from tests.serving.colours import publish_colours, video, video_id_of_colour, write_colour_archive
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.ids import clip_id_of


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("browsing")
    (root / "params.yaml").write_text("ingest: {source: videos}\n")
    (root / "videos" / "tapes").mkdir(parents=True)
    video("red", root / "videos" / "tapes" / "red.mp4")
    return write_colour_archive(root)


@pytest.fixture(scope="module")
def client(archive: Archive) -> Iterator[TestClient]:
    engine = Engine(lambda: open_archive(archive, Settings()), ServeSettings(), Places.of(archive))
    with TestClient(create_app(engine), base_url="http://127.0.0.1", raise_server_exceptions=False) as one:
        yield one
    engine.close()


def clip_of(colour: str, second: int) -> str:
    return str(clip_id_of(video_id_of_colour(colour), 1000 * second, 1000 * second + 1000))


def test_facets__are_those_of_the_live_collection(client: TestClient, archive: Archive) -> None:
    said = client.get("/v1/facets").json()
    assert said["collection"] == client.get("/readyz").json()["collection"]
    assert said["num_clips"] == 12
    assert said["duration_ms"] == {"least": 60_000, "greatest": 60_000}
    assert (said["channel"], said["published_at"]) == ([], None)


def test_neighbours__are_before_and_after(client: TestClient) -> None:
    said = client.get(f"/v1/clips/{clip_of('blue', 1)}/neighbours", params={"num": 1}).json()
    assert said["video_id"] == video_id_of_colour("blue")
    assert [clip["clip_id"] for clip in said["clips"]] == [clip_of("blue", second) for second in range(3)]


def test_transcript__of_a_silent_video_and_of_an_unknown_clip(client: TestClient) -> None:
    said = client.get(f"/v1/clips/{clip_of('blue', 1)}/transcript")
    assert (said.status_code, said.json()) == (200, {"video_id": video_id_of_colour("blue"), "segments": []})
    assert client.get(f"/v1/clips/{clip_of('blue', 9)}/transcript").status_code == 404


def test_neighbours__of_an_unknown_clip_and_too_many(client: TestClient) -> None:
    gone = client.get(f"/v1/clips/{clip_of('blue', 9)}/neighbours")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "clip_not_found")
    many = client.get(f"/v1/clips/{clip_of('blue', 1)}/neighbours", params={"num": 1000})
    assert (many.status_code, many.json()["error"]["code"]) == (422, "invalid_request")


def test_strip__has_its_frames_side_by_side(client: TestClient) -> None:
    answer = client.get(f"/v1/clips/{clip_of('red', 0)}/strip", params={"frames": 3})
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "JPEG" and picture.size == (3 * 64, 48)  # the video is 64 x 48
        middle = np.asarray(picture.convert("RGB"))[24, ::64]
    assert (middle[:, 0] > 200).all() and (middle[:, 1:] < 60).all()


def test_strip__of_a_video_that_was_moved_is_404(client: TestClient) -> None:
    answer = client.get(f"/v1/clips/{clip_of('green', 0)}/strip")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "media_not_found")


def test_facets__follow_what_is_published(tmp_path: Path) -> None:
    own = write_colour_archive(tmp_path)
    engine = Engine(lambda: open_archive(own, Settings()), ServeSettings(), Places.of(own))
    with TestClient(create_app(engine), base_url="http://127.0.0.1") as one:
        before = one.get("/v1/facets").json()["collection"]
        after = publish_colours(tmp_path, folder="elsewhere")
        assert one.get("/v1/facets").json()["collection"] == after != before
    engine.close()
