"""What a run costs when the archive grows: one video is added, 100 are, one is changed, one is removed.

    make bench-growth        (writes bench/growth.json; archives of 10^3 and 10^4 clips, made here)

The functions of the stages are called one after the other, as `dvc repro` calls them, on videos of 64 pixels with the
shipped backbone vidseek/viclip-tiny as it is. For each stage: files decoded, clips embedded, points written, bytes
written, seconds. The first videos have captions and those that are added have none: what training depends on must not
change.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import av
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.decoding.worker_batch import run_each
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_retrieval.embedding.embed_archive import Tables, embed_all
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER
from vidseek_retrieval.index.publish import publish
from vidseek_training import backbones
from vidseek_training.captioning.captions import write_captions
from vidseek_training.dataset.pairs import make_pairs
from vidseek_training.export.onnx_export import write_unproven
from vidseek_training.settings import CaptionSettings, PairSettings

OUT = Path(__file__).parents[1] / "growth.json"
BACKBONE = "vidseek/viclip-tiny"
CLIPS_A_VIDEO, FPS, SIDE_PX = 10, 8, 64
"""A video has as many seconds as clips."""
MANY = 100
"""Videos that are added at once."""
TRAINED_FROM = ("pairs.parquet", "groups.parquet")

Row: TypeAlias = dict[str, float]
Event: TypeAlias = dict[str, Any]


@dataclass
class Archive:
    """The folders of an archive that grows."""

    root: Path
    bundle: Path
    num_made: int = 0
    """Videos so far, which seeds the next one."""
    decoded: list[int] = field(default_factory=list)
    """Videos that the frame workers were given, in each call since the last look."""

    @property
    def source(self) -> Path:
        """The videos."""
        return self.root / "source"

    def add(self, count: int, *, captions: bool = False) -> None:
        """Make `count` videos, with a caption for each second if `captions`."""
        rows = ["file,caption,start,end"]
        for number in range(self.num_made, self.num_made + count):
            write_video(self.source / f"{number:06d}.mp4", seed=number)
            rows += [f"{number:06d}.mp4,scene {number} part {part},{part},{part + 1}" for part in range(CLIPS_A_VIDEO)]
        self.num_made += count
        if captions:
            (self.source / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")

    def change_one(self) -> None:
        """Write another video in the place of the last one."""
        write_video(self.source / f"{self.num_made - 1:06d}.mp4", seed=10**6)

    def remove_one(self) -> None:
        """Remove the last video."""
        (self.source / f"{self.num_made - 1:06d}.mp4").unlink()

    def run(self) -> dict[str, Row]:
        """Run the stages from ingest to publish; what each of them did, by its name."""
        return {name: self._measure(name, stage) for name, stage in self._stages().items()}

    def pairs_content(self) -> list[bytes]:
        """The tables that `train`, `select` and `export` depend on."""
        return [(self.root / "pairs" / name).read_bytes() for name in TRAINED_FROM]

    def _stages(self) -> dict[str, Callable[[], object]]:
        at = {name: self.root / name for name in ("ingest", "cut", "frames", "caption", "pairs", "embed", "index")}
        tables = Tables(at["ingest"], at["cut"], at["frames"], at["caption"])
        return {
            "ingest": lambda: ingest(
                self.source, out=at["ingest"], ledger=self.root / "ledger", timeout_seconds=60, workers=2,
            ),
            "cut": lambda: cut_archive(
                at["ingest"], out=at["cut"], modes=("captions", "windows"), window_length_seconds=1, window_stride_seconds=1,
            ),
            "frames": self._frames,
            "caption": lambda: write_captions(at["ingest"], at["cut"], out=at["caption"], settings=CaptionSettings()),
            "pairs": lambda: make_pairs(
                at["ingest"], at["caption"], at["frames"], out=at["pairs"], settings=PairSettings(),
            ),
            "embed": lambda: embed_all(self.bundle, tables, out=at["embed"], variant="fp32", batch=16, cut="windows"),
            "publish": lambda: publish(
                at["embed"], at["cut"], at["ingest"], at["caption"], index=at["index"], min_recall=0.0,
            ),
        }

    def _frames(self) -> object:
        settings = FrameSettings(
            num_frames=8, side_px=SIDE_PX, quality=90, shard_digits=1, workers=2, timeout_seconds=60,
        )
        root = self.root
        with counted_decodes(self.decoded):
            return write_frames(self.source, root / "ingest", root / "cut", out=root / "frames", settings=settings)

    def _measure(self, name: str, stage: Callable[[], Any]) -> Row:
        before, parts_before = files_of(self.root), self._parts()
        begun = time.perf_counter()
        report = stage()
        seconds = time.perf_counter() - begun
        after = files_of(self.root)
        row: Row = {"seconds": round(seconds, 2), "bytes_written": sum(
            size for path, (size, *mark) in after.items() if before.get(path, (0,))[1:] != tuple(mark)
        )}
        if name == "frames":
            row["files_decoded"] = sum(self.decoded)
            self.decoded.clear()
        if name == "embed":
            row["clips_embedded"] = sum(pq.read_metadata(part).num_rows for part in self._parts() - parts_before)
        if name == "publish":
            row["points_written"] = report.num_points if report.built else 0
        return row

    def _parts(self) -> set[Path]:
        return set((self.root / "embed" / PARTS_FOLDER).glob("*.parquet"))


@contextmanager
def counted_decodes(decoded: list[int]) -> Iterator[None]:
    """Note in `decoded` how many videos the frame workers get: in a run, what is decoded and nothing else."""

    def counting(function: Any, jobs: Sequence[Any], **options: Any) -> Any:
        decoded.append(len(jobs))
        return run_each(function, jobs, **options)

    with patch("vidseek_media.frame_store.shards.run_each", counting):
        yield


def files_of(root: Path) -> dict[Path, tuple[int, int, int]]:
    """Return bytes on disk, inode and time of change of each file below `root`, the videos left out."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if "source" not in path.relative_to(root).parts:
                stat = path.stat()
                # The index allocates files ahead, with holes.
                found[path] = (min(stat.st_size, 512 * stat.st_blocks), stat.st_ino, stat.st_mtime_ns)
    return found


