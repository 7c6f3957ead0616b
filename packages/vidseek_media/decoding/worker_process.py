"""The code of the fork server and its workers, and their protocol with the parent process.

The fork server is a fresh interpreter with an empty environment. It imports the workers' modules once, and forks a worker
for each request. It never reads foreign files; workers do, after they are confined.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.decoding.sandbox import Confinement, confine, die_with_parent, give_up_privileges, limit_resources
from vidseek_media.errors import ConfigError, InputRejected, VidseekError

UP, VALUE, ARRAY, ERROR = range(4)
"""Kinds of what a worker says."""
_HEADER = struct.Struct("=BBQ")
"""Kind, a flag, and the number of bytes behind it. The flag: of an answer, that the worker has grown; of a job, that a
file descriptor comes with it."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Setup:
    """How a worker is to be."""

    confinement: Confinement
    memory_mib: int
    cpu_seconds: float | None
    """Computing time of one job; None for no limit."""


@dataclass(frozen=True)
class Job:
    """One thing to do: `function(*arguments)`."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    file: Path | None = None
    """The file that a confined worker may read by its path."""
    takes_content: bool = False
    """The first argument is the path of the descriptor that comes with the job; it is not among `arguments`."""


class Ended(Exception):
    """The other side has closed the connection."""


def send(sock: socket.socket, kind: int, content: Sequence[bytes | memoryview], *, flag: bool = False, fd: int = -1) -> None:
    """Send one message. Raises OSError as the socket does, TimeoutError where its time-out passes."""
    header = _HEADER.pack(kind, flag, sum(len(part) for part in content))
    if fd >= 0:
        socket.send_fds(sock, [header], [fd])
    else:
        sock.sendall(header)
    for part in content:
        sock.sendall(part)


def receive(sock: socket.socket, *, until: float | None = None, most: int = 2**34) -> tuple[int, bool, bytearray, int]:
    """Receive one message: its kind, flag, content and file descriptor (-1 for none).

    Args:
        sock: The socket.
        until: Deadline by `time.monotonic`; None waits without limit.
        most: Longest message in bytes.

    Raises:
        Ended: the other side is gone.
        TimeoutError: the deadline has passed.
        ValueError: the message is longer than `most`.
    """
    _wait(sock, until)
    head, fds, _, _ = socket.recv_fds(sock, _HEADER.size, 1)
    while 0 < len(head) < _HEADER.size:
        _wait(sock, until)
        more = sock.recv(_HEADER.size - len(head))
        head = head + more if more else b""
    if not head:
        raise Ended
    kind, flag, length = _HEADER.unpack(head)
    if length > most:
        raise ValueError(f"{length} bytes, at most {most} are taken")
    content = bytearray(length)
    view, got = memoryview(content), 0
    while got < length:
        _wait(sock, until)
        num = sock.recv_into(view[got : got + _CHUNK])
        if not num:
            raise Ended
        got += num
    return kind, bool(flag), content, fds[0] if fds else -1


def _wait(sock: socket.socket, until: float | None) -> None:
    sock.settimeout(None if until is None else max(until - time.monotonic(), 1e-4))


def main(control_fd: int, modules: Sequence[str]) -> None:
    """Run the fork server: import modules, then fork a worker for each request until the other side is gone.

    Args:
        control_fd: File descriptor of the socket to the parent.
        modules: Modules to import.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever started this ends it, by closing the connection
    give_up_privileges()
    # A fork takes no thread with it; decord does not import without a PATH.
    os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"})
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pages that the collector never touches stay shared
    control = socket.socket(fileno=control_fd)
    send(control, UP, [b""])
    statuses: dict[int, int] = {}
    with _child_alarm() as alarm:
        while True:
            ready, _, _ = select.select([control.fileno(), alarm], [], [])
            if alarm in ready:
                os.read(alarm, 512)
                _reap(statuses)
            if control.fileno() in ready and not _fork(control, statuses):
                break
    for pid in statuses:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _child_alarm() -> Iterator[int]:
    """Yield a file descriptor that becomes readable when a child has ended."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    yield read


def _reap(statuses: dict[int, int]) -> None:
    """Say of each child that has ended how, into the pipe that came with its request."""
    while statuses:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        pipe = statuses.pop(pid, -1)
        if pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(pipe, struct.pack("=i", status))
            os.close(pipe)


def _fork(control: socket.socket, statuses: dict[int, int]) -> bool:
    """Take one request; False where there will be none any more."""
    content, fds, _, _ = socket.recv_fds(control, 65536, 2)
    if not content:
        return False
    setup, (connection, status) = pickle.loads(content), fds  # from the process that started this one
    pid = os.fork()
    if not pid:
        try:
            _be_worker(connection, setup)
        finally:
            os._exit(1)
    os.close(connection)
    statuses[pid] = status
    return True


def _be_worker(connection: int, setup: Setup) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL)
    _keep_only(connection)
    sock = socket.socket(fileno=3)
    limit_resources(setup.confinement, memory_mib=setup.memory_mib)
    memory = _open_memory()
    send(sock, UP, [str(os.getpid()).encode()])
    is_confined = False
    while True:
        try:
            _, has_file, content, fd = receive(sock)
        except (Ended, OSError):
            os._exit(0)
        job: Job = pickle.loads(content)  # from the process that started this one
        del content
        if not is_confined:
            try:
                confine(setup.confinement, libraries=_libraries(), file=job.file)
            except OSError as error:
                remedy = "Run `vidseek doctor`; look at what the container runtime forbids"
                send(sock, ERROR, [pickle.dumps(ConfigError(
                    f"a worker cannot be confined: {error}", code="worker-not-started", remedy=remedy,
                ))])
                os._exit(1)
            is_confined = True
        _limit_computing(setup.cpu_seconds)
        kind, parts = _answer(job, fd if has_file else -1, setup.memory_mib)
        try:
            send(sock, kind, parts, flag=_resident_mib(memory) > setup.memory_mib / 2)
        except OSError:
            os._exit(0)
        del job, parts


def _keep_only(connection: int) -> None:
    """Leave open the connection, as 3, and nothing behind it; what is printed goes nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    if connection != 3:
        os.dup2(connection, 3)
    os.closerange(4, 1 << 16)


