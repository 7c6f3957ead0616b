from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.raising import raises
from tests.vidseek.jobs.conftest import Stages, ids_of
from vidseek.archive import Archive
from vidseek.jobs import intake, submitting
from vidseek.jobs.archive_lock import working_on
from vidseek.jobs.job_table import Job
from vidseek.jobs.submitting import JobQueueFull, Queue
from vidseek.jobs.watching import work_on
from vidseek.jobs.worker import Worker
from vidseek_media.errors import ConfigError, GateFailed, InputRejected
from vidseek_media.files.fetching import UrlRefused
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_media.ids import video_id_of


def work(archive: Archive, *jobs: Job) -> list[Job]:
    return work_on(archive, ids_of(jobs), told=lambda job: None, at_stage=lambda stage: None, waits=lambda holder: None)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_add__is_searched_and_its_file_stays_with_its_owner(
    archive: Archive, coloured: dict[str, Path], stages: Stages
) -> None:
    stages_told: list[str] = []
    queue = Queue(archive)
    jobs = [queue.add_file(coloured["red"]), queue.add_file(coloured["blue"])]
    ended = work_on(archive, ids_of(jobs), told=lambda job: None, at_stage=stages_told.append, waits=lambda holder: None)
    assert [(job.state, job.num_clips, job.uri) for job in ended] == [("done", 2, "red.mp4"), ("done", 2, "blue.mp4")]
    assert [job.video_id for job in ended] == [video_id_of(coloured["red"]), video_id_of(coloured["blue"])]
    assert "evaluate" in ended[0].note and stages.num_runs == 1 and stages_told == ["ingest", "publish"]
    assert names_in(archive.root / "videos") == ["blue.mp4", "red.mp4"] and coloured["red"].exists()
    assert not list((archive.jobs / "files").iterdir())


def test_add__same_bytes_again_say_so_and_run_nothing(archive: Archive, coloured: dict[str, Path], stages: Stages) -> None:
    queue = Queue(archive)
    both = [queue.add_file(coloured["red"]), queue.add_file(shutil.copy(coloured["red"], archive.root / "again.mp4"))]
    first, second = work(archive, *both)
    assert (first.duplicate, second.duplicate, second.state) == (0, 1, "done") and "red.mp4" in second.note
    [third] = work(archive, queue.add_file(coloured["red"]))
    assert (third.duplicate, third.video_id) == (1, first.video_id) and stages.num_runs == 1
    assert names_in(archive.root / "videos") == ["red.mp4"] and not list((archive.jobs / "files").iterdir())


def test_add__other_bytes_under_a_taken_name_get_another(archive: Archive, coloured: dict[str, Path]) -> None:
    shutil.copy(coloured["red"], archive.root / "videos" / "FILM.mp4")
    [job] = work(archive, Queue(archive).add_file(shutil.copy(coloured["blue"], archive.root / "film.mp4")))
    assert (job.state, job.uri) == ("done", "film-2.mp4")


def test_add__what_is_no_video_is_rejected_and_the_others_go_on(archive: Archive, coloured: dict[str, Path]) -> None:
    (text := archive.root / "text.mp4").write_bytes(b"this is no video " * 100)
    queue = Queue(archive)
    bad, good = work(archive, queue.add_file(text), queue.add_file(coloured["green"]))
    assert (bad.state, bad.code, good.state) == ("rejected", "not-a-video", "done") and "text.mp4" in bad.reason
    assert names_in(archive.root / "videos") == ["green.mp4"] and text.exists()
    assert not list((archive.jobs / "files").iterdir())


def test_add_file__refuses_at_once_what_can_be_no_video(archive: Archive, coloured: dict[str, Path]) -> None:
    queue, root = Queue(archive), archive.root
    (root / "empty.mp4").touch()
    (root / "link.mp4").symlink_to(coloured["red"])
    os.mkfifo(root / "pipe.mp4")
    (root / "notes.txt").write_text("text")
    for name, code in (("empty.mp4", "not-a-video"), ("link.mp4", "not-a-file"), ("pipe.mp4", "not-a-file"),
                       ("notes.txt", "not-a-video"), ("missing.mp4", "original-unreadable"), ("videos", "not-a-video")):
        with raises(InputRejected, code=code):
            queue.add_file(root / name)
    assert queue.table.num_open() == 0


def test_add_file__inside_the_source_is_taken_where_it_is(archive: Archive, coloured: dict[str, Path]) -> None:
    path = Path(shutil.copy(coloured["red"], archive.root / "videos" / "red.mp4"))
    queue = Queue(archive)
    for job in (queue.add_file(path), queue.add_path("red.mp4")):
        assert [(each.state, each.uri, each.num_clips) for each in work(archive, job)] == [("done", "red.mp4", 2)]
    assert names_in(archive.root / "videos") == ["red.mp4"]


@pytest.mark.parametrize(("uri", "code"), [
    ("../params.mp4", "outside-source"), ("/etc/a.mp4", "outside-source"), ("gone.mp4", "not-in-source"),
    ("link.mp4", "outside-source"), ("", "not-a-video"),
])
def test_add_path__stays_inside_the_source(archive: Archive, coloured: dict[str, Path], uri: str, code: str) -> None:
    (archive.root / "videos" / "link.mp4").symlink_to(coloured["red"])
    with raises(InputRejected, code=code):
        Queue(archive).add_path(uri)


