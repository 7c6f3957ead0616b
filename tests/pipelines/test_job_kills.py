"""`vidseek add` and `vidseek watch` under kills at random moments, with DVC as it is: `make kills` is the long form.

Whatever was killed, the worker or its stages, trying again ends with the archive that is made at once of the same files:
nothing is lost, doubled or wrong, no copy of a video stays behind, and DVC knows all of it. Searches answer at any time, as
before the run or as after it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.grow import LEFT
from tests.pipelines.growing import (
    ROOT,
    Answers,
    Content,
    Run,
    Runner,
    answers_of,
    content_of,
    copy_archive,
    make_archive,
    seconds_of,
    write_colours,
)
from vidseek.jobs.job_table import JobTable
from vidseek.paths import ArchivePaths
from vidseek_retrieval.index.edge.backend import EdgeBackend

NUM_KILLS = int(os.environ.get("VIDSEEK_JOB_KILLS", "3"))
SEED = os.environ.get("VIDSEEK_KILL_SEED", "kills of jobs")
WAYS = (("add", "worker"), ("watch", "worker"), ("add", "stages"))
DUPLICATE = "its bytes are in the archive already"
MADE_BY_OTHERS = ("data/general", "reports/evaluate")
"""Of stages that are left to `dvc repro`: this archive has none of them."""
ADDED = ("100.mp4", "101.mp4")
WAITING = {"publish.cut": "windows", "jobs.settle_seconds": 0.0, "jobs.poll_seconds": 0.05, "jobs.source_seconds": 0.1}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Before:
    """An archive that was published, how it answers, files that are added, and what it must say then."""

    paths: ArchivePaths
    answers: Answers
    files: list[Path]
    wanted: Content
    seconds: dict[str, float]
    """How long each part of a run takes, by its stage; empty is what comes before the first."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("dvc")))
        patched.setenv("DVC_NO_ANALYTICS", "1")
        with Runner("--jobs") as started:
            yield started


@pytest.fixture(scope="module")
def before(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("jobs")
    files = [folder / "new" / name for name in ADDED]
    for number, file in enumerate(files):
        write_colours(file, seed=100 + number)
    at_once, paths = make_dvc_archive(folder / "at once"), make_dvc_archive(folder / "before")
    for file in files:
        shutil.copy2(file, at_once.root / "source")
    for each in (at_once, paths):
        assert ended(runner, runner.start_job(each.root, "watch")) == ["done"]
    grown = copy_archive(paths.root, folder / "grown")
    run = runner.start_job(grown.root, "add", files)
    assert ended(runner, run) == ["done", "done"]
    wanted = content_of(at_once)
    assert content_of(grown) == wanted
    return Before(paths, answers_of(paths), files, wanted, seconds_of(run))


def make_dvc_archive(root: Path) -> ArchivePaths:
    """Make an archive that DVC knows, with the stages that a job runs."""
    paths = make_archive(root, num_videos=3, **WAITING)
    stages: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    kept = {name: stage for name, stage in stages.items() if name not in LEFT}
    for stage in kept.values():
        stage["deps"] = [
            each for each in stage.get("deps", [])
            if each.startswith(("data/", "models/", "reports/")) and not each.startswith(MADE_BY_OTHERS)
        ]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False), encoding="utf-8")
    (root / "data" / "decisions").mkdir(parents=True)
    (root / "pipelines").symlink_to(ROOT / "pipelines")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=root, check=True)
    return paths


def ended(runner: Runner, run: Run) -> list[str]:
    """Wait for the end of a run, which must be a good one, and return the states of its jobs."""
    runner.wait(run)
    assert run.error == "", run.error
    return run.states


def check_grown(paths: ArchivePaths, before: Before) -> None:
    """Nothing is lost, doubled or wrong, and nothing of stopped runs is left."""
    assert content_of(paths) == before.wanted
    root = paths.root
    assert sorted(path.name for path in (root / "source").iterdir()) == sorted(["0.mp4", "1.mp4", "2.mp4", *ADDED])
    collections = {each.name for each in paths.index.iterdir() if each.is_dir()}
    assert collections == set(EdgeBackend(paths.index).stored())
    places = (paths.data, paths.index, paths.state, root / "source", root / "inbox")
    left = [path for folder in places for path in folder.rglob("*.part")]
    copies = [path for path in (paths.state / "jobs" / "files").glob("*") if path.is_file()]
    assert not left and not copies and not list(root.glob(".dvc.lock*"))
    assert JobTable(paths.state / "jobs").num_open() == 0