def _answer(job: Job, fd: int, memory_mib: int) -> tuple[int, list[bytes | memoryview]]:
    import numpy as np

    try:
        content = (Path(f"/proc/self/fd/{fd}"),) if job.takes_content else ()
        value = job.function(*content, *job.arguments)
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            shape = struct.pack(f"=B{value.ndim}I", value.ndim, *value.shape)
            return ARRAY, [shape, np.ascontiguousarray(value).reshape(-1).data]
        return VALUE, [pickle.dumps(value)]
    except VidseekError as error:
        return ERROR, [pickle.dumps(error)]
    except MemoryError:
        return ERROR, [pickle.dumps(InputRejected(f"takes more than {memory_mib} MiB of memory", code="too-much-memory"))]
    except Exception as error:  # noqa: BLE001 - whatever one input provokes is that input's outcome
        reason = f"unexpected {type(error).__name__}: {str(error)[:500]}"
        return ERROR, [pickle.dumps(InputRejected(reason, code="unexpected-fault"))]
    finally:
        if fd >= 0:
            os.close(fd)


def _limit_computing(seconds: float | None) -> None:
    """SIGXCPU ends the process when this job has computed for so long; the limit counts whole seconds."""
    if seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _libraries() -> list[Path]:
    """Return the folders of the modules that are loaded: what is imported late lies there too."""
    folders = {Path(os.__file__).parent}
    for name in ("numpy", "PIL", "av", "decord"):
        if (file := getattr(sys.modules.get(name), "__file__", None)) is not None:
            folders.add(Path(file).parents[1])
    folders.update(
        Path(file).parent for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("vidseek_media", "serving") and (file := getattr(module, "__file__", None))
    )
    return sorted(folders)


def _open_memory() -> int:
    try:
        return os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return -1


def _resident_mib(memory: int) -> float:
    """Return the memory of this process in MiB; 0 if the system does not tell."""
    try:
        return int(os.pread(memory, 128, 0).split()[1]) * resource.getpagesize() / 2**20
    except (OSError, IndexError, ValueError):
        return 0.0
