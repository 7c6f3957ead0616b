"""Forecast a training on this machine: steps, epochs, time and memory."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from vidseek_media.errors import ConfigError
from vidseek_media.terminal.progress import spoken
from vidseek_training.backbones import BackboneSpec
from vidseek_training.dataset.sampling import Data
from vidseek_training.settings import TrainSettings

_FLOAT = 4
_LONG_SECONDS = 60.0
"""Of a pass: one that takes longer is not done twice."""


@dataclass(frozen=True)
class Work:
    """The counts of a training."""

    num_pairs: int
    num_steps: int
    pairs_a_step: int
    epochs: float
    clips_a_step: int
    """Of the domain and of replay, second views included."""
    clip_values: int
    """Frames x height x width x 3."""
    texts_a_step: int
    chunk: int | None
    num_validations: int
    clips_per_validation: int
    texts_per_validation: int
    num_warmup_steps: int
    num_processes: int


@dataclass(frozen=True)
class Measured:
    """The cost of one row on this machine, from a forward and backward pass over a few."""

    clip_seconds: float
    text_seconds: float
    clip_bytes: int
    """Activations of a clip that the backward pass needs."""
    text_bytes: int
    forward_share: float
    """The forward pass's share of the time of both passes, 0 to 1."""
    fixed_bytes: int
    """Weights, and the optimiser's state of the trainable parameters."""


@dataclass(frozen=True)
class Forecast:
    """Work and measured cost of a training; `str` gives one line."""

    work: Work
    measured: Measured

    @property
    def seconds(self) -> float:
        """Of steps and validations, without reading frames, the text warm-up and the final evaluation."""
        work, cost = self.work, self.measured
        step = (work.clips_a_step * cost.clip_seconds + work.texts_a_step * cost.text_seconds) / work.num_processes
        validation = cost.forward_share * (
            work.clips_per_validation * cost.clip_seconds + work.texts_per_validation * cost.text_seconds
        )
        # With chunks every row is embedded twice (GradCache).
        again = 1 if work.chunk is None else 1 + cost.forward_share
        return work.num_steps * step * again + work.num_validations * validation

    @property
    def memory_bytes(self) -> int:
        """Of weights, optimiser and activations. Python and its libraries take another 0.5 to 1 GiB."""
        work, cost = self.work, self.measured
        clips, texts = (-(-rows // work.num_processes) for rows in (work.clips_a_step, work.texts_a_step))
        # All views as bytes, and those that are embedded at once as floats.
        clip_bytes = cost.clip_bytes + _FLOAT * work.clip_values
        fixed = cost.fixed_bytes + 2 * work.clips_a_step * work.clip_values
        if work.chunk is None:
            return fixed + clips * clip_bytes + texts * cost.text_bytes
        # Activations of one chunk at a time.
        return fixed + max(min(work.chunk, clips) * clip_bytes, min(work.chunk, texts) * cost.text_bytes)

    def __str__(self) -> str:
        work = self.work
        return (
            f"plan: {work.num_pairs:,} pairs, {work.num_steps:,} steps of {work.pairs_a_step}, {work.epochs:.3g} epochs, "
            f"{work.num_validations} validations; about {spoken(self.seconds)} and "
            f"{self.memory_bytes / 2**30:.1f} GiB here "
            "(measured on a few rows, frames not read from disk)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as JSON values, for outcome.json."""
        work = self.work
        return {
            "num_pairs": work.num_pairs, "num_steps": work.num_steps, "epochs": round(work.epochs, 3),
            "num_validations": work.num_validations, "seconds": round(self.seconds, 1),
            "memory_gib": round(self.memory_bytes / 2**30, 2),
        }


def work_of(
    data: Data, settings: TrainSettings, spec: BackboneSpec, *, validation_table: pd.DataFrame, num_processes: int
) -> Work:
    """Count the steps, clips and texts of a training.

    Args:
        data: Training, validation and replay pairs.
        settings: Of the training.
        spec: Of the backbone.
        validation_table: The validation pairs that each validation embeds; column `clip_id`.
        num_processes: At least 1.

    Raises:
        ConfigError: there is no training pair.
    """
    count = len(data.train)
    if not count:
        raise ConfigError(
            "there is no training pair: nothing can be forecast", code="no-training-pairs", remedy="Run `dvc repro pairs`",
        )
    clips, steps = settings.pairs_a_step(count), settings.num_steps(count)
    general = min(settings.replay, len(data.general)) if data.general is not None else 0
    contrasts = round(clips * float(data.train.has_contrast.mean()))
    return Work(
        num_pairs=count, num_steps=steps, pairs_a_step=clips, epochs=steps * min(settings.batch, count) / count,
        clips_a_step=clips * (2 if settings.clip_view_weight else 1) + general,
        texts_a_step=clips * (2 if settings.text_view_weight else 1) + contrasts + general,
        clip_values=3 * spec.num_frames * spec.image_size_px**2, chunk=settings.chunk,
        num_validations=math.ceil(steps / settings.validate_every(count)),
        clips_per_validation=int(validation_table.clip_id.nunique()), texts_per_validation=len(validation_table),
        num_warmup_steps=settings.warmup_text_steps, num_processes=num_processes,
    )


def probe(model: nn.Module, embeds: Sequence[Callable[[], Tensor]], num_rows: int) -> Measured:
    """Time a forward and backward pass and count its activations. Gradients are dropped; weights do not change.

    Args:
        model: Its trainable parameters require gradients.
        embeds: Two functions: the first embeds `num_rows` clips, the second `num_rows` texts.
        num_rows: At least 1.
    """
    was_training = model.training
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = []
    for embed in embeds:
        best = _pass(embed, own)
        # The first pass also imports, allocates memory and builds kernels, once a training: seconds for the smallest model.
        if best[1] < _LONG_SECONDS:
            best = min(best, _pass(embed, own), key=lambda each: each[1])
        found.append(best)
    for parameter in trained:
        parameter.grad = None
    model.train(was_training)
    gc.collect()
    (clip_forward, clip_seconds, clip_bytes), (text_forward, text_seconds, text_bytes) = found
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    state = 3 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return Measured(
        clip_seconds / num_rows, text_seconds / num_rows, clip_bytes // num_rows, text_bytes // num_rows,
        (clip_forward + text_forward) / max(1e-9, clip_seconds + text_seconds), weights + state,
    )


def _pass(embed: Callable[[], Tensor], own: set[int]) -> tuple[float, float, int]:
    """Return seconds of the forward pass, seconds of both, and bytes of activations outside the storages `own`."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    began = _now()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        vectors = embed()
    forward = _now() - began
    if vectors.requires_grad:
        vectors.sum().backward()  # type: ignore[no-untyped-call]
    return forward, _now() - began, sum(kept.values())


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
