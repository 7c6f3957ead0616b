"""The demo's claim over three seeds: train each, judge each on the test galleries and on the general world.

    make seeds        (after make demo; writes bench/seeds.json; goes on where it was stopped)

The seed decides the adapter's start, the order of pairs, and the views; pairs and galleries stay.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipelines.stage import PATHS
from vidseek.params import Params, load_params
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.evaluate import measure_retention
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora
from vidseek_training.fitting.precision import multiplies_in_bf16
from vidseek_training.fitting.presets import Model, resolve
from vidseek_training.fitting.train import train_adapter
from vidseek_training.settings import TrainSettings

SEEDS = (0, 1, 2)
OUT = Path(__file__).parents[1] / "seeds.json"


def main() -> None:
    """Train and judge what is missing, write after each seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="+", default=list(SEEDS), help="only these seeds")
    options = parser.parse_args()
    params = load_params()
    settings = demo_settings(params).model_dump(mode="json")
    base = backbones.load(params.backbone.name)
    test = load_pairs(PATHS.pairs_table, PATHS.frames, base.spec, split="test")
    for seed in (None, *options.only):
        if seed not in {row["seed"] for row in _rows(settings)}:
            row = _base_row(base, test) if seed is None else _row(seed, params, base, test)
            others = [each for each in _rows(settings) if each["seed"] != seed]  # another process may do other seeds
            rows = sorted([*others, row], key=lambda each: -1 if each["seed"] is None else each["seed"])
            OUT.write_text(json.dumps({"machine": _machine(), "settings": settings, "rows": rows}, indent=2) + "\n",
                           encoding="utf-8")
    _print(_rows(settings))


def _rows(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that are there of these settings: other settings begin anew."""
    found: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    rows: list[dict[str, Any]] = found["rows"] if found.get("settings") == settings else []
    return rows


def demo_settings(params: Params) -> TrainSettings:
    """The demo's adapter setting with every key filled in."""
    first = next(iter(params.train.settings.values()))
    sizes = Model(params.backbone.name, backbones.load(params.backbone.name).num_parameters(), 0)
    return resolve(first, sizes, 400, default=params.train.preset).settings


def _base_row(base: Backbone, test: PairSet) -> dict[str, Any]:
    return {"seed": None, "test": judge(embed_pairs(base, test), test.table).figures(test.table)}


def _row(seed: int, params: Params, base: Backbone, test: PairSet) -> dict[str, Any]:
    """Train with a seed, and judge the adapter."""
    with tempfile.TemporaryDirectory() as scratch:
        seconds = teach(seed, params, Path(scratch))
        adapted = lora.merged(base, Path(scratch, "adapter", "adapter"))
    return {
        "seed": seed, "cpu_seconds": round(seconds, 1),
        "test": judge(embed_pairs(adapted, test), test.table).figures(test.table),
        "retention": measure_retention(base, adapted, PATHS.general.data, resamples=params.evaluate.resamples, seed=0),
    }


def teach(seed: int, params: Params, folder: Path) -> float:
    """Train with a seed as the train stage does, into `folder/adapter`, and return the CPU seconds that it took.

    Args:
        seed: Of all that is drawn.
        params: Of the archive, which is the working directory.
        folder: Takes the adapter, its report, and a tracking store of their own: this is no run of the archive.
    """
    name, settings = next(iter(params.train.settings.items()))
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.resolve()}/mlflow.db"
    began = time.process_time()
    train_adapter(
        name, settings.model_copy(update={"seed": seed}), backbone=params.backbone.name,
        pairs=PATHS.pairs_table, frames=PATHS.frames, general=PATHS.general.data, out=folder / "adapter",
        report=folder / "report", preset=params.train.preset,
    )
    return time.process_time() - began


def _machine() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "bf16": multiplies_in_bf16("auto", torch.device("cpu")),
        **{name: version(name) for name in ("torch", "peft", "transformers")},
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("seed", "gallery", "R@1", "R@5", "R@10", "directions", "general R@1", "CPU seconds")
    for row in rows:
        galleries = {key: value for key, value in row["test"].items() if key != "two_way"}
        for place, (gallery, figures) in enumerate(galleries.items()):
            shares = " ".join(f"{axis} {share:.2f}" for axis, share in row["test"].get("two_way", {}).items())
            kept = row.get("retention", {}).get("adapted", {}).get("r1")
            table.add_row(
                ("base" if row["seed"] is None else str(row["seed"])) if not place else "", gallery,
                *(f"{figures[f'r{k}']:.3f}" for k in (1, 5, 10)), "" if place else shares,
                "" if place or kept is None else f"{kept:.3f}", "" if place else str(row.get("cpu_seconds", "")),
            )
    Console().print(table)


if __name__ == "__main__":
    main()
