"""ViCLIP: a joint space-time vision transformer and CLIP's text transformer (Wang et al. 2023, InternVid).

Our own code, written from the paper and the tensor names of the published checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidseek_training.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneSpec
from vidseek_training.backbones.files.tokenizer_files import find_tokenizer
from vidseek_training.backbones.modules.stem import ConvStem, MotionStem
from vidseek_training.backbones.modules.transformer import TextTower, Transformer, quick_gelu
from vidseek_training.backbones.registry import Family, register

_PUBLISHED: dict[str, dict[str, Any]] = {
    size: {
        "dimension": dimension,
        "vision": {"side": 224, "patch": patch, "width": width, "layers": layers, "heads": heads, "frames": 8},
        "text": {"context": 32, "vocabulary": 49408, "width": dimension, "layers": 12, "heads": dimension // 64},
    }
    for size, dimension, patch, width, layers, heads in (("b", 512, 16, 768, 12, 12), ("l", 768, 14, 1024, 24, 16))
}
"""The sizes of OpenGVLab's ViCLIP-B-16 and ViCLIP-L-14."""


@dataclass(frozen=True)
class VisionShape:
    """The vision tower's sizes."""

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    frames: int
    stem: str = "patch"
    """`patch` (a Conv3d of kernel (1, patch, patch), as published), `conv` or `motion` (see `stem.py`)."""


@dataclass(frozen=True)
class TextShape:
    """The text tower's sizes."""

    context: int
    vocabulary: int
    width: int
    layers: int
    heads: int


