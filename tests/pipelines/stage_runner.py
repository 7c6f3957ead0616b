"""Runs stages in forks of one process that has imported them: a run starts in milliseconds and can be killed at any moment.

    python -m tests.pipelines.stage_runner

A request is a line of JSON: a number, a folder, stages, and the longest file that may be written (0: any). For each run a
process is named, then each stage as it begins, and how it ended, with what was decoded, embedded and published. A request
with `job` does one of `JOBS` instead, as `vidseek add` and `vidseek watch` do; the process of its stages is a fork too.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from bench.growing import counting
from vidseek.archive import Archive
from vidseek.jobs import stages as stages_module
from vidseek.jobs.job_table import Job, JobTable
from vidseek.jobs.submitting import Queue
from vidseek.jobs.watching import Watch, watching, work_on

STAGES = ("ingest", "cut", "side", "frames", "caption", "pairs", "embed", "publish")
OF_JOBS = ("calibrate", "check_embeddings", "check_pairs", "ocr", "speech", "subtitles")
"""Further stages, of which the runs of jobs are made."""


def say(**content: object) -> None:
    """Write a line, in one write: several processes share the pipe."""
    os.write(1, (json.dumps(content) + "\n").encode())


def run(modules: dict[str, ModuleType], request: dict[str, Any]) -> None:
    """The part of the fork."""
    number, error = request["run"], ""
    os.chdir(request["folder"])
    if longest := request["longest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))
    for name in request["stages"]:
        say(run=number, begins=name)
        try:
            modules[name].main()
        except Exception as raised:  # noqa: BLE001 - the test judges it
            error = f"{name}: {type(raised).__name__}: {raised}"
            break
    say(run=number, ends=error, counts=dict(counting.counts))


class ForkedStages:
    """Stands for `subprocess.Popen` of the process of the stages: a fork runs them."""

    def __init__(self, command: list[str], *, cwd: Path, env: dict[str, str], stderr: Any, **_: Any) -> None:
        reading, writing = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.setsid()
                os.dup2(writing, 1)
                os.dup2(stderr.fileno(), 2)
                os.environ.update(env)
                os.chdir(cwd)
                code = importlib.import_module("pipelines.grow").main()
            except BaseException:  # noqa: BLE001 - the fork must end here
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        self.stdout = os.fdopen(reading, "rb")
        say(run=ForkedStages.run, stages_process=self.pid)

    run = 0

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.wait(os.WNOHANG) if self.returncode is None else self.returncode

    def wait(self, timeout: float = 0) -> int | None:
        """Wait for its end, or with WNOHANG only look."""
        if self.returncode is None:
            process, status = os.waitpid(self.pid, os.WNOHANG if timeout == os.WNOHANG else 0)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode


def add(archive: Archive, request: dict[str, Any]) -> list[Job]:
    """`vidseek add FILE...`."""
    queue = Queue(archive)
    return _do(archive, request, [queue.add_file(Path(file)).id for file in request["files"]])


def watch(archive: Archive, request: dict[str, Any]) -> list[Job]:
    """`vidseek watch --once`."""
    with watching(archive):
        return Watch(archive).once()


def retry(archive: Archive, request: dict[str, Any]) -> list[Job]:
    """`vidseek jobs retry`, and a worker that works on it."""
    table = JobTable(archive.jobs)
    failed, _ = table.list_jobs(limit=10**6, states=("failed",))
    for job in failed:
        table.retry(job.id)
    return _do(archive, request, [job.id for job in table.queued(limit=10**6)])


JOBS: dict[str, Callable[[Archive, dict[str, Any]], list[Job]]] = {"add": add, "watch": watch, "retry": retry}


def _do(archive: Archive, request: dict[str, Any], ids: list[str]) -> list[Job]:
    return work_on(
        archive, ids, told=lambda job: None, waits=lambda holder: None,
        at_stage=lambda stage: say(run=request["run"], begins=stage),
    )


def do_job(request: dict[str, Any]) -> None:
    """The part of the fork, for a job."""
    os.chdir(request["folder"])
    ForkedStages.run, error, states = request["run"], "", []
    forking = SimpleNamespace(**{name: getattr(subprocess, name) for name in ("DEVNULL", "PIPE", "TimeoutExpired")})
    forking.Popen = ForkedStages
    stages_module.subprocess = forking  # type: ignore[attr-defined]
    say(run=request["run"], begins="")
    try:
        states = [f"{job.state} {job.code}{job.note}".strip() for job in JOBS[request["job"]](Archive(Path()), request)]
    except Exception as raised:  # noqa: BLE001 - the test judges it
        error = f"{type(raised).__name__}: {raised}"
    say(run=request["run"], ends=error, counts={}, states=states)


def main() -> None:
    """Serve requests until there are no more."""
    counting.watch()
    with_jobs = "--jobs" in sys.argv
    wanted = (*STAGES, *OF_JOBS, "grow") if with_jobs else STAGES
    modules = {name: importlib.import_module(f"pipelines.{name}") for name in wanted}
    for name in ("great_expectations", "dvc.repo", "dvc.scm", "dvc.rwlock", "dvc.dvcfile") if with_jobs else ():
        importlib.import_module(name)
    importlib.import_module("vidseek_encoder.encoder")
    importlib.import_module("vidseek_retrieval.index.edge.backend")
    # The stages of a fork share a server of workers, which the first of them starts.
    shared_servers = importlib.import_module("tests.shared_servers")
    shared_servers.worker_batch.ForkServer = shared_servers.SharedServer
    say(ready=True)
    for line in sys.stdin:
        with suppress(ChildProcessError):  # a worker that was killed is none only when it is no zombie
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        request = json.loads(line)
        process = os.fork()
        if not process:
            try:
                do_job(request) if "job" in request else run(modules, request)
            finally:
                os._exit(0)
        say(run=request["run"], process=process)


if __name__ == "__main__":
    main()
