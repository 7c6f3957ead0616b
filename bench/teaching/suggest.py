"""Suggested clips against random ones: what the same number of captions teaches, and whether half as many do.

    python -m bench.teaching.suggest        (after make demo; writes bench/suggest.json; goes on where it was stopped)

The pool is the demo's captioned training clips. Each way chooses among them by the vectors of the base, which has learned
nothing of them; random choice differs with the seed. `suggested` is what `vidseek suggest` does. Each choice trains the text
tower alone, by the demo's settings, with the clips' vectors as the base has them: seconds for each training, where both
towers take minutes. Other ways to choose are there to be compared with: they are judged on validation, by which the way of
the product was chosen, and on the test galleries, which the tables are of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.teaching.controls import some_pairs
from bench.teaching.seeds import demo_settings
from pipelines.stage import PATHS
from vidseek.params import load_params
from vidseek_quality.intervals import interval_text
from vidseek_retrieval.suggesting.coverage import Vectors, choose_farthest, whitened
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.dataset.sampling import Data
from vidseek_training.evaluation.embedding import embed_clips, embed_ids, embed_pairs
from vidseek_training.evaluation.metrics import recall_gain, recall_interval
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

OUT = Path(__file__).parents[1] / "suggest.json"
SEEDS = (0, 1, 2)
NUMS = (50, 100, 200)
HELD = ("validation", "test")
RESAMPLES = 2000
TEXT_ONLY = {
    "towers": ("text",), "targets": ("attention", "mlp", "projections", "token_embedding"), "warmup_text_steps": 40,
    "steps": 1, "replay": 0, "replay_anchor": 0.0, "random_frames": False,
}
"""Beside the demo's settings: the steps of the warm-up read no frames, and are all of it."""
Rows = NDArray[np.int64]
Choice = Callable[[Vectors, int, int], Rows]


def suggested(clips: Vectors, num: int, seed: int) -> Rows:
    """The rows that `vidseek suggest` chooses where nothing is taught; the same for every seed."""
    del seed
    may = np.ones(len(clips), bool)
    picks = choose_farthest(clips, clips[:0], num=num, may_be_chosen=may, alike=lambda row: ~may)
    return np.array([pick.row for pick in picks])


def typical(clips: Vectors, num: int, seed: int) -> Rows:
    """Greedy facility location over cosines from the mean: first what is like most, then what that does not cover."""
    del seed
    directions = clips - clips.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pairs = np.clip(directions @ directions.T, 0, 1)
    covered, rows = np.zeros(len(clips), np.float32), list[int]()
    while len(rows) < num:
        gains = np.maximum(pairs - covered, 0).sum(axis=1)
        gains[rows] = -1
        rows.append(int(gains.argmax()))
        covered = np.maximum(covered, pairs[rows[-1]])
    return np.array(rows)


def typical_whitened(clips: Vectors, num: int, seed: int) -> Rows:
    """As `typical`, over whitened vectors."""
    return typical(whitened(clips), num, seed)


def at_random(clips: Vectors, num: int, seed: int) -> Rows:
    """Rows drawn at random."""
    return np.random.default_rng(seed).permutation(len(clips))[:num]


CHOICES: dict[str, Choice] = {
    "random": at_random, "suggested": suggested, "typical": typical, "typical_whitened": typical_whitened,
}


