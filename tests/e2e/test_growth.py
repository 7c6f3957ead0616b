"""An archive that grew, by `dvc repro` and by a job, says what one says that was made in one go of the same source."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.e2e.conftest import Checkout
from tests.pipelines.growing import write_colours
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.index.edge.backend import EdgeBackend

TRAINED = ("general", "train@lora", "select", "export", "evaluate")
"""Stages that new videos without captions leave alone."""
QUERIES = ("a large red disc", "a bird above the trees", "something blue")


@dataclass(frozen=True)
class Grown:
    """An archive to which one video came by `dvc repro`, and another by `vidseek add`."""

    checkout: Checkout
    source: Path
    ran: frozenset[str]
    """Stages that the `dvc repro` ran."""
    note: str
    """What the job said is left."""


@pytest.fixture(scope="module")
def grown(looped: Checkout, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    source, archive = folder / "domain", Checkout(folder / "archive")
    shutil.copytree(tiny_world / "domain", source)
    shutil.copytree(looped.path, archive.path, symlinks=True)
    archive.edit_params({"ingest.source": str(source)})
    write_colours(source / "first.mp4", seed=1)
    said = archive.succeed("dvc", "repro")
    write_colours(folder / "second.mp4", seed=2)
    (job,) = json.loads(archive.succeed("vidseek", "add", str(folder / "second.mp4"), "--json"))["jobs"]
    assert (job["state"], job["error"]) == ("done", None), job
    return Grown(archive, source, stages_run(said), job["note"])


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


def test_growing__runs_what_new_videos_need(grown: Grown) -> None:
    assert not grown.ran & (set(TRAINED) - {"general"})
    assert {"frames", "embed", "calibrate", "check_embeddings", "publish", "report"} <= grown.ran


def test_growing__dvc_status_says_what_a_job_left_open(grown: Grown) -> None:
    assert grown.note.endswith(": report") and stages_open(grown.checkout) == {"report"}
    ran = stages_run(grown.checkout.succeed("dvc", "repro"))
    assert ran == {"ingest", "general", "subtitles", "report"}
    assert stages_open(grown.checkout) == set()


def test_growing__says_what_an_archive_made_in_one_go_says(grown: Grown, tmp_path: Path) -> None:
    shutil.copytree(grown.checkout.path, tmp_path / "archive", symlinks=True)
    at_once = Checkout(tmp_path / "archive")
    forget_the_archive(at_once)
    ran = stages_run(at_once.succeed("dvc", "repro"))
    assert {"cut", "frames", "embed", "publish"} <= ran and not ran & (set(TRAINED) - {"general"})
    assert content_of(at_once) == content_of(grown.checkout)
    for query in QUERIES:
        mine, theirs = (
            json.loads(each.succeed("vidseek", "search", query, "--limit", "20", "--json"))["hits"]
            for each in (grown.checkout, at_once)
        )
        assert mine and mine == theirs


def content_of(checkout: Checkout) -> dict[str, Any]:
    """Return ids, frames, vectors and points of an archive, and its calibration."""
    root = checkout.path
    videos = pd.read_parquet(root / "data/ingest/videos.parquet")
    frames = pd.read_parquet(root / "data/frames/frames.parquet")
    embedded = read_parts(root / "data/embed" / PARTS_FOLDER)
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
        "vectors": {
            clip_id: vector.tobytes() for clip_id, vector in zip(embedded.clip_ids, embedded.vectors, strict=True)
        },
        "points": points,
        "calibration": (root / "data/calibrate/calibration.json").read_bytes(),
    }
