"""50,000 pairs at ViT-B/32's shape: what the preset's training takes here, in memory and time, beside its forecast.

    python -m bench.teaching.many_pairs          (writes bench/many_pairs.json; some minutes on two cores)

Weights are random and frames are black: a training takes the same memory and time whatever they show. The frames are a
sparse file that is mapped, as those of a real archive are; what of it was read lies in the kernel's page cache and is given
up where memory is short, so memory is told apart: anonymous, and the highest of all.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.teaching.recipe import DEVIATION, MEAN, Shape
from bench.teaching.train import forget_peak, peak_gib
from vidseek_training.backbones.base import BackboneSpec
from vidseek_training.backbones.clip import build_clip
from vidseek_training.dataset.pair_set import FramesOfPairs, PairSet
from vidseek_training.dataset.sampling import Data
from vidseek_training.fitting.presets import Model, resolve
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

OUT = Path(__file__).parents[1] / "many_pairs.json"
NUM_PAIRS, FRAMES, NUM_TOKENS, NUM_STEPS = 50_000, 8, 49_408, 1
STEP_PAIRS = int(os.environ.get("VIDSEEK_BENCH_PAIRS", 256))
STEP_CHUNK = int(os.environ.get("VIDSEEK_BENCH_CHUNK", 16))
"""Of the step that is taken; the preset's by default. Smaller ones check the forecast where there is little time."""
LOOK_CLIPS = 1
"""Validation pairs."""


def pairs_of(count: int, shape: Shape, folder: Path) -> PairSet:
    """Pairs of black frames and sixteen tokens; nothing of the frames' file takes room on the disk."""
    rng = np.random.default_rng(count)
    names = [f"{number:032x}" for number in range(count)]
    table = pd.DataFrame({"clip_id": names, "video_id": names, "caption": names, "gallery": "default", "contrast": "",
                          "axis": ""})
    ids = np.zeros((count, shape.context), np.int64)
    ids[:, :16] = rng.integers(1, NUM_TOKENS - 2, (count, 16))
    ids[:, 15] = NUM_TOKENS - 1
    frames = np.memmap(folder / f"{count}.frames", np.uint8, "w+", shape=(count, FRAMES, shape.side, shape.side, 3))
    return PairSet(table, FramesOfPairs(frames, np.arange(count)), ids, ids)


def anonymous_gib() -> float:
    """Of this process now, without what is mapped from files."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 2**20


class Gauged(Trainer):
    """A training that looks at its own memory."""

    anonymous = 0.0

    def _embed(self, piece: Any) -> torch.Tensor:
        found = super()._embed(piece)
        self.anonymous = max(self.anonymous, anonymous_gib())
        return found


def main() -> None:
    """Make, forecast, take steps, write."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shape = Shape()
    torch.manual_seed(0)
    spec = BackboneSpec("clip", "ViT-B/32's shape", shape.dimension, shape.context, FRAMES, shape.side, "crop", MEAN,
                        DEVIATION, 0, Path("tokenizer.json"))
    model = build_clip(shape.config(NUM_TOKENS), spec)
    sizes = Model(spec.name, model.num_parameters(), model.num_embedding_parameters())
    choice = resolve(TrainSettings(preset="auto", scales=(1.0,)), sizes, NUM_PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        train = pairs_of(NUM_PAIRS, shape, Path(folder))
        data = Data(train, pairs_of(LOOK_CLIPS, shape, Path(folder)), None)
        training = Gauged(model, choice.settings, data)  # without the sweep of scales: there is nothing to choose here
        began = time.monotonic()
        forecast = training.forecast()
        probe_seconds = time.monotonic() - began
        print(choice.reason, forecast, sep="\n", flush=True)  # noqa: T201 - progress of minutes
        before = anonymous_gib()
        forget_peak()
        less = {"steps": NUM_STEPS, "epochs": None, "batch": STEP_PAIRS, "chunk": STEP_CHUNK}
        training.settings = choice.settings.model_copy(update=less)
        as_run = replace(forecast, work=replace(
            forecast.work, num_steps=NUM_STEPS, chunk=STEP_CHUNK, clips_a_step=STEP_PAIRS, texts_a_step=STEP_PAIRS
        ))
        training.run()
        report = {
            "machine": {"cores": os.cpu_count(), "torch": version("torch")},
            "note": "other work beside it: times say little",
            "pairs": NUM_PAIRS, "frames": FRAMES, "settings": choice.settings.model_dump(mode="json"),
            "forecast": forecast.to_json(), "probe_seconds": round(probe_seconds, 1), "steps": NUM_STEPS,
            "step_pairs": STEP_PAIRS, "step_chunk": STEP_CHUNK, "forecast_of_that_step": as_run.to_json(),
            "process_before_gib": round(before, 2),
            "step_seconds": round(training.seconds / NUM_STEPS, 1),
            "anonymous_gib_while_embedding": round(training.anonymous, 2), "peak_gib": round(peak_gib(), 2),
        }
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
