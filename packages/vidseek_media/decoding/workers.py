"""One function over many inputs in worker processes: a crash or a hang costs that input and no other.

Workers are forked from a server process that has imported what they need and knows no secret (`worker_process.py`), and
are confined before they see an input (`sandbox.py`). `run_each` is the batch over them; the service keeps pools.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.worker_process import ARRAY, ERROR, Ended, Job, Setup, receive, send
from vidseek_media.errors import ConfigError, InputRejected, VidseekError
from vidseek_media.settings import RECYCLE_AFTER, WORKER_MEMORY_MIB

Input = TypeVar("Input")
Output = TypeVar("Output")

START_SECONDS = 120.0
"""A worker that has not come up by then never will."""

MAX_ANSWER_BYTES = 2**30

_BEGIN = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from vidseek_media.decoding.worker_process import main; main(int(sys.argv[2]), json.loads(sys.argv[3]))"
)


@dataclass(frozen=True)
class Limits:
    """What one input may cost, and how long a worker lives."""

    timeout_seconds: float
    memory_mib: int = WORKER_MEMORY_MIB
    recycle_after: int = RECYCLE_AFTER
    cpu_seconds: float | None = None
    """Computing time; None for no limit but the time-out."""
    max_answer_bytes: int = MAX_ANSWER_BYTES
    timeout_setting: str = ""
    """The parameter that says `timeout_seconds`, for the message."""


class WorkerLost(InputRejected):
    """The worker died or ran out of time on this input; another try may do better.

    `fault` says why: `time`, the input took too long; `crash`, the worker died of it; `killed`, by SIGKILL, as the kernel
    does where memory ends; `stopped`, by another signal or with its server, which is no fault of the input.
    """

    category = "worker_lost"
    code = "worker-lost"
    retryable = True

    def __init__(
        self, message: str, *, code: str = "", remedy: str = "",
        fault: Literal["time", "crash", "killed", "stopped"] = "crash", was_fresh: bool = False,
    ) -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.fault = fault
        self.was_fresh = was_fresh
        """This was the worker's first input."""


@dataclass(frozen=True)
class Outcome(Generic[Input, Output]):
    """What became of one input: a value or an error, never both."""

    item: Input
    value: Output | None
    error: VidseekError | None


class ForkServer:
    """A process with `modules` imported, from which workers are forked. It starts when the first is wanted.

    Safe to share between threads. It has no environment variable of this process, and no open file but its connection.

    Args:
        modules: Names of what workers need. What is not among them is imported by each worker anew.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._modules = sorted({"numpy", *modules})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start it now, so that the first worker need not wait for it.

        Raises:
            ConfigError: it does not come up.
        """
        with self._lock:
            self._require_started()

    def fork(self, limits: Limits, confinement: Confinement = Confinement.BATCH) -> Worker:
        """A new worker.

        Raises:
            ConfigError: it does not come up.
        """
        setup = pickle.dumps(Setup(confinement, limits.memory_mib, limits.cpu_seconds))
        with self._lock:
            for _ in range(2):  # the server may have died since; a new one is as good
                control = self._require_started()
                with contextlib.suppress(Ended, OSError):
                    return self._fork(control, setup, limits)
                self._stop()
        raise _cannot_start("its server died")

    def close(self) -> None:
        """End the server, which ends its workers."""
        with self._lock:
            self._is_closed = True
            self._stop()

    def _fork(self, control: socket.socket, setup: bytes, limits: Limits) -> Worker:
        ours, theirs = socket.socketpair()
        status, their_status = os.pipe()
        try:
            socket.send_fds(control, [setup], [theirs.fileno(), their_status])
            theirs.close()
            _, _, pid, _ = receive(ours, until=time.monotonic() + START_SECONDS, most=32)
            return Worker(ours, int(pid), status, limits)
        except BaseException:
            ours.close()
            os.close(status)
            raise
        finally:
            theirs.close()
            os.close(their_status)

    def _require_started(self) -> socket.socket:
        if self._is_closed:
            raise _cannot_start("the workers are closed")
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BEGIN, json.dumps(sys.path), str(theirs.fileno()),
                 json.dumps(self._modules)],
                env={}, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is this process's to handle; it ends the server
            )
        try:
            receive(ours, until=time.monotonic() + START_SECONDS, most=32)
        except (Ended, OSError) as error:
            ours.close()
            self._process.kill()
            raise _cannot_start(f"its server ended with {self._process.wait()}") from error
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()  # the server ends its workers and itself
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
            self._process = None


