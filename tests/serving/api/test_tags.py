"""Tags over the API: who may set them, what is written down, and that the next run publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.serving.api.test_admin import ADMIN_KEY, KEY, bearer, problem, serving
from tests.serving.colours import video_id_of_colour
from tests.serving.live_api import write_video_archive
from vidseek.archive import Archive
from vidseek.client import Api
from vidseek.jobs.job_table import JobTable
from vidseek_media.fields.tags import read_tags
from vidseek_media.ids import clip_id_of

RED = video_id_of_colour("red")
CLIP = str(clip_id_of(RED, 0, 1000))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = write_video_archive(tmp_path)
    (tmp_path / "params.yaml").write_text("ingest: {source: videos}\n")
    return archive


@pytest.fixture
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


def test_tags__are_written_down_and_a_run_is_queued(client: TestClient, archive: Archive) -> None:
    answer = client.put(f"/v1/clips/{CLIP}/tags/night%2Frain", params={"who": "ann"})
    assert answer.status_code == 200
    said = answer.json()
    assert (said["tags"], said["video_id"], said["start_ms"], said["has_tag"]) == (["night/rain"], RED, 0, True)
    client.put(f"/v1/videos/{RED}/tags/red")
    assert client.delete(f"/v1/clips/{CLIP}/tags/night%2Frain").json()["tags"] == ["red"]
    assert [(each.tag, each.has_tag, each.who, each.start_ms) for each in read_tags(archive.decisions)] == [
        ("night/rain", True, "ann", 0), ("red", True, "", None), ("night/rain", False, "", 0),
    ]
    assert [job.kind for job in JobTable(archive.jobs).queued(limit=9)] == ["scan"]


def test_tags__of_what_is_not_there_and_that_are_none_are_refused(client: TestClient, archive: Archive) -> None:
    assert problem(client.put(f"/v1/clips/{CLIP[:-4]}0000/tags/a")) == (404, "clip_not_found")
    assert problem(client.put(f"/v1/videos/{'f' * 32}/tags/a")) == (404, "video_not_found")
    assert client.put(f"/v1/clips/{CLIP}/tags/{'x' * 257}").status_code == 422
    assert client.put(f"/v1/clips/{CLIP}/tags/%20").status_code == 422
    assert read_tags(archive.decisions) == []


def test_tags__want_the_admin_key(archive: Archive) -> None:
    with serving(archive, key=KEY, admin_key=ADMIN_KEY) as client:
        for path in (f"/v1/clips/{CLIP}/tags/a", f"/v1/videos/{RED}/tags/a"):
            assert problem(client.put(path, headers=bearer(KEY))) == (401, "key_wrong")
            assert client.put(path, headers=bearer(ADMIN_KEY)).status_code == 200
        assert Api("http://127.0.0.1", key=ADMIN_KEY, client=client).tag_clip(CLIP, "b c", has_tag=True) == ["a", "b c"]
    with serving(archive, key=KEY) as client:
        assert problem(client.delete(f"/v1/clips/{CLIP}/tags/a", headers=bearer(KEY))) == (403, "admin_off")
