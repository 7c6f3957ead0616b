"""How well shots are found: precision, recall and F1 within 2 frames, on videos whose boundaries are known."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.videos.rendered import FPS, Boundary, Kind, Scene, join_scenes, recorded_scenes, rendered_scene
from vidseek.params import load_params
from vidseek_media.cutting.shots import find_cuts
from vidseek_media.settings import ShotSettings

TOLERANCE_FRAMES = 2
KINDS: tuple[Kind, ...] = ("cut", "dissolve", "fade")
NUM_VIDEOS, NUM_BOUNDARIES = 6, 15


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


def measure(scenes: Sequence[Scene], *, num_videos: int, seed: int, settings: ShotSettings) -> dict[str, Score]:
    """Make videos of `scenes` drawn at random, as many boundaries of each kind, and score what is found in them."""
    total = {kind: Score(0, 0, 0) for kind in (*KINDS, "all")}
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_videos):
            kinds = [KINDS[i % len(KINDS)] for i in range(NUM_BOUNDARIES)]
            rng.shuffle(kinds)
            order = [int(i) for _ in range(-(-(NUM_BOUNDARIES + 1) // len(scenes))) for i in rng.permutation(len(scenes))]
            drawn = [scenes[i] for i in order[: NUM_BOUNDARIES + 1]]
            path = Path(folder) / f"{number}.mp4"
            truth = join_scenes(path, drawn, kinds, seed=seed + number)
            found = [round(time_ms * FPS / 1000) for time_ms in find_cuts(path, settings=settings)]
            total = add(total, score(truth, found))
    return total


def main() -> None:
    """Measure on rendered scenes, and on real ones where they are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/shots.json"))
    args = parser.parse_args()
    settings = load_params().cut.shots
    default = Path(__file__).resolve().parents[2].parent / "shared" / "realdata"
    real = Path(os.environ.get("VIDSEEK_REALDATA", default)) / "A_video_captioned"
    sources = {"rendered": [rendered_scene(1000 * args.seed + i) for i in range(40)]}
    if real.is_dir():
        sources["real"] = recorded_scenes(sorted(real.rglob("*.mp4")), seconds=4.0)
    report = {}
    for name, scenes in sources.items():
        scores = measure(scenes, num_videos=NUM_VIDEOS, seed=args.seed, settings=settings)
        report[name] = {
            kind: {"boundaries": s.num_true, "precision": round(s.precision, 3), "recall": round(s.recall, 3),
                   "f1": round(s.f1, 3)}
            for kind, s in scores.items()
        }
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