class Worker:
    """A worker process: one input at a time."""

    def __init__(self, connection: socket.socket, pid: int, status: int, limits: Limits) -> None:
        self.pid = pid
        self.num_taken = 0
        self._connection = connection
        self._status = status
        self._limits = limits
        self._has_grown = False
        self._is_ours = ""
        """Why we killed it, where we did."""
        self._timeout_seconds = limits.timeout_seconds
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._pidfd = -1
        with contextlib.suppress(OSError):  # it is dead already
            self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Can be read when the worker has an answer, or is dead."""
        return self._connection.fileno()

    @property
    def deadline(self) -> float:
        """When the input that it has must be done, as `time.monotonic` has it."""
        return self._deadline

    @property
    def is_spent(self) -> bool:
        """Whether it must not get another input: it is dead, has leaked, or has had as many as it may have."""
        return bool(self._is_ours) or self._has_grown or self.num_taken >= self._limits.recycle_after

    @property
    def cpu_seconds(self) -> float:
        """What it has computed in its life; 0 where the system does not say."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def call(self, job: Job, *, content: bytes | None = None) -> Any:
        """What the worker makes of `job`; `content` is the file that it reads.

        Raises:
            VidseekError: as the job.
            WorkerLost: the worker died, or ran out of time.
        """
        self.give(job, content=content)
        return self.take()

    def give(self, job: Job, *, content: bytes | None = None, timeout_seconds: float | None = None) -> None:
        """Begin `job`; `take` gives what comes of it. `timeout_seconds` is in place of that of the limits."""
        self._timeout_seconds = self._limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        self._deadline = time.monotonic() + self._timeout_seconds
        file = _in_memory(content) if content is not None else -1
        try:
            self._connection.settimeout(self._timeout_seconds)
            send(self._connection, 0, [pickle.dumps(job)], flag=file >= 0, fd=file)
        except OSError:
            pass  # It is dead, or hangs: `take` finds that out, and says so.
        finally:
            if file >= 0:
                os.close(file)

    def take(self) -> Any:
        """The value of what was given. Raises as `call`."""
        was_fresh, self.num_taken = self.num_taken == 0, self.num_taken + 1
        try:
            kind, self._has_grown, content, fd = receive(
                self._connection, until=self._deadline, most=self._limits.max_answer_bytes
            )
            if fd >= 0:
                os.close(fd)
            return _value_of(kind, content)
        except VidseekError:
            raise
        except TimeoutError:
            self.kill("time")
        except (Ended, OSError):
            pass
        except Exception as error:  # the answer is none: too long, or not of our making
            self.kill("answer")
            raise WorkerLost(f"gave an answer that cannot be used: {error}", was_fresh=was_fresh) from error
        raise self._lost(was_fresh)

    def kill(self, why: str = "stopped") -> None:
        """End the process now, whatever it does. `take` then says WorkerLost. From any thread."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            self._is_ours = self._is_ours or why
            if self._pidfd >= 0:  # a number of a process may be another's by now, this is not
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def lower_priority(self) -> None:
        """Let everything else on this machine go first."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 19)

    def stop(self) -> None:
        """End it, and let go what this process holds of it."""
        self.kill()
        self._death()
        with self._lock:
            self._connection.close()
            for fd in (self._status, self._pidfd):
                if fd >= 0:
                    os.close(fd)
            self._status = self._pidfd = -1

    def _death(self) -> int | None:
        """The status with which it ended; None where it is not known."""
        if self._status < 0:
            return None
        content = os.read(self._status, 4) if wait([self._status], timeout=5.0) else b""
        return struct.unpack("=i", content)[0] if len(content) == 4 else None

    def _lost(self, was_fresh: bool) -> WorkerLost:
        self._has_grown = True  # whatever it is, it gets no other input
        if self._is_ours == "time":
            setting = f", see {self._limits.timeout_setting} in params.yaml" if self._limits.timeout_setting else ""
            return WorkerLost(f"took longer than {self._timeout_seconds:g} s{setting}", fault="time", was_fresh=was_fresh)
        status = self._death()
        if self._is_ours or status is None:
            return WorkerLost("the worker process was stopped", fault="stopped", was_fresh=was_fresh)
        if not os.WIFSIGNALED(status):
            code = os.waitstatus_to_exitcode(status)
            return WorkerLost(f"crashed the worker process (exit code {code})", was_fresh=was_fresh)
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return WorkerLost(
                f"took more than {self._limits.cpu_seconds:g} s of computing", fault="time", was_fresh=was_fresh
            )
        name = signal.Signals(number).name
        if number == signal.SIGKILL:
            return WorkerLost(
                f"the worker process was killed ({name}), as where memory ends", fault="killed", was_fresh=was_fresh
            )
        is_fault = number in _FAULTS
        said = f"crashed the worker process ({name})" if is_fault else f"the worker process was stopped ({name})"
        return WorkerLost(said, fault="crash" if is_fault else "stopped", was_fresh=was_fresh)


