"""Starts the page in its own process, and the API beside it unless another one is named; both end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vidseek.service import serving_root
from vidseek_media.errors import ServiceError
from vidseek_media.terminal.progress import waiting

READY_SECONDS = 900.0
"""How long an API or a page that has not ended may take to answer: seconds on a quiet machine, minutes on a loaded one."""
STOP_SECONDS = 10.0
_POLL_SECONDS = 0.2


def page_command() -> tuple[list[str], Path]:
    """Return the command that runs the page, and the folder to run it in.

    Raises:
        ConfigError: serving/ is not found.
    """
    return [sys.executable, "-m", "serving.page"], serving_root()


def address_of(host: str, port: int) -> str:
    """Return the URL of an IP address and a port."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def wait_until_answered(url: str, process: subprocess.Popen[bytes], *, what: str) -> None:
    """Wait until a URL answers 200; tell how long it takes.

    Args:
        url: The URL.
        process: The process that should answer.
        what: Its name, for the message.

    Raises:
        ServiceError: the process ended, or READY_SECONDS have passed.
    """
    deadline = time.monotonic() + READY_SECONDS
    with waiting(f"starting {what}"):
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServiceError(
                    f"{what} ended before it answered (exit code {process.returncode})", code="page-ended",
                    remedy="What it said is above",
                )
            if answers(url):
                return
            time.sleep(_POLL_SECONDS)
    raise ServiceError(
        f"{what} did not answer at {url} within {READY_SECONDS:.0f} s", code="page-no-answer",
        remedy="What it said is above",
    )


def answers(url: str) -> bool:
    """Whether a GET of `url` gives 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


@contextmanager
def running(
    command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in its own group inside this block; at the end it is stopped with all its children.

    Args:
        command: Program and arguments.
        folder: Working directory; None takes the present one.
        environment: Environment variables; None takes the present ones.
    """
    process = subprocess.Popen(
        list(command), cwd=folder, env={**os.environ, **(environment or {})}, start_new_session=True
    )
    try:
        yield process
    finally:
        _stop(process)


@contextmanager
def until_told_to_stop() -> Iterator[None]:
    """Leave the block on Ctrl-C or SIGTERM, so that processes of `running` are stopped."""
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_any(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until one of them has ended; gives its exit code."""
    while True:
        for process in processes:
            if process.poll() is not None:
                return int(process.returncode)
        time.sleep(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
