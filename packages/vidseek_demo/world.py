"""The demo archive: two folders of real H.264 files with their captions by time, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidseek_demo.render import Camera, Picture, Take
from vidseek_demo.scenes import AXES, GENERAL, THERMAL, Appearance, Scene, Side, distinct_scenes, near_duplicates
from vidseek_demo.words import caption_of
from vidseek_encoder.choices import usable_cores
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.folders import require_replaceable, sweep, whole_folder
from vidseek_media.terminal.progress import counted

STAMP = ".world.json"
"""Stands in each folder that was rendered, and says how."""
FORMAT = 2
"""Of a world: raise it when the same size and seed give other videos or captions."""
FPS = 10
SIDE_PX = 128
_SCENE_FRAMES = (24, 50)
"""Shortest and longest scene."""


@dataclass(frozen=True)
class Part:
    """One gallery of a world: how many scenes, on which side, drawn how."""

    split: Side
    gallery: str
    num_scenes: int
    scenes_per_video: int = 34
    """34 are about two minutes."""


@dataclass(frozen=True)
class WorldSize:
    """How many scenes each part has."""

    domain: tuple[Part, ...]
    general: tuple[Part, ...]

    @staticmethod
    def demo() -> WorldSize:
        """Return what `make demo` renders: short videos where figures are measured, since an interval wants at least 20 of
        them.
        """
        return WorldSize(
            domain=(
                Part("train", "seen", 400), Part("validation", "unseen", 120, 7), Part("validation", "near", 80, 7),
                Part("test", "unseen", 200, 8), Part("test", "near", 200, 8),
            ),
            general=(Part("train", "seen", 400), Part("test", "unseen", 200, 8)),
        )

    @staticmethod
    def tiny() -> WorldSize:
        """Return a few scenes, for tests of the whole loop; in validation as many videos as a proof wants."""
        return WorldSize(
            domain=(
                Part("train", "seen", 24), Part("validation", "unseen", 26, 1), Part("test", "unseen", 16),
                Part("test", "near", 15),
            ),
            general=(Part("train", "seen", 16), Part("test", "unseen", 16)),
        )


@dataclass(frozen=True)
class Shot:
    """One scene of one video, as it was recorded and described."""

    scene: Scene
    num_frames: int
    caption: str
    contrast: str
    split: Side
    gallery: str
    seed: int


def render_world(out: Path, *, size: WorldSize, seed: int = 0, workers: int | None = None) -> None:
    """Render `out/domain` and `out/general`, each with its captions.csv.

    A folder that was rendered with the same size and seed is left as it is. Each folder is whole or as it was before;
    what a killed call left beside it goes with the next call.

    Raises:
        ConfigError: a folder of one of these names is there, and holds something else.
        OSError: the disk does not take it; no half-rendered world is left.
    """
    sweep(out)
    videos: list[tuple[Appearance, Path, list[Shot]]] = []
    worlds = (("domain", THERMAL, size.domain), ("general", GENERAL, size.general))
    with ExitStack() as stack:
        for number, (name, appearance, parts) in enumerate(worlds):
            stamp = json.dumps({"seed": seed, "parts": [asdict(part) for part in parts], "format": FORMAT})
            if _is_rendered(out / name, stamp):
                continue
            require_replaceable(out / name, marks=[STAMP])
            beside = stack.enter_context(whole_folder(out / name))
            plan = _plan(appearance, parts, np.random.default_rng([seed, number]))
            videos += [(appearance, beside / file, shots) for file, shots in plan.items()]
            _write_captions(beside / "captions.csv", plan)
            (beside / STAMP).write_text(stamp)
        _record_all(videos, workers)


def _is_rendered(folder: Path, stamp: str) -> bool:
    file = folder / STAMP
    return file.is_file() and file.read_text() == stamp


def _plan(appearance: Appearance, parts: tuple[Part, ...], rng: np.random.Generator) -> dict[str, list[Shot]]:
    """Return file name to its shots, in order; the two galleries of a split share no video, nor do two splits."""
    plan: dict[str, list[Shot]] = {}
    for part in parts:
        shots = _shots(appearance, part, rng)
        num_videos = max(1, round(len(shots) / part.scenes_per_video))
        for number, chunk in enumerate(np.array_split(np.arange(len(shots)), num_videos)):
            plan[f"{part.split}-{part.gallery}-{number:02d}.mp4"] = [shots[i] for i in chunk]
    return plan


def _shots(appearance: Appearance, part: Part, rng: np.random.Generator) -> list[Shot]:
    if part.gallery == "near":
        groups = near_duplicates(rng, appearance, part.num_scenes // 5, side=part.split)
        scenes = [scene for group in groups for scene in group]
    else:
        scenes = distinct_scenes(rng, appearance, part.num_scenes, side=part.split)
    rng.shuffle(scenes)  # type: ignore[arg-type]
    shots: list[Shot] = []
    said: set[str] = set()
    for scene in scenes:
        caption, contrast = caption_of(rng, appearance, scene)
        if caption in said:
            raise AssertionError(f"two scenes of one gallery are described alike: {caption}")
        said.add(caption)
        num_frames = int(rng.integers(_SCENE_FRAMES[0], _SCENE_FRAMES[1] + 1))
        seed = int(rng.integers(2**31))
        shots.append(Shot(scene, num_frames, caption, contrast, part.split, part.gallery, seed))
    return shots


def _write_captions(path: Path, plan: dict[str, list[Shot]]) -> None:
    rows = []
    for name, shots in plan.items():
        start = 0
        for shot in shots:
            end = start + shot.num_frames
            axis = AXES.get(shot.scene.motion, "")
            rows.append([name, shot.caption, start / FPS, end / FPS, shot.split, shot.gallery, shot.contrast, axis])
            start = end
    write_csv(path, ["file", "caption", "start", "end", "split", "gallery", "contrast", "axis"], rows)


def _record_all(videos: list[tuple[Appearance, Path, list[Shot]]], workers: int | None) -> None:
    with ProcessPoolExecutor(workers or usable_cores()) as pool:
        jobs = [pool.submit(_record, appearance, path, shots) for appearance, path, shots in videos]
        for job in counted(as_completed(jobs), "rendering", unit="video", total=len(jobs)):
            job.result()


def _record(appearance: Appearance, path: Path, shots: list[Shot]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23"})
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.time_base = Fraction(1, FPS)
        for picture in _pictures(appearance, shots):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _pictures(appearance: Appearance, shots: list[Shot]) -> Iterator[Picture]:
    for shot in shots:
        camera = Camera(appearance, shot.scene, Take.draw(np.random.default_rng(shot.seed)), side_px=SIDE_PX)
        for number in range(shot.num_frames):
            yield camera.frame_at(number / (shot.num_frames - 1))