def test_add__a_forgotten_video_is_refused(archive: Archive, coloured: dict[str, Path]) -> None:
    video_id = video_id_of(coloured["red"])
    write_forgotten(archive.decisions, [ForgottenVideo(video_id, ("red.mp4",), (), "", "2026-01-01T00:00:00Z")])
    [job] = work(archive, Queue(archive).add_file(coloured["red"]))
    assert (job.state, job.code) == ("rejected", "forgotten") and names_in(archive.root / "videos") == []


@pytest.mark.parametrize("url", [
    "http://127.0.0.1/a.mp4", "http://169.254.169.254/latest/a.mp4", "file:///etc/passwd.mp4", "http://evil.example/a.mp4",
])
def test_add_url__of_no_allowed_host_is_refused_before_it_is_queued(archive: Archive, url: str) -> None:
    (archive.root / "params.yaml").write_text("ingest: {source: videos}\nserve: {url_hosts: [127.0.0.1, 169.254.169.254]}\n")
    queue = Queue(archive)
    with raises(UrlRefused, code=("private-host", "bad-address", "host-not-allowed")):
        queue.add_url(url)
    assert queue.table.num_open() == 0


def test_add__to_a_source_that_is_no_folder_is_a_question_of_settings(archive: Archive, coloured: dict[str, Path]) -> None:
    (archive.root / "params.yaml").write_text("ingest: {source: videos/list.csv}\n")
    with raises(ConfigError, code="source-takes-no-files"):
        Queue(archive).add_file(coloured["red"])


def test_work__more_jobs_than_are_kept_are_all_told(archive: Archive, coloured: dict[str, Path]) -> None:
    (archive.root / "params.yaml").write_text("ingest: {source: videos, workers: 1}\njobs: {keep: 1}\n")
    queue = Queue(archive)
    ended = work(archive, *[queue.add_file(path) for path in coloured.values()])
    assert [job.state for job in ended] == ["done"] * 3