def measure(nums: Sequence[int], seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """Train and judge every choice; what `out` has is kept."""
    params = load_params()
    name, demo = params.backbone.name, demo_settings(params)
    base = backbones.load(name)
    pool, *held = (load_pairs(PATHS.pairs_table, PATHS.frames, base.spec, split=split) for split in ("train", *HELD))
    clips, of_held = embed_clips(base, pool), [embed_pairs(base, pairs) for pairs in held]
    report: dict[str, Any] = {
        "machine": machine(torch.get_num_threads(), ("torch", "peft")), "settings": TEXT_ONLY,
        "num_pool": len(pool), "rows": [],
    }
    if out.is_file():
        report["rows"] = json.loads(out.read_text(encoding="utf-8"))["rows"]
    done = {(row["choice"], row["num"], row["seed"]) for row in report["rows"]}
    for num in nums:
        for seed in seeds:
            for choice, choose in CHOICES.items():
                if (choice, num, seed) in done:
                    continue
                rows = np.sort(choose(clips, num, seed))
                model = _taught(name, demo, some_pairs(pool, rows), seed)
                found = {
                    split: judge(replace(vectors, texts=embed_ids(model, pairs.ids)), pairs.table).text_ranks.tolist()
                    for split, pairs, vectors in zip(HELD, held, of_held, strict=True)
                }
                report["rows"].append({"choice": choice, "num": num, "seed": seed, **found})
                out.write_text(json.dumps(report) + "\n", encoding="utf-8")
    report["figures"] = [
        each for split, pairs in zip(HELD, held, strict=True) for each in figures(report["rows"], split, pairs)
    ]
    out.write_text(json.dumps(report) + "\n", encoding="utf-8")
    return report


def _taught(name: str, demo: TrainSettings, taught: PairSet, seed: int) -> Backbone:
    """The base after a training on `taught`."""
    torch.manual_seed(seed)
    model = backbones.load(name)
    settings = TrainSettings(**{**demo.model_dump(), **TEXT_ONLY, "seed": seed})
    Trainer(model, settings, Data(taught, some_pairs(taught, np.arange(2)), None)).run()
    model.eval()
    return model


def figures(rows: Sequence[dict[str, Any]], split: str, pairs: PairSet) -> list[dict[str, Any]]:
    """R@1 of each gallery by choice and number, over the seeds; and what suggested ones gain over random ones, of as many
    captions and of twice as many. Queries count once for each seed; intervals resample groups of videos.
    """
    found = []
    for gallery in sorted(set(pairs.table.gallery)):
        of_gallery = (pairs.table.gallery == gallery).to_numpy()
        groups = pairs.groups[of_gallery]

        def ranks_of(choice: str, num: int, which: NDArray[np.bool_] = of_gallery) -> list[NDArray[np.int64]]:
            return [np.array(row[split])[which] for row in rows if (row["choice"], row["num"]) == (choice, num)]

        for num in sorted({row["num"] for row in rows}):
            entry: dict[str, Any] = {"split": split, "gallery": gallery, "num": num}
            for choice in CHOICES:
                if not (own := ranks_of(choice, num)):
                    continue
                entry[choice] = {
                    "seeds": [round(float((ranks == 1).mean()), 4) for ranks in own],
                    "r1": recall_interval(np.concatenate(own), 1, np.tile(groups, len(own)), resamples=RESAMPLES,
                                          seed=0).to_json(),
                }
            for name, other in (("as_many", num), ("twice_as_many", 2 * num)):
                before, after = ranks_of("random", other), ranks_of("suggested", num)
                if len(before) == len(after) > 0:
                    entry[f"gain_over_{name}"] = recall_gain(
                        np.concatenate(before), np.concatenate(after), 1, np.tile(groups, len(after)),
                        resamples=RESAMPLES, seed=0,
                    ).to_json()
            found.append(entry)
    return found


def main() -> None:
    """Measure what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nums", type=int, nargs="*", default=list(NUMS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    table = Table("gallery", "captions", *CHOICES, "gain over as many", "gain over twice as many")
    for row in measure(options.nums, SEEDS, options.out)["figures"]:
        cells = [interval_text(row[name]["r1"]) if name in row else "" for name in CHOICES]
        gains = [interval_text(row[name], signed=True) if name in row else "" for name in
                 ("gain_over_as_many", "gain_over_twice_as_many")]
        table.add_row(f"{row['split']} {row['gallery']}", str(row["num"]), *cells, *gains)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