_FAULTS = frozenset({
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP,
    signal.SIGXFSZ,
})
"""Signals that a program brings upon itself."""


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
    """Apply `function` to each item in `workers` processes, outcomes in the order in which they are done.

    Closing the generator stops the workers.

    `function`, items and values travel by pickle, so `function` is one of a module, not of the script that is run.
    An error of ours is the item's outcome, as is any other exception (as InputRejected), the death of the worker, and
    more than `timeout_seconds`, which may depend on the item and which the parameter `timeout_setting` says (both as
    WorkerLost). More than `memory_mib` of a worker's own memory
    fails inside it and costs that input. A worker that still holds half of that, or has had `recycle_after` inputs, is
    replaced.

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


def run_one(
    function: Callable[..., Output], path: Path, *, limits: Limits, confinement: Confinement = Confinement.ARCHIVE
) -> Output:
    """`function(path)` in a process of its own that may read that file and nothing else.

    Raises:
        VidseekError: as `function`; WorkerLost where the process died, or ran out of time.
        ConfigError: no process can be started.
    """
    server = ForkServer([_module_of(function)])
    worker = server.fork(limits, confinement)
    try:
        value: Output = worker.call(Job(function, (path,), file=path))
        return value
    finally:
        worker.stop()
        server.close()


_END = object()


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
    """Wait for the first thing that happens to a busy worker, and tell it."""
    nearest = min(worker.deadline for worker in busy)
    ready = wait([worker.fileno() for worker in busy], timeout=max(nearest - time.monotonic(), 0))
    for worker in list(busy):
        if worker.fileno() not in ready and time.monotonic() < worker.deadline:
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


def _in_memory(content: bytes) -> int:
    """A file of that content that has no name: a descriptor at its beginning."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    view, done = memoryview(content), 0
    while done < len(content):
        done += os.write(fd, view[done:])
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _value_of(kind: int, content: bytearray) -> Any:
    """What an answer means. Nothing in it is run: the worker may have been taken over by what it decoded."""
    if kind == ARRAY:
        import numpy as np

        shape = struct.unpack_from(f"={content[0]}I", content, 1)
        return np.frombuffer(content, np.uint8, offset=1 + 4 * content[0]).reshape(shape)
    value = _Reader(io.BytesIO(content)).load()
    if kind != ERROR:
        return value
    if not isinstance(value, VidseekError):
        raise pickle.UnpicklingError(f"an error that is {type(value).__name__}")
    raise value


class _Reader(pickle.Unpickler):
    """Reads plain values, and records and errors of ours; anything else in a pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module.startswith("vidseek_") and "." not in name else None
        if isinstance(found, type) and (dataclasses.is_dataclass(found) or issubclass(found, VidseekError)):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in an answer")


def _cannot_start(how: str) -> ConfigError:
    return ConfigError(
        f"a worker process did not come up: {how}", code="worker-not-started",
        remedy="Run `vidseek doctor`; look at memory and limits",
    )
