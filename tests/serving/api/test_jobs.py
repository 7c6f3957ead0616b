"""The routes of videos and jobs: what is refused before it is read, what is queued, what is listed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from serving.api.jobs import Jobs
from tests.serving.api.test_admin import ADMIN_KEY, KEY, bearer, problem, serving
from tests.serving.colours import video_id_of_colour
from tests.serving.live_api import live_api, write_video_archive
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.jobs.job_table import JobTable, new_id
from vidseek.jobs.submitting import Queue
from vidseek_media.forgotten import read_forgotten

VIDEO = b"\x00\x00\x00\x18ftypmp42" + b"x" * 5000


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = write_video_archive(tmp_path)
    (tmp_path / "params.yaml").write_text("ingest: {source: videos}\njobs: {max_upload_mb: 1, max_waiting: 3}\n")
    return archive


@pytest.fixture
def client(archive: Archive) -> Iterator[TestClient]:
    with serving(archive) as one:
        yield one


def upload(client: TestClient, content: bytes = VIDEO, name: str = "new.mp4", **options: Any) -> Any:
    return client.post("/v1/videos", files={"file": (name, content, "video/mp4")}, **options)


def files_of(archive: Archive) -> list[Path]:
    return sorted(path for path in archive.jobs.rglob("*") if path.is_file() and "sqlite" not in path.name)


def test_upload__is_whole_and_queued(client: TestClient, archive: Archive) -> None:
    answer = upload(client, name="../../-new\n.mp4")
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["kind"], job["origin"], job["error"]) == ("queued", "add", "upload", None)
    assert [path.read_bytes() for path in files_of(archive)] == [VIDEO]
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    listed = client.get("/v1/jobs").json()
    assert (listed["jobs"], listed["total"], listed["is_watched"]) == ([job], 1, False)


@pytest.mark.parametrize(("form", "status", "code", "fault"), [
    ({"files": {"file": ("notes.txt", VIDEO)}}, 422, "input_rejected", "not-a-video"),
    ({"files": {"file": ("a.mp4", b"")}}, 422, "input_rejected", "not-a-video"),
    ({"files": {"video": ("a.mp4", VIDEO)}}, 422, "invalid_request", "invalid-request"),
    ({"files": [("file", ("a.mp4", VIDEO)), ("file", ("b.mp4", VIDEO))]}, 422, "invalid_request", "invalid-request"),
    ({"files": {"file": ("a.mp4", b"x" * 2**20 + b"x")}}, 413, "too_large", "body-too-large"),
    ({"content": VIDEO, "headers": {"content-type": "video/mp4"}}, 415, "unsupported_media_type", "unsupported-media-type"),
    ({"content": b"nothing", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "invalid_request",
     "invalid-request"),
    ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data"}}, 415, "unsupported_media_type",
     "unsupported-media-type"),
    ({"json": {}}, 422, "invalid_request", "invalid-request"),
    ({"json": {"url": "http://a/a.mp4", "path": "a.mp4"}}, 422, "invalid_request", "invalid-request"),
    ({"json": {"url": "http://127.0.0.1/a.mp4"}}, 422, "url_refused", "fetching-off"),
    ({"json": {"path": "../params.mp4"}}, 422, "input_rejected", "outside-source"),
    ({"json": {"path": "tapes/none.mp4"}}, 422, "input_rejected", "not-in-source"),
])
def test_add__what_cannot_be_is_refused_and_leaves_nothing(
    client: TestClient, archive: Archive, form: dict[str, Any], status: int, code: str, fault: str
) -> None:
    answer = client.post("/v1/videos", **form)
    assert (*problem(answer), answer.json()["error"]["fault"]) == (status, code, fault)
    assert files_of(archive) == [] and JobTable(archive.jobs).num_open() == 0


def test_add__a_path_inside_the_source(client: TestClient) -> None:
    job = client.post("/v1/videos", json={"path": "tapes/red.mp4"}).json()
    assert (job["origin"], job["uri"]) == ("source", "tapes/red.mp4")


def test_upload__a_full_disk_and_a_full_queue(
    client: TestClient, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("vidseek.jobs.intake.ENOUGH_ROOM_BYTES", 2**62)
        assert problem(upload(client)) == (507, "no_room")
    for number in range(3):
        assert upload(client, name=f"{number}.mp4").status_code == 202
    busy = upload(client)
    assert (busy.status_code, busy.json()["error"]["fault"]) == (503, "too-many-jobs") and busy.headers["retry-after"]
    assert len(files_of(archive)) == 3


def test_upload__that_lies_about_its_length_or_is_cut_off_leaves_nothing(archive: Archive) -> None:
    head = (
        "POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        "Content-Length: {}\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    with live_api(archive) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address) as cut_off:
            cut_off.sendall(head.format(900_000).encode() + part + VIDEO)
        with socket.create_connection(address, timeout=120) as large:
            large.sendall(head.format(3 * 2**20).encode() + part)
            assert large.recv(12) == b"HTTP/1.1 413", "before the body is read"
        wait_until(lambda: files_of(archive) == [])
        assert JobTable(archive.jobs).num_open() == 0


def test_upload__whose_client_leaves_as_it_is_queued_leaves_a_job_with_its_file(archive: Archive) -> None:
    """Or neither: never a file that no job needs, nor a job without its file."""
    async def leave() -> None:
        reached, left = asyncio.Event(), threading.Event()

        class Slow:
            async def in_thread(self, work: Callable[[], Any]) -> Any:
                def working() -> Any:
                    left.wait(60)
                    return work()

                if not files_of(archive):
                    return work()
                reached.set()
                return await asyncio.to_thread(working)

        uploading = asyncio.create_task(Jobs(archive, Slow()).upload(form_request()))  # type: ignore[arg-type]
        await reached.wait()
        uploading.cancel()
        asyncio.get_running_loop().call_soon(left.set)  # after it was told that its client has left
        with pytest.raises(asyncio.CancelledError):
            await uploading
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(leave())
    [job], _ = JobTable(archive.jobs).list_jobs(limit=9)
    assert job.state == "queued" and [path.read_bytes() for path in files_of(archive)] == [VIDEO]
    assert Queue(archive).file_of(job.id).exists()


def form_request() -> Request:
    """A whole upload."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    messages = [{"type": "http.request", "body": part + VIDEO + b"\r\n--b--\r\n", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    return Request({"type": "http", "method": "POST", "path": "/v1/videos", "headers": headers}, receive)


