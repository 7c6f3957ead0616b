"""What a worker can reach: nothing that it was not given. Every rule is tried from inside one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.raising import raises
from tests.waiting import is_gone, wait_until
from vidseek_media.decoding.sandbox import Confinement, in_force
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer, Limits, Worker
from vidseek_media.errors import InputRejected

LIMITS = Limits(30, memory_mib=512, cpu_seconds=20)
Ask = Callable[..., object]

needs_landlock = pytest.mark.skipif(not in_force().landlock_abi, reason="this kernel has no Landlock")
needs_seccomp = pytest.mark.skipif(not in_force().has_seccomp, reason="this kernel has no seccomp")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    os.environ["VIDSEEK_API_KEY_OF_A_TEST"] = "a-secret-of-the-service"
    one = ForkServer(["vidseek_media.decoding.frames"])
    yield one
    one.close()
    del os.environ["VIDSEEK_API_KEY_OF_A_TEST"]


@pytest.fixture
def ask(server: ForkServer) -> Iterator[Ask]:
    """The value of an expression in a fresh worker. Raises InputRejected with the name of what it raises there."""
    workers: list[Worker] = []

    def value_of(confinement: Confinement, expression: str, file: Path | None = None) -> object:
        workers.append(server.fork(LIMITS, confinement))
        return workers[-1].call(Job(eval, (expression,), file=file))

    yield value_of
    for worker in workers:
        worker.stop()


UNTRUSTED = (Confinement.UPLOAD, Confinement.ARCHIVE)
ALL = tuple(Confinement)


@pytest.mark.parametrize("confinement", ALL)
def test_worker__knows_no_secret_of_the_service(ask: Ask, confinement: Confinement) -> None:
    assert "secret" not in str(ask(confinement, "dict(__import__('os').environ)"))


def test_worker__was_started_without_an_environment(server: ForkServer) -> None:
    worker = server.fork(LIMITS, Confinement.UPLOAD)
    try:
        assert Path(f"/proc/{worker.pid}/environ").read_bytes() == b""
        assert len(list(Path(f"/proc/{worker.pid}/fd").iterdir())) == 5  # the three standard ones, the connection, statm
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
    finally:
        worker.stop()


@needs_landlock
@pytest.mark.parametrize("confinement", UNTRUSTED)
@pytest.mark.parametrize("expression", [
    "open('/etc/passwd').read()", "open('/proc/self/environ').read()", "open('/proc/1/cmdline').read()",
    "__import__('os').listdir('/')", "__import__('os').listdir('/tmp')",
    "open('{file}').read()", "open('{file}', 'w')", "__import__('os').unlink('{file}')",
    "__import__('os').mkdir('{file}.d')", "__import__('os').symlink('/etc', '{file}.l')", "open('{file}.new', 'w')",
])
def test_untrusted__opens_no_file(ask: Ask, tmp_path: Path, confinement: Confinement, expression: str) -> None:
    (tmp_path / "a").write_text("of the archive")
    with raises(InputRejected, code="unexpected-fault", naming="PermissionError"):
        ask(confinement, expression.format(file=tmp_path / "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@needs_landlock
def test_archive__reads_the_file_of_its_job_alone(ask: Ask, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    asked = f"[open('{tmp_path}/a').read()]"
    assert ask(Confinement.ARCHIVE, asked, tmp_path / "a") == ["a"]
    for refused in (f"open('{tmp_path}/b').read()", f"open('{tmp_path}/a', 'r+')"):
        with raises(InputRejected, code="unexpected-fault", naming="PermissionError"):
            ask(Confinement.ARCHIVE, refused, tmp_path / "a")


@needs_seccomp
@pytest.mark.parametrize("confinement", ALL)
@pytest.mark.parametrize("expression", [
    "__import__('socket').socket()", "__import__('socket').socket(__import__('socket').AF_UNIX)",
    "__import__('socket').socketpair()", "__import__('os').fork()", "__import__('os').execv('/bin/true', ['true'])",
    "__import__('os').posix_spawn('/bin/true', ['true'], {})", "__import__('os').kill(__import__('os').getppid(), 0)",
    "__import__('os').chroot('/')", "__import__('os').pidfd_open(__import__('os').getppid())",
    "__import__('subprocess').run(['/bin/true'])",
])
def test_worker__reaches_neither_network_nor_processes(ask: Ask, confinement: Confinement, expression: str) -> None:
    with raises(InputRejected, code="unexpected-fault", naming="PermissionError"):
        ask(confinement, expression)


@needs_landlock
def test_network__is_closed_by_landlock_too() -> None:
    if in_force().landlock_abi < 4:
        pytest.skip("this kernel's Landlock knows no network")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = (
            "import socket, sys\n"
            "from vidseek_media.decoding import sandbox\n"
            "sandbox.give_up_privileges(); sandbox._restrict_files(sandbox.in_force().landlock_abi, None)\n"
            f"try: socket.create_connection(('127.0.0.1', {port}))\n"
            "except PermissionError: sys.exit(7)\n"
        )
        environment = {"PYTHONPATH": str(Path(__file__).parents[3] / "packages")}
        assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 7


def test_upload__has_limits_of_the_system(ask: Ask) -> None:
    for name, value in {"CORE": 0, "FSIZE": 0, "NOFILE": 64, "NPROC": 0, "DATA": 512 * 2**20}.items():
        found = ask(Confinement.UPLOAD, f"(lambda r: list(r.getrlimit(r.RLIMIT_{name})))(__import__('resource'))")
        assert found == [value, value], name


def test_upload__has_no_capability(server: ForkServer) -> None:
    worker = server.fork(LIMITS, Confinement.UPLOAD)
    try:
        worker.call(Job(eval, ("1",)))
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{worker.pid}/status").read_text()
    finally:
        worker.stop()


def test_upload__takes_its_input_from_memory(server: ForkServer) -> None:
    worker = server.fork(LIMITS, Confinement.UPLOAD)
    try:
        job = Job(Path.read_bytes, (), takes_content=True)
        for content in (b"one", b"two" * 100_000, b""):
            assert worker.call(job, content=content) == content
    finally:
        worker.stop()


def test_workers__end_with_their_server() -> None:
    other = ForkServer()
    worker = other.fork(LIMITS)
    worker.give(Job(eval, ("__import__('time').sleep(600)",)))
    other.close()
    wait_until(lambda: is_gone(worker.pid))
    worker.stop()
