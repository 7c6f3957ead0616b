"""A small archive that grows, runs of its stages that can be killed, and what an archive says, to compare with another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import yaml

from tests.line_server import LineServer
from tests.pipelines.stage_runner import STAGES
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek.archive import ALIAS
from vidseek.paths import ArchivePaths
from vidseek_media.files.json_files import write_json
from vidseek_media.frame_store.stored_clips import read_frames
from vidseek_media.tables import CLIPS, FRAMES, VIDEOS, read_table
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.index.edge.backend import EdgeBackend

ROOT = Path(__file__).resolve().parents[2]
CLIPS_A_VIDEO, FPS, SIDE_PX = 2, 4, 16
"""A video has as many seconds as clips."""
CHANGES: dict[str, Any] = {
    "general.source": None, "ingest.source": "source", "ingest.workers": 1, "ingest.timeout_seconds": 600,
    "frames.workers": 1, "frames.quality": 90,
    "cut.window_length_seconds": 1.0, "cut.window_stride_seconds": 1.0, "publish.min_recall": 0.0,
}


def make_archive(root: Path, *, num_videos: int = 4, **changes: Any) -> ArchivePaths:
    """Make a folder with videos, settings and the tiny encoder, that no stage has run in; `changes` are of params.yaml."""
    paths = ArchivePaths(root)
    write_tiny_bundle(paths.encoder)
    write_json(paths.calibrate / "calibration.json", None)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in {**CHANGES, **changes}.items():
        section, key = name.split(".")
        params[section][key] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for number in range(num_videos):
        write_colours(root / "source" / f"{number}.mp4", seed=number)
    return paths


def grow(root: Path) -> None:
    """Add two videos, put another one in the place of the first, and remove the second."""
    source = root / "source"
    for number in (100, 101):
        write_colours(source / f"{number}.mp4", seed=number)
    write_colours(source / "0.mp4", seed=200)
    (source / "1.mp4").unlink()


def write_colours(path: Path, *, seed: int) -> None:
    """Write a video of one colour a second."""
    chance = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with av.open(str(beside), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt, stream.options = "yuv444p", {"preset": "ultrafast"}
        for _ in range(CLIPS_A_VIDEO):
            picture = np.broadcast_to(chance.integers(0, 256, 3).astype(np.uint8), (SIDE_PX, SIDE_PX, 3))
            for _ in range(FPS):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    beside.replace(path)


Answers: TypeAlias = dict[str, list[tuple[str, float]]]
"""The best clips of each colour, with their scores."""


@dataclass(frozen=True)
class Content:
    """What an archive says, however it came to say it."""

    videos: dict[str, tuple[str, ...]]
    """Uris by id."""
    clips: set[str]
    frames: dict[str, str]
    """Digest of each clip's frames: of the table, and of the bytes in the shards."""
    vectors: dict[str, bytes]
    points: dict[str, tuple[str, bytes]]
    """Payload and vector by clip_id, of the live collection."""
    answers: Answers


def content_of(paths: ArchivePaths) -> Content:
    """Read all that an archive says."""
    videos = read_table(paths.ingest / "videos.parquet", VIDEOS)
    table = read_table(paths.frames / "frames.parquet", FRAMES)
    frames = dict(zip(table["clip_id"], table["frames_digest"], strict=True))
    stored = {str(clip.clip_id): clip.digest for clip in read_frames(paths.frames)}
    embedded = read_parts(paths.embed / PARTS_FOLDER)
    return Content(
        videos={row.video_id: tuple(row.uris) for row in videos.itertuples()},
        clips=set(read_table(paths.cut / "clips.parquet", CLIPS)["clip_id"]),
        frames={clip_id: f"{digest} {stored[clip_id]}" for clip_id, digest in frames.items()},
        vectors={
            clip_id: vector.tobytes() for clip_id, vector in zip(embedded.clip_ids, embedded.vectors, strict=True)
        },
        points=points_of(paths), answers=answers_of(paths),
    )


def points_of(paths: ArchivePaths) -> dict[str, tuple[str, bytes]]:
    """Return payload and vector of each point of the live collection."""
    with live_collection(paths) as collection:
        return {
            point.clip_id: (json.dumps(dict(point.payload), sort_keys=True, default=str), point.vector.tobytes())
            for point in collection.scroll()
        }


