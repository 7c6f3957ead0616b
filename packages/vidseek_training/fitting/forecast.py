"""Predicts what a training takes on this machine before it begins: steps, epochs, time and memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_FLOAT = 4
_LONG_SECONDS = 5.0


@dataclass(frozen=True)
class Work:
    """The amount of work of a training."""

    num_pairs: int
    num_steps: int
    pairs_a_step: int
    epochs: float
    clips_a_step: int
    """Of the domain and of the general world, second views included."""
    clip_values: int
    """Pixels of a clip times three."""
    texts_a_step: int
    chunk: int | None
    num_looks: int
    clips_a_look: int
    texts_a_look: int
    num_warmup_steps: int
    num_processes: int


@dataclass(frozen=True)
class Measured:
    """The cost of one row on this machine, measured by a forward and backward pass over a few rows."""

    clip_seconds: float
    text_seconds: float
    clip_bytes: int
    """That a clip keeps for the way back."""
    text_bytes: int
    forward_share: float
    """Of a pass that is the way forwards."""
    fixed_bytes: int
    """Weights, and the optimiser's state of what is trained."""


@dataclass(frozen=True)
class Forecast:
    """The answer; `str` is one line."""

    work: Work
    measured: Measured

    @property
    def seconds(self) -> float:
        """Seconds for steps and validations, without reading frames, the text tower's warm-up and the final proof."""
        work, cost = self.work, self.measured
        step = (work.clips_a_step * cost.clip_seconds + work.texts_a_step * cost.text_seconds) / work.num_processes
        look = (work.clips_a_look * cost.clip_seconds + work.texts_a_look * cost.text_seconds) * cost.forward_share
        # In chunks everything is embedded twice (GradCache).
        return work.num_steps * step * (1 if work.chunk is None else 1 + cost.forward_share) + work.num_looks * look

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights, optimiser and saved activations; Python and its libraries take 0.5 to 1 GiB more."""
        work, cost = self.work, self.measured
        clips, texts = (-(-rows // work.num_processes) for rows in (work.clips_a_step, work.texts_a_step))
        # Views as bytes, and as floats those that are embedded at once.
        clip_bytes = cost.clip_bytes + _FLOAT * work.clip_values
        fixed = cost.fixed_bytes + 2 * work.clips_a_step * work.clip_values
        if work.chunk is None:
            return fixed + clips * clip_bytes + texts * cost.text_bytes
        # One chunk's way back at a time.
        return fixed + max(min(work.chunk, clips) * clip_bytes, min(work.chunk, texts) * cost.text_bytes)

    def __str__(self) -> str:
        work = self.work
        return (
            f"plan: {work.num_pairs:,} pairs, {work.num_steps:,} steps of {work.pairs_a_step}, {work.epochs:.3g} epochs, "
            f"{work.num_looks} validations; about {_spoken(self.seconds)} and {self.memory_bytes / 2**30:.1f} GiB here "
            "(measured on a few rows, frames not read from disk)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the forecast as JSON values, for outcome.json."""
        work = self.work
        return {
            "num_pairs": work.num_pairs, "num_steps": work.num_steps, "epochs": round(work.epochs, 3),
            "num_looks": work.num_looks, "seconds": round(self.seconds, 1),
            "memory_gib": round(self.memory_bytes / 2**30, 2),
        }


def probe(model: nn.Module, embeds: Sequence[Callable[[], Tensor]], num_rows: int) -> Measured:
    """Time a forward and backward pass, and count the memory it keeps. Gradients are dropped; weights do not change.

    Args:
        model: The model in training mode; parameters with gradients are trainable.
        embeds: A function that embeds `num_rows` clips, and one that embeds as many texts.
        num_rows: Number of rows, at least 1.
    """
    was_training = model.training
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found = []
    for embed in embeds:
        best = _pass(embed, own)
        if best[1] < _LONG_SECONDS:  # then it was mostly memory and kernels being made, which a training does once
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
    """Return seconds forwards, seconds in all, and bytes kept that are not of the storages `own`."""
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


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
