"""An archive of rendered videos that grows, and its stages as `dvc repro` runs them: one process each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import yaml

from bench.growing.counting import COUNTED, COUNTS_VARIABLE, counts_in
from vidseek.paths import ArchivePaths
from vidseek_media.decoding.sandbox import die_with_parent
from vidseek_media.files.json_files import write_json
from vidseek_training import backbones
from vidseek_training.evaluation.champion import ProofRows, Selected
from vidseek_training.export.onnx_export import write_unproven

REPOSITORY = Path(__file__).parents[2]
BACKBONE = "vidseek/viclip-tiny"
_PIPELINE: dict[str, Any] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MAKERS = ("train", "select", "export")
"""The stages that make the encoder. They do not run here: it is there."""
STAGES = tuple(name for name in _PIPELINE if name not in MAKERS)
"""All others, in the order of dvc.yaml, where no stage reads what a later one writes."""
_MADE = ("data", "models", "receipts", "reports")
"""Folders of what stages write; other dependencies are code."""
TRAINED_FROM = ("pairs.parquet", "groups.parquet")
"""The tables that `train`, `select` and `export` depend on."""
CLIPS_A_VIDEO, FPS, SIDE_PX = 10, 8, 64
"""A video has as many seconds as clips."""
_WORDS = tuple(hashlib.sha256(bytes([number])).hexdigest()[: 3 + number % 6] for number in range(200))
_LAST_SECONDS = 20

Row: TypeAlias = dict[str, float]


@dataclass
class GrowingArchive:
    """A folder with a source, params.yaml, an encoder that nobody trained, and what the stages make."""

    root: Path
    num_made: int = 0
    """Videos that were made so far; the number is the seed of the next one."""
    _digests: dict[tuple[int, int, int], str] = field(default_factory=dict, repr=False)
    """Of files by inode, time of change and size."""

    @property
    def source(self) -> Path:
        """The videos, and captions.csv."""
        return self.root / "source"

    @property
    def paths(self) -> ArchivePaths:
        """Of the stages' outputs."""
        return ArchivePaths(self.root)

    def create(self, num_videos: int, *, changes: Mapping[str, Any] | None = None) -> None:
        """Make the folder with `num_videos` videos that have a caption each second.

        Args:
            num_videos: Number of videos.
            changes: Keys of params.yaml, named with dots, beside those that small videos need.
        """
        self.source.mkdir(parents=True, exist_ok=True)
        write_params(self.root / "params.yaml", {**_SMALL, **(changes or {})})
        write_models(self.paths)
        self.add(num_videos)
        write_captions(self.source, num_videos)

    def add(self, count: int) -> None:
        """Make `count` videos without captions."""
        for number in range(self.num_made, self.num_made + count):
            write_video(self.source / f"{number:06d}.mp4", seed=number)
        self.num_made += count

    def change_one(self) -> None:
        """Write another video in the place of the last one."""
        write_video(self.source / f"{self.num_made - 1:06d}.mp4", seed=10**6)

    def remove_one(self) -> None:
        """Remove the last video."""
        (self.source / f"{self.num_made - 1:06d}.mp4").unlink()

    def trained_from(self) -> str:
        """Return a digest of the tables that training depends on."""
        content = b"".join((self.paths.pairs / name).read_bytes() for name in TRAINED_FROM)
        return hashlib.sha256(content).hexdigest()

    def reads(self, stage: str) -> str:
        """Return a digest of what a stage depends on, but for code and settings; empty if DVC runs it always."""
        if _PIPELINE[stage].get("always_changed"):
            return ""
        made = [name for name in _PIPELINE[stage].get("deps", ()) if name.partition("/")[0] in _MADE]
        files = sorted(file for name in made for file in _files_at(self.root / name))
        named = [f"{file.relative_to(self.root)} {self._digest(file)}" for file in files]
        return hashlib.sha256("\n".join(named).encode()).hexdigest()

    def _digest(self, file: Path) -> str:
        stat = file.stat()
        key = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if key not in self._digests:
            with file.open("rb") as content:
                self._digests[key] = hashlib.file_digest(content, "sha256").hexdigest()
        return self._digests[key]

    def is_rebuilt(self) -> bool:
        """Whether the last publish wrote all points, and not the difference."""
        receipt = json.loads((self.paths.receipts / "publish.json").read_text(encoding="utf-8"))
        return bool(receipt.get("num_written", receipt["num_points"]) == receipt["num_points"])

    def run(self, stage: str, *, timeout_seconds: float | None = None) -> Row:
        """Run a stage in a process of its own; return its counts, the bytes of what it wrote, and its seconds.

        Raises:
            subprocess.CalledProcessError: the stage failed.
            Stopped: it took longer than `timeout_seconds`.
        """
        return measured(
            [sys.executable, "-m", f"pipelines.{stage}"], self.root, timeout_seconds=timeout_seconds,
        )


