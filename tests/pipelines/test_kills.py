"""An archive that grows under faults: kills at random moments, two runs at once, files that cannot grow, replaced videos.

Whatever happened, the next run ends with the archive that is made in one go of the same source: the same ids, frames,
bit-equal vectors, points and answers. Searches answer at any time, as before the run or as after it. `make kills` is the
long form.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipelines.growing import (
    Answers,
    Content,
    Runner,
    answers_of,
    content_of,
    copy_archive,
    grow,
    make_archive,
    seconds_of,
    write_colours,
)
from vidseek.paths import ArchivePaths
from vidseek_media.settings import RECYCLE_AFTER
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.edge.shard import LOAD_BATCH

NUM_KILLS = int(os.environ.get("VIDSEEK_GROWTH_KILLS", "4"))
KILLED_IN = ("frames", "embed", "publish", "ingest", "publish", "frames", "publish", "pairs")
"""Stages in turn, those that write most of the archive more often."""
TOLD = ("ArtifactError", "ServiceError", "ConfigError", "InputRejected", "OSError")
"""Errors that a stage tells in one message: its script makes an ArtifactError of an OSError."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Before:
    """An archive that was published, how it answers, and what the grown one must say."""

    paths: ArchivePaths
    answers: Answers
    wanted: Content
    seconds: dict[str, float]
    """How long each stage of the growing run takes."""


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


@pytest.fixture(scope="module")
def before(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("growing")
    paths = make_archive(folder / "before")
    at_once = make_archive(folder / "at once")
    grow(at_once.root)
    runner.finish(paths.root)
    runner.finish(at_once.root)
    grown = copy_archive(paths.root, folder / "grown")
    grow(grown.root)
    run = runner.finish(grown.root)
    wanted = content_of(at_once)
    assert content_of(grown) == wanted
    return Before(paths, answers_of(paths), wanted, seconds_of(run))


def check_grown(paths: ArchivePaths, before: Before) -> None:
    """Nothing is lost, doubled or wrong, and nothing of stopped runs is left."""
    assert content_of(paths) == before.wanted
    backend = EdgeBackend(paths.index)
    collections = [each for each in paths.index.iterdir() if each.is_dir()]
    assert {each.name for each in collections} == set(backend.stored())
    assert not [path for folder in (paths.data, paths.index) for path in folder.rglob("*.part")]


def test_a_run_that_is_killed__goes_on_and_the_old_answers_stay(runner: Runner, before: Before, tmp_path: Path) -> None:
    chance = random.Random("kills of a growing archive")
    num_killed, number = 0, -1
    while num_killed < NUM_KILLS:
        number += 1
        assert number < 3 * NUM_KILLS, f"{num_killed} of {number} runs were killed, the others had ended"
        paths = copy_archive(before.paths.root, tmp_path / "killed")
        grow(paths.root)
        stage = KILLED_IN[number % len(KILLED_IN)]
        for _ in range(1 + number % 2):  # every other time the run that goes on is killed too
            run = runner.start(paths.root)
            num_killed += runner.kill_in(run, stage, after_seconds=chance.uniform(0, before.seconds[stage]))
            assert answers_of(paths) in (before.answers, before.wanted.answers), (number, stage)
        runner.finish(paths.root)
        check_grown(paths, before)


def test_two_runs_at_once__end_with_one_archive(runner: Runner, before: Before, tmp_path: Path) -> None:
    paths = copy_archive(before.paths.root, tmp_path / "twice")
    grow(paths.root)
    for run in [runner.start(paths.root), runner.start(paths.root)]:
        runner.wait(run)
        assert run.error is not None
        assert not run.error or run.error.split(": ")[1] in TOLD, run.error
        assert answers_of(paths) in (before.answers, before.wanted.answers)
    runner.finish(paths.root)
    check_grown(paths, before)


def test_files_that_cannot_grow__are_one_clear_error_and_the_old_answers_stay(
    runner: Runner, before: Before, tmp_path: Path
) -> None:
    chance = random.Random("full disks of a growing archive")
    sizes = sorted({path.stat().st_size for path in before.paths.data.rglob("*") if path.is_file()})
    for number in range(NUM_KILLS):
        paths = copy_archive(before.paths.root, tmp_path / "full")
        grow(paths.root)
        run = runner.wait(runner.start(paths.root, longest=chance.choice(sizes) - chance.randrange(1, 64) or 1))
        assert run.error is not None
        assert not run.error or run.error.split(": ")[1] in TOLD, (number, run.error)
        assert answers_of(paths) in (before.answers, before.wanted.answers)
        runner.finish(paths.root)
        check_grown(paths, before)


def test_a_video_that_is_replaced_between_two_stages__is_never_under_the_id_of_the_first(
    runner: Runner, before: Before, tmp_path: Path
) -> None:
    paths = copy_archive(before.paths.root, tmp_path / "replaced")
    grow(paths.root)
    write_colours(paths.root / "source" / "100.mp4", seed=300)
    runner.finish(paths.root, ["ingest", "cut"])
    write_colours(paths.root / "source" / "100.mp4", seed=100)
    runner.finish(paths.root, ["side", "frames", "caption", "pairs", "embed", "publish"])
    said = content_of(paths)
    (replaced,) = set(said.videos) - set(before.wanted.videos)
    assert set(said.points) == set(before.wanted.points) - set(clips_of_uri(before.wanted, "100.mp4"))
    runner.finish(paths.root)
    assert replaced not in content_of(paths).videos
    check_grown(paths, before)


def clips_of_uri(content: Content, uri: str) -> list[str]:
    """Return the clips of a video by its uri."""
    (video_id,) = [video_id for video_id, uris in content.videos.items() if uris == (uri,)]
    return [clip_id for clip_id, (payload, _) in content.points.items() if video_id in payload]


def test_hundreds_of_files_at_once__are_all_taken_once(runner: Runner, tmp_path: Path) -> None:
    """More than one worker takes before it is replaced, and of more clips than the index takes at a time."""
    num_files, clips_a_video = RECYCLE_AFTER + 50, 5
    assert num_files * clips_a_video > LOAD_BATCH
    paths = make_archive(tmp_path / "many", num_videos=1, **{"cut.window_stride_seconds": 0.25})
    runner.finish(paths.root)
    first = (paths.root / "source" / "0.mp4").read_bytes()
    for number in range(1, num_files + 1):
        # A box that players skip: other bytes, and so another video of the same pictures.
        box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (paths.root / "source" / f"{number}.mp4").write_bytes(first + box)
    run = runner.finish(paths.root)
    assert run.counts["files_read"] == 2 * num_files  # probed and decoded
    assert "clips_embedded" not in run.counts  # the pictures are those of the first
    said = content_of(paths)
    assert len(said.videos) == num_files + 1
    assert set(said.points) == set(said.vectors) == set(said.frames) == said.clips
    assert len(said.points) == clips_a_video * (num_files + 1)