def answers_of(paths: ArchivePaths) -> Answers:
    """Return the best clips of each colour."""
    with live_collection(paths) as collection:
        return {
            name: [(clip.clip_id, round(clip.score, 5)) for clip in collection.search(colour_vector(colour), limit=5)]
            for name, colour in COLOURS.items()
        }


@contextmanager
def live_collection(paths: ArchivePaths) -> Iterator[Any]:
    """Open the live collection."""
    backend = EdgeBackend(paths.index)
    name = backend.live(ALIAS)
    assert name is not None
    collection = backend.open(name)
    try:
        yield collection
    finally:
        collection.close()


@dataclass
class Run:
    """A run of stages in a process of its own."""

    number: int
    process: int = 0
    stages_process: int = 0
    """Of a job."""
    states: list[str] = field(default_factory=list)
    """Of the jobs that it did, with their codes, and what they say is left."""
    begun: dict[str, float] = field(default_factory=dict)
    """When each stage began."""
    error: str | None = None
    """Why it ended; empty if all stages ended well, None while it runs or if it was killed."""
    ended: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    """What it decoded, embedded and published, by the names of `bench.growing.counting`."""


def seconds_of(run: Run) -> dict[str, float]:
    """Return how long each stage of a run took."""
    times = [*run.begun.items(), ("", run.ended)]
    return {name: end - begin for (name, begin), (_, end) in pairwise(times)}


class Runner(LineServer):
    """Starts runs, follows them, and kills them."""

    def __init__(self, *options: str) -> None:
        super().__init__("tests.pipelines.stage_runner", *options, stderr=subprocess.DEVNULL)
        self._runs: dict[int, Run] = {}
        assert self.receive() == {"ready": True}

    def start(self, root: Path, stages: Sequence[str] = STAGES, *, longest: int = 0) -> Run:
        """Start a run; no file that it writes may be longer than `longest` bytes, if that is not 0."""
        return self._request({"folder": str(root), "stages": list(stages), "longest": longest})

    def start_job(self, root: Path, job: str, files: Sequence[Path] = ()) -> Run:
        """Start one of `stage_runner.JOBS`; needs the option `--jobs`."""
        return self._request({"folder": str(root), "job": job, "files": [str(file) for file in files]})

    def _request(self, request: dict[str, Any]) -> Run:
        run = Run(len(self._runs))
        self._runs[run.number] = run
        self.send({"run": run.number, **request})
        while not run.process:
            self.follow()
        return run

    def wait(self, run: Run) -> Run:
        """Wait until a run has ended."""
        while run.error is None:
            self.follow()
        return run

    def finish(self, root: Path, stages: Sequence[str] = STAGES) -> Run:
        """Run stages to their end, which must be a good one."""
        run = self.wait(self.start(root, stages))
        assert run.error == "", run.error
        return run

    def kill_in(self, run: Run, stage: str, *, after_seconds: float) -> bool:
        """Kill a run so long after one of its stages began; return False if it was at its end before that."""
        while stage not in run.begun and run.error is None:
            self.follow()
        time.sleep(after_seconds)
        self.kill_process(run.process)
        return run.error is None

    @staticmethod
    def kill_process(process: int) -> None:
        """Kill a process, and wait until it is dead."""
        with suppress(ProcessLookupError):
            os.kill(process, 9)
        with suppress(FileNotFoundError, ProcessLookupError):
            while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.001)

    def follow(self) -> None:
        """Take one line of what happens."""
        line = self.receive()
        run = self._runs[line["run"]]
        run.process = line.get("process", run.process)
        run.stages_process = line.get("stages_process", run.stages_process)
        run.states = line.get("states", run.states)
        if "begins" in line:
            run.begun[line["begins"]] = time.monotonic()
        if "ends" in line:
            run.error, run.ended, run.counts = line["ends"], time.monotonic(), line["counts"]


def copy_archive(whole: Path, to: Path) -> ArchivePaths:
    """Copy an archive as it is, with the times of its files: the ledger compares them."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(whole, to, copy_function=shutil.copy2)
    return ArchivePaths(to)