_SMALL: dict[str, Any] = {
    "general.source": None,
    "ingest.source": "source",
    "cut.window_length_seconds": 1.0,
    "cut.window_stride_seconds": 1.0,
    # The encoder is as shipped, and the videos are noise: how well it finds them is not asked here.
    "gates.archive.max_one_length_share": 1.0,
    "gates.archive.max_other_language_share": 1.0,
    "gates.embeddings.max_mean_cosine": 1.0,
    "gates.embeddings.min_effective_rank": 1.0,
    "gates.embeddings.max_drift": 1.0,
    "publish.min_recall": 0.0,
}


def write_params(path: Path, changes: Mapping[str, Any]) -> None:
    """Write this repository's params.yaml with some keys changed, each named with dots."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        *sections, key = name.split(".")
        functools.reduce(lambda section, each: section[each], sections, params)[key] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


ROW = (*COUNTED, "bytes_written", "cpu_seconds", "seconds")
"""What is measured of a command."""


def measured(command: list[str], root: Path, *, timeout_seconds: float | None = None) -> Row:
    """Run a command in an archive; return counts of all its processes, bytes written below `root`, and its seconds.

    Raises:
        Stopped: it took longer than `timeout_seconds` and was ended; it has what was done until then.
        subprocess.CalledProcessError: it failed.
    """
    counted = root / ".counts"
    counted.unlink(missing_ok=True)
    places = (REPOSITORY / "bench" / "growing" / "in_processes", REPOSITORY / "packages", REPOSITORY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places)), COUNTS_VARIABLE: str(counted),
                   "HF_HUB_OFFLINE": "1"}
    before = set(files_of(root))
    begun, computed = time.perf_counter(), _computing_seconds()
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL,
        preexec_fn=functools.partial(die_with_parent, signal.SIGTERM),  # nobody else would stop it
    ) as process:
        is_done = _wait(process, timeout_seconds)
    seconds = time.perf_counter() - begun
    written = set(files_of(root)) - before
    counts = counts_in(counted)
    counted.unlink(missing_ok=True)
    row: Row = {
        **{name: counts[name] for name in COUNTED}, "bytes_written": sum(each.size for each in written),
        "cpu_seconds": round(_computing_seconds() - computed, 2), "seconds": round(seconds, 2),
    }
    if not is_done:
        raise Stopped(row)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return row


class Stopped(Exception):
    """A command that took too long was ended.

    Attributes:
        row: What it did until then.
    """

    def __init__(self, row: Row) -> None:
        super().__init__("stopped")
        self.row = row


def _wait(process: subprocess.Popen[bytes], timeout_seconds: float | None) -> bool:
    """Wait for the end of a process; after the time it is terminated, and killed if it does not listen."""
    try:
        process.wait(timeout_seconds)
        return True
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    return False


def _computing_seconds() -> float:
    """Return the processor time of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _files_at(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


@dataclass(frozen=True)
class WrittenFile:
    """A file on disk as it is, whatever its name: a hard link to an old file is nothing written."""

    inode: int
    changed_ns: int
    size: int
    """Bytes on disk: the index allocates files ahead, with holes."""


def files_of(root: Path) -> Iterator[WrittenFile]:
    """Yield the files below a folder but those of its source."""
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name != "source"]
        for name in names:
            stat = Path(folder, name).lstat()
            yield WrittenFile(stat.st_ino, stat.st_mtime_ns, min(stat.st_size, 512 * stat.st_blocks))


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


def write_captions(source: Path, num_videos: int) -> None:
    """Write captions.csv: a few words that mean nothing for each second of the first `num_videos` videos."""
    rng = np.random.default_rng(0)
    rows = ["file,caption,start,end"]
    for number in range(num_videos):
        for part in range(CLIPS_A_VIDEO):
            words = " ".join(rng.choice(_WORDS, size=rng.integers(3, 9)))
            rows.append(f"{number:06d}.mp4,{words},{part},{part + 1}")
    (source / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_models(paths: ArchivePaths) -> None:
    """Write the shipped backbone as champion and as encoder bundle, as `select` and `export` would."""
    paths.encoder.mkdir(parents=True, exist_ok=True)
    paths.champion.mkdir(parents=True, exist_ok=True)
    write_unproven(backbones.load(BACKBONE), paths.encoder)
    selected = Selected(
        "base", BACKBONE, "", "", "0" * 16, 0, 0.0, (), ("the base: nothing was trained",),
        ProofRows("0" * 16, 0, 0, 0, 0.0, None),
    )
    content = json.loads(json.dumps(dataclasses.asdict(selected)))
    for path in (paths.champion / "selected.json", paths.selected):
        write_json(path, content)
