"""Models in open_clip's format: open_clip_config.json and open_clip_model.safetensors (DFN, PE-Core, MobileCLIP2, EVA-02).

The text tower and the plain vision transformer are our own code with open_clip's names, so that LoRA can adapt attention.
A vision tower of timm is timm's own (`timm_tower.py`). A config key that changes the towers in an unsupported way is refused
by its name.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vidseek_encoder.preprocess import Resample
from vidseek_media.errors import ConfigError
from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.files.tokenizer_files import find_tokenizer
from vidseek_training.backbones.modules.averaging import FrameAveraging
from vidseek_training.backbones.modules.called import ByCalls, Called, called
from vidseek_training.backbones.modules.timm_tower import TimmTower
from vidseek_training.backbones.modules.transformer import TextTower, Transformer, quick_gelu
from vidseek_training.backbones.registry import Family, register
from vidseek_training.backbones.transformers_family import CLIP_MEAN, CLIP_STD

_VISION_KEYS = ("image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout", "pool_type")
_TIMM_KEYS = (
    "image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop",
    "timm_drop_path", "patch_dropout",
)
_TEXT_KEYS = (
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "no_causal_mask", "pool_type", "proj_bias",
    "pad_id", "eos_id", "hf_tokenizer_name", "norm_kwargs", "act_kwargs",
)
_MODEL_KEYS = (
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias",
)
_NO_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""What a checkpoint may hold beside weights."""


