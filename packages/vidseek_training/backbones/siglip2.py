"""SigLIP 2 of any aspect ratio (NaFlex) from transformers, on square pictures of the grid of its stored positions.

The model takes a picture as a list of patches whose number depends on the aspect ratio. Here every picture is resized to a
square, as for all families. The stored positions then fit without resampling, no patch is padding, and the tower is one of
fixed resolution.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.registry import register
from vidseek_training.backbones.siglip import FrameAveragedSigLIP, SigLIPFamily


class NaFlexSigLIP(FrameAveragedSigLIP):
    """Any Siglip2Model."""

    def picture_features(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_features`."""
        tokens = self.picture_tokens(pictures)
        for layer in self.video_layers:
            tokens = layer(tokens, None)
        return self.features_of_last(tokens)

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_tokens`."""
        embeddings = self.siglip.vision_model.embeddings
        tokens: Tensor = embeddings.patch_embedding(_patches(pictures, embeddings.patch_size))
        return tokens + embeddings.position_embedding.weight

    def lora_group(self, name: str, module: Any) -> str | None:
        """Return the group of a module; the patch embedding is a linear layer here. Implements `Backbone.lora_group`."""
        return "stem" if name.endswith(".patch_embedding") else super().lora_group(name, module)


def _patches(pictures: Tensor, patch: int) -> Tensor:
    """Pictures (n, 3, side, side) to their patches, row by row: (n, places, patch * patch * 3), colours innermost."""
    count, colours, side, _ = pictures.shape
    grid = side // patch
    parts = pictures.reshape(count, colours, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
    return parts.reshape(count, grid * grid, patch * patch * colours)


@register
class SigLIP2Family(SigLIPFamily):
    """SigLIP 2 NaFlex; SigLIP 2 of fixed resolution has the model_type `siglip`."""

    name = "siglip2"
    config_class = "Siglip2Config"
    preprocessing = replace(SigLIPFamily.preprocessing, resample="bilinear")
    held_as = "siglip"

    def side_of(self, sizes: Any) -> int:
        """Return the side in pixels with as many patches as there are stored positions."""
        vision = sizes.vision_config
        grid = math.isqrt(vision.num_patches)
        if grid * grid != vision.num_patches:
            raise ValueError(f"vision_config.num_patches is {vision.num_patches}, wanted a square number")
        return int(grid * vision.patch_size)

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        from transformers import Siglip2Model

        return NaFlexSigLIP(spec, Siglip2Model(self.sizes_of(config)))
