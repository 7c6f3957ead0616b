"""Our bf16 linear layers and bit-drawn dropout against torch's own, and int8 with fused attention against int8 without.

Each contestant runs in turn in one process, again and again, and the least of its processor times counts: other programs
only add to it. The step is forward and backward of both towers with a LoRA adapter, as a training has it, without the
optimiser.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from transformers import CLIPConfig, CLIPModel

from bench.machine import machine
from bench.shapes import spec_of, whole_words
from vidseek_encoder import fusion, variants
from vidseek_encoder.encoder import Encoder
from vidseek_training.backbones import Backbone, load
from vidseek_training.backbones.clip import FrameAveragedCLIP
from vidseek_training.export.onnx_export import write_unproven
from vidseek_training.fitting import lora
from vidseek_training.fitting.precision import bf16_products
from vidseek_training.settings import TrainSettings

OUT = Path(__file__).parents[1] / "precision.json"
LAYERS = 3
"""Of ViT-B/32's twelve in each tower: a layer costs the same in both, and the ratio is what is measured."""


def clip_b32(folder: Path) -> Backbone:
    """A CLIP of the sizes of ViT-B/32 with `LAYERS` layers and random weights."""
    torch.manual_seed(0)
    config = CLIPConfig()
    for tower in (config.text_config, config.vision_config):
        tower.num_hidden_layers = LAYERS
    config.text_config.bos_token_id, config.text_config.eos_token_id = 1, 3
    config._attn_implementation = "sdpa"
    whole_words().save(str(folder / "words.json"))
    return FrameAveragedCLIP(spec_of("clip", folder / "words.json"), CLIPModel(config).eval())


@contextmanager
def autocast_of_layers(model: Backbone) -> Iterator[None]:
    """Let the layers that `bf16_products` changes run as peft has them, each under torch's autocast."""
    layers = [model.get_submodule(name) for name in model.lora_targets(("attention", "mlp"))]

    def forward(usual: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return usual(values).float()

    for layer in layers:
        layer.forward = partial(forward, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def step(model: Backbone, videos: torch.Tensor, texts: torch.Tensor, mode: Callable[[Backbone], Any]) -> None:
    """One forward and backward through both towers."""
    with mode(model):
        loss = -(model.embed_videos(videos) * model.embed_texts(texts)).sum(-1).mean()
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


MODES: Mapping[str, Callable[[Backbone], Any]] = {
    "ours": lambda model: bf16_products(model, wanted=True),
    "autocast of the layers, plain dropout": autocast_of_layers,
    "autocast of the towers, plain dropout": lambda model: torch.autocast("cpu", torch.bfloat16),
    "fp32": lambda model: nullcontext(),
}


def train_times(model: Backbone, clips: int, rounds: int, dropout: float) -> dict[str, float]:
    """Least processor seconds of a step in each mode."""
    lora.attach(model, TrainSettings(rank=16, alpha=32, dropout=dropout))
    model.train()
    spec = model.spec
    rng = np.random.default_rng(0)
    shape = (clips, spec.num_frames, 3, spec.image_size_px, spec.image_size_px)
    videos = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    texts = torch.from_numpy(rng.integers(4, 900, (clips, spec.context_length)))
    texts[:, -1] = texts.max()
    return least({name: partial(step, model, videos, texts, mode) for name, mode in MODES.items()}, rounds)


def least(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor seconds of each, of several turns taken in order."""
    best = dict.fromkeys(contestants, float("inf"))
    for round_ in range(rounds + 1):
        for name, run in contestants.items():
            begin = time.process_time()
            run()
            if round_:  # the first warms up
                best[name] = min(best[name], time.process_time() - begin)
    return {name: round(seconds, 5) for name, seconds in best.items()}


def encode_times(model: Backbone, folder: Path, clips: int, rounds: int) -> dict[str, float]:
    """Least processor seconds of int8 towers with and without the fusion, and the size of their graphs."""
    encoders = {}
    for name, fuse in (("fused", fusion.fuse), ("as exported", lambda graph: graph)):
        (folder / name).mkdir()
        with patch.object(variants, "fuse", fuse):
            write_unproven(model, folder / name, variants=("int8",))
        encoders[name] = Encoder.load(folder / name, variant="int8", threads=1)
    spec = model.spec
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (clips, spec.num_frames, spec.image_size_px, spec.image_size_px, 3), np.uint8)
    texts = [f"word{number} word7 word9" for number in range(clips)]
    runs: dict[str, Callable[[], object]] = {}
    for name, encoder in encoders.items():
        runs[f"{name}, clips"] = partial(encoder.embed_frames, list(frames))
        runs[f"{name}, texts"] = partial(encoder.embed_texts, texts)
    found: dict[str, float] = least(runs, rounds)
    for name in encoders:
        found[f"{name}, nodes"] = sum(len(onnx.load(path, load_external_data=False).graph.node)
                                      for path in (folder / name / "int8").glob("*.onnx"))
    return found


def main() -> None:
    """Measure all, print the ratios, and write `bench/precision.json`."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=6)
    rounds = arguments.parse_args().rounds
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine(1, ["torch", "peft", "onnxruntime", "onnxscript"]), "rounds": rounds}
    with tempfile.TemporaryDirectory() as scratch:
        for name, make, clips in (
            ("demo (viclip-tiny)", lambda folder: load("vidseek/viclip-tiny"), 16), ("ViT-B/32 layers", clip_b32, 2),
        ):
            folder = Path(scratch) / name.split()[0].replace("/", "-")
            folder.mkdir()
            for dropout in (0.1, 0.0):
                times = train_times(make(folder), clips, rounds, dropout)
                found[f"step, {name}, dropout {dropout:g}"] = times
                print(f"step, {name}, dropout {dropout:g}:", *(  # noqa: T201
                    f"{mode} {seconds * 1e3:.0f} ms (x{seconds / times['ours']:.2f})" for mode, seconds in times.items()
                ), sep="\n  ")
            times = encode_times(make(folder), folder, clips, rounds)
            found[f"int8, {name}"] = times
            print(f"int8, {name}:", *(f"{what} {value:g}" for what, value in times.items()), sep="\n  ")  # noqa: T201
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