def test_work__a_gate_that_fails_fails_the_batch_which_can_be_tried_again(
    archive: Archive, coloured: dict[str, Path], stages: Stages
) -> None:
    stages.error = GateFailed("too much is rejected", code="gate-failed", remedy="Look at the rows")
    queue = Queue(archive)
    [job] = work(archive, queue.add_file(coloured["red"]))
    assert (job.state, job.code, job.uri) == ("failed", "gate-failed", "red.mp4")
    stages.error = None
    [again] = work(archive, queue.table.retry(job.id))
    assert (again.state, again.attempts, again.num_clips) == ("done", 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize("retried", [False, True])
def test_add__again_after_a_run_that_ended_between_its_stages_goes_on_with_them(
    archive: Archive, coloured: dict[str, Path], stages: Stages, died: bool, retried: bool
) -> None:
    """Its bytes are in the tables of `ingest` already, and not yet in the index: that is no duplicate."""
    queue = Queue(archive)

    def fail() -> None:
        raise GateFailed("too much is rejected", code="gate-failed", remedy="Look at the rows")

    stages.after = fail
    first, other = work(archive, queue.add_file(coloured["red"]), queue.add_file(coloured["blue"]))
    assert (first.state, first.code) == ("failed", "gate-failed") and first.video_id in intake.known_videos(archive)
    if died:
        gone = f"999999999@{os.uname().nodename}"
        queue.table.update([first.id, other.id], state="running", worker=gone, alive_at=1.0, code="", reason="")
    if retried:  # and dies again before its first stage
        queue.table.update([queue.table.retry(first.id).id], state="failed", started_at=time.time())
    stages.after = lambda: None
    [again] = work(archive, queue.add_file(coloured["red"]))
    assert (again.state, again.duplicate, again.num_clips, stages.num_runs) == ("done", 0, 2, 2)
    [once_more] = work(archive, queue.add_file(coloured["blue"]))
    assert (once_more.state, once_more.duplicate, stages.num_runs) == ("done", 1, 2), "that run was for both"
    assert names_in(archive.root / "videos") == ["blue.mp4", "red.mp4"] and not list((archive.jobs / "files").iterdir())


def test_work__that_is_interrupted_goes_back_into_the_queue(
    archive: Archive, coloured: dict[str, Path], stages: Stages
) -> None:
    stages.error = KeyboardInterrupt()
    queue = Queue(archive)
    job = queue.add_file(coloured["red"])
    with pytest.raises(KeyboardInterrupt), working_on(archive.state, "me", told=pytest.fail) as lock:
        Worker(archive, lock).work([job])
    assert queue.table.get(job.id).state == "queued"
    stages.error = None
    assert [each.state for each in work(archive, job)] == ["done"]


def test_work__a_full_disk_loses_nothing(
    archive: Archive, coloured: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(archive)
    job = queue.add_file(coloured["red"])

    def full(file: Path, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(intake, "_move", full)
        [failed] = work(archive, job)
    assert (failed.state, failed.code) == ("failed", "not-writable") and names_in(archive.root / "videos") == []
    [done] = work(archive, queue.table.retry(job.id))
    assert (done.state, done.num_clips) == ("done", 2)


def test_work__another_disk_than_that_of_the_source_is_copied_to(
    archive: Archive, coloured: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crosses(*args: object, **named: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(intake.os, "link", crosses)
    [job] = work(archive, Queue(archive).add_file(coloured["red"]))
    assert job.state == "done" and (archive.root / "videos" / "red.mp4").read_bytes() == coloured["red"].read_bytes()
    assert names_in(archive.root / "videos") == ["red.mp4"]


def test_work__a_job_that_was_cancelled_is_passed_over(archive: Archive, coloured: dict[str, Path], stages: Stages) -> None:
    queue = Queue(archive)
    job = queue.add_file(coloured["red"])
    queue.table.cancel(job.id)
    assert [each.state for each in work(archive, job)] == ["cancelled"] and stages.num_runs == 0


def test_remove__forgets_and_takes_the_rows_out(archive: Archive, coloured: dict[str, Path]) -> None:
    queue = Queue(archive)
    red, blue = work(archive, queue.add_file(coloured["red"]), queue.add_file(coloured["blue"]))
    write_forgotten(archive.decisions, [ForgottenVideo(red.video_id, ("red.mp4",), (), "", "2026-01-01T00:00:00Z")])
    [removed] = work(archive, queue.add_removal(red.video_id, "red.mp4"))
    assert removed.state == "done" and (archive.root / "videos" / "red.mp4").exists(), "the file is its owner's"
    assert list(intake.known_videos(archive)) == [blue.video_id]


def test_queue__has_an_end(archive: Archive, coloured: dict[str, Path]) -> None:
    (archive.root / "params.yaml").write_text("ingest: {source: videos}\njobs: {max_waiting: 1}\n")
    queue = Queue(archive)
    queue.add_file(coloured["red"])
    with raises(JobQueueFull, code="too-many-jobs"):
        queue.add_file(coloured["blue"])
    assert len(list((archive.jobs / "files").iterdir())) == 1


def test_add__in_an_archive_that_is_named_from_the_working_directory(
    archive: Archive, coloured: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive.root)
    here = Archive(Path())
    assert [job.state for job in work(here, Queue(here).add_file(coloured["red"]))] == ["done"]


class Killed(BaseException):
    """Stands for a kill: nothing of the worker runs after it but what this process cannot leave out."""


def die_when_moving(monkeypatch: pytest.MonkeyPatch, *, is_linked: bool, is_moved: bool) -> None:
    """Let the worker die as it moves a file into the source: before, in between or after."""
    move = intake._move

    def dying(file: Path, path: Path) -> None:
        if is_linked:
            os.link(file, path)
        if is_moved:
            move(file, path)
        raise Killed

    monkeypatch.setattr(intake, "_move", dying)


@pytest.mark.parametrize(("is_linked", "is_moved"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("again", [False, True])
def test_work__that_is_killed_as_it_moves_a_file_leaves_it_once(
    archive: Archive, coloured: dict[str, Path], monkeypatch: pytest.MonkeyPatch, is_linked: bool, is_moved: bool,
    again: bool,
) -> None:
    """Whether the job is tried again, or the file added again before that."""
    queue = Queue(archive)
    job = queue.add_file(coloured["red"])
    with monkeypatch.context() as patched, working_on(archive.state, "me", told=pytest.fail) as lock:
        die_when_moving(patched, is_linked=is_linked, is_moved=is_moved)
        with pytest.raises(Killed):
            Worker(archive, lock).work([job])
    queue.table.update([job.id], state="running", worker=f"999999999@{os.uname().nodename}", alive_at=1.0)
    assert queue.table.get(job.id).code == "worker-died"
    ended = work(archive, queue.add_file(coloured["red"])) if again else []
    ended += work(archive, queue.table.retry(job.id))
    assert {each.state for each in ended} == {"done"} and all(each.num_clips == 2 for each in ended if not each.duplicate)
    assert names_in(archive.root / "videos") == ["red.mp4"] and not list((archive.jobs / "files").iterdir())
    assert list(intake.known_videos(archive)) == [video_id_of(coloured["red"])]


def test_work__removes_copies_that_no_job_needs(
    archive: Archive, coloured: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that was killed before it could insert its job, of one that had not removed it yet, and of uploads."""
    queue, folder = Queue(archive), archive.jobs / "files"
    done, waiting = queue.add_file(coloured["red"]), queue.add_file(coloured["blue"])
    queue.table.update([done.id], state="done")
    for name in ("fresh", ".upload.0123abcd.part"):
        (folder / name).write_bytes(b"x")
    submitting.sweep_files(archive.jobs, queue.table)
    assert names_in(folder) == sorted(["fresh", waiting.id]), "what is young may get its job yet"
    monkeypatch.setattr(submitting, "ORPHAN_SECONDS", -1.0)
    submitting.sweep_files(archive.jobs, queue.table)
    assert names_in(folder) == [waiting.id]