class VisionTower(nn.Module):
    """Pictures (n, 3, side, side) to features (n, dimension): open_clip's plain vision transformer."""

    def __init__(self, config: Mapping[str, Any], dimension: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        width, patch = config.get("width", 768), config.get("patch_size", 16)
        places = (config.get("image_size", 224) // patch) ** 2
        self.averages = config.get("pool_type", "tok") == "avg"
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(places + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.get("layers", 12), width // config.get("head_width", 64), causal=False, activation=activation,
            hidden=int(width * config.get("mlp_ratio", 4.0)),
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Linear(width, dimension, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features of any length."""
        return self.features_of(self.transformer(self.tokens_of(pictures)))

    def tokens_of(self, pictures: Tensor) -> Tensor:
        """Convert pictures (n, 3, side, side) into the tokens of the first layer: the class token, then patches."""
        patches = self.conv1(pictures).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        result: Tensor = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        return result

    def features_of(self, tokens: Tensor) -> Tensor:
        """Convert tokens (n, tokens, width) after all layers into features (n, dimension)."""
        tokens = self.ln_post(tokens)
        result: Tensor = self.proj(tokens[:, 1:].mean(1) if self.averages else tokens[:, 0])
        return result


class OpenCLIP(ByCalls, FrameAveraging):
    """A model of open_clip's config: a plain vision transformer or a tower of timm, beside a text transformer."""

    layer_masks = ()

    def __init__(self, spec: BackboneSpec, config: dict[str, Any], found: Called | None) -> None:
        super().__init__()
        model, text = config["model_cfg"], config["model_cfg"]["text_cfg"]
        self.spec = spec
        self.reads_padding = bool(text.get("no_causal_mask")) or text.get("pool_type") == "last"
        self.visual = _vision_of(model)
        self.text = TextTower(text, model["embed_dim"], _activation(text, quick=model.get("quick_gelu", False)))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.zeros(())) if model.get("init_logit_bias") is not None else None
        if found is not None:
            self.found = found

    @property
    def logit_bias(self) -> float | None:
        """See `Backbone.logit_bias`."""
        return None if self.bias is None else float(self.bias.detach())

    def picture_features(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_features`."""
        features: Tensor = self.visual(pictures)
        return features

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Return text features without a padding mask, as open_clip does; implements `Backbone.text_features`."""
        features: Tensor = self.text(input_ids)
        return features

    @property
    def video_layers(self) -> nn.ModuleList:
        """See `Backbone.video_layers`."""
        return self._plain().transformer.resblocks

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_tokens`."""
        return self._plain().tokens_of(pictures)

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """Implement `FrameAveraging.features_of_last`."""
        return self._plain().features_of(tokens)

    def _plain(self) -> VisionTower:
        if not isinstance(self.visual, VisionTower):
            raise self._not_apart()
        return self.visual


@register
class OpenCLIPFamily(Family):
    """Folders with open_clip's own config and weights. A folder that also has a config.json belongs to the family that
    reads it.
    """

    name = "open_clip"
    config_file = "open_clip_config.json"
    weights: ClassVar[tuple[str, ...]] = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    last = True

    def config_of(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """Implement `Family.config_of`."""
        model = said.get("model_cfg")
        towers = [model.get(key) for key in ("vision_cfg", "text_cfg")] if isinstance(model, Mapping) else [None]
        if not isinstance(model, Mapping) or not all(isinstance(tower, Mapping) for tower in towers):
            return None
        _require_known(model, said.get("preprocess_cfg") or {})
        return dict(said)

    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """Implement `Family.spec_of`."""
        model, seen = config["model_cfg"], config.get("preprocess_cfg") or {}
        vision, text = model["vision_cfg"], model["text_cfg"]
        return BackboneSpec(
            family=self.name, name=name, dimension=model["embed_dim"], context_length=text.get("context_length", 77),
            num_frames=config.get("frames", 8), image_size_px=vision.get("image_size", 224),
            resize="squash" if seen.get("resize_mode") == "squash" else "crop",
            resample=seen.get("interpolation", "bicubic"), image_mean=tuple(seen.get("mean", CLIP_MEAN)),
            image_std=tuple(seen.get("std", CLIP_STD)), pad_id=config.get("pad_id", text.get("pad_id", 0)),
            tokenizer=find_tokenizer(folder),
        )

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        return OpenCLIP(spec, config, _found(json.dumps(config, sort_keys=True), spec))

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the text tower to `text`, projections and attention to linear layers; implements `Family.renamed`."""
        ours: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if name.rpartition(".")[2] in _NO_WEIGHTS:
                continue
            if name in ("logit_scale", "logit_bias"):
                ours["bias" if name == "logit_bias" else name] = tensor.reshape(())
                continue
            name = name if name.startswith(("visual.", "text.")) else f"text.{name}"
            if name in ("visual.proj", "text.text_projection"):
                name, tensor = f"{name}.weight", tensor.T.contiguous()
            ours[name.replace("in_proj_weight", "in_proj.weight").replace("in_proj_bias", "in_proj.bias")] = tensor
        return ours


def _vision_of(model: Mapping[str, Any]) -> nn.Module:
    vision = model["vision_cfg"]
    if vision.get("timm_model_name"):
        return TimmTower(vision, model["embed_dim"])
    return VisionTower(vision, model["embed_dim"], _activation(vision, quick=model.get("quick_gelu", False)))


def _activation(tower: Mapping[str, Any], *, quick: bool) -> Callable[[Tensor], Tensor]:
    if quick:
        return quick_gelu
    return partial(F.gelu, approximate=(tower.get("act_kwargs") or {}).get("approximate", "none"))


@functools.lru_cache(maxsize=4)
def _found(config: str, spec: BackboneSpec) -> Called:
    """Return the modules recorded in a run on meta tensors, once for each config."""
    with torch.device("meta"):
        model = OpenCLIP(spec, json.loads(config), None).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"):
        ids = torch.zeros(2, spec.context_length, dtype=torch.int64)
        pixels = torch.zeros(2, 3, spec.image_size_px, spec.image_size_px)
        return called(model, texts=lambda: model.text_features(ids), videos=lambda: model.picture_features(pixels))


def _require_known(model: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
    """Check that a config asks for nothing unsupported, which would give other vectors.

    Raises:
        ConfigError: something does.
    """
    vision, text = model["vision_cfg"], model["text_cfg"]
    known = _TIMM_KEYS if vision.get("timm_model_name") else _VISION_KEYS
    for section, content, keys in (
        ("model_cfg", model, _MODEL_KEYS), ("vision_cfg", vision, known), ("text_cfg", text, _TEXT_KEYS),
    ):
        for key, value in content.items():
            if key not in keys and value not in (None, False, 0):
                _decline(f"{section}.{key}", value)
    for key in ("layers", "image_size"):  # a ResNet has a list of layers; a picture that is no square, one of sides
        if not isinstance(vision.get(key, 1), int):
            _decline(f"vision_cfg.{key}", vision[key])
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        _decline("vision_cfg.pool_type", vision["pool_type"])
    if text.get("pool_type", "argmax") not in ("argmax", "eos", "first", "last"):
        _decline("text_cfg.pool_type", text["pool_type"])
    for key, usual, built in (
        ("resize_mode", "shortest", ("shortest", "squash")), ("interpolation", "bicubic", get_args(Resample)),
    ):
        if seen.get(key, usual) not in built:
            _decline(f"preprocess_cfg.{key}", seen[key])


def _decline(key: str, value: object) -> NoReturn:
    raise ConfigError(
        f"open_clip_config.json: {key} is {value!r}, which vidseek does not build", code="backbone-not-built",
        remedy="Take the model as transformers publishes it, if it does, or another of docs/backbones.md",
    )
