"""From a name, a folder or a hub id to a backbone, strictly: a missing or an unexpected tensor is an error that names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vidseek_encoder.bundle import file_sha256
from vidseek_encoder.tokenizer_file import read_tokenizer
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.json_files import read_json
from vidseek_training.backbones.base import IMAGENET_DEVIATION, IMAGENET_MEAN, Backbone, BackboneSpec
from vidseek_training.backbones.vocabulary import find_tokenizer
from vidseek_training.torch_files import read_torch

SHIPPED = Path(__file__).parents[1] / "weights"
"""The small backbones that come with vidseek, one folder each."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_MOST_BYTES = 16 * 2**20
"""Of config.json and the files beside it."""
_MOST_SIZE = 2**24
_MOST_LAYERS = 1024
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HUB_FILES = ["*.json", "README.md", "merges.txt", "bpe_simple_vocab_16e6.txt.gz", *_WEIGHTS]

_PUBLISHED_VICLIP: dict[str, dict[str, Any]] = {
    size: {
        "dimension": dimension,
        "vision": {"side": 224, "patch": patch, "width": width, "layers": layers, "heads": heads, "frames": 8},
        "text": {"context": 32, "vocabulary": 49408, "width": dimension, "layers": 12, "heads": dimension // 64},
    }
    for size, dimension, patch, width, layers, heads in (("b", 512, 16, 768, 12, 12), ("l", 768, 14, 1024, 24, 16))
}
"""The sizes of OpenGVLab's ViCLIP-B-16 and ViCLIP-L-14."""


def load(path_or_id: str | Path) -> Backbone:
    """The backbone at `path_or_id`, in fp32, in evaluation mode.

    Args:
        path_or_id: `vidseek/<name>` for one that is shipped; a folder with config.json, the weights (model.safetensors or
            pytorch_model.bin) and the tokenizer (see `vocabulary.find_tokenizer`); or a hub id.

    Raises:
        ConfigError: nothing is there, or it is of a family that we do not know.
        ArtifactError: its files are missing, broken, or hold other tensors than its config says.
    """
    folder = resolve(path_or_id)
    config = _read_config(folder)
    path, tensors = _read_tensors(folder)
    try:
        _require_sizes(config)
        spec = _spec_of(config, folder, name=str(path_or_id))
        tensors = _renamed(spec, tensors)
        with torch.device("meta"):  # of no memory: a config may ask for more than there is
            shapes = _build(config, spec).state_dict()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ArtifactError(f"{folder / 'config.json'} is of no {config['model_type']} model: {error!r}") from error
    _require_same(shapes, tensors, path)
    model = _build(config, spec)
    model.load_state_dict(tensors)
    model.eval()
    return model


def resolve(path_or_id: str | Path) -> Path:
    """The folder that `path_or_id` names.

    Raises:
        ConfigError: there is none, or the hub's files are neither here nor to be had.
    """
    text = str(path_or_id)
    if text.startswith("vidseek/"):
        folder = SHIPPED / text.removeprefix("vidseek/")
        if not folder.is_dir():
            known = ", ".join(sorted(f"vidseek/{config.parent.name}" for config in SHIPPED.glob("*/config.json")))
            raise ConfigError(f"backbone {text} is not shipped", remedy=f"Choose one of: {known or '(none is here)'}")
        return folder
    folder = Path(text)
    if (folder / "config.json").is_file():
        return folder
    if isinstance(path_or_id, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) and not folder.exists():
        return _from_hub(text)
    raise ConfigError(
        f"backbone {text}: no folder with a config.json is there",
        remedy="Name a shipped one (vidseek/viclip-tiny, vidseek/clip-tiny), a folder, or a hub id in `backbone.name`",
    )


def revision_of(path_or_id: str | Path) -> str:
    """The commit of a hub id's snapshot; empty for what is shipped and for folders."""
    folder = resolve(path_or_id)
    return folder.name if folder.parent.name == "snapshots" else ""


def weights_sha256(path_or_id: str | Path) -> str:
    """Of the file of weights; empty where there is none."""
    path = _weights_file(resolve(path_or_id))
    return file_sha256(path) if path.is_file() else ""


def _weights_file(folder: Path) -> Path:
    return next((folder / name for name in _WEIGHTS if (folder / name).is_file()), folder / _WEIGHTS[0])


def _from_hub(name: str) -> Path:
    """The newest snapshot of `name` in the hub's local cache; fetched first where the hub may be asked."""
    from huggingface_hub import constants, snapshot_download

    last: Exception | None = None
    for local in (True,) if constants.HF_HUB_OFFLINE else (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES, local_files_only=local))
        except (OSError, ValueError) as error:  # the hub's own errors are of these two kinds
            last = error
            continue
        if any((folder / weights).is_file() for weights in _WEIGHTS):
            return folder
    raise ConfigError(
        f"backbone {name}: neither a folder nor, whole, in the model hub's local cache ({constants.HF_HUB_CACHE})",
        remedy="Name a folder; or set HF_HUB_OFFLINE=0 where there is a network, and run it again" if
        constants.HF_HUB_OFFLINE else "Look whether the hub has a model of this name, and whether the network is there",
    ) from last


