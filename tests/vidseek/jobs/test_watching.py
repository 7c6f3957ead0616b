from __future__ import annotations

import os
import resource
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.raising import raises
from tests.vidseek.jobs.conftest import Stages
from tests.vidseek.jobs.test_worker import names_in
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.jobs.archive_lock import ArchiveBusy
from vidseek.jobs.inbox import Inbox
from vidseek.jobs.watching import Watch, watcher_of, watching
from vidseek_media.errors import GateFailed


@pytest.fixture
def inbox(archive: Archive) -> Path:
    (archive.root / "inbox").mkdir()
    return archive.root / "inbox"


def test_once__takes_all_of_the_inbox_with_one_run(
    archive: Archive, inbox: Path, coloured: dict[str, Path], stages: Stages
) -> None:
    for colour, path in coloured.items():
        shutil.copy(path, inbox / f"{colour}.mp4")
    shutil.copy(coloured["red"], inbox / "again.mp4")
    (inbox / "2026").mkdir()
    (inbox / "text.mp4").write_text("no video")
    (inbox / "link.mp4").symlink_to(coloured["red"])
    (inbox / "half.mp4.part").write_text("half")
    (inbox / ".hidden.mp4").write_text("half")
    shutil.move(inbox / "green.mp4", inbox / "2026" / "-green\n.mp4")
    ended = Watch(archive).once()
    assert stages.num_runs == 1
    assert {job.name: (job.state, job.code, job.duplicate) for job in ended if job.kind == "add"} == {
        "-green\n.mp4": ("done", "", 0), "again.mp4": ("done", "", 0), "blue.mp4": ("done", "", 0),
        "red.mp4": ("done", "", 1), "text.mp4": ("rejected", "not-a-video", 0), "link.mp4": ("rejected", "not-a-file", 0),
    }
    assert names_in(archive.root / "videos") == ["again.mp4", "blue.mp4", "green_.mp4"]
    assert (archive.root / "videos" / "2026" / "green_.mp4").is_file()
    assert names_in(inbox) == [".hidden.mp4", "half.mp4.part", "link.mp4", "red.mp4", "text.mp4"]
    assert (inbox / "duplicates" / "red.mp4").exists() and (inbox / "rejected" / "text.mp4").exists()
    assert Watch(archive).once() == [] and stages.num_runs == 1, "nothing is new"


def test_work__more_than_a_batch_and_a_changed_source_are_as_few_runs_as_can_be(
    archive: Archive, inbox: Path, coloured: dict[str, Path], stages: Stages
) -> None:
    (archive.root / "params.yaml").write_text(
        "ingest: {source: videos, workers: 1}\njobs: {settle_seconds: 0, poll_seconds: 0.05, max_batch: 2}\n"
    )
    for colour, path in coloured.items():
        shutil.copy(path, inbox / f"{colour}.mp4")
    ended = Watch(archive).once()
    assert sorted(job.kind for job in ended) == ["add", "add", "add", "scan"] and stages.num_runs == 2


def test_inbox__a_file_that_grows_is_left_until_it_is_whole(inbox: Path) -> None:
    looks = Inbox(inbox, settle_seconds=0.3)
    with (inbox / "slow.mp4").open("wb") as file:
        for _ in range(3):
            file.write(b"x")
            file.flush()
            assert looks.settled() == []
            time.sleep(0.2)
        time.sleep(0.4)
        assert looks.settled() == [] and looks.settled() == [], "somebody has it open for writing"
    wait_until(lambda: looks.settled() == [inbox / "slow.mp4"])


def test_inbox__a_file_of_yesterday_may_still_be_copied(inbox: Path) -> None:
    path = inbox / "a.mp4"
    path.write_bytes(b"1")
    os.utime(path, (1, 1))  # as programs that copy times do
    looks = Inbox(inbox, settle_seconds=3600)
    assert looks.settled() == [] and looks.settled() == []


def test_once__a_source_that_changed_is_run_once(archive: Archive, coloured: dict[str, Path], stages: Stages) -> None:
    shutil.copy(coloured["red"], archive.root / "videos" / "red.mp4")
    [scan] = Watch(archive).once()
    assert (scan.kind, scan.state, stages.num_runs) == ("scan", "done", 1)
    assert Watch(archive).once() == []
    (archive.root / "videos" / "captions.csv").write_text("file,caption\nred.mp4,a red plane\n")
    assert [job.kind for job in Watch(archive).once()] == ["scan"]
    shutil.rmtree(archive.root / "videos")  # the disk is away: nothing is removed
    assert [job.state for job in Watch(archive).once()] in ([], ["failed"])
    assert (archive.ingest / "videos.parquet").is_file()


