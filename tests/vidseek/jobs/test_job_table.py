from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek.jobs.job_table import Job, JobGone, JobState, JobTable, is_alive, new_id, this_worker
from vidseek_media.errors import ArtifactError, InputRejected

NOBODY = f"999999999@{os.uname().nodename}"


@pytest.fixture
def table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path / "jobs")


def added(table: JobTable, *names: str) -> list[Job]:
    return table.insert(Job(new_id(), "add", "command", name) for name in names)


def test_insert__jobs_are_listed_newest_first_in_pages(table: JobTable) -> None:
    assert table.list_jobs(limit=5) == ([], 0) and table.queued(limit=5) == []
    added(table, *"abcde")
    page, total = table.list_jobs(limit=2, offset=1)
    assert [job.name for job in page] == ["d", "c"] and total == 5
    assert [job.name for job in table.queued(limit=2)] == ["a", "b"]


def test_insert__from_many_threads_loses_none(table: JobTable) -> None:
    threads = [threading.Thread(target=lambda: [added(table, "x") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.num_open() == 80


def test_finish__says_why_and_changes_no_job_that_has_ended(table: JobTable) -> None:
    [job] = added(table, "a.mp4")
    table.finish(job.id, "rejected", error=InputRejected("it is text", code="not-a-video", remedy="Add a video"))
    table.finish(job.id, "done")
    told = table.get(job.id).to_json()
    assert told["state"] == "rejected" and told["finished_at"].endswith("Z")
    assert told["error"] == {"code": "not-a-video", "message": "it is text", "remedy": "Add a video"}


def test_get__of_no_job(table: JobTable) -> None:
    with raises(JobGone, code="job-not-found"):
        table.get("0" * 20)


def running(table: JobTable, *, worker: str, alive_at: float) -> Job:
    [job] = added(table, "a.mp4")
    table.update([job.id], state="running", worker=worker, alive_at=alive_at, stage="frames", attempts=1)
    return job


@pytest.mark.parametrize(
    ("worker", "silent_seconds"), [(NOBODY, 0.0), (this_worker(), 100.0), ("1@elsewhere", 100.0)],
    ids=["dead", "silent", "elsewhere"],
)
def test_job__whose_worker_died_has_failed_and_can_be_tried_again(
    table: JobTable, worker: str, silent_seconds: float
) -> None:
    job = running(table, worker=worker, alive_at=time.time() - silent_seconds)
    seen = table.get(job.id)
    assert (seen.state, seen.code) == ("failed", "worker-died") and "frames" in seen.reason
    assert [each.id for each in table.list_jobs(limit=9, states=("failed",))[0]] == [job.id]
    assert [each.id for each in table.bury()] == [job.id] and table.bury() == []
    again = table.retry(job.id)
    assert (again.state, again.code, again.attempts) == ("queued", "", 1)


def test_job__of_a_worker_that_lives_runs(table: JobTable) -> None:
    job = running(table, worker=this_worker(), alive_at=time.time() - 50)
    assert table.get(job.id).state == "running" and table.bury() == []
    table.beat(worker=this_worker())
    assert table.get(job.id).alive_at == pytest.approx(time.time(), abs=5)
    assert is_alive("1@elsewhere", time.time())
    for change in (table.retry, table.cancel):
        with raises(JobState, code="job-state"):
            change(job.id)


def test_job__of_a_worker_that_was_killed_and_not_yet_collected_by_its_parent_has_failed(table: JobTable) -> None:
    with subprocess.Popen(["sleep", "60"]) as worker:
        job = running(table, worker=f"{worker.pid}@{os.uname().nodename}", alive_at=time.time())
        assert table.get(job.id).state == "running"
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the list of processes
        assert table.get(job.id).code == "worker-died" and table.retry(job.id).state == "queued"


def test_bury__who_holds_the_lock_is_the_only_worker_of_this_machine(table: JobTable) -> None:
    here = running(table, worker=this_worker(), alive_at=time.time())  # the id of a dead worker, which came again
    elsewhere = running(table, worker="1@elsewhere", alive_at=time.time())
    assert table.bury() == []
    assert [job.id for job in table.bury(holds_lock=True)] == [here.id]
    assert [table.get(job.id).state for job in (here, elsewhere)] == ["failed", "running"]


def test_cancel__is_of_jobs_that_wait(table: JobTable) -> None:
    [job] = added(table, "a.mp4")
    assert table.cancel(job.id).state == "cancelled" and table.queued(limit=5) == []
    with raises(JobState, code="job-state"):
        table.cancel(job.id)
    assert table.retry(job.id).state == "queued"
    with raises(JobGone, code="job-not-found"):
        table.cancel("nonsense")


def test_prune__keeps_the_newest_that_ended_and_all_that_wait(table: JobTable) -> None:
    jobs = added(table, *"abcd")
    for job in jobs[:3]:
        table.finish(job.id, "done")
    assert table.prune(keep=1) == [], "who asked for them may still look"
    assert [job.name for job in table.prune(keep=1, seconds=0)] == ["b", "a"]
    assert [job.name for job in table.list_jobs(limit=9)[0]] == ["d", "c"]


def test_table__of_another_version_or_no_table_is_said(table: JobTable) -> None:
    added(table, "a")
    with sqlite3.connect(table.path) as db:
        db.execute("PRAGMA user_version = 99")
    with raises(ArtifactError, code="broken-jobs"):
        table.list_jobs(limit=1)
    for left in table.folder.iterdir():
        left.unlink()
    table.path.write_bytes(b"this is no database" * 100)
    with raises(ArtifactError, code="broken-jobs"):
        added(table, "b")
