"""Puts jobs into the queue: files, URLs, names inside the source, removals. Nothing of the archive is changed here."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vidseek.archive import Archive
from vidseek.jobs.intake import Destination, check_file, check_name, require_room
from vidseek.jobs.job_table import Job, JobTable, new_id
from vidseek.settings import JobSettings, ServeSettings
from vidseek_media.errors import ArtifactError, InputRejected, ServiceError
from vidseek_media.files.fetching import Fetcher
from vidseek_media.files.folders import sweep, whole_file
from vidseek_media.output import disk_fault
from vidseek_media.sources.originals import FileUnreadable
from vidseek_media.urls import bare_url

FILES = "files"
"""Below `.vidseek/jobs`: the copies of files that wait."""
ORPHAN_SECONDS = 3600.0
"""A copy of which no row speaks after so long is of a process that was killed before it could insert one."""


class JobQueueFull(ServiceError):
    """As many jobs wait as may."""

    code = "too-many-jobs"
    retryable = True


@dataclass
class Queue:
    """The queue of an archive.

    Args:
        archive: The archive.
    """

    archive: Archive

    def __post_init__(self) -> None:
        self.settings = self.archive.section(JobSettings)
        self.table = JobTable(self.archive.jobs)

    def add_file(self, path: Path) -> Job:
        """Queue a video file: a copy of it, or the file itself where it lies in the source already.

        Raises:
            InputRejected: it is no file, or has no name of a video.
            ConfigError: no video can be put into the source.
            ArtifactError: the copy cannot be written.
            JobQueueFull: too many jobs wait.
        """
        destination = Destination.of(self.archive, self.settings)
        try:
            check_file(path, name=path.name)
        except OSError as error:
            raise FileUnreadable(f"{path} cannot be read: {error.strerror}", remedy="Look at its name and rights") from error
        if (uri := destination.uri_in(path)) is not None and destination.source.takes(uri) and not path.name.startswith("."):
            return self._insert(Job(new_id(), "add", "source", path.name, uri=uri))
        job_id = new_id()
        try:
            require_room(self.archive.jobs, path.stat().st_size)
            with whole_file(self.file_of(job_id)) as beside:
                shutil.copyfile(path, beside)
        except OSError as error:
            raise disk_fault(error) or ArtifactError(
                f"{error.filename or path}: {error.strerror}", code="not-writable", remedy="Mend the rights, then try again",
            ) from error
        return self.add_copy(job_id, path.name, origin="command")

    def add_copy(self, job_id: str, name: str, *, origin: str) -> Job:
        """Queue a file that lies at `file_of(job_id)` already; it is removed where it cannot be queued."""
        try:
            check_name(name)
            return self._insert(Job(job_id, "add", origin, name, file=f"{FILES}/{job_id}"))
        except BaseException:
            with suppress(OSError):
                self.file_of(job_id).unlink(missing_ok=True)
            raise

    def add_inbox(self, paths: Iterable[Path]) -> list[Job]:
        """Queue files of the inbox, where they stay until they are moved into the source."""
        jobs = [Job(new_id(), "add", "inbox", path.name, file=str(path.absolute())) for path in paths]
        return self.table.insert(jobs) if jobs else []

    def add_url(self, url: str) -> Job:
        """Queue a video that lies at an allowed host; the worker fetches it.

        Raises:
            UrlRefused: its host is not among `serve.url_hosts`, not known or not public.
            InputRejected: its last part is no name of a video.
            JobQueueFull: too many jobs wait.
        """
        Fetcher(self.archive.section(ServeSettings).url_hosts, max_bytes=1, timeout_seconds=10.0, what="video").check(url)
        name = bare_url(url).rstrip("/").rpartition("/")[2]
        check_name(name)
        Destination.of(self.archive, self.settings)
        return self._insert(Job(new_id(), "add", "url", name, url=url))

    def add_path(self, uri: str) -> Job:
        """Queue a file that lies in the source already.

        Raises:
            InputRejected: it leads out of the source, is not there, or is no video by its name.
            JobQueueFull: too many jobs wait.
        """
        destination = Destination.of(self.archive, self.settings)
        path = destination.source.path_of(uri)
        check_name(path.name)
        if not path.is_file() or not destination.source.takes(uri):
            raise InputRejected(
                f"{uri} is not in the source", code="not-in-source", remedy="Name it as it lies below ingest.source",
            )
        return self._insert(Job(new_id(), "add", "source", path.name, uri=os.path.normpath(uri)))

    def add_removal(self, video_id: str, name: str) -> Job:
        """Queue what follows on a decision to forget a video: its rows, frames, vectors and points are taken out."""
        return self.table.insert([Job(new_id(), "remove", "command", name, video_id=video_id)])[0]

    def add_scan(self, name: str) -> Job:
        """Queue a run over the source as it is."""
        return self._insert(Job(new_id(), "scan", "source", name))

    def file_of(self, job_id: str) -> Path:
        """Return where the copy of a job's file lies."""
        return self.archive.jobs / FILES / job_id

    def has_room(self) -> None:
        """Check that one more job may wait.

        Raises:
            JobQueueFull: as many wait as may.
        """
        if (num := self.table.num_open()) >= self.settings.max_waiting:
            raise JobQueueFull(f"{num} jobs wait already", remedy="Try again when some are done; does `vidseek watch` run?")

    def _insert(self, job: Job) -> Job:
        self.has_room()
        return self.table.insert([job])[0]


def sweep_files(folder: Path, table: JobTable) -> None:
    """Remove copies that nobody needs: of uploads that were cut off by a kill, and of jobs that are done or rejected."""
    files = folder / FILES
    sweep(files)
    if not files.is_dir() or not (copies := [each for each in files.iterdir() if not each.name.startswith(".")]):
        return
    states = table.files()
    for copy in copies:
        state = states.get(f"{FILES}/{copy.name}")
        with suppress(OSError):
            if state in ("done", "rejected") or (state is None and time.time() - copy.lstat().st_ctime > ORPHAN_SECONDS):
                copy.unlink()