class VisionEncoder(nn.Module):
    """Clips (n, T, 3, side, side) to features (n, dimension)."""

    def __init__(self, shape: VisionShape, dimension: int) -> None:
        super().__init__()
        grid, width = shape.side // shape.patch, shape.width
        scale = width**-0.5
        self.conv1 = _build_stem(shape)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid * grid + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, shape.frames, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.layers, shape.heads, causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Linear(width, dimension, bias=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the projected class token after all layers, (n, dimension), of clips (n, T, 3, side, side)."""
        return self.features_of(self.transformer(self.tokens_of(pixel_values)))

    def features_of(self, tokens: Tensor) -> Tensor:
        """Convert tokens (n, tokens, width) after all layers into features (n, dimension)."""
        result: Tensor = self.proj(self.ln_post(tokens[:, 0]))
        return result

    def tokens_of(self, pixel_values: Tensor) -> Tensor:
        """Convert clips (n, T, 3, side, side) into the tokens of the first layer: the class token, then patches."""
        patches = self._patches(pixel_values)
        batch, frames = patches.shape[:2]
        patches = patches + self.positional_embedding[1:]
        times = self.temporal_positional_embedding
        if frames == 1:
            times = times.mean(1, keepdim=True)
        patches = patches + times[:, :, None]
        # The published order of tokens: all times of a place, then the next place.
        patches = patches.transpose(1, 2).reshape(batch, -1, patches.shape[-1])
        first = (self.class_embedding + self.positional_embedding[0]).expand(batch, 1, -1)
        result: Tensor = self.ln_pre(torch.cat([first, patches], 1))
        return result

    def _patches(self, pixel_values: Tensor) -> Tensor:
        """(n, T, 3, side, side) to (n, T, places, width)."""
        batch, frames = pixel_values.shape[:2]
        if isinstance(self.conv1, ConvStem):
            grid = self.conv1(pixel_values.flatten(0, 1), frames)
            return grid.flatten(2).transpose(1, 2).reshape(batch, frames, -1, grid.shape[1])
        grid = self.conv1(pixel_values.transpose(1, 2))
        return grid.flatten(3).permute(0, 2, 3, 1)


def _build_stem(shape: VisionShape) -> nn.Module:
    if shape.stem == "motion":
        return MotionStem(shape.width, patch=shape.patch)
    if shape.stem == "conv":
        return ConvStem(shape.width, patch=shape.patch)
    return nn.Conv3d(3, shape.width, (1, shape.patch, shape.patch), (1, shape.patch, shape.patch), bias=False)


class ViCLIP(Backbone):
    """ViCLIP at any size."""

    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (".in_proj", ".out_proj"),
        "mlp": (".c_fc", ".c_proj"),
        "projections": ("vision_encoder.proj", ".text_projection"),
        "token_embedding": (".token_embedding",),
    }

    def __init__(self, spec: BackboneSpec, vision: VisionShape, text: TextShape) -> None:
        super().__init__()
        self.spec = spec
        self.vision_encoder = VisionEncoder(vision, spec.dimension)
        sizes = {**dataclasses.asdict(text), "context_length": text.context, "vocab_size": text.vocabulary}
        self.text_encoder = TextTower(sizes, spec.dimension, quick_gelu)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.apply(_initialise)

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """Implement `Backbone.video_features`."""
        result: Tensor = self.vision_encoder(pixel_values)
        return result

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        return self.vision_encoder.transformer.resblocks

    def video_tokens(self, pixel_values: Tensor, depth: int) -> Tensor:
        """Return tokens of shape (n, tokens, width); implements `Backbone.video_tokens`."""
        tokens = self.vision_encoder.tokens_of(pixel_values)
        for block in self.video_layers[:depth]:
            tokens = block(tokens)
        return tokens

    def features_of_tokens(self, tokens: Tensor, depth: int) -> Tensor:
        """Implement `Backbone.features_of_tokens`."""
        for block in self.video_layers[depth:]:
            tokens = block(tokens)
        return self.vision_encoder.features_of(tokens)

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Implement `Backbone.text_features`."""
        result: Tensor = self.text_encoder(input_ids)
        return result


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def build_viclip(config: dict[str, Any], spec: BackboneSpec) -> ViCLIP:
    """Create a ViCLIP with random weights.

    Args:
        config: Sizes, as `config_of` returns them.
        spec: Preprocessing and names.
    """
    vision, text = VisionShape(**config["vision"]), TextShape(**config["text"])
    return ViCLIP(spec, vision, text)


def config_of(vision: VisionShape, text: TextShape, dimension: int) -> dict[str, Any]:
    """Return the config.json for given sizes.

    Args:
        vision: Sizes of the vision tower.
        text: Sizes of the text tower.
        dimension: Length of the vectors.
    """
    return {
        "model_type": "viclip", "dimension": dimension, "vision": dataclasses.asdict(vision),
        "text": dataclasses.asdict(text), "resize": "squash", "mean": list(IMAGENET_MEAN),
        "deviation": list(IMAGENET_STD), "pad_id": 0,
    }


def from_checkpoint(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint to our names; tensors with our names are kept.

    The published attention has `in_proj_weight` as a plain parameter, projections are matrices applied from the right, and
    `temp` is the temperature, the inverse of the factor on cosines.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("model.")
        name = name.replace("attn.in_proj_weight", "attn.in_proj.weight").replace("attn.in_proj_bias", "attn.in_proj.bias")
        if name in ("vision_encoder.proj", "text_encoder.text_projection"):
            name, tensor = f"{name}.weight", tensor.T.contiguous()
        if name == "temp":
            name, tensor = "logit_scale", -tensor.float().log()
        ours[name] = tensor
    return ours


@register
class ViCLIPFamily(Family):
    """ViCLIP as OpenGVLab publishes it, and the shipped `vidseek/viclip-tiny`."""

    name = "viclip"

    def config_of(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """Implement `Family.config_of`."""
        size = said.get("size")
        if said.get("architectures") == ["ViCLIP"] and isinstance(size, str) and size in _PUBLISHED and "vision" not in said:
            # As it is on the hub: the sizes are in its code, which we do not run.
            return {"model_type": self.name, **_PUBLISHED[size]}
        return super().config_of(said)

    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """Implement `Family.spec_of`."""
        vision, text = config["vision"], config["text"]
        return BackboneSpec(
            family=self.name, name=name, dimension=config["dimension"], context_length=text["context"],
            num_frames=vision["frames"], image_size_px=vision["side"], resize=config.get("resize", "squash"),
            resample=config.get("resample", "bicubic"), image_mean=tuple(config.get("mean", IMAGENET_MEAN)),
            image_std=tuple(config.get("deviation", IMAGENET_STD)), pad_id=config.get("pad_id", 0),
            tokenizer=find_tokenizer(folder),
        )

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        return build_viclip(config, spec)

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a checkpoint's tensors by `from_checkpoint`; implements `Family.renamed`."""
        return from_checkpoint(tensors)
