"""`vidseek watch`: the one worker of an archive. It looks at inbox, queue and source, and works on what is there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vidseek.archive import Archive
from vidseek.jobs.archive_lock import UNKNOWN, ArchiveBusy, Holder, read_holder, working_on, write_holder
from vidseek.jobs.inbox import Inbox
from vidseek.jobs.job_table import Job, JobTable
from vidseek.jobs.submitting import Queue
from vidseek.jobs.worker import Worker
from vidseek.saved.after_publish import send_due
from vidseek_media.files.json_files import parse_json, write_json
from vidseek_media.sources.local import Folder

WATCH_LOCK = "watch.lock"
SOURCE_FILE = "source.json"
"""How the source looked when the stages ran last."""
PATIENCE_SECONDS = 30.0
"""`vidseek watch --once` waits so long, and three times the settling, for files that are being written."""
PATIENCE = 20
"""A look at a large source takes long: the next is so many times that away."""


@dataclass
class Watch:
    """A watcher of one archive; `watching` makes sure that there is one only.

    Args:
        archive: The archive.
        told: Called with each job that has ended.
        said: Called with lines for who looks on.
    """

    archive: Archive
    told: Callable[[Job], None] = field(default=lambda job: None)
    said: Callable[[str], None] = field(default=lambda line: None)

    def __post_init__(self) -> None:
        self.queue = Queue(self.archive)
        self.settings = self.queue.settings
        self.inbox = Inbox(self.archive.root / self.settings.inbox, self.settings.settle_seconds)
        self._source_at = 0.0
        self._source_before = ""
        self._told_last = ""

    def forever(self) -> None:
        """Look and work until the process is stopped."""
        self._begin()
        while True:
            self.look()
            if not self.work():
                self._send_due()
                time.sleep(self.settings.poll_seconds)

    def once(self) -> list[Job]:
        """Work on all that is there now, and return the jobs that have ended. Files that still change are waited for."""
        self._begin()
        ended: list[Job] = []
        is_first = True
        while True:
            self._wait_for_inbox()
            if not any(job.state == "failed" for job in ended):  # what failed would fail again, without end
                self._look_at_source(always=is_first)
            is_first = False
            done = self.work()
            ended += done
            if not done:
                self._send_due()
                return ended

    def look(self) -> None:
        """Queue what came into the inbox, and a run where the source has changed."""
        self._look_at_inbox()
        if time.monotonic() >= self._source_at:
            self._look_at_source(always=False)

    def work(self) -> list[Job]:
        """Do the jobs that wait, as many at once as the settings allow, and return them as they ended."""
        waiting = self.queue.table.queued(limit=self.settings.max_waiting + self.settings.max_batch)
        if not waiting:
            return []
        most = self.settings.max_batch  # a run because the source has changed is one with any other
        jobs = [*waiting[:most], *(job for job in waiting[most:] if job.kind == "scan")]
        with working_on(self.archive.state, "`vidseek watch`", told=self._tell_wait) as lock:
            self._bury(holds_lock=True)
            digests: list[str] = []
            worker = Worker(
                self.archive, lock, "vidseek watch", told=self.told,
                before_stages=lambda: digests.append(self._source_now()),
            )
            ended = worker.work(jobs)
            if digests and any(job.state == "done" for job in ended):
                self._keep_source(digests[0])
        return ended

    def _send_due(self) -> None:
        """Send new moments of saved searches that are due, also those that a publish could not."""
        for line in send_due(self.archive):
            if line != self._told_last:  # what is wrong with the settings is said once
                self.said(line)
            self._told_last = line

    def _begin(self) -> None:
        (self.archive.root / self.settings.inbox).mkdir(parents=True, exist_ok=True)
        self._bury(holds_lock=False)

    def _bury(self, *, holds_lock: bool) -> None:
        for job in self.queue.table.bury(holds_lock=holds_lock):
            self.told(job)

    def _wait_for_inbox(self) -> None:
        """Queue what is in the inbox, each file when it is complete; one that goes on changing is left for another time."""
        until = time.monotonic() + PATIENCE_SECONDS + 3 * self.settings.settle_seconds
        while True:
            self._look_at_inbox()
            taken = {job.file for job in self._of_inbox()}
            if all(str(path.absolute()) in taken for path in self.inbox.seen) or time.monotonic() > until:
                return
            time.sleep(min(self.settings.poll_seconds, max(self.settings.settle_seconds / 4, 0.05)))

    def _look_at_inbox(self) -> None:
        settled = self.inbox.settled()
        if not settled:
            return
        had = {job.file: job for job in self._of_inbox()}
        self.queue.add_inbox(path for path in settled if _is_new(path, had.get(str(path.absolute()))))

    def _of_inbox(self) -> list[Job]:
        jobs, _ = self.queue.table.list_jobs(limit=2**31)
        return [job for job in jobs if job.origin == "inbox" and job.file and job.state in ("queued", "running", "failed")]

    def _look_at_source(self, *, always: bool) -> None:
        """Queue a run where the source has changed, and for one that no look can tell of (a bucket, a page) if `always`."""
        begun = time.monotonic()
        now = self._source_now()
        took = time.monotonic() - begun
        self._source_at = time.monotonic() + max(self.settings.source_seconds, PATIENCE * took)
        is_local = bool(now)
        if is_local and now != self._source_before:  # it may still be changing: another look tells
            self._source_before = now
            if not always:
                self._source_at = time.monotonic() + max(self.settings.settle_seconds, took)
                return
        if (now != self._kept_source() if is_local else always) and not self._waits_for_scan():
            self.queue.add_scan("the source has changed" if is_local else "a look at the source")

    def _waits_for_scan(self) -> bool:
        return any(job.kind == "scan" for job in self.queue.table.queued(limit=self.settings.max_waiting))

    def _source_now(self) -> str:
        """Return a digest of names, sizes and times of all files of the source; empty for one that is no folder here."""
        source = self.archive.source
        if not isinstance(source, Folder) or not source.root.is_dir():
            return ""
        found = hashlib.sha256()
        for folder, folders, names in os.walk(source.root):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            for name in sorted(each for each in names if not each.startswith(".")):
                with suppress(OSError):
                    stat = (path := Path(folder) / name).stat()
                    found.update(bytes(path))
                    found.update(f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode())
        return found.hexdigest()

    def _kept_source(self) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(parse_json((self.archive.jobs / SOURCE_FILE).read_bytes())["digest"])
        return ""

    def _keep_source(self, digest: str) -> None:
        self._source_before = digest
        write_json(self.archive.jobs / SOURCE_FILE, {"digest": digest})

    def _tell_wait(self, holder: Holder | None) -> None:
        self.said(f"waits for {holder or 'another process'}")


@contextmanager
def watching(archive: Archive) -> Iterator[None]:
    """Be the watcher of an archive in this block.

    Raises:
        ArchiveBusy: there is one.
    """
    archive.jobs.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(archive.jobs / WATCH_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArchiveBusy(
                f"this archive is watched already, by {read_holder(descriptor) or 'another process'}",
                code="already-watched", remedy="One is enough: stop that one first",
            ) from error
        write_holder(descriptor, "`vidseek watch`")
        yield
    finally:
        os.close(descriptor)


def watcher_of(archive: Archive) -> Holder | None:
    """Return who watches an archive; None if nobody does."""
    try:
        descriptor = os.open(archive.jobs / WATCH_LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_holder(descriptor) or UNKNOWN
    else:
        return None
    finally:
        os.close(descriptor)


def work_on(archive: Archive, job_ids: list[str], *, told: Callable[[Job], None], at_stage: Callable[[str], None],
            waits: Callable[[str], None]) -> list[Job]:
    """Do these jobs here, or wait for the watcher of the archive to do them, and return them as they ended.

    Args:
        archive: The archive.
        job_ids: Of jobs that were queued.
        told: Called with each job that has ended.
        at_stage: Called with the name of each stage.
        waits: Called with who is waited for.
    """
    table = JobTable(archive.jobs)
    while True:
        jobs = table.get_all(job_ids)
        left = [job for job in jobs if not job.is_over]
        if not left:
            return jobs
        if (holder := watcher_of(archive)) is not None:
            _wait(table, archive, left, holder, told=told, at_stage=at_stage, waits=waits)
            continue
        with working_on(archive.state, "`vidseek add`", told=lambda other: waits(str(other or "others"))) as lock:
            table.bury(holds_lock=True)
            waiting = [job for job in table.get_all([each.id for each in left]) if job.state == "queued"]
            Worker(archive, lock, told=told, at_stage=at_stage).work(waiting)


def _wait(
    table: JobTable, archive: Archive, jobs: list[Job], holder: Holder, *, told: Callable[[Job], None],
    at_stage: Callable[[str], None], waits: Callable[[str], None],
) -> None:
    """Follow jobs that the watcher works on, until they have ended or it is there no more."""
    waits(str(holder))
    stage, left = "", jobs
    while left:
        time.sleep(0.2)
        now = table.get_all([job.id for job in left])
        for job in now:
            if job.is_over:
                told(job)
            elif job.stage and job.stage != stage:
                stage = job.stage
                at_stage(stage)
        left = [job for job in now if not job.is_over]
        if left and watcher_of(archive) is None:
            return


def _is_new(path: Path, job: Job | None) -> bool:
    """Whether a file of the inbox has no job yet, or was put there after its job had failed."""
    if job is None:
        return True
    with suppress(OSError):
        return job.state == "failed" and job.finished_at is not None and path.lstat().st_ctime > job.finished_at
    return False