def test_jobs__are_paged_filtered_cancelled_and_tried_again(client: TestClient, archive: Archive) -> None:
    ids = [upload(client, name=f"{number}.mp4").json()["id"] for number in range(3)]
    page = client.get("/v1/jobs", params={"limit": 1, "offset": 1}).json()
    assert [job["id"] for job in page["jobs"]] == [ids[1]] and page["total"] == 3
    assert client.delete(f"/v1/jobs/{ids[0]}").json()["state"] == "cancelled"
    assert problem(client.delete(f"/v1/jobs/{ids[0]}")) == (409, "job_state")
    waiting = client.get("/v1/jobs", params={"state": ["queued", "running"]}).json()
    assert [job["id"] for job in waiting["jobs"]] == [ids[2], ids[1]]
    table = JobTable(archive.jobs)
    table.update([ids[1]], state="running", worker=f"999999999@{os.uname().nodename}", alive_at=time.time(), stage="embed")
    died = client.get(f"/v1/jobs/{ids[1]}").json()
    assert (died["state"], died["error"]["code"]) == ("failed", "worker-died")
    assert client.post(f"/v1/jobs/{ids[1]}/retry", json={}).json()["state"] == "queued"
    assert problem(client.post(f"/v1/jobs/{ids[1]}/retry", json={})) == (409, "job_state")
    assert problem(client.post(f"/v1/jobs/{ids[1]}/retry", content=b"{}", headers={"content-type": "text/plain"}))[0] == 415
    assert problem(client.get(f"/v1/jobs/{new_id()}")) == (404, "job_not_found")
    for query in ({"limit": 0}, {"limit": 10**6}, {"state": "nonsense"}):
        assert client.get("/v1/jobs", params=query).status_code == 422
    assert client.get("/v1/jobs/nonsense").status_code == 422


def test_remove__is_in_no_answer_from_then_on(client: TestClient, archive: Archive) -> None:
    red = video_id_of_colour("red")
    assert client.post("/v1/search", json={"text": "red", "limit": 1}).json()["hits"][0]["video_id"] == red
    answer = client.delete(f"/v1/videos/{red}")
    said = answer.json()
    assert answer.status_code == 202 and (said["forgotten"], said["job"]["kind"]) == (True, "remove")
    assert said["kept"] == ["tapes/red.mp4"] and (archive.root / "videos" / "tapes" / "red.mp4").exists()
    assert red not in json.dumps(client.post("/v1/search", json={"text": "red", "limit": 9}).json())
    assert read_forgotten(archive.decisions).video_ids == {red}
    assert problem(client.delete(f"/v1/videos/{red}")) == (404, "video_not_found")
    assert problem(client.delete(f"/v1/videos/{'f' * 32}")) == (404, "video_not_found")
    assert [job.kind for job in Queue(archive).table.queued(limit=9)] == ["remove"]


def test_guard__all_of_them_want_the_admin_key(archive: Archive) -> None:
    asked = (("GET", "/v1/jobs"), ("POST", "/v1/videos"), ("DELETE", f"/v1/videos/{'f' * 32}"),
             ("GET", f"/v1/jobs/{new_id()}"), ("POST", f"/v1/jobs/{new_id()}/retry"), ("DELETE", f"/v1/jobs/{new_id()}"))
    with serving(archive, key=KEY, admin_key=ADMIN_KEY) as client:
        for method, path in asked:
            assert problem(client.request(method, path, headers=bearer(KEY))) == (401, "key_wrong"), path
        assert client.get("/v1/jobs", headers=bearer(ADMIN_KEY)).status_code == 200
    with serving(archive, key=KEY) as client:
        assert {problem(client.request(method, path, headers=bearer(KEY))) for method, path in asked} == {(403, "admin_off")}
    with serving(archive) as client:
        assert problem(upload(client, headers={"Sec-Fetch-Site": "cross-site"})) == (403, "cross_site")
