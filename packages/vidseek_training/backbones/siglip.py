"""SigLIP and SigLIP 2 from transformers (Tschannen et al. 2025): multilingual images and texts, frames averaged.

Reads the fixed-resolution checkpoints, with `model_type` `siglip`. They were trained with a sigmoid loss: `loss: sigmoid`
continues with their scale and bias; InfoNCE needs no bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.modules.averaging import FrameAveraging
from vidseek_training.backbones.registry import register
from vidseek_training.backbones.transformers_family import Preprocessing, TransformersFamily

if TYPE_CHECKING:
    from transformers import SiglipModel


class FrameAveragedSigLIP(FrameAveraging):
    """Any SiglipModel."""

    reads_padding = True
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
        """Implement `FrameAveraging.picture_features`."""
        features: Tensor = self.siglip.get_image_features(pixel_values=pictures).pooler_output
        return features

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        layers: nn.ModuleList = self.siglip.vision_model.encoder.layers
        return layers

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_tokens`."""
        tokens: Tensor = self.siglip.vision_model.embeddings(pictures)
        return tokens

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """Implement `FrameAveraging.features_of_last`."""
        vision = self.siglip.vision_model
        features: Tensor = vision.head(vision.post_layernorm(tokens))
        return features

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Return the vector at the last position, which sees the whole text; implements `Backbone.text_features`."""
        result: Tensor = self.siglip.get_text_features(input_ids=input_ids).pooler_output
        return result


@register
class SigLIPFamily(TransformersFamily):
    """SigLIP, and SigLIP 2 of fixed resolution."""

    name = "siglip"
    config_class = "SiglipConfig"
    preprocessing = Preprocessing(resize="squash", image_mean=(0.5,) * 3, image_std=(0.5,) * 3)
    lowercase = True
    unpunctuated = True

    def dimension_of(self, sizes: Any) -> int:
        """Implement `TransformersFamily.dimension_of`."""
        return int(sizes.text_config.projection_size)

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        from transformers import SiglipModel

        return FrameAveragedSigLIP(spec, SiglipModel(self.sizes_of(config)))
