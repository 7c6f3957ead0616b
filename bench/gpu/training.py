"""`bench.gpu.check`: an adapter taught on CUDA by our own training, against the same on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.models import Shape, build, coloured_pairs, copy_on, median_ms, peak_gib, tf32
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, to_pixels
from vidseek_training.dataset.sampling import Data, Sampler
from vidseek_training.evaluation.embedding import embed_frames
from vidseek_training.fitting import lora
from vidseek_training.fitting.checkpoints import Checkpoint
from vidseek_training.fitting.losses import info_nce
from vidseek_training.fitting.precision import bf16_products
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

CPU = torch.device("cpu")
PATHS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "in chunks": {"chunk": 4},
    "sigmoid loss": {"loss": "sigmoid"},
    "text warm-up": {"warmup_text_steps": 3, "warmup_text_batch": 8},
    "hard negatives, same video masked": {"hard_share": 0.25, "mask_same_video": True},
    "replay with anchor": {"replay": 8, "replay_anchor": 1.0},
    "views": {"text_view_weight": 0.1, "clip_view_weight": 0.1},
    "lower layers kept": {"last_layers": 1, "cached_views": 1},
    "stem and token embedding": {"targets": ("attention", "mlp", "token_embedding", "stem")},
    "scale sweep": {"scales": (0.0, 0.5, 1.0)},
}
"""What a training can do beside the plain step: each is run on both devices, and says the same."""


@dataclass(frozen=True)
class Sizes:
    """How much is trained."""

    shape: Shape
    curve_pairs: int
    curve_batch: int
    curve_steps: int
    speed: tuple[tuple[Shape, int, int | None, str], ...]
    """Shape, batch, chunk and precision of what is timed."""
    speed_steps: int


def settings_of(**others: Any) -> TrainSettings:
    """Of a training without chance: no dropout, no dropped words; a look at each step."""
    told: dict[str, Any] = {
        "rank": 16, "alpha": 32, "dropout": 0.0, "targets": ("attention",), "batch": 8, "learning_rate": 5.0e-4,
        "word_dropout": 0.0, "random_frames": False, "steps": 6, "evaluate_every": 1, "precision": "fp32", "patience": 1000,
        **others,
    }
    return TrainSettings(**told)


def against_cpu(sizes: Sizes, device: torch.device, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gradients, loss curves, and the adapter that comes of it."""
    model = build(sizes.shape, folder / "words.json")
    yield "gradients", gradients_against_cpu(model, device)
    yield "loss_curves", curves_against_cpu(model, sizes, device)
    yield "chunks", chunks_against_whole(model, device)
    yield "adapter", adapter_on_cpu(model, sizes, device)


def gradients_against_cpu(model: Backbone, device: torch.device) -> dict[str, Any]:
    """Of one step's loss by the adapter, in each arithmetic, against the CPU in fp32."""
    adapted = copy_on(model, CPU)
    lora.attach(adapted, settings_of())
    _fill(adapted, ups=True)
    pairs = coloured_pairs(model, 8)
    wanted_loss, wanted = _gradients(adapted, pairs, in_bf16=False)
    on_device = copy_on(adapted, device)
    found: dict[str, Any] = {"num_tensors": len(wanted), "loss_cpu": wanted_loss}
    # As torch comes, convolutions (the patch embedding) are in TF32 and matrix products are not.
    ways = {"fp32": (False, False, False), "fp32_as_torch_comes": (False, True, False), "tf32": (True, True, False)}
    if device.type == "cuda":
        ways["bf16_autocast"] = (False, True, True)
    for name, (products, convolutions, in_bf16) in ways.items():
        with tf32(products=products, convolutions=convolutions):
            loss, gradients = _gradients(on_device, pairs, in_bf16=in_bf16)
        found[name] = {"loss_difference": loss - wanted_loss, **_compared(gradients, wanted)}
    return found


def _gradients(model: Backbone, pairs: PairSet, *, in_bf16: bool) -> tuple[float, dict[str, Tensor]]:
    """The loss, and the gradient of each adapter's tensor, on the CPU."""
    device = model.logit_scale.device
    model.zero_grad(set_to_none=True)
    pixels = to_pixels(pairs.frames[:], model.spec).to(device)
    with bf16_products(model, wanted=in_bf16):
        videos, texts = model.embed_videos(pixels).float(), model.embed_texts(torch.from_numpy(pairs.ids).to(device)).float()
    loss = info_nce(videos, texts, model.logit_scale)
    loss.backward()  # type: ignore[no-untyped-call]
    named = {name: each.grad.detach().float().cpu() for name, each in model.named_parameters() if each.grad is not None}
    return float(loss.detach()), named


