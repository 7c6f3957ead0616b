"""The table of jobs, in SQLite: what was asked for, how far it is, and what came of it.

Commands and the service insert rows and read them. One worker, which holds the archive's lock, takes them (`worker.py`). A
row that is running names its worker and when that was last alive: who reads it can tell that the worker died.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from vidseek.jobs.archive_lock import start_ticks_of
from vidseek.sqlite_file import SqliteFile
from vidseek_media.errors import ArtifactError, InputRejected, VidseekError

TABLE_NAME = "jobs.sqlite3"
State = Literal["queued", "running", "done", "rejected", "failed", "cancelled"]
Kind = Literal["add", "remove", "scan"]
OPEN: tuple[State, ...] = ("queued", "running")
RETRIED: tuple[State, ...] = ("failed", "cancelled")
"""States from which a job may be tried again."""
LEASE_SECONDS = 60.0
"""A worker says so often, and more often, that it is alive. One that is silent for longer has died."""
PRUNE_SECONDS = 3600.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    origin TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    file TEXT NOT NULL DEFAULT '',
    url TEXT NOT NULL DEFAULT '',
    uri TEXT NOT NULL DEFAULT '',
    video_id TEXT NOT NULL DEFAULT '',
    stage TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    alive_at REAL,
    worker TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    num_clips INTEGER,
    duplicate INTEGER NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    remedy TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, created_at);
"""


class JobGone(InputRejected):
    """There is no such job, or no more."""

    category = "job_not_found"
    code = "job-not-found"


class JobState(InputRejected):
    """The job is in a state in which that cannot be done."""

    category = "job_state"
    code = "job-state"


