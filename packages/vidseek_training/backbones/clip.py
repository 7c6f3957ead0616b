"""CLIP from transformers: a clip's vector is the mean of its frames' unit vectors, so the order of frames has no
influence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.modules.averaging import FrameAveraging
from vidseek_training.backbones.modules.stem import ConvStem, ResidualStem
from vidseek_training.backbones.registry import register
from vidseek_training.backbones.transformers_family import CLIP_LORA_ENDS, TransformersFamily, transformers_config

if TYPE_CHECKING:
    from transformers import CLIPModel

_STEMS = {"conv": ConvStem, "residual": ResidualStem}


class FrameAveragedCLIP(FrameAveraging):
    """Any CLIPModel."""

    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = CLIP_LORA_ENDS

    def __init__(self, spec: BackboneSpec, clip: CLIPModel) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.logit_scale = clip.logit_scale

    def picture_features(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_features`."""
        features: Tensor = self.clip.get_image_features(pixel_values=pictures).pooler_output
        return features

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        layers: nn.ModuleList = self.clip.vision_model.encoder.layers
        return layers

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_tokens`."""
        vision = self.clip.vision_model
        tokens: Tensor = vision.pre_layrnorm(vision.embeddings(pictures))
        return tokens

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """Implement `FrameAveraging.features_of_last`."""
        features: Tensor = self.clip.visual_projection(self.clip.vision_model.post_layernorm(tokens[:, 0]))
        return features

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Return text features; implements `Backbone.text_features`. No padding mask: attention is causal, padding comes
        last.
        """
        result: Tensor = self.clip.get_text_features(input_ids=input_ids).pooler_output
        return result


def build_clip(config: dict[str, Any], spec: BackboneSpec) -> FrameAveragedCLIP:
    """Create a CLIP with random weights.

    Args:
        config: transformers' config. Its additional key `stem` is `patch` (as published), `conv` or `residual` (ours).
        spec: Preprocessing and names.
    """
    from transformers import CLIPModel

    sizes = transformers_config("CLIPConfig", config, but=("stem",))
    clip = CLIPModel(sizes)
    if (stem := config.get("stem", "patch")) != "patch":
        vision = sizes.vision_config
        clip.vision_model.embeddings.patch_embedding = _STEMS[stem](vision.hidden_size, patch=vision.patch_size)
    return FrameAveragedCLIP(spec, clip)


@register
class CLIPFamily(TransformersFamily):
    """CLIP as OpenAI, LAION and others publish it for transformers."""

    name = "clip"
    config_class = "CLIPConfig"
    own_keys = ("stem",)

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        return build_clip(config, spec)