def write_video(path: Path, *, seed: int) -> None:
    """Write a soft pattern that drifts, another one for each second: `CLIPS_A_VIDEO` seconds."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast"}
        for _ in range(CLIPS_A_VIDEO):
            coarse = rng.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3)).astype(np.uint8)
            scene = coarse.repeat(8, axis=0).repeat(8, axis=1)
            for number in range(FPS):
                frame = av.VideoFrame.from_ndarray(np.roll(scene, number, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure_archive(num_clips: int, bundle: Path, root: Path) -> dict[str, Event]:
    """Make an archive of `num_clips` clips, then grow it; what each step cost, by its name."""
    archive = Archive(root, bundle)
    archive.add(num_clips // CLIPS_A_VIDEO, captions=True)
    steps: dict[str, Callable[[], None]] = {
        "first run": lambda: None, "nothing new": lambda: None, "1 added": lambda: archive.add(1),
        f"{MANY} added": lambda: archive.add(MANY), "1 changed": archive.change_one, "1 removed": archive.remove_one,
    }
    found: dict[str, Event] = {}
    trained_from: list[bytes] = []
    for name, change in steps.items():
        change()
        stages = archive.run()
        content = archive.pairs_content()
        found[name] = {"stages": stages, "trains": content != trained_from}
        trained_from = content
    return found


def table_of(num_clips: int, events: dict[str, Event]) -> Table:
    """A row for each step."""
    table = Table("", "files decoded", "clips embedded", "points written", "MB written", "seconds", "trains",
                  title=f"an archive of {num_clips:,} clips")
    for name, event in events.items():
        stages = event["stages"]
        table.add_row(
            name, f"{stages['frames']['files_decoded']:,}", f"{stages['embed']['clips_embedded']:,}",
            f"{stages['publish']['points_written']:,}",
            f"{sum(each['bytes_written'] for each in stages.values()) / 1e6:.1f}",
            f"{sum(each['seconds'] for each in stages.values()):.1f}", "yes" if event["trains"] else "no",
        )
    return table


def main() -> None:
    """Make the bundle, grow each archive, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000], help="Of the archives.")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    content: dict[str, Any] = {"machine": machine(2, ("av", "numpy", "onnxruntime", "qdrant-edge-py")), "archives": {}}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        bundle.mkdir()
        write_unproven(backbones.load(BACKBONE), bundle)
        for num_clips in arguments.clips:
            events = measure_archive(num_clips, bundle, Path(folder, str(num_clips)))
            content["archives"][str(num_clips)] = events
            Console().print(table_of(num_clips, events))
            arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