def _build(config: dict[str, Any], spec: BackboneSpec) -> Backbone:
    # Each family imports its own part of transformers: a second or more.
    if spec.family == "viclip":
        from vidseek_training.backbones.viclip import build_viclip

        return build_viclip(config, spec)
    if spec.family == "xclip":
        from vidseek_training.backbones.xclip import build_xclip

        return build_xclip(config, spec)
    if spec.family == "siglip":
        from vidseek_training.backbones.siglip import build_siglip

        return build_siglip(config, spec)
    from vidseek_training.backbones.clip import build_clip

    return build_clip(config, spec)


def _renamed(spec: BackboneSpec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names of our models."""
    if spec.family == "viclip":
        from vidseek_training.backbones.viclip import from_checkpoint

        return from_checkpoint(tensors)
    # Older checkpoints hold the numbers of the positions, which are no weights.
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}
    if spec.family == "xclip":
        from vidseek_training.backbones.xclip import from_xclip

        tensors = from_xclip(tensors)
    ours = {f"{spec.family}.{name.removeprefix(f'{spec.family}.')}": tensor for name, tensor in tensors.items()}
    # Our model shows transformers' scale as its own too: one parameter under two names.
    if f"{spec.family}.logit_scale" in ours:
        ours["logit_scale"] = ours[f"{spec.family}.logit_scale"]
    return ours


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = read_json(folder / "config.json", most_bytes=_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder / 'config.json'} holds {type(config).__name__}, wanted a mapping")
    if config.get("architectures") == ["ViCLIP"] and config.get("size") in _PUBLISHED_VICLIP and "vision" not in config:
        # As it is on the hub: the sizes are in its code, which we do not run.
        return {"model_type": "viclip", **_PUBLISHED_VICLIP[config["size"]]}
    known = ("viclip", "clip", "xclip", "siglip")
    if config.get("model_type") not in known:
        wanted = f"{', '.join(known[:-1])} or {known[-1]}"
        raise ConfigError(f"{folder}: model_type {config.get('model_type')!r}; wanted {wanted}")
    return config


def _spec_of(config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
    family = config["model_type"]
    tokenizer = find_tokenizer(folder, lowercase=family == "siglip")
    if family == "viclip":
        vision, text = config["vision"], config["text"]
        return BackboneSpec(
            family="viclip", name=name, dimension=config["dimension"], context=text["context"],
            frames=vision["frames"], side=vision["side"], resize=config.get("resize", "squash"),
            mean=tuple(config.get("mean", IMAGENET_MEAN)), deviation=tuple(config.get("deviation", IMAGENET_DEVIATION)),
            pad_id=config.get("pad_id", 0), tokenizer=tokenizer,
        )
    sizes, usual = _usual(config)
    seen = {**usual, **_published_preprocessing(folder), **config}
    text = sizes.text_config
    return BackboneSpec(
        family=family, name=name, dimension=text.projection_size if family == "siglip" else sizes.projection_dim,
        context=text.max_position_embeddings, frames=seen["frames"], side=sizes.vision_config.image_size,
        resize=seen["resize"], mean=tuple(seen["mean"]), deviation=tuple(seen["deviation"]),
        pad_id=config.get("pad_id", _pad_id(folder, tokenizer, text.pad_token_id or 0)), tokenizer=tokenizer,
    )


def _usual(config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """transformers' reading of `config`, and the family's preprocessing where the folder does not say otherwise."""
    if config["model_type"] == "xclip":
        from vidseek_training.backbones.xclip import config_of_xclip

        sizes = config_of_xclip(config)
        frames = sizes.vision_config.num_frames
        return sizes, {"frames": frames, "resize": "crop", "mean": IMAGENET_MEAN, "deviation": IMAGENET_DEVIATION}
    if config["model_type"] == "siglip":
        from vidseek_training.backbones.siglip import config_of_siglip

        return config_of_siglip(config), {"frames": 8, "resize": "squash", "mean": (0.5,) * 3, "deviation": (0.5,) * 3}
    from vidseek_training.backbones.clip import config_of_clip

    return config_of_clip(config), {"frames": 8, "resize": "crop", "mean": _CLIP_MEAN, "deviation": _CLIP_DEVIATION}


def _published_preprocessing(folder: Path) -> dict[str, Any]:
    """Mean, deviation and resize by transformers' preprocessor_config.json, where it is there and says so."""
    said = _read_beside(folder / "preprocessor_config.json")
    names = {"image_mean": "mean", "image_std": "deviation"}
    found: dict[str, Any] = {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs)}
    if "do_center_crop" in said:
        found["resize"] = "crop" if said["do_center_crop"] else "squash"
    return found


