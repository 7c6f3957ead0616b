"""CLIP from transformers: a clip's vector is the mean of its frames' unit vectors, so the order of frames is not seen."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.stem import ConvStem


class FrameAveragedCLIP(Backbone):
    """Any CLIPModel, a still image being a clip of one frame."""

    averages_frames = True
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

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """See `Backbone.video_features`; the mean of unit frame vectors."""
        batch, frames = pixel_values.shape[:2]
        features = self.clip.get_image_features(pixel_values=pixel_values.flatten(0, 1)).pooler_output
        return F.normalize(features, dim=-1).view(batch, frames, -1).mean(1)

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
    """A CLIP of the sizes in transformers' `config`, weights random; `"stem": "conv"` replaces its patch embedding."""
    clip_config = config_of_clip(config)
    clip_config._attn_implementation = "sdpa"
    clip = CLIPModel(clip_config)
    if config.get("stem") == "conv":
        vision = clip_config.vision_config
        clip.vision_model.embeddings.patch_embedding = ConvStem(vision.hidden_size, patch=vision.patch_size)
    return FrameAveragedCLIP(spec, clip)
