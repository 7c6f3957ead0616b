"""X-CLIP from transformers (Ni et al. 2022): frames exchange messages, and a small transformer combines them into a clip.

Its own `forward` mixes the clip into each text by a prompt generator, which an index of stored vectors cannot use. Here
texts never depend on clips, in training and serving alike, and the generator's weights are not loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from vidseek_training.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneSpec
from vidseek_training.backbones.registry import register
from vidseek_training.backbones.transformers_family import CLIP_LORA_ENDS, Preprocessing, TransformersFamily

if TYPE_CHECKING:
    from transformers import XCLIPModel

_PROMPTS = ("prompts_visual_layernorm", "prompts_visual_projection", "prompts_generator")


class XCLIP(Backbone):
    """Any XCLIPModel, for clips of just as many frames as it was built for."""

    # The attention and the MLPs of messages and of the joining transformer are among them.
    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = CLIP_LORA_ENDS

    def __init__(self, spec: BackboneSpec, xclip: XCLIPModel) -> None:
        super().__init__()
        self.spec = spec
        for name in _PROMPTS:
            delattr(xclip, name)
        self.xclip = xclip
        self.logit_scale = xclip.logit_scale

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """Implement `Backbone.video_features`."""
        result: Tensor = self.xclip.get_video_features(pixel_values=pixel_values).pooler_output
        return result

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Return text features; implements `Backbone.text_features`. No padding mask: attention is causal, padding comes
        last.
        """
        result: Tensor = self.xclip.get_text_features(input_ids=input_ids).pooler_output
        return result


@register
class XCLIPFamily(TransformersFamily):
    """X-CLIP of transformers, without its prompt generator."""

    name = "xclip"
    config_class = "XCLIPConfig"
    # That of VideoMAE's processor, which X-CLIP is published with.
    preprocessing = Preprocessing(resample="bilinear", image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    of_videos = True

    def frames_of(self, sizes: Any) -> int:
        """Return the number of frames that the model was built for."""
        return int(sizes.vision_config.num_frames)

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        from transformers import XCLIPModel

        return XCLIP(spec, XCLIPModel(self.sizes_of(config)))

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Implement `Family.renamed`."""
        kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PROMPTS)}
        return super().renamed(config, kept)