def test_once__what_failed_in_the_inbox_waits_for_somebody(
    archive: Archive, inbox: Path, coloured: dict[str, Path], stages: Stages
) -> None:
    shutil.copy(coloured["red"], inbox / "red.mp4")
    (archive.root / "params.yaml").write_text("ingest: {source: videos/gone.csv}\njobs: {settle_seconds: 0}\n")
    failed = [job for job in Watch(archive).once() if job.kind == "add"]
    assert [(job.state, job.code) for job in failed] == [("failed", "source-takes-no-files")]
    assert (inbox / "red.mp4").exists()
    assert [job for job in Watch(archive).once() if job.kind == "add"] == [], "not again and again"


def test_watching__a_second_one_is_told_who_is_first(archive: Archive) -> None:
    assert watcher_of(archive) is None
    with watching(archive):
        with raises(ArchiveBusy, code="already-watched", naming=os.getpid()), watching(archive):
            raise AssertionError
        holder = watcher_of(archive)
        assert holder is not None and holder.process == os.getpid()
    assert watcher_of(archive) is None


def test_forever__works_on_what_comes(archive: Archive, coloured: dict[str, Path]) -> None:
    done = threading.Event()
    watch = Watch(archive, told=lambda job: done.set() if job.kind == "add" else None)

    class Enough(Exception):
        pass

    def drop() -> None:
        time.sleep(0.3)
        shutil.copy(coloured["red"], archive.root / "inbox" / "red.mp4")

    def sleep_or_end(seconds: float) -> None:
        if done.is_set():
            raise Enough
        time.sleep(seconds)

    thread = threading.Thread(target=drop)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vidseek.jobs.watching.time", type("Time", (), {
            "sleep": staticmethod(sleep_or_end), "monotonic": staticmethod(time.monotonic),
        }))
        thread.start()
        with pytest.raises(Enough):
            watch.forever()
    thread.join()
    assert names_in(archive.root / "videos") == ["red.mp4"]


def test_once__ends_although_the_stages_fail(archive: Archive, coloured: dict[str, Path], stages: Stages) -> None:
    shutil.copy(coloured["red"], archive.root / "videos" / "red.mp4")
    stages.error = GateFailed("too much is rejected", code="gate-failed", remedy="Look at the rows")
    assert {(job.kind, job.state) for job in Watch(archive).once()} == {("scan", "failed")} and stages.num_runs == 1
    stages.error = None
    assert {(job.kind, job.state) for job in Watch(archive).once()} == {("scan", "done")}


NUM_DROPPED = 1000


@pytest.mark.slow
def test_once__takes_a_thousand_files_with_one_run_in_little_time_and_memory(
    archive: Archive, inbox: Path, coloured: dict[str, Path], stages: Stages
) -> None:
    """A box that players skip makes each another video of the same pictures."""
    content = coloured["red"].read_bytes()
    for number in range(NUM_DROPPED):
        (inbox / f"{number:04d}.mp4").write_bytes(content + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
    begun = resource.getrusage(resource.RUSAGE_SELF)
    ended = [job for job in Watch(archive).once() if job.kind == "add"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert len(ended) == NUM_DROPPED and {job.state for job in ended} == {"done"} and stages.num_runs == 1
    assert len(names_in(archive.root / "videos")) == NUM_DROPPED and names_in(inbox) == []
    seconds = used.ru_utime + used.ru_stime - begun.ru_utime - begun.ru_stime
    print(f"{NUM_DROPPED} files: {seconds:.1f} CPU s, {(used.ru_maxrss - begun.ru_maxrss) / 1024:.0f} MB")  # noqa: T201
    assert seconds < 60 and used.ru_maxrss - begun.ru_maxrss < 200 * 1024


def test_watch__sends_what_is_due_and_says_the_same_once(
    archive: Archive, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    watch = Watch(archive, said=told.append)
    monkeypatch.setattr("vidseek.jobs.watching.send_due", lambda of: iter([f"new moments were not sent: {of is archive}"]))
    watch.once()
    watch.once()
    assert told == ["new moments were not sent: True"]
