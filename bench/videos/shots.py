"""How well each detector finds shots, and how fast: precision, recall and F1 within 2 frames, on videos joined here."""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from bench.videos.rendered import FPS, Boundary, Kind, Scene, join_scenes, recorded_scene, rendered_scene
from vidseek.params import load_params
from vidseek_media.cutting.shots import find_cuts
from vidseek_media.cutting.transnetv2_model import prepared_model
from vidseek_media.decoding.packets import read_plan
from vidseek_media.settings import ShotDetector, ShotSettings

TOLERANCE_FRAMES = 2
KINDS: tuple[Kind, ...] = ("cut", "dissolve", "fade")
NUM_FILMS, NUM_BOUNDARIES = 4, 11
SECOND = FPS
MIX: tuple[tuple[Kind, int], ...] = (("cut", 0), ("dissolve", SECOND // 2), ("dissolve", SECOND), ("fade", SECOND // 2))
"""Kinds of boundaries, and frames of each."""
MIN_SCENE_MS, MAX_SCENE_MS = 2400, 10_000
ONE_SHOT = {
    "a3B-hWLnsTM.7": (2960, 5480), "fjSw0PBrtMU.45": (80, 2600), "p5xjUtqNuXE.24": (0, 3400), "DiBm_b-eV8Q.0": (0, 2240),
    "6fHASeSrH8w.43": (0, 1200), "ejFT0e4YP0s.15": (0, 1720), "languagebind_1": (0, 0), "internvid_example1": (0, 0),
}
"""Where real clips that have cuts of their own show one shot: seen by eye, in ms. Without it true cuts count as false."""


@dataclass(frozen=True)
class Score:
    """Of one kind of boundary."""

    num_true: int
    num_hit: int
    """Boundaries of this kind that were found."""
    num_false: int
    """Found frames that are at no boundary; one that is counts for its kind, a second one at the same is false."""

    @property
    def recall(self) -> float:
        """Share of the boundaries that were found."""
        return self.num_hit / self.num_true if self.num_true else 0.0

    @property
    def precision(self) -> float:
        """Share of what was found that is a boundary."""
        return self.num_hit / (self.num_hit + self.num_false) if self.num_hit + self.num_false else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return 2 * self.num_hit / (self.num_true + self.num_hit + self.num_false) if self.num_true else 0.0


def score(truth: Sequence[Boundary], found: Sequence[int]) -> dict[str, Score]:
    """A score for each kind and for `all`; `found` are frame numbers.

    A false frame that lies nearest to a boundary of a kind counts against that kind, and against `all`.
    """
    hits = dict.fromkeys(KINDS, 0)
    false = dict.fromkeys(KINDS, 0)
    taken: set[int] = set()
    for frame in found:
        away = [max(b.first - frame, frame - b.last, 0) for b in truth]
        at = int(np.argmin(away))
        if away[at] <= TOLERANCE_FRAMES and at not in taken:
            taken.add(at)
            hits[truth[at].kind] += 1
        else:
            false[truth[at].kind] += 1
    scores = {kind: Score(sum(b.kind == kind for b in truth), hits[kind], false[kind]) for kind in KINDS}
    return scores | {"all": Score(len(truth), sum(hits.values()), sum(false.values()))}


def add(one: dict[str, Score], other: dict[str, Score]) -> dict[str, Score]:
    """The scores of both together."""
    return {
        kind: Score(a.num_true + b.num_true, a.num_hit + b.num_hit, a.num_false + b.num_false)
        for (kind, a), b in zip(one.items(), other.values(), strict=True)
    }


@dataclass(frozen=True)
class Film:
    """A video that was joined here."""

    path: Path
    truth: list[Boundary]
    num_frames: int


@dataclass(frozen=True)
class Found:
    """What one detector finds in films of one kind."""

    scores: dict[str, Score]
    num_short: int
    """Of the dissolves that were found, those of half a second; half of all dissolves are."""
    num_frames: int
    cpu_seconds: float
    """Of decoding and detecting."""

    def report(self) -> dict[str, object]:
        """As the file has it."""
        rows: dict[str, object] = {
            kind: {"boundaries": s.num_true, "false": s.num_false, "precision": round(s.precision, 3),
                   "recall": round(s.recall, 3), "f1": round(s.f1, 3)}
            for kind, s in self.scores.items()
        }
        half = self.scores["dissolve"].num_true / 2
        rows["dissolve_recall"] = {
            "half_second": round(self.num_short / half, 3),
            "one_second": round((self.scores["dissolve"].num_hit - self.num_short) / half, 3),
        }
        return {**rows, "frames": self.num_frames, "frames_per_cpu_second": round(self.num_frames / self.cpu_seconds, 1)}


def measure(films: Sequence[Film], *, settings: ShotSettings, model: Path | None = None) -> Found:
    """Score what a detector finds in films.

    Args:
        films: With what is true of them.
        settings: Of the detector.
        model: Of TransNetV2; None for the other detector.
    """
    total = {kind: Score(0, 0, 0) for kind in (*KINDS, "all")}
    num_short = num_frames = 0
    before = cpu_seconds()
    for film in films:
        found = [round(time_ms * FPS / 1000) for time_ms in find_cuts(film.path, settings=settings, model=model)]
        total = add(total, score(film.truth, found))
        short = [b for b in film.truth if b.kind == "dissolve" and b.last - b.first < SECOND - 1]
        num_short += sum(any(b.first - TOLERANCE_FRAMES <= at <= b.last + TOLERANCE_FRAMES for at in found) for b in short)
        num_frames += film.num_frames
    return Found(total, num_short, num_frames, cpu_seconds() - before)


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def make_films(folder: Path, scenes: Sequence[Scene], *, seed: int) -> list[Film]:
    """Join scenes drawn at random: in all films together 11 boundaries of each of four kinds.

    They are cuts, dissolves of half a second and of one, and fades.
    """
    rng = np.random.default_rng(seed)
    films = []
    for number in range(NUM_FILMS):
        order = [int(i) for _ in range(-(-(NUM_BOUNDARIES + 1) // len(scenes))) for i in rng.permutation(len(scenes))]
        drawn = [(MIX[(number * NUM_BOUNDARIES + i) % len(MIX)]) for i in range(NUM_BOUNDARIES)]
        rng.shuffle(drawn)
        path = folder / f"{seed}-{number}.mp4"
        truth = join_scenes(
            path, [scenes[i] for i in order[: NUM_BOUNDARIES + 1]], [kind for kind, _ in drawn], seed=seed + number,
            lengths=[length for _, length in drawn],
        )
        films.append(Film(path, truth, len(read_plan(path).pts)))
    return films


def real_scenes(folder: Path) -> list[Scene]:
    """Scenes of the real clips of at least 2.4 seconds that show one shot."""
    scenes = []
    for path in sorted(folder.rglob("*.mp4")):
        start_ms, end_ms = ONE_SHOT.get(path.stem, (0, MAX_SCENE_MS))
        end_ms = min(end_ms, read_plan(path).duration_ms)
        if end_ms - start_ms >= MIN_SCENE_MS:
            scenes.append(recorded_scene(path, start_ms=start_ms, end_ms=end_ms))
    return scenes


def main() -> None:
    """Measure on rendered scenes, and on real ones where they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/shots.json"))
    parser.add_argument("--only", choices=[*get_args(ShotDetector)], help="one detector; without it, those installed")
    args = parser.parse_args()
    settings = load_params().cut.shots
    default = Path(__file__).resolve().parents[2].parent / "shared" / "realdata"
    real = Path(os.environ.get("VIDSEEK_REALDATA", default)) / "A_video_captioned"
    sources = {"rendered": [rendered_scene(1000 * args.seed + i) for i in range(40)]}
    if real.is_dir():
        scenes = real_scenes(real)
        sources |= {"real, chosen on": scenes[::2], "real, judged on": scenes[1::2]}
    detectors: tuple[ShotDetector, ...] = (args.only,) if args.only else get_args(ShotDetector)
    report: dict[str, dict[str, object]] = {detector: {} for detector in detectors}
    with tempfile.TemporaryDirectory() as folder:
        films = {name: make_films(Path(folder), scenes, seed=args.seed + i) for i, (name, scenes) in
                 enumerate(sources.items())}
        for detector in detectors:
            model = prepared_model(Path(folder)) if detector == "transnetv2" else None
            of_one = settings.model_copy(update={"detector": detector})
            for name in sources:
                report[detector][name] = measure(films[name], settings=of_one, model=model).report()
                print(detector, name, json.dumps(report[detector][name]), flush=True)  # noqa: T201 - the command's answer
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
