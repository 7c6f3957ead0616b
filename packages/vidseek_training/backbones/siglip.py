"""SigLIP and SigLIP 2 from transformers (Tschannen et al. 2025): multilingual pictures and texts, frames averaged.

The fixed-resolution checkpoints, whose `model_type` is `siglip`. They were trained with a sigmoid loss: `loss: sigmoid` goes
on from their own scale and bias; InfoNCE needs no bias.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from vidseek_training.backbones.averaging import FrameAveraging
from vidseek_training.backbones.base import BackboneSpec


class FrameAveragedSigLIP(FrameAveraging):
    """Any SiglipModel."""

    reads_padding: ClassVar[bool] = True
    # The pooling head's attention holds its weights as bare tensors: LoRA does not reach it.
    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (".q_proj", ".k_proj", ".v_proj", ".self_attn.out_proj"),
        "mlp": (".fc1", ".fc2"),
        "projections": ("text_model.head", "vision_model.head.mlp.fc2"),
        "token_embedding": (".token_embedding",),
    }

    def __init__(self, spec: BackboneSpec, siglip: SiglipModel) -> None:
        super().__init__()
        self.spec = spec
        self.siglip = siglip
        self.logit_scale = siglip.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """See `Backbone.logit_bias`."""
        return float(self.siglip.logit_bias.detach())

    def picture_features(self, pictures: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        features: Tensor = self.siglip.get_image_features(pixel_values=pictures).pooler_output
        return features

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        layers: nn.ModuleList = self.siglip.vision_model.encoder.layers
        return layers

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        tokens: Tensor = self.siglip.vision_model.embeddings(pictures)
        return tokens

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """See `FrameAveraging`."""
        vision = self.siglip.vision_model
        features: Tensor = vision.head(vision.post_layernorm(tokens))
        return features

    def text_features(self, input_ids: Tensor) -> Tensor:
        """See `Backbone.text_features`: the vector at the last place, padding or not, which sees the whole text."""
        result: Tensor = self.siglip.get_text_features(input_ids=input_ids).pooler_output
        return result


def config_of_siglip(config: dict[str, Any]) -> SiglipConfig:
    """The sizes in a config.json, with transformers' own defaults for what it leaves out.

    Raises:
        ValueError: a value is of the wrong type.
    """
    try:
        return SiglipConfig(**{key: value for key, value in config.items() if key != "model_type"})
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error


def build_siglip(config: dict[str, Any], spec: BackboneSpec) -> FrameAveragedSigLIP:
    """A SigLIP of the sizes in transformers' `config`, weights random."""
    siglip_config = config_of_siglip(config)
    siglip_config._attn_implementation = "sdpa"
    return FrameAveragedSigLIP(spec, SiglipModel(siglip_config))
