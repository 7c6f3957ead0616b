"""Worker processes that run one job at a time, forked from a server without secrets.

The server has imported what workers need (`worker_process.py`). Workers are confined before they see an input
(`sandbox.py`). `worker_batch.py` runs batches over them; the service keeps pools.
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
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.worker_process import ARRAY, ERROR, Ended, Job, Setup, receive, send
from vidseek_media.errors import ConfigError, InputRejected, VidseekError
from vidseek_media.settings import RECYCLE_AFTER, WORKER_MEMORY_MIB

START_SECONDS = 120.0
"""How long a worker may take to start."""

MOST_STRETCH = 10
"""Where other work has the processors, a time-out is put off, to at most this many times its length."""

MAX_ANSWER_BYTES = 2**30

_BEGIN = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from vidseek_media.decoding.worker_process import main; main(int(sys.argv[2]), json.loads(sys.argv[3]))"
)

_FAULTS = frozenset({
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP,
    signal.SIGXFSZ,
})
"""Signals that a faulty program causes itself."""


@dataclass(frozen=True)
class Limits:
    """The time and memory of one input, and the life of a worker."""

    timeout_seconds: float
    """Of one input, above 0; infinite for no limit. Time in which it waits for a processor does not count."""
    memory_mib: int = WORKER_MEMORY_MIB
    recycle_after: int = RECYCLE_AFTER
    """Inputs after which a worker is replaced, at least 1."""
    cpu_seconds: float | None = None
    """Processor time; None for no limit but the time-out."""
    max_answer_bytes: int = MAX_ANSWER_BYTES
    timeout_setting: str = ""
    """The name of the parameter that sets `timeout_seconds`, for messages."""


class WorkerLost(InputRejected):
    """The worker died or ran out of time on this input; a retry may succeed.

    Attributes:
        fault: `time`: the input took too long. `crash`: the worker crashed. `killed`: by SIGKILL, which the kernel sends
            when memory runs out. `stopped`: by another signal or with its server, which is not the input's fault.
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
        """Whether this was the worker's first input."""


class ForkServer:
    """A process with modules imported, from which workers are forked. It starts with the first worker.

    Safe to share between threads. It gets no environment variable of this process and no open file but its connection.

    Args:
        modules: Modules that workers need. Each worker imports others by itself.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._modules = sorted({"numpy", *modules})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the server now, so that the first worker does not wait for it.

        Raises:
            ConfigError: it does not start.
        """
        with self._lock:
            self._require_started()

    def fork(self, limits: Limits, confinement: Confinement = Confinement.BATCH) -> Worker:
        """Return a new worker.

        Args:
            limits: Of its inputs.
            confinement: Of the process.

        Raises:
            ConfigError: it does not start.
        """
        setup = pickle.dumps(Setup(confinement, limits.memory_mib, limits.cpu_seconds))
        with self._lock:
            for _ in range(2):  # if the server has died, a new one is started
                control = self._require_started()
                with contextlib.suppress(Ended, OSError):
                    return self._fork(control, setup, limits)
                self._stop()
        raise _cannot_start("its server died")

    def close(self) -> None:
        """Stop the server and its workers."""
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
                start_new_session=True,  # Ctrl-C must reach only this process, which then stops the server
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
            self._control.close()  # the server then stops its workers and itself
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
            self._process.wait()
            self._process = None