def _pad_id(folder: Path, tokenizer: Path, otherwise: int) -> int:
    """The number of the padding token that tokenizer_config.json names."""
    token = _read_beside(folder / "tokenizer_config.json").get("pad_token")
    text = token.get("content") if isinstance(token, dict) else token
    number = read_tokenizer(tokenizer).token_to_id(text) if isinstance(text, str) and text else None
    return otherwise if number is None else int(number)


def _read_beside(path: Path) -> dict[str, Any]:
    """A JSON file of the folder; empty where there is none."""
    try:
        content = read_json(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _read_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The weights' file and its tensors, in fp32."""
    path = _weights_file(folder)
    try:
        if path.suffix == ".bin":
            tensors: dict[str, Tensor] = read_torch(path)
        else:
            tensors = load_file(path)
        return path, {name: tensor.float() for name, tensor in tensors.items()}
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", remedy="Fetch the backbone's weights again") from error


def _require_sizes(content: object, name: str = "") -> None:
    """See to it that no number of a config is one that no model has: so many layers are never built.

    Raises:
        ValueError: one is.
    """
    if isinstance(content, dict):
        for key, value in content.items():
            _require_sizes(value, str(key))
    elif isinstance(content, list):
        for value in content:
            _require_sizes(value, name)
    elif isinstance(content, int) and abs(content) > (_MOST_LAYERS if "layers" in name else _MOST_SIZE):
        raise ValueError(f"{name} is {content}")


def _require_same(wanted: Mapping[str, Tensor], tensors: dict[str, Tensor], path: Path) -> None:
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    wrong = sorted(
        f"{name} {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape
    )
    if missing or unexpected or wrong:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
        told = "; ".join(f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in parts.items() if names)
        raise ArtifactError(f"{path} does not fit its config.json: {told}")
