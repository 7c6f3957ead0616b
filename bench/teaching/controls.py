"""Controls of the demo's adapter: one thing changed at a time, one seed each; what is chosen is chosen elsewhere.

    make controls            (after make demo; writes bench/controls.json; goes on where it was stopped)

Each row trains on the demo's pairs and is judged on the test galleries and on the general world's test pairs. One seed
says little of differences under three points (`bench/seeds.json` has what seeds alone make). The rows without palettes
want a base that was trained as long without false colours, half an hour, and are left out where it is not there:

    python -m vidseek_demo.train_backbones --palettes 0 --work .vidseek/plain --out .vidseek/plain/weights
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.teaching.seeds import _machine, demo_settings
from pipelines.stage import PATHS
from vidseek.params import load_params
from vidseek_quality.intervals import interval_text
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.dataset.sampling import Data
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import recall_gain, recall_interval
from vidseek_training.evaluation.retrieval_metrics import RetrievalMetrics, judge
from vidseek_training.fitting import lora
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

OUT = Path(__file__).parents[1] / "controls.json"
PLAIN_BASE = Path(".vidseek/plain/weights/viclip-tiny")
RESAMPLES = 2000


@dataclass(frozen=True)
class Control:
    """One row: what differs from the demo's setting."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    backbone: str = ""
    """The demo's where it is empty."""
    num_pairs: int | None = None
    """Of the training pairs, drawn at random; None for all."""
    whole_model: bool = False
    """Every weight is trained, and no adapter."""
    trained: bool = True


def controls() -> list[Control]:
    """All rows, the first two being what the others are compared with."""
    rows = [Control("base", trained=False), Control("demo")]
    rows += [Control(f"rank {rank}", {"rank": rank, "alpha": 2 * rank}) for rank in (4, 8, 32)]
    rows += [Control(f"{count} pairs", num_pairs=count) for count in (100, 200, 300)]
    rows += [
        Control("text tower only", {"towers": ("text",), "targets": ("attention", "mlp", "projections", "token_embedding")}),
        Control("video tower only", {"towers": ("video",), "warmup_text_steps": 0}),
        # A rate at which all weights may move: the adapter's own would throw them about.
        *(Control(f"full fine-tuning, rate {rate:g}", {"learning_rate": rate}, whole_model=True) for rate in (1e-4, 5e-4)),
        Control("clip-tiny, base", backbone="vidseek/clip-tiny", trained=False),
        Control("clip-tiny, LoRA", backbone="vidseek/clip-tiny"),
        Control("no anchor", {"replay_anchor": 0.0}),
        Control("no replay", {"replay_anchor": 0.0, "replay": 0}),
        Control("no text warm-up", {"warmup_text_steps": 0}),
        Control("image-image 0.1", {"clip_view_weight": 0.1}),
        Control("text-text 0.1", {"text_view_weight": 0.1}),
        Control("both 0.1", {"clip_view_weight": 0.1, "text_view_weight": 0.1}),
        Control("hard negatives 0.25", {"hard_share": 0.25}),
        Control("sigmoid loss", {"loss": "sigmoid"}),
        Control("4 cycles", {"cycles": 4}),
    ]
    if (PLAIN_BASE / "model.safetensors").is_file():
        rows += [
            Control("no palettes, base", backbone=str(PLAIN_BASE), trained=False),
            Control("no palettes, LoRA", backbone=str(PLAIN_BASE)),
        ]
    return rows


def run(control: Control, demo: TrainSettings, demo_backbone: str) -> dict[str, Any]:
    """Train one row, judge it."""
    name = control.backbone or demo_backbone
    settings = TrainSettings(**{**demo.model_dump(), **control.settings})
    torch.manual_seed(settings.seed)
    model = backbones.load(name)
    general = load_pairs(PATHS.general.pairs_table, PATHS.general.frames, model.spec, split="test")
    test = load_pairs(PATHS.pairs_table, PATHS.frames, model.spec, split="test")
    before = judge(embed_pairs(model, general), general.table)
    base = judge(embed_pairs(model, test), test.table)
    row: dict[str, Any] = {"name": control.name, "backbone": name}
    if control.trained:
        data = _data(model, settings, control.num_pairs)
        with _whole_model() if control.whole_model else contextlib.nullcontext():
            training = Trainer(model, settings, data)
            training.run()
        row |= {
            "settings": {key: value for key, value in settings.model_dump(mode="json").items()
                         if value != demo.model_dump(mode="json")[key]},
            "num_pairs": len(data.train), "seconds": round(training.seconds, 1),
            "trained_numbers": sum(each.numel() for each in model.parameters() if each.requires_grad),
            "validation_mrr": max(curve["validation_mrr"] for curve in training.curves),
        }
    after = judge(embed_pairs(model, test), test.table)
    return row | {
        "test": after.figures(test.table), "r1": _recalls(after, base, test),
        "general": _recalls(judge(embed_pairs(model, general), general.table), before, general),
    }


