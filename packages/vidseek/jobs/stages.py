"""Starts the stages that a grown archive needs, in a process of their own (`pipelines/grow.py`), and follows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek.archive import HOME_VARIABLE, Archive
from vidseek.installation import PIPELINE, STAGES, code_root
from vidseek.jobs.archive_lock import WORKER_VARIABLE
from vidseek_media import errors
from vidseek_media.errors import ConfigError, ServiceError, VidseekError
from vidseek_media.files.json_files import parse_json

LOG_NAME = "stages.log"
"""Of the last run, below `.vidseek/jobs`."""
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class StagesRun:
    """What the stages said."""

    said: dict[str, str]
    """By stage, of those that had something to do."""
    open: tuple[str, ...]
    """Stages that are left to `dvc repro`."""


def run_stages(archive: Archive, *, what: str, lock: int, at: Callable[[str, float], None]) -> StagesRun:
    """Run what is needed to search what is in the source now.

    Args:
        archive: The archive.
        what: The program that works, for who must wait for it.
        lock: The open file of the archive's lock: the stages keep it, so that it is held as long as they run.
        at: Called with each stage when it begins, and how much is done, 0 to 1.

    Raises:
        ConfigError: the folder of the archive has no pipeline.
        VidseekError: a stage failed, as it says itself; ServiceError where it died.
    """
    if not (archive.root / PIPELINE).is_file():
        raise ConfigError(
            f"{archive.root.resolve()} has no pipeline ({PIPELINE})", code="archive-not-made",
            remedy=f"Run this in the folder of the archive, or set {HOME_VARIABLE} to it",
        )
    archive.jobs.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ, WORKER_VARIABLE: what, "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": os.pathsep.join([str(_stages_root(archive).resolve()), *filter(None, sys.path)]),
    }
    log = archive.jobs / LOG_NAME
    with log.open("wb") as errors_of_it:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.grow"], cwd=archive.root, env=environment, pass_fds=(lock,),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors_of_it, start_new_session=True,
        )
        try:
            told = _follow(process, at)
        finally:
            _stop(process)
    if isinstance(told, VidseekError):
        raise told
    if told is None or process.returncode != 0:
        raise ServiceError(
            f"the stages died ({_ending(process.returncode)}); {log} ends: {_last_line(log.read_bytes())}",
            code="stages-died", remedy="Try it again; where it dies again, look at that file",
        )
    return told


def _stages_root(archive: Archive) -> Path:
    """The folder of pipelines/: the archive's own in a repository, else that of the installation."""
    return archive.root if (archive.root / STAGES).is_file() else code_root(STAGES)


def _follow(process: subprocess.Popen[bytes], at: Callable[[str, float], None]) -> StagesRun | VidseekError | None:
    said: dict[str, str] = {}
    result: StagesRun | VidseekError | None = None
    assert process.stdout is not None
    for raw in process.stdout:
        try:
            line: dict[str, Any] = parse_json(raw)
        except ValueError:
            continue
        if "number" in line:
            at(str(line["stage"]), int(line["number"]) / max(1, int(line["of"])))
        elif "said" in line:
            said[str(line["stage"])] = str(line["said"])
        elif "open" in line:
            result = StagesRun(said, tuple(map(str, line["open"])))
        elif "error" in line:
            result = _error_of(line["error"])
    process.wait()
    return result


def _error_of(told: dict[str, Any]) -> VidseekError:
    kinds = (errors.InputRejected, errors.ConfigError, errors.ArtifactError, errors.DeviceError, errors.GateFailed,
             errors.ServiceError)
    kind = next((each for each in kinds if each.exit_code == told["exit_code"]), ServiceError)
    return kind(str(told["message"]), code=str(told["code"]), remedy=str(told["remedy"]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the stages with all that they started, where they have not ended."""
    if process.poll() is None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(STOP_SECONDS)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    if process.stdout is not None:
        process.stdout.close()


def _ending(code: int | None) -> str:
    return f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"


def _last_line(content: bytes) -> str:
    lines = [line.strip() for line in content[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "with nothing"
