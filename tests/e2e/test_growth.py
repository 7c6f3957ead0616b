"""An archive that grew, by `dvc repro` and by a job, says what one says that was made in one go of the same source.

The tests are of one archive, in this order: the last one takes out again what the job added.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.copying import copy_tree
from tests.e2e.conftest import Checkout
from tests.pipelines.growing import write_colours
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.index.edge.backend import EdgeBackend

pytestmark = pytest.mark.slow  # tests/pipelines/test_cost_of_change.py and tests/vidseek/jobs go parts of this way
TRAINED = ("general", "train@lora", "select", "export", "evaluate")
"""Stages that new videos without captions leave alone."""
QUERIES = ("a large red disc", "a bird above the trees", "something blue")


@dataclass(frozen=True)
class Grown:
    """An archive to which one video came by `dvc repro`, and another by `vidseek add`."""

    checkout: Checkout
    source: Path
    said: str
    """What the `dvc repro` said."""
    num_points: int
    """In the index after it."""
    added: Path
    """The file of the other video, before it was added."""
    job: dict[str, Any]
    """Of the `vidseek add`."""
    at_once: Checkout
    """The archive that was made in one go."""
    ran_at_once: frozenset[str]


@pytest.fixture(scope="module")
def grown(looped_once: Checkout, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    first, second = folder / "first.mp4", folder / "-second.mp4"
    write_colours(first, seed=1)
    write_colours(second, seed=2)
    with ThreadPoolExecutor(1) as beside:
        at_once = beside.submit(make_at_once, looped_once, tiny_world, folder / "at once", (first, second))
        source, archive = copy_looped(looped_once, tiny_world, folder / "grown")
        shutil.copy(first, source / "first.mp4")
        said = archive.succeed("dvc", "repro")
        num_points = num_points_of(archive)
        (job,) = json.loads(archive.succeed("vidseek", "add", "--json", "--", str(second)))["jobs"]
        return Grown(archive, source, said, num_points, second, job, *at_once.result())


def copy_looped(looped: Checkout, world: Path, folder: Path) -> tuple[Path, Checkout]:
    """Copy the archive with a source of its own; return both."""
    source = folder / "domain"
    shutil.copytree(world / "domain", source)
    archive = Checkout(copy_tree(looped.path, folder / "archive"))
    archive.edit_params({"ingest.source": str(source)})
    return source, archive


def make_at_once(
    looped: Checkout, world: Path, folder: Path, videos: tuple[Path, ...]
) -> tuple[Checkout, frozenset[str]]:
    """Make an archive of a source that has these videos already; return it, and the stages that ran."""
    source, archive = copy_looped(looped, world, folder)
    for path in videos:
        shutil.copy(path, source / path.name.removeprefix("-"))
    forget_the_archive(archive)
    return archive, stages_run(archive.succeed("dvc", "repro"))


def num_points_of(checkout: Checkout) -> int:
    """Return how many points the last publish counted."""
    return int(json.loads((checkout.path / "receipts/publish.json").read_text())["num_points"])


def stages_run(said: str) -> frozenset[str]:
    """Return the stages that a `dvc repro` ran."""
    return frozenset(line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage"))


def stages_open(checkout: Checkout) -> set[str]:
    """Return the stages that `dvc status` calls changed, without those that always are."""
    found: dict[str, list[Any]] = json.loads(checkout.succeed("dvc", "status", "--json"))
    return {name for name, changes in found.items() if changes != ["always changed"]}


def forget_the_archive(checkout: Checkout) -> None:
    """Leave what was trained, and nothing that was made of the source, in a checkout and in what DVC recorded."""
    lock = checkout.path / "dvc.lock"
    content = yaml.safe_load(lock.read_text())
    content["stages"] = {name: stage for name, stage in content["stages"].items() if name in TRAINED}
    lock.write_text(yaml.safe_dump(content))
    kept = {"decisions", "general"}
    made = [path for path in (checkout.path / "data").iterdir() if path.name not in kept]
    state = [checkout.path / ".vidseek" / name for name in ("ledger", "jobs", "shots")]
    outside = [checkout.path / name for name in ("index", "reports/gates", "reports/calibrate", ".dvc/cache/runs")]
    for path in (*made, *state, *outside, checkout.path / "receipts" / "publish.json"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def test_growing__runs_what_new_videos_need_and_trains_nothing(grown: Grown, looped_once: Checkout) -> None:
    """Videos that no caption names: their frames are made, and training, selection and export stay as they are."""
    ran = stages_run(grown.said)
    assert not ran & (set(TRAINED) - {"general"})
    assert {"frames", "embed", "calibrate", "check_embeddings", "publish", "report"} <= ran
    assert "Adapter lora: its pairs are the same, nothing new to train on" in grown.said
    before, videos, frames = (
        pd.read_parquet(each.path / "data" / name) for each, name in (
            (looped_once, "ingest/videos.parquet"), (grown.checkout, "ingest/videos.parquet"),
            (grown.checkout, "frames/frames.parquet"),
        )
    )
    assert len(videos) == frames.video_id.nunique() == len(before) + 2


def test_add__is_searched_at_once_and_dvc_status_says_what_it_left_open(grown: Grown) -> None:
    job = grown.job
    assert (job["state"], job["uri"], job["error"]) == ("done", "second.mp4", None) and job["num_clips"] > 0
    assert num_points_of(grown.checkout) == grown.num_points + job["num_clips"]
    assert job["note"].endswith(": report") and stages_open(grown.checkout) == {"report"}
    ran = stages_run(grown.checkout.succeed("dvc", "repro"))
    assert ran == {"ingest", "general", "subtitles", "report"}
    assert stages_open(grown.checkout) == set()


def test_growing__says_what_an_archive_made_in_one_go_says(grown: Grown) -> None:
    ran = grown.ran_at_once
    assert {"cut", "frames", "embed", "publish"} <= ran and not ran & (set(TRAINED) - {"general"})
    assert content_of(grown.at_once) == content_of(grown.checkout)
    for query in QUERIES:
        mine, theirs = (
            json.loads(each.succeed("vidseek", "search", query, "--limit", "20", "--json"))["hits"]
            for each in (grown.checkout, grown.at_once)
        )
        assert mine and mine == theirs


def test_add__again_adds_nothing_and_what_is_taken_out_of_the_source_goes(grown: Grown) -> None:
    root = grown.checkout.path
    before = vectors_of(root)
    shutil.rmtree(root / "data/embed")
    grown.checkout.succeed("dvc", "repro", "--force", "--single-item", "embed")
    assert vectors_of(root) == before and len(before) > grown.num_points
    again = json.loads(grown.checkout.succeed("vidseek", "add", "--json", "--", str(grown.added)))["jobs"]
    assert [each["duplicate"] for each in again] == [True]
    (grown.source / "second.mp4").unlink()
    ended = json.loads(grown.checkout.succeed("vidseek", "watch", "--once", "--json"))["jobs"]
    assert [(each["kind"], each["state"]) for each in ended] == [("scan", "done")]
    assert num_points_of(grown.checkout) == grown.num_points


def vectors_of(root: Path) -> dict[str, bytes]:
    """Return the vectors of an archive by clip."""
    embedded = read_parts(root / "data/embed" / PARTS_FOLDER)
    return {clip_id: vector.tobytes() for clip_id, vector in zip(embedded.clip_ids, embedded.vectors, strict=True)}


def content_of(checkout: Checkout) -> dict[str, Any]:
    """Return ids, frames, vectors and points of an archive, and its calibration."""
    root = checkout.path
    videos = pd.read_parquet(root / "data/ingest/videos.parquet")
    frames = pd.read_parquet(root / "data/frames/frames.parquet")
    backend = EdgeBackend(root / "index")
    collection = backend.open(backend.aliases()["clips"].collection)
    try:
        points = {
            point.clip_id: (json.dumps(dict(point.payload), sort_keys=True), point.vector.tobytes())
            for point in collection.scroll()
        }
    finally:
        collection.close()
    return {
        "videos": dict(zip(videos["video_id"], videos["uris"].map(list), strict=True)),
        "clips": sorted(pd.read_parquet(root / "data/cut/clips.parquet")["clip_id"]),
        "pairs": (root / "data/pairs/pairs.parquet").read_bytes(),
        "frames": dict(zip(frames["clip_id"], frames["frames_digest"], strict=True)),
        "vectors": vectors_of(root),
        "points": points,
        "calibration": (root / "data/calibrate/calibration.json").read_bytes(),
    }
