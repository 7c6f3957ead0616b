"""One function over many inputs in worker processes: a crash or a hang costs that input and no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

from vidseek_media.errors import ConfigError, InputRejected, VidseekError

Input = TypeVar("Input")
Output = TypeVar("Output")

START_SECONDS = 120.0
"""A worker that has not come up by then never will."""

RECYCLE_AFTER = 200
"""Decoders leak: a worker is replaced after this many inputs."""

WORKER_MEMORY_MIB = 4096
"""Enough for 8K video with 16 reference frames."""


@dataclass(frozen=True)
class Limits:
    """What one input may cost, and how long a worker lives."""

    timeout_seconds: float
    memory_mib: int = WORKER_MEMORY_MIB
    recycle_after: int = RECYCLE_AFTER


class WorkerLost(InputRejected):
    """The worker died or ran out of time on this input; another try may do better."""

    code = "worker_lost"


@dataclass(frozen=True)
class Outcome(Generic[Input, Output]):
    """What became of one input: a value or an error, never both."""

    item: Input
    value: Output | None
    error: VidseekError | None


def run_each(
    function: Callable[[Input], Output],
    items: Iterable[Input],
    *,
    workers: int,
    timeout_seconds: float,
    memory_mib: int = WORKER_MEMORY_MIB,
    recycle_after: int = RECYCLE_AFTER,
) -> Generator[Outcome[Input, Output], None, None]:
    """Apply `function` to each item in `workers` spawned processes, outcomes in the order in which they are done.

    Closing the generator stops the workers.

    `function`, items and values travel by pickle; a script that calls this needs the `if __name__ == "__main__"` guard.
    An error of ours is the item's outcome, as is any other exception (as InputRejected), the death of the worker, and
    more than `timeout_seconds` (both as WorkerLost). More than `memory_mib` of a worker's own memory
    fails inside it and costs that input. A worker that still holds half of that, or has had `recycle_after` inputs, is
    replaced.

    Raises:
        ConfigError: worker processes cannot be started.
    """
    todo = iter(items)
    limits = Limits(timeout_seconds, memory_mib, recycle_after)
    pool: list[_Worker[Input, Output]] = []
    try:
        item = next(todo, _END)
        while item is not _END or any(w.is_busy for w in pool):
            while item is not _END and (idle := _idle_worker(pool, function, workers, limits)):
                idle.give(item)  # type: ignore[arg-type]
                item = next(todo, _END)
            yield from _collect(pool)
    finally:
        for worker in pool:
            worker.stop()


_END = object()


def _idle_worker(
    pool: list[_Worker[Input, Output]], function: Callable[[Input], Output], most: int, limits: Limits
) -> _Worker[Input, Output] | None:
    for worker in pool:
        if not worker.is_busy:
            return worker
    if len(pool) < max(most, 1):
        pool.append(_Worker(function, limits))
        return pool[-1]
    return None


def _collect(pool: list[_Worker[Input, Output]]) -> Iterator[Outcome[Input, Output]]:
    """Wait for the first thing that happens to a busy worker, and tell it."""
    busy = [w for w in pool if w.is_busy]
    nearest = min(w.deadline for w in busy)
    ready = wait([w.connection for w in busy], timeout=max(nearest - time.monotonic(), 0))
    for worker in busy:
        outcome = None
        if worker.connection in ready:
            outcome = worker.take()
        elif time.monotonic() >= worker.deadline:
            outcome = worker.give_up()
        if worker.is_spent:
            worker.stop()
            pool.remove(worker)
        if outcome is not None:
            yield outcome


class _Worker(Generic[Input, Output]):
    def __init__(self, function: Callable[[Input], Output], limits: Limits) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function, limits.memory_mib), daemon=True)
        self._process.start()
        theirs.close()
        self._has_started = False
        self._num_taken = 0
        self._item: Input | None = None
        self._limits = limits
        self.is_busy = self.is_spent = False
        self.deadline = 0.0

    def give(self, item: Input) -> None:
        self._item, self.is_busy = item, True
        self.deadline = time.monotonic() + (self._limits.timeout_seconds if self._has_started else START_SECONDS)
        with contextlib.suppress(OSError):  # It died while idle; `take` finds the end of its pipe and says so.
            self.connection.send(item)

    def take(self) -> Outcome[Input, Output] | None:
        """The outcome, or None where the worker has only said that it is up."""
        try:
            kind, content, has_grown = self.connection.recv()
        except (EOFError, OSError):
            return self._lost()
        if kind == "up":
            self._has_started = True
            self.deadline = time.monotonic() + self._limits.timeout_seconds
            return None
        self._num_taken += 1
        self.is_spent = has_grown or self._num_taken >= self._limits.recycle_after
        return self._outcome(content if kind == "value" else None, content if kind == "error" else None)

    def give_up(self) -> Outcome[Input, Output]:
        self.is_spent = True
        if not self._has_started:
            raise _cannot_start(f"nothing heard for {START_SECONDS:g} s")
        return self._outcome(None, WorkerLost(f"took longer than {self._limits.timeout_seconds:g} s"))

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _lost(self) -> Outcome[Input, Output]:
        self.is_spent = True
        self._process.join(5)
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not self._has_started:
            raise _cannot_start(how)
        return self._outcome(None, WorkerLost(f"crashed the worker process ({how})"))

    def _outcome(self, value: Output | None, error: VidseekError | None) -> Outcome[Input, Output]:
        item, self._item, self.is_busy = self._item, None, False
        return Outcome(item, value, error)  # type: ignore[arg-type]


def _cannot_start(how: str) -> ConfigError:
    return ConfigError(
        f"a worker process did not come up: {how}",
        remedy='A script that starts workers must do so under `if __name__ == "__main__":`',
    )


def _serve(connection: Connection, function: Callable[[Input], Output], memory_mib: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it stops its workers.
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mib * 2**20,) * 2)
    connection.send(("up", None, False))
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[str, object] = ("value", function(item))
        except VidseekError as error:
            answer = ("error", error)
        except MemoryError:
            answer = ("error", InputRejected(f"takes more than {memory_mib} MiB of memory"))
        except Exception as error:  # noqa: BLE001 - whatever one input provokes is that input's outcome
            answer = ("error", InputRejected(f"unexpected {type(error).__name__}: {error}"))
        try:
            connection.send((*answer, _resident_mib() > memory_mib / 2))
        except OSError:
            return


def _resident_mib() -> float:
    """What this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 2**20
