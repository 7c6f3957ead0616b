"""Any two-tower model of transformers: a class with `get_text_features`, and `get_image_features` or `get_video_features`.

The model is transformers' own, with transformers' names of tensors, and `called.py` finds the modules to adapt by running
it. An image model averages frames; a video model takes whole clips. Models that the installed transformers does not know, or
that need code from a repository, are refused.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vidseek_encoder.preprocess import Resizing
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError, ConfigError, foreign
from vidseek_training.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneSpec
from vidseek_training.backbones.files.configs import read_beside
from vidseek_training.backbones.files.image_processing import ImageProcessing, published_processing
from vidseek_training.backbones.files.tokenizer_files import find_tokenizer
from vidseek_training.backbones.modules.averaging import FrameAveraging
from vidseek_training.backbones.modules.called import ByCalls, Called, called
from vidseek_training.backbones.registry import Family, register
from vidseek_training.backbones.transformers_family import (
    CLIP_MEAN,
    CLIP_STD,
    Preprocessing,
    pad_id_of,
)

_START_SCALE = math.log(1 / 0.07)
"""Of a model that has none of its own: CLIP's at its beginning."""
_SCALES = ("logit_scale", "temperature", "logit_bias")
_OWN_KEYS = (
    "model_type", "frames", "resize", "resample", "resize_side", "mean", "deviation", "pad_id", "context", "side",
)
"""Keys of config.json that are ours, or are said already."""


@dataclass(frozen=True)
class Kind:
    """Behaviour of a `model_type` that neither its config nor its tensors state."""

    preprocessing: Preprocessing
    context: int | None = None
    """Most tokens that its processor gives it; None for as many as it has positions."""
    lowercase: bool = False
    trims: bool = True
    """Whether padding moves no vector. Known by a test (`test_dual.py`)."""
    positions_follow_padding: bool = False
    """Positions are counted from behind the padding token's number, as in RoBERTa."""


_PLAIN = Preprocessing(resize="squash", image_mean=(0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0))
"""Levels of 0 to 1, as they are."""
KINDS: Mapping[str, Kind] = {
    "metaclip_2": Kind(Preprocessing(), context=77),
    "chinese_clip": Kind(Preprocessing(resize="crop"), context=52),
    "altclip": Kind(Preprocessing(), context=77, positions_follow_padding=True),
    "align": Kind(Preprocessing(image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)), context=64),
    "aimv2": Kind(Preprocessing(), context=77),
    "clipseg": Kind(Preprocessing(resize="squash", image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)),
    "tipsv2": Kind(replace(_PLAIN, resample="bilinear"), context=64, lowercase=True),
    "videoprism": Kind(_PLAIN, context=64, trims=False),
}
"""Those that were compared with transformers' own outputs. Of others the preprocessing must be in the folder."""


class _Dual(ByCalls, Backbone):
    """The shared part of image and video models: transformers' model, its texts, its adapters, and its scale."""

    def __init__(self, spec: BackboneSpec, model: nn.Module, found: Called, *, trims: bool) -> None:
        super().__init__()
        self.spec = spec
        self.reads_padding = not trims
        self.found, self.found_below = found, "model."
        self._end_is_padding = _ends_with_padding(spec)
        self.bias = _take_scales(model)
        self.model = model
        self.logit_scale = nn.Parameter(torch.tensor(_START_SCALE))

    @property
    def logit_bias(self) -> float | None:
        """See `Backbone.logit_bias`."""
        return None if self.bias is None else float(self.bias.detach())

    def text_features(self, input_ids: Tensor) -> Tensor:
        """Return text features with padding masked, as transformers' processors do; implements `Backbone.text_features`."""
        padding = input_ids == self.spec.pad_id
        if self._end_is_padding:  # the first of them is the end token
            padding = padding & (padding.cumsum(1) > 1)
        return _features(self.model, "text", input_ids, attention_mask=(~padding).long())


class DualPictures(_Dual, FrameAveraging):
    """A two-tower model of pictures: a clip's vector is the mean of its frames' unit vectors."""

    def picture_features(self, pictures: Tensor) -> Tensor:
        """Implement `FrameAveraging.picture_features`."""
        return _features(self.model, "image", pictures)


class DualVideos(_Dual):
    """A two-tower model of videos, for clips of just as many frames as it was built for."""

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """Implement `Backbone.video_features`."""
        return _features(self.model, "video", pixel_values)


