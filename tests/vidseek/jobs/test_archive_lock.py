from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.raising import raises
from tests.waiting import wait_until
from vidseek.jobs.archive_lock import WORKER_VARIABLE, ArchiveBusy, holder_of, stage_at_work, working_on

HOLD = """
import sys, time
from pathlib import Path
from vidseek.jobs.archive_lock import stage_at_work, working_on
state = Path(sys.argv[2])
block = working_on(state, "`vidseek watch`", wait=True) if sys.argv[1] == "work" else stage_at_work(state, "embed")
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


def test_working_on__is_one_at_a_time_and_says_who(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    other = hold("work", tmp_path)
    try:
        with raises(ArchiveBusy, code="archive-busy", naming=("`vidseek watch`", other.pid)), \
                working_on(tmp_path, "me", wait=False):
            raise AssertionError
        with raises(ArchiveBusy, code="archive-busy", naming="embed"), stage_at_work(tmp_path, "embed"):
            raise AssertionError
        found = holder_of(tmp_path)
        assert found is not None and found.process == other.pid
    finally:
        end(other)
    with working_on(tmp_path, "me", wait=False):
        pass
    with stage_at_work(tmp_path, "embed"):
        pass


def test_working_on__waits_and_tells_whom_for_once(tmp_path: Path) -> None:
    other = hold("work", tmp_path)
    told: list[str] = []

    def note(holder: object) -> None:
        told.append(str(holder))
        end(other)

    with working_on(tmp_path, "me", wait=True, told=note):
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
        with raises(ArchiveBusy, code="archive-busy", naming=("`dvc repro`", run.pid)), \
                working_on(tmp_path, "me", wait=False):
            raise AssertionError
        with stage_at_work(tmp_path, "embed"):  # its own next stage
            pass
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert run.stdout is not None
        run.stdout.close()
    with working_on(tmp_path, "me", wait=False):
        pass


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
    with working_on(tmp_path, "me", wait=False) as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        with raises(ArchiveBusy, code="archive-busy"), working_on(tmp_path, "me", wait=False):
            raise AssertionError
    finally:
        child.kill()
        child.wait()
    wait_until(lambda: holder_of(tmp_path) is None)
