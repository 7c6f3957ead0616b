"""CLIP from transformers: a clip's vector is the mean of its frames' unit vectors, so the order of frames is not seen."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from vidseek_training.backbones.averaging import FrameAveraging
from vidseek_training.backbones.base import BackboneSpec
from vidseek_training.backbones.stem import ConvStem, ResidualStem

_STEMS = {"conv": ConvStem, "residual": ResidualStem}


class FrameAveragedCLIP(FrameAveraging):
    """Any CLIPModel."""

    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
        "mlp": (".fc1", ".fc2"),
        "projections": (".visual_projection", ".text_projection"),
        "token_embedding": (".token_embedding",),
    }

    def __init__(self, spec: BackboneSpec, clip: CLIPModel) -> None:
        super().__init__()
        self.spec = spec
        self.clip = clip
        self.logit_scale = clip.logit_scale

    def picture_features(self, pictures: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        features: Tensor = self.clip.get_image_features(pixel_values=pictures).pooler_output
        return features

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        layers: nn.ModuleList = self.clip.vision_model.encoder.layers
        return layers

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        vision = self.clip.vision_model
        tokens: Tensor = vision.pre_layrnorm(vision.embeddings(pictures))
        return tokens

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        features: Tensor = self.clip.visual_projection(self.clip.vision_model.post_layernorm(tokens[:, 0]))
        return features

    def text_features(self, input_ids: Tensor) -> Tensor:
        """See `Backbone.text_features`. No attention mask: attention is causal, and padding follows the end token."""
        result: Tensor = self.clip.get_text_features(input_ids=input_ids).pooler_output
        return result


def config_of_clip(config: dict[str, Any]) -> CLIPConfig:
    """The sizes in a config.json, with transformers' own defaults for what it leaves out.

    Raises:
        ValueError: a value is of the wrong type.
    """
    try:
        return CLIPConfig(**{key: value for key, value in config.items() if key not in ("model_type", "stem")})
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error


def build_clip(config: dict[str, Any], spec: BackboneSpec) -> FrameAveragedCLIP:
    """A CLIP of the sizes in transformers' `config`, weights random.

    `"stem"` is `patch` (as published) or one of ours in the place of the patch embedding: `conv`, `residual`.
    """
    clip_config = config_of_clip(config)
    clip_config._attn_implementation = "sdpa"
    clip = CLIPModel(clip_config)
    if (stem := config.get("stem", "patch")) != "patch":
        vision = clip_config.vision_config
        clip.vision_model.embeddings.patch_embedding = _STEMS[stem](vision.hidden_size, patch=vision.patch_size)
    return FrameAveragedCLIP(spec, clip)