def _compared(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """The least cosine of any tensor, and the norm of all differences as a share of the norm of all."""
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    large = [name for name, each in wanted.items() if each.numel() > 1 and float(each.norm()) > 0]
    cosines = [float(F.cosine_similarity(found[name].flatten(), wanted[name].flatten(), dim=0)) for name in large]
    difference = sum(float((found[name] - wanted[name]).double().square().sum()) for name in wanted)
    norm = sum(float(each.double().square().sum()) for each in wanted.values())
    return {"least_cosine": min(cosines), "relative_difference": (difference / norm) ** 0.5}


def curves_against_cpu(model: Backbone, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The loss of each step, on the CPU in fp32 and on the device in fp32 and bf16, from the same adapter."""
    data = Data(coloured_pairs(model, sizes.curve_pairs), coloured_pairs(model, 0), None)
    told = {"batch": sizes.curve_batch, "steps": sizes.curve_steps}
    curves = {"cpu_fp32": _curve(model, data, CPU, **told)}
    with tf32(products=False, convolutions=False):
        curves["fp32"] = _curve(model, data, device, **told)
    if device.type == "cuda":
        curves["bf16"] = _curve(model, data, device, **told, precision="bf16")
    wanted = np.array(curves["cpu_fp32"])
    differences = {
        name: float(np.abs(np.array(curve) - wanted).max()) for name, curve in curves.items() if name != "cpu_fp32"
    }
    rounded = {name: np.round(curve, 6).tolist() for name, curve in curves.items()}
    return {"curves": rounded, "largest_difference": differences}


def _curve(model: Backbone, data: Data, device: torch.device, **told: Any) -> list[float]:
    return _losses(_fitted(model, data, device, settings_of(**told)))


def _losses(fitting: Trainer) -> list[float]:
    return [float(figures["loss"]) for figures in fitting.curves]


def _fitted(model: Backbone, data: Data, device: torch.device, settings: TrainSettings) -> Trainer:
    fitting = _begun(model, data, device, settings)
    fitting.run()
    return fitting


def _begun(
    model: Backbone, data: Data, device: torch.device, settings: TrainSettings, *, checkpoint: Checkpoint | None = None
) -> Trainer:
    """A training of a copy of `model` whose adapter begins with the same numbers on every device."""
    own = copy_on(model, device)
    fitting = Trainer(own, settings, data, checkpoint=checkpoint)
    _fill(own, ups=False)
    return fitting


def _fill(model: Backbone, *, ups: bool) -> None:
    """The adapter's first matrices, and the second ones where `ups`, from a generator of the CPU."""
    generator = torch.Generator().manual_seed(1)
    for name, each in sorted(model.named_parameters()):
        if not each.requires_grad or "lora_" not in name:
            continue
        values = torch.randn(each.shape, generator=generator)
        if ups or not ("lora_B" in name or "embedding_A" in name):
            each.data.copy_(0.02 * values)


def chunks_against_whole(model: Backbone, device: torch.device) -> dict[str, Any]:
    """GradCache: the gradients of a batch in chunks against those of the batch as one, with dropout drawn anew."""
    pairs = coloured_pairs(model, 16)
    found = {}
    for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
        gradients = []
        for chunk in (None, 4):
            settings = settings_of(batch=16, chunk=chunk, precision=precision)
            fitting = _begun(model, Data(pairs, coloured_pairs(model, 0), None), device, settings)
            _fill(fitting.model, ups=True)
            gradients.append(_step_gradients(fitting, settings))
        found[precision] = _compared(gradients[1], gradients[0])
    return found


def _step_gradients(fitting: Trainer, settings: TrainSettings) -> dict[str, Tensor]:
    model = fitting.model
    batch = Sampler(fitting.data, settings, model, np.random.default_rng(0), size=settings.batch).draw()
    model.train()
    model.zero_grad(set_to_none=True)
    fitting._train_step(batch)
    return {name: each.grad.detach().float().cpu() for name, each in model.named_parameters() if each.grad is not None}


def adapter_on_cpu(model: Backbone, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """What was taught on the device, saved, and merged on the CPU: the least cosine of clips' vectors."""
    data = Data(coloured_pairs(model, sizes.curve_batch), coloured_pairs(model, 0), None)
    with tempfile.TemporaryDirectory() as name, tf32(products=False, convolutions=False):
        fitting = _fitted(model, data, device, settings_of(steps=4, batch=sizes.curve_batch))
        fitting.model.eval()
        taught = embed_frames(fitting.model, data.train.frames)
        lora.save(fitting.handle, fitting.model, Path(name))
        merged = embed_frames(lora.merged(model, Path(name)), data.train.frames)
    base = embed_frames(model, data.train.frames)
    return {
        "least_cosine": float((taught * merged).sum(1).min()), "least_cosine_to_base": float((taught * base).sum(1).min())
    }


def paths(device: torch.device, names: tuple[str, ...], wanted: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The `wanted` of `PATHS` with the shipped backbones `names`, on the device against the CPU."""
    for name in names:
        model = backbones.load(name).eval()
        data = _small_data(model)
        for path in wanted:
            with tf32(products=False, convolutions=False):
                yield f"{name.removeprefix('vidseek/')}: {path}", _one_path(model, data, device, PATHS[path])


def _small_data(model: Backbone) -> Data:
    pairs = coloured_pairs(model, 48, num_videos=16, words=False)
    return Data(*(_part(pairs, first, last) for first, last in ((0, 24), (24, 32), (32, 44), (44, 48))))


def _part(pairs: PairSet, first: int, last: int) -> PairSet:
    return PairSet(
        pairs.table[first:last].reset_index(drop=True), pairs.frames[first:last], pairs.ids[first:last],
        pairs.contrast_ids[first:last],
    )


def _one_path(model: Backbone, data: Data, device: torch.device, told: dict[str, Any]) -> dict[str, Any]:
    settings = settings_of(**{"steps": 5, **told})
    own = data if settings.replay else Data(data.train, data.validation, None, data.general_validation)
    try:
        curves = [np.array(_losses(_fitted(model, own, where, settings))) for where in (CPU, device)]
    except Exception as error:  # noqa: BLE001 - a path that fails is a finding, and the others are measured
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"largest_difference": float(np.abs(curves[0] - curves[1]).max()), "first_and_last": curves[1][[0, -1]].tolist()}


def stopped_and_gone_on(device: torch.device, folder: Path) -> dict[str, Any]:
    """A training with dropout that stops at its third look and goes on from its checkpoint, against one that does not."""
    model = backbones.load("vidseek/clip-tiny").eval()
    data = Data(_small_data(model).train, coloured_pairs(model, 0), None)
    settings = settings_of(steps=6, dropout=0.1, word_dropout=0.1)
    torch.manual_seed(7)
    whole = _begun(model, data, device, settings, checkpoint=_Third(folder, "whole", "0" * 16))
    whole.run()
    saved = Checkpoint(folder, "whole", "0" * 16).load()
    assert saved is not None
    again = _begun(model, data, device, settings)
    again.run(saved)
    difference = np.abs(np.array(_losses(whole)) - np.array(_losses(again))).max()
    return {"steps_before": int(saved["step"]), "largest_difference": float(difference)}


class _Third(Checkpoint):
    """Keeps the state of the third look alone."""

    def save(self, state: dict[str, Any]) -> None:
        if state["step"] == 3:
            super().save(state)


def speed(sizes: Sizes, device: torch.device, folder: Path) -> Iterator[dict[str, Any]]:
    """A step's time and memory: the arithmetic alone (one batch again and again), and whole steps with their data."""
    models: dict[str, Backbone] = {}
    for shape, batch, chunk, precision in sizes.speed:
        if shape.name not in models:
            models = {shape.name: build(shape, folder / "words.json")}  # one at a time: a copy lies on the device
        row = {"shape": shape.name, "batch": batch, "frames": shape.frames, "chunk": chunk, "precision": precision}
        try:
            yield row | _speed(models[shape.name], sizes, device, batch=batch, chunk=chunk, precision=precision)
        except torch.cuda.OutOfMemoryError as error:
            yield row | {"failed": f"out of memory: {str(error)[:120]}"}


def _speed(
    model: Backbone, sizes: Sizes, device: torch.device, *, batch: int, chunk: int | None, precision: str
) -> dict[str, Any]:
    settings = settings_of(
        batch=batch, chunk=chunk, precision=precision, steps=sizes.speed_steps, dropout=0.05, word_dropout=0.1,
        shift_share=0.06, brightness=0.15,
    )
    data = Data(coloured_pairs(model, batch), coloured_pairs(model, 0), None)
    with peak_gib(device) as peak:
        fitting = Trainer(copy_on(model, device), settings, data)
        drawn = Sampler(data, settings, fitting.model, np.random.default_rng(0), size=batch).draw()
        fitting.model.train()
        step_ms = median_ms(lambda: fitting._train_step(drawn), device, seconds=0.5, most=10)
        fitting.model.zero_grad(set_to_none=True)
        fitting.run()
    looks = fitting.curves[1:] or fitting.curves
    return {
        "step_ms": round(step_ms, 1), "clips_per_second": round(1e3 * batch / step_ms, 1),
        "with_data_clips_per_second": float(np.median([look["clips_per_second"] for look in looks])),
        "data_share": float(np.median([look["data_share"] for look in looks])), **peak,
    }
