"""What publishing alone costs when the archive grows, on vectors of 512 as in bench-search, and how fast searches stay.

    python -m bench.growing.publishing --clips 100000 --searches
    python -m bench.growing.publishing --clips 1000000 --prepare                (draws the vectors, and publishes nothing)
    python -m bench.growing.publishing --clips 1000000 --more 0 --limit 1620    (stops in time; run it again to go on)

One video of ten clips is added, then 100 are, one is changed, one is removed, each with a `publish` of its own; then come
`--more` publishes of one more video each. `--searches` compares the index after that with one that is built at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.growing.archive import CLIPS_A_VIDEO, Stopped, measured, write_params
from bench.growing.growth import MANY, OUT, described, read_figures, write_figures
from bench.searching.vectors import base_vectors, draw
from vidseek.paths import ArchivePaths
from vidseek_media.files.json_files import write_json
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CAPTIONS, CLIPS, VIDEOS, write_table
from vidseek_retrieval.confidence.calibrate import CALIBRATION_FILE
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, SUMMARY_FILE, write_part
from vidseek_retrieval.index.edge.backend import EdgeBackend

VERSION = "0" * 16
VIDEOS_A_PART = 1000
NUM_QUERIES, WARM_UP = 500, 50
STATE_FILE = "publishing.json"
_ADDED_SEED = 10**6

Part: TypeAlias = tuple[int, int]
"""Seed and number of videos."""


class VectorArchive:
    """The tables that `publish` reads, of videos whose vectors are drawn; no video file and no encoder."""

    def __init__(self, root: Path) -> None:
        self.root, self.paths = root, ArchivePaths(root)
        self._base = base_vectors()[0]

    def write(self, parts: list[Part]) -> None:
        """Write all tables; parts of vectors that are there are kept, others removed."""
        if not (self.root / "params.yaml").exists():
            self.root.mkdir(parents=True, exist_ok=True)
            write_params(self.root / "params.yaml", {"general.source": None, "publish.index.vectors": ["video"]})
        wanted = {self._path(part): part for part in parts}
        for stale in set((self.paths.embed / PARTS_FOLDER).glob("*.parquet")) - set(wanted):
            stale.unlink()
        for path, part in wanted.items():
            if not path.exists():
                clip_ids = clips_of(part)["clip_id"].tolist()
                write_part(path, clip_ids=clip_ids, vectors=self.vectors(part), encoder_version=VERSION, variant="fp32",
                           digests=[each.replace("-", "") for each in clip_ids])
        clips = pd.concat([clips_of(part) for part in parts], ignore_index=True)
        write_table(self.paths.cut / "clips.parquet", clips, CLIPS)
        write_table(self.paths.ingest / "videos.parquet", videos_of(parts), VIDEOS)
        if not (self.paths.caption / "captions.parquet").exists():
            write_table(self.paths.caption / "captions.parquet", [], CAPTIONS)
            write_json(self.paths.calibrate / CALIBRATION_FILE, None)
        write_json(self.paths.embed / SUMMARY_FILE, {
            "encoder_version": VERSION, "variant": "fp32", "dimension": self._base.shape[1], "num_clips": len(clips),
            PARTS_FOLDER: {path.name: part[1] * CLIPS_A_VIDEO for path, part in wanted.items()},
        })

    def vectors(self, part: Part) -> NDArray[np.float32]:
        """Return the vectors of a part: float32 of shape (clips, 512), unit rows."""
        seed, num_videos = part
        return draw(self._base, num_videos * CLIPS_A_VIDEO, seed=seed)

    def queries(self) -> NDArray[np.float32]:
        """Return vectors that are drawn as those of the clips are."""
        return draw(self._base, NUM_QUERIES, seed=2 * _ADDED_SEED)

    def publish(self, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Run the stage; return its figures and the recall that it measured."""
        row: dict[str, Any] = dict(
            measured([sys.executable, "-m", "pipelines.publish"], self.root, timeout_seconds=timeout_seconds)
        )
        receipt = json.loads((self.paths.receipts / "publish.json").read_text(encoding="utf-8"))
        return {**row, "recall_at_10": receipt["verification"]["recall_at_10"]}

    def _path(self, part: Part) -> Path:
        return self.paths.embed / PARTS_FOLDER / f"{part[0]:07d}-{part[1]}.parquet"


