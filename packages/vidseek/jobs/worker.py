"""The worker: takes queued jobs, puts their videos into the source, and runs the stages once for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek.archive import Archive
from vidseek.jobs.inbox import DUPLICATES, REJECTED, Inbox
from vidseek.jobs.intake import Destination, check_file, known_videos, note_probes
from vidseek.jobs.job_table import Job, JobTable, this_worker
from vidseek.jobs.outcomes import Outcomes
from vidseek.jobs.stages import StagesRun, run_stages
from vidseek.jobs.submitting import sweep_files
from vidseek.settings import JobSettings, ServeSettings
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, ServiceError, VidseekError
from vidseek_media.files.folders import whole_file
from vidseek_media.forgotten import read_forgotten
from vidseek_media.output import disk_fault
from vidseek_media.settings import IngestSettings
from vidseek_media.urls import bare_url

if TYPE_CHECKING:
    from vidseek_media.decoding.probe import Probe

BEAT_SECONDS = 10.0
SHARE_OF_STAGES = 0.9
"""Of a job's progress; what comes before is checking and moving."""

Told = Callable[[Job], None]


@dataclass
class Worker:
    """Works on the jobs of one archive. Its caller holds the archive's lock (`working_on`).

    Args:
        archive: The archive.
        lock: The open file of the lock, which the process of the stages keeps too.
        what: The program that works, for who must wait for it.
        told: Called with a job when it has ended.
        at_stage: Called with the name of each stage when it begins.
        before_stages: Called when all files are in the source, and the stages have not begun.
    """

    archive: Archive
    lock: int
    what: str = "vidseek add"
    told: Told = field(default=lambda job: None)
    at_stage: Callable[[str], None] = field(default=lambda stage: None)
    before_stages: Callable[[], None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        self.settings = self.archive.section(JobSettings)
        self.table = JobTable(self.archive.jobs)
        self.inbox = Inbox(self.archive.root / self.settings.inbox, self.settings.settle_seconds)
        self.name = this_worker()

    def work(self, jobs: Sequence[Job]) -> list[Job]:
        """Do these jobs with one run of the stages, and return them as they ended.

        A job that cannot be done is rejected, or fails, and the others go on. When this is interrupted, those that have not
        ended go back into the queue.

        Args:
            jobs: In the state `queued`; those that are no more, because they were cancelled, are passed over.
        """
        begun = [job for job in jobs if self._begin(job)]
        try:
            with self._beating():
                sweep_files(self.archive.jobs, self.table)
                self._do(begun)
        except (KeyboardInterrupt, SystemExit):
            self.table.update([job.id for job in begun], only_from=("running",), state="queued", worker="", stage="")
            raise
        except Exception as error:
            fault = error if isinstance(error, VidseekError) else disk_fault(error)
            fault = fault or ServiceError(
                f"the worker met a fault of its own: {type(error).__name__}: {error}", code="worker-fault",
                remedy="Tell the maintainers, with what the worker printed",
            )
            self._end([job for job in self._now(begun) if not job.is_over], fault)
            if fault is not error and not isinstance(error, OSError):
                raise
        ended = self._now(begun)
        for job in self.table.prune(keep=self.settings.keep):
            if job.origin != "inbox":
                self._discard(job)
        return ended

    def _begin(self, job: Job) -> bool:
        now = time.time()
        return bool(self.table.update(
            [job.id], only_from=("queued",), state="running", worker=self.name, started_at=now, alive_at=now,
            attempts=job.attempts + 1,
        ))

    def _do(self, jobs: Sequence[Job]) -> None:
        adds, removals = [job for job in jobs if job.kind == "add"], [job for job in jobs if job.kind == "remove"]
        scans = [job for job in jobs if job.kind == "scan"]
        for job in removals:
            with self._guarding(job):
                self._forget(job)
        taken = self._take_in(adds) if adds else []
        going_on = [*taken, *self._still_running(removals), *scans]
        if not going_on:
            return
        ids = [job.id for job in going_on]
        self.before_stages()
        try:
            run = run_stages(self.archive, what=self.what, lock=self.lock, at=lambda stage, done: self._at(ids, stage, done))
        except VidseekError as error:
            self._end(going_on, error)
            return
        self._judge(going_on, run)

    def _take_in(self, jobs: Sequence[Job]) -> list[Job]:
        """Put what is new and sound of these into the source, and return the jobs that the stages must be run for."""
        destination = Destination.of(self.archive, self.settings)
        known, forgotten = known_videos(self.archive), read_forgotten(self.archive.decisions).video_ids
        files: dict[str, Path] = {}
        video_ids: dict[str, str] = {}
        taken: list[Job] = []
        for job in jobs:
            with self._guarding(job):
                files[job.id], video_ids[job.id] = self._checked(job, destination)
        moved = self.table.uris_of(set(video_ids.values()))
        are_searched = not self.table.owes_run()  # what a run that failed or died took in must go through the stages
        first: dict[str, Job] = {}
        new: list[Job] = []
        for job in (each for each in self._now(jobs) if each.id in files):
            video_id = video_ids[job.id]
            if video_id in forgotten:
                self._refuse(job, InputRejected(
                    f"{job.name} is a video that was forgotten ({video_id})", code="forgotten",
                    remedy=f"`vidseek forget --undo {video_id}` takes it back",
                ))
            elif video_id in first:
                self._duplicate(job, video_id, first[video_id].name)
            elif video_id in known and not job.uri and are_searched:
                self._duplicate(job, video_id, known[video_id])
            else:
                first[video_id] = job
                uris = [*moved.get(video_id, ()), *([known[video_id]] if video_id in known else [])]
                if not job.uri and (uri := _lying_at(uris, video_id, destination)):
                    job = self._taken_before(job, uri, video_id)
                (taken if job.uri else new).append(job)
        return [*taken, *self._put(new, files, video_ids, destination)]

    def _checked(self, job: Job, destination: Destination) -> tuple[Path, str]:
        """Return the file of a job and the id of its bytes, fetched where it has to be."""
        from vidseek_media.ids import video_id_of

        if job.uri and job.file:
            job = self._after_a_move(job, destination)
        if job.uri:
            path = destination.source.path_of(job.uri)
            if not path.is_file():
                raise InputRejected(f"{job.uri} is not in the source", code="not-in-source", remedy="Look at its name")
            return path, video_id_of(path)
        if job.url and not job.file:
            job = self._fetched(job)
        path = (self.archive.jobs / job.file).absolute()  # a confined worker reads it, in another folder
        if not job.file or not (path.exists() or path.is_symlink()):
            raise InputRejected(f"the file of {job.name} is there no more", code="job-file-gone", remedy="Add it again")
        check_file(path, name=job.name)
        return path, video_id_of(path)

    def _taken_before(self, job: Job, uri: str, video_id: str) -> Job:
        """Return a job whose video a worker put into the source and died before the stages ran."""
        path = self.archive.jobs / job.file
        if job.origin == "inbox":
            self.inbox.put_aside(path, DUPLICATES)
        else:
            path.unlink(missing_ok=True)
        self.table.update([job.id], file="", uri=uri, video_id=video_id)
        return self.table.get(job.id)

    def _after_a_move(self, job: Job, destination: Destination) -> Job:
        """Return a job whose worker died when it moved the file into the source, as if the move had ended or not begun."""
        from vidseek_media.ids import video_id_of

        file, moved = self.archive.jobs / job.file, destination.source.path_of(job.uri)
        is_moved = moved.is_file() and (not file.exists() or video_id_of(moved) == job.video_id)
        if is_moved:
            file.unlink(missing_ok=True)
            self.table.update([job.id], file="")
        else:
            self.table.update([job.id], uri="", video_id="")
        return self.table.get(job.id)

    def _fetched(self, job: Job) -> Job:
        from vidseek_media.files.fetching import Fetcher

        fetcher = Fetcher(
            self.archive.section(ServeSettings).url_hosts, max_bytes=self.settings.max_upload_mb * 2**20,
            timeout_seconds=self.settings.fetch_seconds, what="video",
        )
        file = f"files/{job.id}"
        with whole_file(self.archive.jobs / file) as beside, beside.open("wb") as opened:
            fetcher.fetch_to(job.url, opened)
        self.table.update([job.id], file=file, url=bare_url(job.url))
        return self.table.get(job.id)

    def _put(
        self, jobs: Sequence[Job], files: dict[str, Path], video_ids: dict[str, str], destination: Destination
    ) -> Iterator[Job]:
        """Probe these files in confined workers, and move those that are videos into the source."""
        probes: dict[Path, tuple[str, object]] = {}
        sound = dict(self._probed([files[job.id] for job in jobs]))
        for job in jobs:
            with self._guarding(job):
                outcome = sound[files[job.id]]
                if isinstance(outcome, VidseekError) and outcome.retryable:
                    raise outcome
                if isinstance(outcome, VidseekError):
                    raise InputRejected(
                        f"{job.name}: {outcome.message}", code="not-a-video",
                        remedy=outcome.remedy or "`vidseek probe FILE` says more",
                    )
                path = self._moved(job, files[job.id], video_ids[job.id], destination)
                probes[path] = (video_ids[job.id], outcome)
                yield self.table.get(job.id)
        note_probes(self.archive, probes)

    def _moved(self, job: Job, file: Path, video_id: str, destination: Destination) -> Path:
        """Move the file of a job into the source, and return where it is. Its row says before where that will be."""
        def note(uri: str) -> None:
            self.table.update([job.id], uri=uri, video_id=video_id)

        try:
            path = destination.put(file, job.name, below=self._below(job), noting=note)
        except Exception:
            note("")
            raise
        self.table.update([job.id], file="")
        return path

    def _probed(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Probe | VidseekError]]:
        from vidseek_media.decoding.probe import probe
        from vidseek_media.decoding.worker_batch import run_each

        settings = self.archive.section(IngestSettings)
        for outcome in run_each(
            probe, paths, workers=max(1, min(settings.workers, len(paths))), timeout_seconds=settings.timeout_seconds * 2,
            timeout_setting="ingest.timeout_seconds",
        ):
            found = outcome.error if outcome.error is not None else outcome.value
            assert found is not None
            yield outcome.item, found

    def _forget(self, job: Job) -> None:
        from vidseek.actions.forget import forget, plan_forget

        forget(self.archive, plan_forget(self.archive, job.video_id, again=True))

    def _judge(self, jobs: Sequence[Job], run: StagesRun) -> None:
        """End each job by what the stages made of its video."""
        jobs = self._now(jobs)
        outcomes = Outcomes.of(self.archive, [(job.video_id, job.uri) for job in jobs if job.kind == "add"])
        note = f"`dvc repro` brings up to date: {', '.join(run.open)}" if run.open else ""
        for job in jobs:
            if job.kind != "add":
                self.table.finish(job.id, "done", note=note)
            elif (error := outcomes.fault_of(job.video_id, job.uri)) is not None:
                self.table.finish(job.id, "failed" if error.retryable else "rejected", error=error)
            else:
                video_id = job.video_id or outcomes.video_id_of(job.uri)
                self.table.finish(job.id, "done", video_id=video_id, num_clips=outcomes.num_clips(video_id), note=note)
            self.told(self.table.get(job.id))

    def _at(self, job_ids: Sequence[str], stage: str, done: float) -> None:
        self.at_stage(stage)
        progress = (1 - SHARE_OF_STAGES) + SHARE_OF_STAGES * done
        self.table.update(job_ids, only_from=("running",), stage=stage, progress=progress)

    def _still_running(self, jobs: Iterable[Job]) -> list[Job]:
        return [job for job in self._now(jobs) if job.state == "running"]

    def _now(self, jobs: Iterable[Job]) -> list[Job]:
        return self.table.get_all([job.id for job in jobs])

    @contextmanager
    def _guarding(self, job: Job) -> Iterator[None]:
        """End a job where this block cannot do what it is for."""
        try:
            yield
        except InputRejected as error:
            self._refuse(job, error)
        except ConfigError as error:
            self._end([job], error)
        except (VidseekError, OSError) as error:
            fault = error if isinstance(error, VidseekError) else disk_fault(error) or ArtifactError(
                f"{error.filename or job.name}: {error.strerror}", code="not-writable",
                remedy="Make room or mend the rights, then try it again",
            )
            self._end([job], fault)

    def _refuse(self, job: Job, error: InputRejected) -> None:
        """End a job whose input cannot be used; one that may go well another time has failed."""
        self.table.finish(job.id, "failed" if error.retryable else "rejected", error=error)
        ended = self.table.get(job.id)
        if not error.retryable:
            self._discard(ended)
        self.told(ended)

    def _duplicate(self, job: Job, video_id: str, of: str) -> None:
        self.table.finish(
            job.id, "done", video_id=video_id, duplicate=1, num_clips=0,
            note=f"its bytes are in the archive already, as {of}; nothing was added",
        )
        ended = self.table.get(job.id)
        self._discard(ended)
        self.told(ended)

    def _end(self, jobs: Iterable[Job], error: VidseekError) -> None:
        for job in jobs:
            self.table.finish(job.id, "failed", error=error)
            self.told(self.table.get(job.id))

    def _below(self, job: Job) -> str:
        """Return the folder within the inbox that the file of a job lies in; empty for all others."""
        return self.inbox.relative(Path(job.file)) if job.origin == "inbox" else ""

    def _discard(self, job: Job) -> None:
        """Remove the copy of a job that has ended; a file of the inbox is put aside, and never removed."""
        path = self.archive.jobs / job.file
        if not job.file or not (path.exists() or path.is_symlink()):
            return
        if job.origin == "inbox":
            aside = self.inbox.put_aside(path, DUPLICATES if job.duplicate else REJECTED) if job.is_over else None
            self.table.update([job.id], file=str(aside) if aside else job.file)
            return
        with suppress(OSError):
            path.unlink()

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Say every few seconds that this worker is alive."""
        is_over = threading.Event()

        def beat() -> None:
            while not is_over.wait(BEAT_SECONDS):
                with suppress(VidseekError):
                    self.table.beat(worker=self.name)

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def _lying_at(uris: Iterable[str], video_id: str, destination: Destination) -> str:
    """Return the first of these names in the source under which this video lies; empty if none."""
    from vidseek_media.ids import video_id_of

    for uri in uris:
        with suppress(OSError, InputRejected):
            path = destination.source.path_of(uri)
            if path.is_file() and video_id_of(path) == video_id:
                return uri
    return ""