class Worker:
    """A worker process, which handles one input at a time. `ForkServer.fork` makes it.

    Attributes:
        pid: Of the process.
        num_taken: Inputs that it has had.
    """

    def __init__(self, connection: socket.socket, pid: int, status: int, limits: Limits) -> None:
        self.pid = pid
        self.num_taken = 0
        self._connection = connection
        self._status = status
        self._limits = limits
        self._has_grown = False
        self._is_ours = ""
        """Why `kill` was called; "" if it was not."""
        self._timeout_seconds = limits.timeout_seconds
        self._began = self._deadline = 0.0
        self._had_waited: dict[str, int] = {}
        """How long its threads had waited for a processor when the current input began."""
        self._lock = threading.Lock()
        self._pidfd = -1
        with contextlib.suppress(OSError):  # it is already dead
            self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the worker answers or dies."""
        return self._connection.fileno()

    @property
    def deadline(self) -> float:
        """When the current input must be done, by `time.monotonic`, in seconds; `put_off` may move it."""
        return self._deadline

    def put_off(self) -> bool:
        """Move a deadline that has passed by the time that the worker has waited for a processor; return whether there is
        time left."""
        waited = max((ns - self._had_waited.get(thread, 0) for thread, ns in _waits_of(self.pid).items()), default=0) / 1e9
        self._deadline = self._began + self._timeout_seconds + min(waited, (MOST_STRETCH - 1) * self._timeout_seconds)
        return self._deadline > time.monotonic()

    @property
    def is_spent(self) -> bool:
        """Whether it must get no other input: it is dead, has leaked memory, or has had `recycle_after` inputs."""
        return bool(self._is_ours) or self._has_grown or self.num_taken >= self._limits.recycle_after

    @property
    def cpu_seconds(self) -> float:
        """Processor time of its life; 0 if the system does not report it."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def call(self, job: Job, *, content: bytes | None = None) -> Any:
        """Run a job and return its value.

        Args:
            job: The function and its arguments.
            content: The content of the file that it reads; None for no file.

        Raises:
            VidseekError: as the job raises it.
            WorkerLost: the worker died or ran out of time.
        """
        self.give(job, content=content)
        return self.take()

    def give(self, job: Job, *, content: bytes | None = None, timeout_seconds: float | None = None) -> None:
        """Start a job; `take` returns its value.

        Args:
            job: The function and its arguments.
            content: The content of the file that it reads; None for no file.
            timeout_seconds: Above 0; None for that of the limits.
        """
        self._timeout_seconds = self._limits.timeout_seconds if timeout_seconds is None else timeout_seconds
        self._had_waited, self._began = _waits_of(self.pid), time.monotonic()
        self._deadline = self._began + self._timeout_seconds
        file = _in_memory(content) if content is not None else -1
        try:
            self._connection.settimeout(self._timeout_seconds)
            send(self._connection, 0, [pickle.dumps(job)], flag=file >= 0, fd=file)
        except OSError:
            pass  # the worker is dead or hangs: `take` raises
        finally:
            if file >= 0:
                os.close(file)

    def take(self) -> Any:
        """Wait for the started job and return its value.

        Raises:
            VidseekError: as the job raises it.
            WorkerLost: the worker died or ran out of time.
        """
        was_fresh, self.num_taken = self.num_taken == 0, self.num_taken + 1
        try:
            self._wait()
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
        except Exception as error:  # the answer is too long or malformed
            self.kill("answer")
            raise WorkerLost(f"gave an answer that cannot be used: {error}", was_fresh=was_fresh) from error
        raise self._lost(was_fresh)

    def _wait(self) -> None:
        """Wait for the beginning of an answer, or for the deadline."""
        while not wait([self._connection], timeout=self._left()) and self.put_off():
            pass

    def _left(self) -> float | None:
        return None if math.isinf(self._deadline) else max(self._deadline - time.monotonic(), 0.0)

    def kill(self, why: str = "stopped") -> None:
        """Kill the process; `take` then raises WorkerLost. May be called from any thread.

        Args:
            why: `time`, `answer` or `stopped`.
        """
        with self._lock, contextlib.suppress(ProcessLookupError):
            self._is_ours = self._is_ours or why
            if self._pidfd >= 0:  # unlike a pid, a pidfd is never reused
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def lower_priority(self) -> None:
        """Give the process the lowest priority."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 19)

    def stop(self) -> None:
        """Kill the process and close its descriptors."""
        self.kill()
        self._death()
        with self._lock:
            self._connection.close()
            for fd in (self._status, self._pidfd):
                if fd >= 0:
                    os.close(fd)
            self._status = self._pidfd = -1

    def _death(self) -> int | None:
        """Return its wait status; None if unknown."""
        if self._status < 0:
            return None
        content = os.read(self._status, 4) if wait([self._status], timeout=5.0) else b""
        return struct.unpack("=i", content)[0] if len(content) == 4 else None

    def _lost(self, was_fresh: bool) -> WorkerLost:
        self._has_grown = True  # it gets no other input
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


def _waits_of(pid: int) -> dict[str, int]:
    """Return how long each thread of a process has waited for a processor, in ns; empty where the kernel does not say."""
    waits = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            waits[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
    return waits


def _in_memory(content: bytes) -> int:
    """Return a descriptor of an unnamed file in memory with this content, at its beginning."""
    fd = os.memfd_create("input", os.MFD_CLOEXEC)
    view, done = memoryview(content), 0
    while done < len(content):
        done += os.write(fd, view[done:])
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _value_of(kind: int, content: bytearray) -> Any:
    """Decode an answer. It is not trusted and no code of it runs: its input may have taken over the worker."""
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
    """Unpickles plain values, and our records and errors; refuses everything else."""

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