def test_a_job_that_is_killed__is_tried_again_and_the_old_answers_stay(
    runner: Runner, before: Before, tmp_path: Path
) -> None:
    chance, num_killed, number = random.Random(SEED), 0, -1
    while num_killed < NUM_KILLS:
        number += 1
        assert number < 3 * NUM_KILLS, f"{num_killed} of {number} runs were killed, the others had ended"
        job, victim = WAYS[number % len(WAYS)]
        paths = copy_archive(before.paths.root, tmp_path / "killed")
        files = before.files if job == "add" else []
        for file in before.files if job == "watch" else []:
            (paths.root / "inbox").mkdir(exist_ok=True)
            shutil.copy2(file, paths.root / "inbox")
        run = runner.start_job(paths.root, job, files)
        stage = chance.choices([*before.seconds], [*before.seconds.values()])[0] if victim == "worker" else ""
        after_seconds = chance.uniform(0, before.seconds[stage])
        if job == "watch":
            stage, after_seconds = "", chance.uniform(0, sum(before.seconds.values()))
        print(number, job, victim, stage, round(after_seconds, 3), flush=True)  # noqa: T201 - for who looks for a fault
        if victim == "worker":
            num_killed += runner.kill_in(run, stage, after_seconds=after_seconds)
        else:
            num_killed += kill_stages(runner, run, chance.uniform(0, sum(before.seconds.values())))
        assert answers_of(paths) in (before.answers, before.wanted.answers), (number, job, stage)
        if job == "add" and chance.random() < 0.5:
            ask_again(runner, paths, job, before.files)
            assert content_of(paths) == before.wanted, "who adds it again need not know what failed"
            try_again(runner, paths)
        else:
            try_again(runner, paths)
            ask_again(runner, paths, job, before.files)
        check_grown(paths, before)
    print(f"{num_killed} of {number + 1} runs were killed")  # noqa: T201 - as above


def test_dvc_repro_beside_a_job__ends_before_it_has_removed_anything(
    runner: Runner, before: Before, tmp_path: Path
) -> None:
    paths = copy_archive(before.paths.root, tmp_path / "beside")
    run = runner.start_job(paths.root, "add", before.files)
    while "frames" not in run.begun and run.error is None:
        runner.follow()
    os.kill(run.stages_process, signal.SIGSTOP)
    try:
        repro = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=paths.root, capture_output=True, text=True, check=False,
        )
        assert repro.returncode != 0 and "lock" in repro.stderr, repro.stderr
        assert answers_of(paths) == before.answers
    finally:
        os.kill(run.stages_process, signal.SIGCONT)
    assert ended(runner, run) == ["done", "done"]
    check_grown(paths, before)


def kill_stages(runner: Runner, run: Run, after_seconds: float) -> bool:
    """Kill the process of the stages of a job, so long after it began; the worker ends by itself, and says so."""
    while not run.stages_process and run.error is None:
        runner.follow()
    time.sleep(after_seconds)
    runner.kill_process(run.stages_process)
    states = ended(runner, run)
    assert set(states) in ({"failed stages-died"}, {"done"}), states
    return "done" not in states


def try_again(runner: Runner, paths: ArchivePaths) -> None:
    """Try again what failed.

    A job that is done names what `dvc status` finds changed afterwards: here nothing.
    """
    states = ended(runner, runner.start_job(paths.root, "retry"))
    assert all(state == "done" or DUPLICATE in state for state in states), states


def ask_again(runner: Runner, paths: ArchivePaths, job: str, files: list[Path]) -> None:
    """Do once more what was asked for, as a person does who saw no answer."""
    states = ended(runner, runner.start_job(paths.root, job, files if job == "add" else ()))
    assert all(state == "done" or DUPLICATE in state for state in states), states