@register
class DualFamily(Family):
    """Two-tower models of transformers that have no family of their own."""

    name = "dual"
    last = True

    def config_of(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """Implement `Family.config_of`."""
        kind = said.get("model_type")
        if not isinstance(kind, str):
            return None
        model_class = _class_of(kind)
        if model_class is None:
            if said.get("auto_map"):
                _decline_remote(kind, said["auto_map"])
            return None
        _require_towers(kind, model_class)
        return dict(said)

    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """Implement `Family.spec_of`."""
        kind, sizes = _kind_of(config, folder), _sizes_of(config)
        tokenizer = find_tokenizer(folder, lowercase=kind.lowercase)
        usual = kind.preprocessing
        resizing = Resizing(_side_of(config, folder), usual.resize, usual.resample)
        sees_videos = hasattr(_class_of(config["model_type"]), "get_video_features")
        seen = published_processing(
            folder, ImageProcessing(resizing, usual.image_mean, usual.image_std), of_videos=sees_videos
        ).changed(config)
        pad_id = config.get("pad_id", pad_id_of(folder, tokenizer, getattr(sizes.text_config, "pad_token_id", 0) or 0))
        return BackboneSpec(
            family=config["model_type"], name=name, dimension=_found_of(config).text_shape[-1],
            context_length=config.get("context", _context_of(kind, sizes.text_config, folder)),
            num_frames=config.get("frames", getattr(sizes.vision_config, "num_frames", kind.preprocessing.frames)),
            pad_id=pad_id, tokenizer=tokenizer, **seen.to_spec(),
        )

    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Implement `Family.build`."""
        found = _found_of(config)
        model = _model_of(config)
        made = DualVideos if hasattr(model, "get_video_features") else DualPictures
        return made(spec, model, found, trims=config["model_type"] in KINDS and KINDS[config["model_type"]].trims)

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under the names that transformers' own loader assigns; implements `Family.renamed`."""
        tensors, logit_scale = _without_scales(tensors)
        model_class = _class_of(config["model_type"])
        assert model_class is not None
        with _quiet():
            model, told = model_class.from_pretrained(
                None, config=_sizes_of(config), state_dict=tensors, output_loading_info=True, ignore_mismatched_sizes=True
            )
        bias = _take_scales(model)
        missing = {name for name in told["missing_keys"] if name.rpartition(".")[2] not in _SCALES}
        ours = {f"model.{name}": tensor for name, tensor in model.state_dict().items() if name not in missing}
        if config.get("architectures") in (None, [], [model_class.__name__]):
            # What a checkpoint of a larger class has beside them is that class's head.
            ours |= {f"model.{name}": tensors.get(name, torch.empty(0)) for name in told["unexpected_keys"]}
        ours |= {f"model.{name}": torch.empty(shape) for name, shape, _ in told["mismatched_keys"]}
        return {**ours, **({} if bias is None else {"bias": bias.detach()}), "logit_scale": logit_scale}


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' loader prints what is missing, which `loading` says as an error."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _class_of(kind: str) -> Any:
    """transformers' model class of this `model_type`; None where the installed one has none."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    found = MODEL_MAPPING_NAMES.get(kind) if kind in CONFIG_MAPPING_NAMES else None
    return None if found is None else getattr(transformers, found[0] if isinstance(found, tuple) else found)


def _decline_remote(kind: str, auto_map: object) -> NoReturn:
    code = ", ".join(sorted(map(str, auto_map.values()))) if isinstance(auto_map, Mapping) else str(auto_map)
    raise ConfigError(
        f"model_type {kind!r} needs the code of its repository ({code}), which vidseek does not run",
        code="backbone-needs-code",
        remedy="Take a model of a family in docs/backbones.md, or bring this one by a package (CONTRIBUTING.md)",
    )


def _require_towers(kind: str, model_class: Any) -> None:
    found = [name for name in ("text", "image", "video", "audio") if hasattr(model_class, f"get_{name}_features")]
    if "text" not in found or not {"image", "video"} & set(found):
        towers = f"get_{'_features and get_'.join(found)}_features" if found else "neither text nor picture features"
        raise ConfigError(
            f"model_type {kind!r} ({model_class.__name__}) has {towers}; wanted get_text_features and get_image_features "
            "or get_video_features", code="backbone-not-two-towers",
            remedy="Name a model that puts texts and pictures or videos into one space",
        )


def _sizes_of(config: dict[str, Any]) -> Any:
    """transformers' reading of a config.json.

    Raises:
        ValueError: a value is of the wrong type.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(
            config["model_type"], **{key: value for key, value in config.items() if key not in _OWN_KEYS}
        )
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _model_of(config: dict[str, Any]) -> Any:
    return _class_of(config["model_type"])._from_config(_sizes_of(config))


def _found_of(config: dict[str, Any]) -> Called:
    return _found(json.dumps(config, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _found(config: str) -> Called:
    """Return the modules recorded in a run on meta tensors, once for each config."""
    content = json.loads(config)
    sizes, kind = _sizes_of(content), content["model_type"]
    side = content.get("side") or _declared_side(sizes)
    with torch.device("meta"):
        model = _model_of(content).eval()
    tower = "video" if hasattr(model, "get_video_features") else "image"
    frames = (getattr(sizes.vision_config, "num_frames", 8),) if tower == "video" else ()
    with foreign(
        ConfigError, f"model_type {kind!r}: its towers do not take token ids and {tower} pixels alone",
        code="backbone-not-two-towers", remedy="docs/backbones.md lists what is read",
        errors=(TypeError, ValueError, AttributeError, RuntimeError),
    ), FakeTensorMode(allow_non_fake_inputs=True), torch.device("meta"):
        # Of shapes alone. On `meta` by itself transformers would look at the values of a mask.
        ids, mask = torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, dtype=torch.int64)
        pixels = torch.zeros(2, *frames, 3, side, side)
        found = called(
            model, texts=lambda: _features(model, "text", ids, attention_mask=mask),
            videos=lambda: _features(model, tower, pixels),
        )
    if len(found.text_shape) != 2 or found.text_shape != found.video_shape:
        raise ConfigError(
            f"model_type {kind!r}: two texts give features of shape {found.text_shape}, two pictures or clips "
            f"{found.video_shape}; wanted one vector each, of one length", code="backbone-not-two-towers",
            remedy="docs/backbones.md lists what is read",
        )
    return found


def _features(model: Any, tower: str, inputs: Tensor, **others: Tensor) -> Tensor:
    """Features (n, dimension); older answers are the tensor itself."""
    result = getattr(model, f"get_{tower}_features")(inputs, **others)
    features: Tensor = result if isinstance(result, Tensor) else result.pooler_output
    return features[:, 0] if features.ndim == 3 and features.shape[1] == 1 else features


def _take_scales(model: nn.Module) -> nn.Parameter | None:
    """Take the scalars on cosines out of transformers' model, since ours has its own; gives its bias, if it has one."""
    bias = getattr(model, "logit_bias", None)
    for name in _SCALES:
        if isinstance(getattr(model, name, None), nn.Parameter):
            delattr(model, name)
    return nn.Parameter(bias.detach().reshape(())) if isinstance(bias, nn.Parameter) else None


def _without_scales(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Return a checkpoint without its factor on cosines, and the natural logarithm of that factor."""
    factors = ("logit_scale", "temperature")
    kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in factors}
    scale = torch.tensor(_START_SCALE)
    for name in tensors.keys() - kept.keys():
        value = tensors[name].detach().reshape(()).float()
        scale = value if name.endswith("logit_scale") else -value.log()
    return kept, scale


def _kind_of(config: dict[str, Any], folder: Path) -> Kind:
    kind = KINDS.get(config["model_type"])
    if kind is None and not (folder / "preprocessor_config.json").is_file():
        raise ArtifactError(
            f"{folder}: preprocessor_config.json is missing, which says how a {config['model_type']} gets its pixels",
            code="backbone-broken",
            remedy="Fetch the model again with all its JSON files",
        )
    return kind or Kind(Preprocessing(resize="squash", image_mean=CLIP_MEAN, image_std=CLIP_STD), trims=False)


def _context_of(kind: Kind, text: Any, folder: Path) -> int:
    """Tokens of a text: no more than the model has positions, its tokenizer allows, and its processor gives it."""
    positions = int(text.max_position_embeddings)
    if kind.positions_follow_padding:
        positions -= int(text.pad_token_id) + 1
    said = read_beside(folder / "tokenizer_config.json").get("model_max_length")
    limits = [positions, kind.context, said if isinstance(said, int) else None]
    return min(limit for limit in limits if limit)


def _declared_side(sizes: Any) -> int:
    side = sizes.vision_config.image_size
    if isinstance(side, list | tuple):
        if len(set(side)) != 1:
            raise ValueError(f"vision_config.image_size is {side}, wanted a square")
        side = side[0]
    return int(side)


def _side_of(config: dict[str, Any], folder: Path) -> int:
    """Return the side of the square picture; the preprocessor's takes precedence, for towers that accept any size."""
    if "side" in config:
        return int(config["side"])
    said = read_beside(folder / "preprocessor_config.json")
    for key in ("crop_size", "size"):
        size = said.get(key)
        if isinstance(size, Mapping) and size.get("height") == size.get("width") and isinstance(size.get("height"), int):
            return int(size["height"])
    return _declared_side(_sizes_of(config))


def _ends_with_padding(spec: BackboneSpec) -> bool:
    """Whether the token that fills texts up is also the one that ends them."""
    tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
    count = tokenizer.count([""])[0]
    return count > 0 and int(tokenizer.encode([""])[0, count - 1]) == spec.pad_id
