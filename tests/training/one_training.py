"""A whole training of the tiny archive, slowed down so that it can be killed; alone, in forks, or by torchrun."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

from vidseek_training.fitting import pictures
from vidseek_training.fitting.train import train_adapter
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(
    rank=4, alpha=8, dropout=0.1, targets=("attention", "mlp", "projections", "token_embedding"), steps=60, batch=8,
    warmup_text_steps=2, warmup_text_batch=8, learning_rate=5e-3, evaluate_every=5, hard_share=0.25, precision="fp32",
)


def main(backbone: str, pairs: str, frames: str, root: str, pause_seconds: str, dropout: str = "0.1") -> None:
    torch.set_num_threads(1)
    usual = Trainer._train_step

    def slow(self: Trainer, batch: Any) -> float:
        time.sleep(float(pause_seconds))
        return usual(self, batch)

    Trainer._train_step = slow  # type: ignore[method-assign]
    for name in ("draw_curves", "draw_similarity", "draw_retrieval", "draw_map"):
        setattr(pictures, name, lambda *_, **__: None)
    sys.stdout.write("loaded\n")
    sys.stdout.flush()
    where = Path(root)
    train_adapter(
        "lora", SETTINGS.model_copy(update={"dropout": float(dropout)}), backbone=backbone, pairs=Path(pairs),
        frames=Path(frames), general=None, out=where / "adapters" / "lora", report=where / "report", state=where / "state",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
