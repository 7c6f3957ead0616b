"""The exported towers of a backbone: modules with one input and unit vectors as output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn


class Sizes(Protocol):
    """Of a backbone's inputs, as its `BackboneSpec` has them."""

    @property
    def num_frames(self) -> int: ...  # noqa: D102
    @property
    def image_size_px(self) -> int: ...  # noqa: D102
    @property
    def context_length(self) -> int: ...  # noqa: D102


class Embeds(Protocol):
    """The part of a `Backbone` that its towers need."""

    averages_frames: bool
    reads_padding: bool

    @property
    def spec(self) -> Sizes: ...  # noqa: D102
    def embed_videos(self, pixel_values: Tensor) -> Tensor: ...  # noqa: D102
    def embed_texts(self, input_ids: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class ExportTower:
    """One ONNX model of a bundle. The encoder knows the three names and their inputs (`vidseek_encoder.encoder`)."""

    name: Literal["text", "video", "frame"]
    module: nn.Module
    example: Tensor
    """Two rows of the input: a batch of one would be taken for a constant."""
    longest: int | None = None
    """Axis 1 may have any length from 2 to this; None where it is fixed. Axis 0, the batch, is always free."""


class _Videos(nn.Module):
    def __init__(self, model: Embeds) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.embed_videos(pixel_values)


class _Frames(_Videos):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.embed_videos(pixel_values.unsqueeze(1))


class _Texts(nn.Module):
    def __init__(self, model: Embeds) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_texts(input_ids)


def usual_towers(model: Embeds) -> tuple[ExportTower, ...]:
    """Return a text tower, and a tower of frames if clips are averages of frames, else one of clips."""
    spec = model.spec
    pixels = torch.randn(2, spec.num_frames, 3, spec.image_size_px, spec.image_size_px)
    ids = torch.ones(2, spec.context_length, dtype=torch.int64)
    text = ExportTower("text", _Texts(model), ids, None if model.reads_padding else spec.context_length)
    if model.averages_frames:
        return text, ExportTower("frame", _Frames(model), pixels[:, 0])
    return text, ExportTower("video", _Videos(model), pixels)
