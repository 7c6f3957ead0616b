"""Finds the modules of a two-tower model that contribute to its features, and their role, by running it.

A model of another library is run once on meta tensors, which takes no memory and no time. Hooks record the modules whose
output has a gradient, since those are what an adapter would change. Modules that are bypassed or unused are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


@dataclass(frozen=True)
class Called:
    """The modules recorded in one run of a two-tower model."""

    text_shape: tuple[int, ...]
    """Of the features of two texts."""
    video_shape: tuple[int, ...]
    """Of the features of two clips or pictures."""
    groups: dict[str, str]
    """By the full name of a module: attention, mlp, projections, token_embedding or stem."""
    towers: dict[str, str]
    """By the same names: text or video."""


class ByCalls(nn.Module):
    """A mixin for backbones: adapters go where a run recorded modules, and running means of batch norms stay fixed.

    Attributes:
        found: Modules recorded in the model, or in the model that it holds.
        found_below: Prefix of the held model's names; empty for the model itself.
    """

    found: Called
    found_below: str = ""

    def lora_group(self, name: str, module: nn.Module) -> str | None:
        """Implement `Backbone.lora_group`."""
        return self.found.groups.get(name.removeprefix(self.found_below))

    def tower_of(self, name: str) -> str:
        """Implement `Backbone.tower_of`."""
        return self.found.towers.get(name.removeprefix(self.found_below), "video")

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but keep batch norms in evaluation mode: an adapter would not store their running means."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def called(model: nn.Module, *, texts: Callable[[], Tensor], videos: Callable[[], Tensor]) -> Called:
    """Run both towers of a model, and classify the modules that were called.

    The stem is the module that first receives the pixels; the token embedding is the largest table that the text tower
    reads.
    Linear modules inside attention are `attention`; others inside a stack of layers are `mlp`, and those outside are
    `projections`. Convolutions other than the stem have no group.

    Args:
        model: The model, on any device; its parameters stay as they are.
        texts: Computes the features of two texts.
        videos: Computes the features of two clips or pictures.
    """
    modules = dict(model.named_modules())
    text_shape, read = _run(model, modules, texts)
    video_shape, seen = _run(model, modules, videos)
    groups = {name: group for name in (*read, *seen) if (group := _linear_group(name, modules)) is not None}
    tables = [name for name in read if isinstance(modules[name], nn.Embedding)]
    if tables:
        groups[max(tables, key=lambda name: int(getattr(modules[name], "num_embeddings", 0)))] = "token_embedding"
    stems = [name for name in seen if not isinstance(modules[name], nn.Embedding)]
    if stems:
        groups[stems[0]] = "stem"
    return Called(text_shape, video_shape, groups, {name: "text" if name in read else "video" for name in groups})


def _run(
    model: nn.Module, modules: dict[str, nn.Module], features_of: Callable[[], Tensor]
) -> tuple[tuple[int, ...], list[str]]:
    """Return the features' shape, and the modules that were called and that the features depend on, in the order of the
    calls.
    """
    with _recorded(model) as names, torch.enable_grad():
        features = features_of()
    weights = [modules[name].weight for name in names]
    slopes = torch.autograd.grad(features.sum(), weights, allow_unused=True)  # type: ignore[arg-type]
    return tuple(features.shape), [name for name, slope in zip(names, slopes, strict=True) if slope is not None]


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[str]]:
    """Record the names of the modules that are called in this block, in order, each once."""
    names: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: names.setdefault(name))
        for name, module in model.named_modules() if isinstance(module, _KINDS)
    ]
    order: list[str] = []
    try:
        yield order
    finally:
        for handle in handles:
            handle.remove()
        order.extend(names)


def _linear_group(name: str, modules: dict[str, nn.Module]) -> str | None:
    if not isinstance(modules[name], nn.Linear):
        return None
    parts = name.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts))]
    if any(_is_attention(each, modules[each]) for each in above):
        return "attention"
    return "mlp" if any(isinstance(modules[each], nn.ModuleList | nn.Sequential) for each in above) or _is_mlp(
        [modules[each] for each in above]
    ) else "projections"


def _is_attention(name: str, module: nn.Module) -> bool:
    if isinstance(module, nn.ModuleList | nn.Sequential):
        return False
    return "attention" in type(module).__name__.lower() or name.rpartition(".")[2] in ("attn", "self_attn", "attention")


def _is_mlp(above: Sequence[nn.Module]) -> bool:
    return any(type(module).__name__.lower().endswith("mlp") for module in above)