def clips_of(part: Part) -> pd.DataFrame:
    """Return the rows of the clips table of a part."""
    seed, num_videos = part
    rows = [
        (str(clip_id_of(video_id, 1000 * index, 1000 * index + 1000)), video_id, index, 1000 * index, 1000 * index + 1000)
        for video_id in (_video_id(seed, number) for number in range(num_videos)) for index in range(CLIPS_A_VIDEO)
    ]
    table = pd.DataFrame(rows, columns=["clip_id", "video_id", "index", "start_ms", "end_ms"])
    table["cut"] = [["windows"]] * len(table)
    return table[CLIPS.names]


def videos_of(parts: list[Part]) -> list[dict[str, object]]:
    """Return the rows of the videos table."""
    numbers = {"duration_ms": 1000 * CLIPS_A_VIDEO, "fps": 25.0, "width": 64, "height": 48, "views": None}
    return [
        {**dict.fromkeys(VIDEOS.names, ""), **numbers, "video_id": _video_id(seed, number),
         "uris": [f"{seed}/{number}.mp4"], "title": f"video {number}", "channel": f"channel {number % 10}"}
        for seed, num_videos in parts for number in range(num_videos)
    ]


def steps_of(num_clips: int, num_more: int) -> dict[str, list[Part]]:
    """Return the parts of the archive at each step."""
    num_videos = num_clips // CLIPS_A_VIDEO
    first = [(seed, min(VIDEOS_A_PART, num_videos - start))
             for seed, start in enumerate(range(0, num_videos, VIDEOS_A_PART))]
    one, changed, many = (_ADDED_SEED, 1), (_ADDED_SEED + 1, 1), (_ADDED_SEED + 2, MANY)
    steps = {
        "first run": first, "nothing new": first, "1 added": [*first, one], f"{MANY} added": [*first, one, many],
        "1 changed": [*first, changed, many], "1 removed": [*first, many],
    }
    more = [*first, many]
    for number in range(num_more):
        more = [*more, (_ADDED_SEED + 10 + number, 1)]
        steps[f"one more, {number + 1}"] = more
    return steps


def run_steps(
    archive: VectorArchive, steps: dict[str, list[Part]], *, limit_seconds: float | None, keep: Callable[..., None]
) -> dict[str, Any]:
    """Publish each step that was not published yet; return the figures of all. `keep` takes those so far, as `steps`."""
    file, begun = archive.root / STATE_FILE, time.monotonic()
    done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, parts in steps.items():
        if name in done:
            continue
        archive.write(parts)
        say(f"{name}: tables written, {time.monotonic() - begun:.0f} s since the start; publishes")
        left = None if limit_seconds is None else limit_seconds - (time.monotonic() - begun)
        if left is not None and left <= 0:
            break
        try:
            done[name] = archive.publish(timeout_seconds=left)
        except Stopped:
            say(f"{name}: out of time; the next run begins this step again")
            break
        write_json(file, done)
        row = done[name]
        say(f"{name}: {row['points_written']:,} points written in {row['seconds']} s, recall@10 {row['recall_at_10']}")
        keep(steps=done)
    return done


def say(line: str) -> None:
    """Tell who waits how far it is."""
    Console(stderr=True, width=140).print(line, highlight=False)


def keep_figures(path: Path, label: str, num_clips: int, **figures: dict[str, Any]) -> None:
    """Put figures of a number of clips into the JSON file; those of other numbers, and other figures, stay."""
    content = read_figures(path)
    entry = content.setdefault(label, {})
    entry.update(described())
    entry.setdefault("vectors", {}).setdefault(str(num_clips), {}).update(figures)
    write_figures(path, content)