@dataclass(frozen=True)
class Job:
    """One row: a video to add or to take out, or a look at the source."""

    id: str
    kind: Kind
    origin: str
    """`command`, `upload`, `url`, `source`, `inbox`."""
    name: str
    """The file's name as it was given, for people; of a removal the video's."""
    state: State = "queued"
    file: str = ""
    """The copy that waits below `.vidseek/jobs`, relative to it; empty once it is in the source."""
    url: str = ""
    """That it is fetched from, without what may be secret in it once it was fetched."""
    uri: str = ""
    """Its name in the source, once it is there."""
    video_id: str = ""
    stage: str = ""
    """That runs now, or ran last."""
    progress: float = 0.0
    """0 to 1."""
    created_at: float = 0.0
    """Seconds since 1970, as all times here."""
    started_at: float | None = None
    finished_at: float | None = None
    alive_at: float | None = None
    """When its worker was last alive."""
    worker: str = ""
    """`<process id>@<host>`."""
    attempts: int = 0
    num_clips: int | None = None
    """Clips of it that are searched."""
    duplicate: int = 0
    """1 where its bytes were in the archive already."""
    code: str = ""
    """Why it was rejected or failed: a code of docs/errors.md."""
    reason: str = ""
    remedy: str = ""
    note: str = ""
    """What is left to do afterwards."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state not in OPEN

    def to_json(self) -> dict[str, Any]:
        """Return it as the command and the API show it."""
        times = {name: _rfc3339(getattr(self, name)) for name in ("created_at", "started_at", "finished_at")}
        ended = self.finished_at if self.finished_at is not None else time.time()
        seconds = None if self.started_at is None else round(max(0.0, ended - self.started_at), 1)
        failed = self.code or self.reason
        shown = ("id", "kind", "origin", "name", "state", "stage", "attempts", "num_clips", "note")
        return {
            **{name: getattr(self, name) for name in shown},
            "progress": round(self.progress, 3), "uri": self.uri or None, "video_id": self.video_id or None,
            "duplicate": bool(self.duplicate), **times, "seconds": seconds,
            "error": {"code": self.code, "message": self.reason, "remedy": self.remedy} if failed else None,
        }


_COLUMNS = tuple(each.name for each in fields(Job))


@dataclass
class JobTable:
    """The jobs of an archive. Each call opens the file for itself: any number of threads and processes may use it.

    Args:
        folder: `.vidseek/jobs` of the archive; it is made with the first job.
    """

    folder: Path
    lease_seconds: float = field(default=LEASE_SECONDS)

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        return self.folder / TABLE_NAME

    def insert(self, jobs: Iterable[Job]) -> list[Job]:
        """Add jobs to the queue; all of them or none.

        Raises:
            ArtifactError: the disk does not take it, or the file is no table of jobs.
        """
        kept = [replace(job, created_at=job.created_at or time.time()) for job in jobs]
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        with self._file.writing() as db:
            db.executemany(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({marks})", [asdict(job) for job in kept])
        return kept

    def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobGone: there is none.
        """
        return self.get_all([job_id])[0]

    def get_all(self, job_ids: Sequence[str]) -> list[Job]:
        """Return several jobs, in the order in which they are asked for, by one look at the table.

        Raises:
            JobGone: there is none of one of these.
        """
        found = {
            job.id: job for job in self._select("WHERE id IN (SELECT value FROM json_each(?))", (json.dumps([*job_ids]),))
        }
        if gone := next((each for each in job_ids if each not in found), None):
            raise JobGone(f"there is no job {gone[:64]!r}", remedy="`vidseek jobs` lists those that are kept")
        return [found[each] for each in job_ids]

    def list_jobs(self, *, limit: int, offset: int = 0, states: Sequence[str] = ()) -> tuple[list[Job], int]:
        """Return jobs, the newest first, and how many there are of all.

        Args:
            limit: How many, at most.
            offset: How many to skip.
            states: Only jobs in these; empty takes all.
        """
        # A state may have changed by the death of a worker, which no column says: so all are looked at.
        every = [job for job in self._select("ORDER BY created_at DESC, rowid DESC") if not states or job.state in states]
        return every[offset : offset + limit], len(every)

    def uris_of(self, video_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return the names under which workers put videos into the source, or meant to, by id, the newest first."""
        found: dict[str, list[str]] = {}
        for job in self._select(
            "WHERE kind = 'add' AND uri != '' AND video_id IN (SELECT value FROM json_each(?)) "
            "ORDER BY created_at DESC, rowid DESC", (json.dumps([*video_ids]),)
        ):
            found.setdefault(job.video_id, []).append(job.uri)
        return found

    def files(self) -> dict[str, State]:
        """Return the states of all jobs that have a file, by that."""
        return {job.file: job.state for job in self._select("WHERE file != ''")}

    def num_open(self) -> int:
        """Return the number of jobs that wait or run."""
        with self._file.reading() as db:
            if db is None:
                return 0
            return int(db.execute("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone()[0])

    def queued(self, *, limit: int) -> list[Job]:
        """Return the oldest jobs that wait."""
        return self._select("WHERE state = 'queued' ORDER BY created_at, rowid LIMIT ?", (limit,))

    def running(self) -> list[Job]:
        """Return the jobs that a worker has in hand, those whose worker died left out."""
        return [job for job in self._select("WHERE state = 'running' ORDER BY created_at, rowid") if job.state == "running"]

    def update(self, job_ids: Iterable[str], *, only_from: Sequence[State] = (), **values: Any) -> int:
        """Set columns of jobs, and return how many rows were changed.

        Args:
            job_ids: Which.
            only_from: Rows in another state are left as they are; empty takes all.
            values: By name of the column.
        """
        unknown = values.keys() - set(_COLUMNS)
        assert not unknown, unknown
        sets = ", ".join(f"{name} = ?" for name in values)
        among = f" AND state IN ({', '.join('?' * len(only_from))})" if only_from else ""
        with self._file.writing() as db:
            changed = [
                db.execute(f"UPDATE jobs SET {sets} WHERE id = ?{among}", (*values.values(), each, *only_from)).rowcount
                for each in job_ids
            ]
        return sum(changed)

    def beat(self, *, worker: str) -> None:
        """Say that this worker is alive."""
        with self._file.writing() as db:
            db.execute("UPDATE jobs SET alive_at = ? WHERE state = 'running' AND worker = ?", (time.time(), worker))

    def finish(self, job_id: str, state: State, *, error: VidseekError | None = None, **values: Any) -> None:
        """End a job that has not ended.

        Args:
            job_id: Which.
            state: `done`, `rejected`, `failed` or `cancelled`.
            error: Why it was rejected or failed.
            values: Other columns.
        """
        told = {"code": error.code, "reason": error.message, "remedy": error.remedy} if error else {}
        ended = {"progress": 1.0} if state == "done" else {}
        self.update([job_id], only_from=OPEN, state=state, finished_at=time.time(), **{**ended, **told, **values})

    def retry(self, job_id: str) -> Job:
        """Put a job that failed, died or was cancelled into the queue again.

        Raises:
            JobGone: there is none.
            JobState: it has not ended, or well.
        """
        job = self.get(job_id)
        if job.state not in RETRIED:
            raise JobState(f"job {job.id} is {job.state}", remedy=f"One that is {' or '.join(RETRIED)} can be tried again")
        reset: dict[str, Any] = {
            "state": "queued", "stage": "", "progress": 0.0, "started_at": None, "finished_at": None, "alive_at": None,
            "worker": "", "code": "", "reason": "", "remedy": "", "note": "",
        }
        if not self.update([job.id], only_from=(*RETRIED, "running"), **reset):
            raise JobState(f"job {job.id} was begun meanwhile", remedy="Look at it again")
        return self.get(job.id)

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue.

        Raises:
            JobGone: there is none.
            JobState: it is running, or has ended.
        """
        if not self.update([job_id], only_from=("queued",), state="cancelled", finished_at=time.time()):
            job = self.get(job_id)
            raise JobState(
                f"job {job.id} is {job.state}",
                remedy="Wait for its end, then DELETE /v1/videos/{id} or `vidseek forget` takes the video out"
                       if job.state == "running" else "Only a job that waits can be cancelled",
            )
        return self.get(job_id)

    def bury(self, *, holds_lock: bool = False) -> list[Job]:
        """Write down as failed what died with its worker, and return these jobs. For a worker, when it begins.

        Args:
            holds_lock: Whether the caller holds the archive's lock, and works on no job yet: then no other worker of this
                machine lives, whatever its process id says.
        """
        died = [job for job in self._select("WHERE state = 'running'", holds_lock=holds_lock) if job.state == "failed"]
        for job in died:
            self.update([job.id], only_from=("running",), state="failed", finished_at=job.finished_at, code=job.code,
                        reason=job.reason, remedy=job.remedy)
        return died

    def owes_run(self) -> bool:
        """Whether the last run of the stages did not end well: what it put into the source may not be searched yet."""
        began = "started_at IS NOT NULL AND (stage != '' OR uri != '' OR kind != 'add')"
        last = self._select(f"WHERE {began} ORDER BY started_at DESC, rowid DESC LIMIT 1")
        return bool(last) and last[0].state == "failed"

    def prune(self, *, keep: int, seconds: float = PRUNE_SECONDS) -> list[Job]:
        """Remove the oldest jobs that have ended, until `keep` of them are left, and return them.

        Args:
            keep: How many stay.
            seconds: One that ended less long ago stays too: who added a thousand files still asks for each.
        """
        until = time.time() - seconds
        over = [
            job for job in [job for job in self._select("ORDER BY created_at DESC, rowid DESC") if job.is_over][keep:]
            if (job.finished_at or job.created_at) <= until
        ]
        if over:
            with self._file.writing() as db:
                db.executemany("DELETE FROM jobs WHERE id = ?", [(job.id,) for job in over])
        return over

    def _select(self, clause: str, values: Sequence[Any] = (), *, holds_lock: bool = False) -> list[Job]:
        with self._file.reading() as db:
            rows = [] if db is None else db.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs {clause}", values).fetchall()
        return [self._seen(Job(**dict(zip(_COLUMNS, row, strict=True))), holds_lock=holds_lock) for row in rows]

    def _seen(self, job: Job, *, holds_lock: bool) -> Job:
        """Return a job as it is: one whose worker is no more has failed, whatever its row says."""
        if job.state != "running":
            return job
        is_gone = holds_lock and _is_here(job.worker)
        if not is_gone and is_alive(job.worker, job.alive_at, lease_seconds=self.lease_seconds):
            return job
        return replace(
            job, state="failed", finished_at=job.alive_at, code="worker-died",
            reason=f"the worker {job.worker} died in the stage {job.stage or 'before the first'}",
            remedy="Try it again: `vidseek jobs retry ID`, or POST /v1/jobs/{id}/retry",
        )

    @property
    def _file(self) -> SqliteFile:
        return SqliteFile(self.path, _SCHEMA, _VERSION, "a table of jobs", _broken, "only the list of jobs is lost")


def _broken(message: str, remedy: str) -> ArtifactError:
    return ArtifactError(message, code="broken-jobs", remedy=remedy)


def new_id() -> str:
    """Return an id for a job: 20 hex digits, of which the first twelve are the time, so that ids are in order of time."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(4)}"


def this_worker() -> str:
    """Return the name of this process as a worker."""
    return f"{os.getpid()}@{os.uname().nodename}"


def is_alive(worker: str, alive_at: float | None, *, lease_seconds: float = LEASE_SECONDS) -> bool:
    """Whether a worker lives, as far as can be told: on this machine its process, on another by what it said last.

    Args:
        worker: By `this_worker`.
        alive_at: When it last said so.
        lease_seconds: How long it may say nothing.
    """
    process = worker.partition("@")[0]
    if _is_here(worker) and process.isdigit() and not _has_process(int(process)):
        return False
    return alive_at is not None and time.time() - alive_at < lease_seconds


def _is_here(worker: str) -> bool:
    return worker.partition("@")[2] == os.uname().nodename


def _has_process(process: int) -> bool:
    """Whether there is this process. One that has ended stays in the list until its parent asks for it: that is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, of whom /proc may not tell
        return True
    return start_ticks_of(process) is not None


def _rfc3339(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace(
        "+00:00", "Z"
    )
