"""The one lock of an archive: a stage of `dvc repro`, `vidseek add` and `vidseek watch` never work on it at once.

The lock is `flock` on `.vidseek/work.lock`, which the death of a process opens. The file names its holder. Between two
stages of one `dvc repro` no stage holds it: so a stage also writes down the process of DVC, and as long as that lives the
archive is its own. A worker waits for it. A stage does not wait for a worker: DVC holds locks of its own on what the stage
writes, and the worker needs these. While the stages of a worker run, they hold these locks (`pipelines/grow.py`), so that a
`dvc repro` ends before it has removed the outputs of its first stage.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from vidseek_media.errors import ServiceError
from vidseek_media.files.json_files import parse_json, write_json

LOCK_NAME = "work.lock"
RUN_NAME = "run.json"
"""Beside the lock: the `dvc repro` that is under way."""
POLL_SECONDS = 0.5
_MOST_PARENTS = 8
WORKER_VARIABLE = "VIDSEEK_WORKER"
"""Set for what the holder of the lock starts: it has the lock with its parent. Its value is what the parent is."""


class ArchiveBusy(ServiceError):
    """Another process works on the archive now."""

    code = "archive-busy"
    retryable = True


@dataclass(frozen=True)
class Holder:
    """A process that works on the archive."""

    process: int
    started: int
    """Of the process, in ticks since the machine began: process ids come again."""
    what: str
    since: str

    @classmethod
    def of(cls, process: int, what: str) -> Holder:
        """Return this process, or another one that is there."""
        return cls(process, start_ticks_of(process) or 0, what, datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        return self.started != 0 and start_ticks_of(self.process) == self.started

    def __str__(self) -> str:
        return f"{self.what} (process {self.process}, since {self.since})"


UNKNOWN = Holder(0, 0, "another process", "")
"""Who holds a lock, where its file does not say."""


@contextmanager
def working_on(state: Path, what: str, *, told: Callable[[Holder | None], object]) -> Iterator[int]:
    """Hold the archive's lock in this block, once it is free; yields its open file, for what this process starts to keep it
    too.

    Args:
        state: `.vidseek` of the archive.
        what: The program that works, for who must wait for it: `vidseek watch`.
        told: Called once, before a wait, with who has it.

    Raises:
        OSError: the folder cannot be written.
    """
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        is_told = False
        while (holder := _taken(descriptor, state)) is not None:
            if not is_told:
                told(holder[0])
                is_told = True
            time.sleep(POLL_SECONDS)
        write_holder(descriptor, what)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def stage_at_work(state: Path, stage: str) -> Iterator[None]:
    """Hold the archive's lock for one stage of `dvc repro`, and write down the `dvc repro` that it is of.

    A stage that the worker started has the lock already.

    Args:
        state: `.vidseek` of the archive.
        stage: Its name.

    Raises:
        ArchiveBusy: a worker has the archive.
    """
    if os.environ.get(WORKER_VARIABLE):
        yield
        return
    state.mkdir(parents=True, exist_ok=True)
    run = _dvc_above()
    descriptor = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Two stages of one `dvc repro` never run at once, and those of two are told apart by DVC itself: so stages share.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArchiveBusy(
                f"the stage {stage} has not begun: {read_holder(descriptor) or 'another process'} works on this archive",
                remedy="Run `dvc repro` again when it has ended; `vidseek jobs` says how far it is",
            ) from error
        if run is not None:
            _note_run(state, run)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int, state: Path) -> tuple[Holder | None] | None:
    """Take the lock; None where that went well, else who has it, where that is known."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holders = (_run_of(state), read_holder(descriptor))
        return (next((each for each in holders if each is not None and each.is_alive), None),)
    run = _run_of(state)
    if run is None or not run.is_alive:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return (run,)


def _note_run(state: Path, run: Holder) -> None:
    known = _run_of(state)
    if known is None or (known.process, known.started) != (run.process, run.started):
        with suppress(OSError):  # a full disk is told by the stage itself
            write_json(state / RUN_NAME, asdict(run))


def _run_of(state: Path) -> Holder | None:
    with suppress(OSError):
        return _holder((state / RUN_NAME).read_bytes())
    return None


def read_holder(descriptor: int) -> Holder | None:
    """Return who wrote itself into the file of a lock; None if that cannot be read."""
    return _holder(os.pread(descriptor, 4096, 0))


def write_holder(descriptor: int, what: str) -> None:
    """Write this process into the file of a lock that it holds.

    Args:
        descriptor: The open file.
        what: The program, for who must wait for it.
    """
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(Holder.of(os.getpid(), what))).encode(), 0)


def _holder(content: bytes) -> Holder | None:
    try:
        return Holder(**parse_json(content))
    except (ValueError, TypeError):
        return None


def _dvc_above() -> Holder | None:
    """The process of DVC that started this stage; None where a person did, or where the machine does not tell."""
    process = os.getppid()
    for _ in range(_MOST_PARENTS):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        if any(word.rpartition(b"/")[2] == b"dvc" for word in words[:3]):
            return Holder.of(process, "`dvc repro`")
        fields = _stat_of(process)
        if not fields or int(fields[1]) <= 1:
            return None
        process = int(fields[1])
    return None


def start_ticks_of(process: int) -> int | None:
    """Return when a process was started, in ticks since the machine began; None if there is none, or it has ended."""
    fields = _stat_of(process)
    return int(fields[19]) if len(fields) > 19 and fields[0] != "Z" else None


def _stat_of(process: int) -> list[str]:
    """Fields of /proc/<process>/stat from the state on; empty where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