def _data(model: Backbone, settings: TrainSettings, num_pairs: int | None) -> Data:
    pairs, general = PATHS.pairs_table, PATHS.general.pairs_table
    train = load_pairs(pairs, PATHS.frames, model.spec, split="train", all_frames=settings.random_frames)
    if num_pairs is not None:
        train = some_pairs(train, np.sort(np.random.default_rng(0).permutation(len(train))[:num_pairs]))
    replayed = load_pairs(general, PATHS.general.frames, model.spec, split="train") if settings.replay else None
    return Data(train, load_pairs(pairs, PATHS.frames, model.spec, split="validation", half="choosing"), replayed)


def some_pairs(pairs: PairSet, rows: Any) -> PairSet:
    """The pairs of some rows."""
    table = pairs.table.iloc[rows].reset_index(drop=True)
    return dataclasses.replace(
        pairs, table=table, frames=pairs.frames[rows], ids=pairs.ids[rows], contrast_ids=pairs.contrast_ids[rows]
    )


def _recalls(after: RetrievalMetrics, base: RetrievalMetrics, pairs: PairSet) -> dict[str, Any]:
    """R@1 of each gallery with its interval, and what was gained over this row's own base."""
    found = {}
    for gallery in sorted(set(pairs.table.gallery)):
        rows = (pairs.table.gallery == gallery).to_numpy()
        ranks, before, groups = after.text_ranks[rows], base.text_ranks[rows], pairs.groups[rows]
        found[gallery] = {
            "r1": recall_interval(ranks, 1, groups, resamples=RESAMPLES, seed=0).to_json(),
            "gain": recall_gain(before, ranks, 1, groups, resamples=RESAMPLES, seed=0).to_json(),
        }
    return found


class _Whole:
    """In the place of peft's handle where every weight is trained: it knows the base's weights."""

    def __init__(self, model: Backbone) -> None:
        self.model = model
        self._base = self.state()

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """None has an adapter whose strength could be measured."""
        return iter(())

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        trained = self.state()
        self.model.load_state_dict(self._base)
        try:
            yield
        finally:
            self.model.load_state_dict(trained)


@contextlib.contextmanager
def _whole_model() -> Iterator[None]:
    """Let `Trainer` train all weights: the same steps, the same looks, the same best state kept."""

    def attach(model: nn.Module, settings: TrainSettings) -> Any:
        model.requires_grad_(True)
        return _Whole(model)  # type: ignore[arg-type]

    def set_scaled(handle: _Whole, state: dict[str, Tensor], scale: float) -> None:
        assert scale == 1.0, scale
        handle.model.load_state_dict(state)

    with mock.patch.multiple(lora, attach=attach, state_of=_Whole.state, set_scaled=set_scaled):
        yield


def main() -> None:
    """Run what is missing, write after each row, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name has this in it")
    parser.add_argument("--again", action="store_true", help="forget the rows that are there")
    options = parser.parse_args()
    params = load_params()
    demo = demo_settings(params)
    report: dict[str, Any] = {"machine": _machine(), "seed": demo.seed, "demo": demo.model_dump(mode="json"), "rows": []}
    if OUT.is_file() and not options.again:
        before = json.loads(OUT.read_text(encoding="utf-8"))
        # Keys that are newer than the rows had no effect on them.
        if before["demo"] == {key: report["demo"].get(key) for key in before["demo"]}:
            report["rows"] = before["rows"]
    for control in controls():
        if options.only in control.name and control.name not in {row["name"] for row in report["rows"]}:
            report["rows"].append(run(control, demo, params.backbone.name))
            OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _print(report["rows"])


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("row", "trained", "unseen R@1", "near R@1", "directions", "general R@1", "seconds")
    for row in rows:
        shares = " ".join(f"{axis} {share:.2f}" for axis, share in row["test"].get("two_way", {}).items())
        cells = [_cell(row["r1"].get(gallery)) for gallery in ("unseen", "near")]
        table.add_row(row["name"], f"{row.get('trained_numbers', 0):,}", *cells, shares, _cell(row["general"].get("unseen")),
                      str(row.get("seconds", "")))
    Console(width=160).print(table)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    return interval_text(found["r1"])


if __name__ == "__main__":
    main()
