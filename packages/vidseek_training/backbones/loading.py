"""From a name or a folder to a backbone, strictly: a missing or an unexpected tensor is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training.backbones.base import IMAGENET_DEVIATION, IMAGENET_MEAN, Backbone, BackboneSpec

SHIPPED = Path(__file__).parents[1] / "weights"
"""The small backbones that come with vidseek, one folder each."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def load(path_or_id: str | Path) -> Backbone:
    """The backbone at `path_or_id`, in fp32, in evaluation mode.

    Args:
        path_or_id: `vidseek/<name>` for one that is shipped, or a folder with config.json, model.safetensors and
            tokenizer.json.

    Raises:
        ConfigError: nothing is there, or it is of a family that we do not know.
        ArtifactError: its files are missing, broken, or hold other tensors than its config says.
    """
    folder = resolve(path_or_id)
    config = _read_config(folder)
    try:
        spec = _spec_of(config, folder, name=str(path_or_id))
        model = _build(config, spec)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{folder / 'config.json'} is of no {config['model_type']} model: {error!r}") from error
    _load_strictly(model, _tensors_of(spec, folder), folder)
    model.eval()
    return model


def _build(config: dict[str, Any], spec: BackboneSpec) -> Backbone:
    if spec.family == "viclip":
        from vidseek_training.backbones.viclip import build_viclip

        return build_viclip(config, spec)
    from vidseek_training.backbones.clip import build_clip

    return build_clip(config, spec)


def _tensors_of(spec: BackboneSpec, folder: Path) -> dict[str, Tensor]:
    """The tensors in `folder` under the names of our models."""
    tensors = _read_tensors(folder)
    if spec.family == "viclip":
        from vidseek_training.backbones.viclip import from_checkpoint

        return from_checkpoint(tensors)
    # Older checkpoints hold the numbers of the positions, which are no weights.
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}
    ours = {f"clip.{name.removeprefix('clip.')}": tensor for name, tensor in plain.items()}
    # Our model shows CLIP's own scale as its own too: one parameter under two names.
    if "clip.logit_scale" in ours:
        ours["logit_scale"] = ours["clip.logit_scale"]
    return ours


def resolve(path_or_id: str | Path) -> Path:
    """The folder that `path_or_id` names.

    Raises:
        ConfigError: there is none.
    """
    text = str(path_or_id)
    if text.startswith("vidseek/"):
        folder = SHIPPED / text.removeprefix("vidseek/")
        if not folder.is_dir():
            known = ", ".join(sorted(f"vidseek/{config.parent.name}" for config in SHIPPED.glob("*/config.json")))
            raise ConfigError(f"backbone {text} is not shipped", remedy=f"Choose one of: {known or '(none is here)'}")
        return folder
    folder = Path(text)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"backbone {text}: no folder with a config.json is there",
            remedy="Name a shipped one (vidseek/viclip-tiny, vidseek/clip-tiny) or a folder in `backbone.name`",
        )
    return folder


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{folder / 'config.json'} holds {type(config).__name__}, wanted a mapping")
    if config.get("model_type") not in ("viclip", "clip"):
        raise ConfigError(f"{folder}: model_type {config.get('model_type')!r}; wanted viclip or clip")
    return config


def _spec_of(config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ArtifactError(f"{tokenizer} is missing", remedy="A backbone's folder holds its tokenizer")
    if config["model_type"] == "viclip":
        vision, text = config["vision"], config["text"]
        return BackboneSpec(
            family="viclip", name=name, dimension=config["dimension"], context=text["context"],
            frames=vision["frames"], side=vision["side"], resize=config.get("resize", "squash"),
            mean=tuple(config.get("mean", IMAGENET_MEAN)), deviation=tuple(config.get("deviation", IMAGENET_DEVIATION)),
            pad_id=config.get("pad_id", 0), tokenizer=tokenizer,
        )
    from vidseek_training.backbones.clip import config_of_clip

    sizes = config_of_clip(config)
    return BackboneSpec(
        family="clip", name=name, dimension=sizes.projection_dim, context=sizes.text_config.max_position_embeddings,
        frames=config.get("frames", 8), side=sizes.vision_config.image_size, resize=config.get("resize", "crop"),
        mean=tuple(config.get("mean", _CLIP_MEAN)), deviation=tuple(config.get("deviation", _CLIP_DEVIATION)),
        pad_id=config.get("pad_id", sizes.text_config.pad_token_id or 0), tokenizer=tokenizer,
    )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", remedy="Fetch the backbone's weights again") from error


def _load_strictly(model: Backbone, tensors: dict[str, Tensor], folder: Path) -> None:
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    wrong = sorted(
        f"{name} {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape
    )
    if missing or unexpected or wrong:
        parts = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
        told = "; ".join(f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in parts.items() if names)
        raise ArtifactError(f"{folder / 'model.safetensors'} does not fit its config.json: {told}")
    model.load_state_dict(tensors)
