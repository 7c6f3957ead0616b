"""X-CLIP from transformers (Ni et al. 2022): frames exchange messages, and a small transformer joins them to a clip.

Its own `forward` mixes the clip into each text by a prompt generator, which no index of stored vectors could answer. Here
texts never see clips, in training as in serving, and the generator's weights are not loaded.
"""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import XCLIPConfig, XCLIPModel

from vidseek_training.backbones.base import Backbone, BackboneSpec

_PROMPTS = ("prompts_visual_layernorm", "prompts_visual_projection", "prompts_generator")


class XCLIP(Backbone):
    """Any XCLIPModel, for clips of just as many frames as it was built for."""

    # The attention and the MLPs of messages and of the joining transformer are among them.
    lora_ends: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
        "mlp": (".fc1", ".fc2"),
        "projections": (".visual_projection", ".text_projection"),
        "token_embedding": (".token_embedding",),
    }

    def __init__(self, spec: BackboneSpec, xclip: XCLIPModel) -> None:
        super().__init__()
        self.spec = spec
        for name in _PROMPTS:
            delattr(xclip, name)
        self.xclip = xclip
        self.logit_scale = xclip.logit_scale

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """See `Backbone.video_features`."""
        result: Tensor = self.xclip.get_video_features(pixel_values=pixel_values).pooler_output
        return result

    def text_features(self, input_ids: Tensor) -> Tensor:
        """See `Backbone.text_features`. No attention mask: attention is causal, and padding follows the end token."""
        result: Tensor = self.xclip.get_text_features(input_ids=input_ids).pooler_output
        return result


def config_of_xclip(config: dict[str, Any]) -> XCLIPConfig:
    """The sizes in a config.json, with transformers' own defaults for what it leaves out.

    Raises:
        ValueError: a value is of the wrong type.
    """
    try:
        return XCLIPConfig(**{key: value for key, value in config.items() if key != "model_type"})
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error


def build_xclip(config: dict[str, Any], spec: BackboneSpec) -> XCLIP:
    """An X-CLIP of the sizes in transformers' `config`, weights random."""
    xclip_config = config_of_xclip(config)
    xclip_config._attn_implementation = "sdpa"
    return XCLIP(spec, XCLIPModel(xclip_config))


def from_xclip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors without those of the prompt generator."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_PROMPTS)}
