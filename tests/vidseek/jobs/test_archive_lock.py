from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.raising import raises
from tests.waiting import wait_until
from vidseek.jobs.archive_lock import WORKER_VARIABLE, ArchiveBusy, Holder, stage_at_work, working_on

HOLD = """
import sys, time
from pathlib import Path
from vidseek.jobs.archive_lock import stage_at_work, working_on
state = Path(sys.argv[2])
block = working_on(state, "`vidseek watch`", told=print) if sys.argv[1] == "work" else stage_at_work(state, "embed")
with block:
    print("held", flush=True)
    time.sleep(60)
"""


def hold(kind: str, state: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, kind, str(state)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Taken(Exception):
    pass


def is_free(state: Path, *, holder: tuple[str, int] | None = None) -> bool:
    """Whether a worker need not wait for the lock; if it must, it is told of `holder`."""
    def told(by: Holder | None) -> None:
        assert holder is None or (by is not None and (by.what, by.process) == holder)
        raise Taken

    try:
        with working_on(state, "me", told=told):
            return True
    except Taken:
        return False


def test_working_on__is_one_at_a_time_and_says_who(tmp_path: Path) -> None:
    assert is_free(tmp_path)
    other = hold("work", tmp_path)
    try:
        assert not is_free(tmp_path, holder=("`vidseek watch`", other.pid))
        with raises(ArchiveBusy, code="archive-busy", naming="embed"), stage_at_work(tmp_path, "embed"):
            raise AssertionError
    finally:
        end(other)
    assert is_free(tmp_path)
    with stage_at_work(tmp_path, "embed"):
        pass


def test_working_on__waits_and_tells_whom_for_once(tmp_path: Path) -> None:
    other = hold("work", tmp_path)
    told: list[str] = []

    def note(holder: object) -> None:
        told.append(str(holder))
        end(other)

    with working_on(tmp_path, "me", told=note):
        assert len(told) == 1 and str(other.pid) in told[0]


def test_stage_at_work__keeps_workers_out_until_its_dvc_has_ended(tmp_path: Path) -> None:
    """Between two stages of a `dvc repro` no stage holds the lock."""
    # A program named dvc that runs one stage, and then goes on without one.
    dvc = tmp_path / "dvc"
    dvc.write_text(f"#!/bin/sh\n'{sys.executable}' -c \"{_STAGE.format(state=tmp_path)}\"\necho between\nsleep 60\n")
    dvc.chmod(0o755)
    run = subprocess.Popen([str(dvc)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert run.stdout is not None and run.stdout.readline() == b"between\n"
        assert not is_free(tmp_path, holder=("`dvc repro`", run.pid))
        with stage_at_work(tmp_path, "embed"):  # its own next stage
            pass
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert run.stdout is not None
        run.stdout.close()
    assert is_free(tmp_path)


_STAGE = (
    "from pathlib import Path; from vidseek.jobs.archive_lock import stage_at_work\n"
    "with stage_at_work(Path('{state}'), 'cut'): pass"
)


def test_stage_at_work__within_the_worker_needs_no_lock(tmp_path: Path) -> None:
    other = hold("work", tmp_path)
    os.environ[WORKER_VARIABLE] = "held"
    try:
        with stage_at_work(tmp_path, "embed"):
            pass
    finally:
        del os.environ[WORKER_VARIABLE]
        end(other)


def test_working_on__is_kept_by_what_inherits_its_file(tmp_path: Path) -> None:
    with working_on(tmp_path, "me", told=pytest.fail) as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        assert not is_free(tmp_path)
    finally:
        child.kill()
        child.wait()
    wait_until(lambda: is_free(tmp_path))
