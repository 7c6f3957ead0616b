"""Apply one function to many inputs in worker processes. A crash or a hang costs one input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer, Limits, Worker
from vidseek_media.errors import VidseekError
from vidseek_media.settings import RECYCLE_AFTER, WORKER_MEMORY_MIB
from vidseek_media.terminal.progress import counted

Input = TypeVar("Input")

Output = TypeVar("Output")

_END = object()


@dataclass(frozen=True)
class Outcome(Generic[Input, Output]):
    """The result for one input: a value or an error."""

    item: Input
    value: Output | None
    error: VidseekError | None


def run_each(
    function: Callable[[Input], Output],
    items: Iterable[Input],
    *,
    workers: int,
    timeout_seconds: float | Callable[[Input], float],
    timeout_setting: str = "",
    memory_mib: int = WORKER_MEMORY_MIB,
    recycle_after: int = RECYCLE_AFTER,
) -> Generator[Outcome[Input, Output], None, None]:
    """Apply a function to each item in worker processes, and yield outcomes in the order in which they are done.

    An error of ours is the item's outcome, as is any other exception (as InputRejected), the death of the worker, and a
    time-out (both as WorkerLost). Closing the generator stops the workers.

    Args:
        function: Defined in a module, not in the script that is run, because it is pickled.
        items: Inputs; pickled.
        workers: Processes, at least 1.
        timeout_seconds: For one item, above 0; a number, or a function of the item. Waiting for a processor does not count.
        timeout_setting: The name of the parameter that sets the time-out, for messages.
        memory_mib: Memory of a worker. An item that needs more fails; a worker that keeps half of it after an item is
            replaced.
        recycle_after: A worker is replaced after this many items, at least 1.

    Raises:
        ConfigError: worker processes cannot be started.
    """
    todo = iter(items)
    item = next(todo, _END)
    if item is _END:
        return
    seconds_of = timeout_seconds if callable(timeout_seconds) else lambda _: timeout_seconds
    limits = Limits(math.inf, memory_mib, recycle_after, timeout_setting=timeout_setting)
    server = ForkServer([_module_of(function)])
    pool: list[Worker] = []
    busy: dict[Worker, Input] = {}
    try:
        while item is not _END or busy:
            while item is not _END and (idle := _idle_worker(pool, busy, server, workers, limits)):
                idle.give(Job(function, (item,)), timeout_seconds=seconds_of(cast(Input, item)))
                busy[idle] = item  # type: ignore[assignment]
                item = next(todo, _END)
            yield from _collect(pool, busy)
    finally:
        for worker in pool:
            worker.stop()
        server.close()


@contextmanager
def run_videos(
    function: Callable[[Input], Output],
    items: Sequence[Input],
    *,
    label: str,
    workers: int,
    timeout_seconds: float | Callable[[Input], float],
    timeout_setting: str = "",
    memory_mib: int = WORKER_MEMORY_MIB,
    recycle_after: int = RECYCLE_AFTER,
) -> Iterator[Iterable[Outcome[Input, Output]]]:
    """Give the outcomes of `run_each` with a progress bar; leaving the block stops the workers.

    Args:
        function: As `run_each` takes it.
        items: One for each video.
        label: Stands before the bar.
        workers: Most processes; no more are started than there are items.
        timeout_seconds: For one item, above 0; a number, or a function of the item.
        timeout_setting: The name of the parameter that sets the time-out, for messages.
        memory_mib: Memory of a worker.
        recycle_after: A worker is replaced after this many items, at least 1.

    Raises:
        ConfigError: worker processes cannot be started.
    """
    with closing(run_each(
        function, items, workers=max(1, min(workers, len(items))), timeout_seconds=timeout_seconds,
        timeout_setting=timeout_setting, memory_mib=memory_mib, recycle_after=recycle_after,
    )) as outcomes:
        yield counted(outcomes, label, unit="video", total=len(items))


def run_one(function: Callable[..., Output], path: Path, *, limits: Limits) -> Output:
    """Return `function(path)`, called in a process of its own that can read only that file.

    Args:
        function: Defined in a module; takes the path.
        path: The file.
        limits: Of time and memory.

    Raises:
        VidseekError: as `function` raises it.
        WorkerLost: the process died or ran out of time.
        ConfigError: no process can be started.
    """
    server = ForkServer([_module_of(function)])
    worker = server.fork(limits, Confinement.ARCHIVE)
    try:
        value: Output = worker.call(Job(function, (path,), file=path))
        return value
    finally:
        worker.stop()
        server.close()


def _idle_worker(
    pool: list[Worker], busy: dict[Worker, Any], server: ForkServer, most: int, limits: Limits
) -> Worker | None:
    for worker in pool:
        if worker not in busy:
            return worker
    if len(pool) < max(most, 1):
        pool.append(server.fork(limits))
        return pool[-1]
    return None


def _collect(pool: list[Worker], busy: dict[Worker, Input]) -> Iterator[Outcome[Input, Any]]:
    """Wait until a busy worker answers, dies or runs out of time, and yield the outcomes."""
    nearest = min(worker.deadline for worker in busy)
    ready = wait([worker.fileno() for worker in busy], timeout=max(nearest - time.monotonic(), 0))
    for worker in list(busy):
        if worker.fileno() not in ready and (time.monotonic() < worker.deadline or worker.put_off()):
            continue
        item, value, error = busy.pop(worker), None, None
        try:
            value = worker.take()
        except VidseekError as lost:
            error = lost
        if worker.is_spent:
            worker.stop()
            pool.remove(worker)
        yield Outcome(item, value, error)


def _module_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(function.__module__)
