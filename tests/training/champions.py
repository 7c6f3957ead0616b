"""Adapters and champions made by hand, so that a test chooses who is better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tests.training.tiny import Archive
from vidseek_encoder.bundle import file_sha256
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.evaluation.champion import ProofRows, Selected
from vidseek_training.fitting import lora
from vidseek_training.fitting.train import Outcome, gallery_hash
from vidseek_training.settings import TrainSettings

SETTINGS = TrainSettings(rank=4, alpha=8, targets=("attention", "mlp", "projections", "token_embedding"))


def write_adapter(folder: Path, backbone: Path, *, seed: int) -> str:
    """An adapter that was shaken, not trained; gives its sha256."""
    model = backbones.load(backbone)
    torch.manual_seed(seed)  # before attaching, which draws numbers too
    handle = lora.attach(model, SETTINGS)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.ndim:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    lora.save(handle, model, folder)
    return file_sha256(folder / "adapter_model.safetensors")


def gallery_of(archive: Archive, backbone: Path) -> str:
    """The hash of the choosing half of the archive's validation pairs."""
    spec = backbones.load(backbone).spec
    return gallery_hash(load_pairs(archive.pairs, archive.frames, spec, split="validation", half="choosing"))


def write_challenger(
    adapters: Path, name: str, backbone: Path, archive: Archive, ranks: Sequence[int], *, seed: int = 1, run_id: str = "",
    adapter: Path | None = None,
) -> Path:
    """What the train stage leaves, with the ranks on the choosing half that a test wants; shaken, or a copy of `adapter`."""
    folder = adapters / name
    if adapter is None:
        write_adapter(folder / "adapter", backbone, seed=seed)
    else:
        shutil.copytree(adapter, folder / "adapter")
    outcome = Outcome(name, True, "", str(backbone), 32, 1, 0.1, run_id)
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))
    content = {"gallery": gallery_of(archive, backbone), "base": [], "adapted": list(ranks)}
    (folder / "validation.json").write_text(json.dumps(content))
    return folder


def write_champion(folder: Path, backbone: Path, *, seed: int | None) -> Path:
    """What the select stage leaves: the base, or an adapter shaken by `seed`."""
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = "" if seed is None else write_adapter(folder / "adapter", backbone, seed=seed)
    setting = "base" if seed is None else f"shaken-{seed}"
    rows = ProofRows("0" * 16, 16, 1, 1, 0.0, None)
    selected = Selected(setting, str(backbone), sha256, "", "0" * 16, 16, 0.5, (), (), rows)
    (folder / "selected.json").write_text(json.dumps(asdict(selected)))
    return folder