def compare_searches(archive: VectorArchive, parts: list[Part]) -> dict[str, Any]:
    """Search the index that grew and one that is built at once of the same tables; times and recall of both."""
    fresh = ArchivePaths(archive.root / "fresh")
    shutil.rmtree(fresh.root, ignore_errors=True)
    fresh.root.mkdir()
    shutil.copy(archive.root / "params.yaml", fresh.root)
    fresh.data.symlink_to(archive.paths.data)
    measured([sys.executable, "-m", "pipelines.publish"], fresh.root)
    clip_ids = np.concatenate([clips_of(part)["clip_id"].to_numpy() for part in parts])
    vectors, queries = np.concatenate([archive.vectors(part) for part in parts]), archive.queries()
    nearest = [set(clip_ids[np.argpartition(-(vectors @ query), 10)[:10]]) for query in queries]
    found = {
        name: search_figures(paths.index, queries, nearest)
        for name, paths in (("grown", archive.paths), ("built at once", fresh))
    }
    shutil.rmtree(fresh.root)
    return found


def search_figures(index: Path, queries: NDArray[np.float32], nearest: list[set[str]]) -> dict[str, float]:
    """Return the median in milliseconds and the recall at 10 of searches in the live collection."""
    backend = EdgeBackend(index)
    name = backend.live("clips")
    assert name is not None
    collection = backend.open(name)

    def search(query: NDArray[np.float32]) -> set[str]:
        return {clip.clip_id for clip in collection.search(query, limit=10)}

    shares, took = [], []
    for query in queries[:WARM_UP]:
        search(query)
    for query, wanted in zip(queries, nearest, strict=True):
        begun = time.perf_counter()
        found = search(query)
        took.append(1000 * (time.perf_counter() - begun))
        shares.append(len(found & wanted) / 10)
    collection.close()
    return {"p50_ms": round(float(np.median(took)), 3), "recall_at_10": round(float(np.mean(shares)), 4)}


def _video_id(seed: int, number: int) -> str:
    return hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:32]


def table_of(num_clips: int, steps: dict[str, Any]) -> Table:
    """A row for each step."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "points written": lambda row: f"{row['points_written']:,}",
        "points deleted": lambda row: f"{row['points_deleted']:,}",
        "MB written": lambda row: f"{row['bytes_written'] / 1e6:.1f}",
        "CPU s": lambda row: f"{row['cpu_seconds']:.1f}", "seconds": lambda row: f"{row['seconds']:.1f}",
        "recall@10": lambda row: f"{row['recall_at_10']:.4f}",
    }
    table = Table("", *columns, title=f"{num_clips:,} vectors")
    for name, row in steps.items():
        table.add_row(name, *(shown(row) for shown in columns.values()))
    return table


def main() -> None:
    """Publish, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000])
    parser.add_argument("--more", type=int, default=20, help="Publishes of one more video after the steps.")
    parser.add_argument("--prepare", action="store_true", help="Draw the vectors of the first run, and publish nothing.")
    parser.add_argument("--searches", action="store_true", help="Compare searches with an index that is built at once.")
    parser.add_argument("--label", default="after", help="The entry of the JSON file: before or after.")
    parser.add_argument("--root", type=Path, default=Path(".vidseek/growth"), help="Where the archives are kept.")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="Stop after so long; the next run goes on.")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    for num_clips in arguments.clips:
        archive = VectorArchive(arguments.root.absolute() / arguments.label / f"vectors-{num_clips}")
        wanted = steps_of(num_clips, arguments.more)
        if arguments.prepare:
            archive.write(wanted["first run"])
            continue
        keep = partial(keep_figures, arguments.out, arguments.label, num_clips)
        steps = run_steps(archive, wanted, limit_seconds=arguments.limit, keep=keep)
        Console(width=140).print(table_of(num_clips, steps))
        keep(steps=steps)
        if arguments.searches and len(steps) == len(wanted):
            searches = compare_searches(archive, list(wanted.values())[-1])
            keep(searches=searches)
            Console().print(searches)


if __name__ == "__main__":
    main()
