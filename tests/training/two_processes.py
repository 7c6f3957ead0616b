"""A step and a short training, to be run alone or in two processes; what each process has is left in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from vidseek_training import backbones
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.dataset.sampling import Data, Sampler
from vidseek_training.fitting.distributed import DistributedContext
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(
    rank=4, alpha=8, dropout=0.0, targets=("attention", "mlp", "projections", "token_embedding"), batch=11, steps=4,
    warmup_text_steps=1, warmup_text_batch=8, evaluate_every=2, learning_rate=5e-3, precision="fp32", hard_share=0.25,
    text_view_weight=0.1,
)


def main(backbone: str, pairs: str, frames: str, out: str) -> None:
    torch.set_num_threads(1)
    processes = DistributedContext.here(cuda=False)
    found: dict[str, object] = {"count": processes.count}
    for chunk in (None, 3):
        torch.manual_seed(0)
        settings = SETTINGS.model_copy(update={"chunk": chunk})
        model = backbones.load(backbone)
        splits = ("train", "validation")
        data = Data(*(load_pairs(Path(pairs), Path(frames), model.spec, split=each) for each in splits), None)
        training = Trainer(model, settings, data, processes=processes)
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(std=0.05)
        batch = Sampler(data, settings, model, np.random.default_rng(1), size=settings.batch).draw()
        model.train()
        loss = training._train_step(batch)
        gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
        found[f"step in chunks of {chunk}"] = (loss, gradients)
    model.zero_grad()
    training.run()
    found["trained"] = {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}
    torch.save(found, f"{out}.{processes.rank}")


if __name__ == "__main__":
    main(*sys.argv[1:])
