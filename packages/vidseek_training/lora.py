"""LoRA adapters by peft: attached, saved, loaded strictly, scaled and merged."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import _ConvNd as ConvAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training.backbones import Backbone
from vidseek_training.settings import TrainSettings

_NOTES = "vidseek.json"


@dataclass(frozen=True)
class AdapterNotes:
    """What peft's own files do not say."""

    backbone: str
    logit_scale: float
    num_tensors: int
    """The tensors that the adapter holds; fewer found on loading is an error."""


def attach(model: Backbone, settings: TrainSettings) -> PeftModel:
    """Put an untrained adapter into `model`, in place; everything else is frozen but the logit scale.

    `settings.dropout` is for all but convolutions.

    Returns:
        peft's handle on it; `model` itself now runs with the adapter.

    Raises:
        ConfigError: the settings reach no module of it.
    """
    targets = model.lora_targets(settings.targets, last_layers=settings.last_layers, towers=settings.towers)
    if not targets:
        raise ConfigError(
            f"{model.spec.name}: no module of {', '.join(settings.targets)} in the towers {', '.join(settings.towers)}",
            remedy="Name others in train.settings.<name>.targets, or both towers",
        )
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, bias="none", target_modules=targets
    )
    handle = get_peft_model(model, config)
    for module in handle.modules():
        if isinstance(module, ConvAdapter):
            # Dropping single pixels and levels is no dropout of features, and drawing them took a fifth of a step.
            module.lora_dropout["default"] = nn.Identity()
    model.logit_scale.requires_grad_(True)
    return handle


def state_of(handle: PeftModel) -> dict[str, Tensor]:
    """A copy of the adapter's tensors."""
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(handle).items()}


def set_scaled(handle: PeftModel, state: dict[str, Tensor], scale: float) -> None:
    """Give `handle` the adapter `state`, its updates `scale` times as strong: 0 is the base, 1 the adapter itself."""
    ups = ("lora_B", "lora_embedding_B")
    scaled = {name: tensor * scale if any(up in name for up in ups) else tensor for name, tensor in state.items()}
    set_peft_model_state_dict(handle, scaled)


def save(handle: PeftModel, model: Backbone, folder: Path) -> None:
    """Write the adapter in PEFT's format with our notes beside it."""
    # Asking the hub whether the vocabulary grew is pointless here, and would need a network.
    handle.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    notes = AdapterNotes(model.spec.name, float(model.logit_scale.detach()), len(get_peft_model_state_dict(handle)))
    (folder / _NOTES).write_text(json.dumps(notes.__dict__, indent=2) + "\n", encoding="utf-8")


def load_into(model: Backbone, folder: Path) -> PeftModel:
    """Put the adapter at `folder` into `model`, in place.

    Raises:
        ArtifactError: it is missing, broken, or made for another model: a tensor too few or too many.
    """
    try:
        notes = AdapterNotes(**json.loads((folder / _NOTES).read_text(encoding="utf-8")))
        tensors = load_file(folder / "adapter_model.safetensors")
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"adapter {folder} cannot be read: {error}", remedy="Run `dvc repro train` again") from error
    config.base_model_name_or_path = None  # a pushed adapter names its base, which `model` is already
    try:
        handle = get_peft_model(model, config)
    except ValueError as error:
        raise ArtifactError(f"adapter {folder} is for {notes.backbone}, not for {model.spec.name}: {error}") from error
    wanted = get_peft_model_state_dict(handle)
    matched = [name for name, tensor in tensors.items() if name in wanted and wanted[name].shape == tensor.shape]
    if not len(matched) == len(tensors) == len(wanted) == notes.num_tensors:
        raise ArtifactError(
            f"adapter {folder}: {len(matched)} of its {len(tensors)} tensors fit the {len(wanted)} that "
            f"{model.spec.name} has places for, {notes.num_tensors} were saved",
            remedy=f"Use it with the backbone that it was trained on, {notes.backbone}",
        )
    set_peft_model_state_dict(handle, tensors)
    model.logit_scale.data.fill_(notes.logit_scale)
    return handle.eval()


def merged(model: Backbone, folder: Path | None) -> Backbone:
    """A copy of `model` with the adapter at `folder` folded into its weights, or a plain copy where there is none.

    Raises:
        ArtifactError: see `load_into`; or the merged weights are not finite.
    """
    model = copy.deepcopy(model)
    model.eval()
    if folder is None:
        return model
    handle = load_into(model, folder)
    try:
        result = handle.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ArtifactError(f"adapter {folder} cannot be merged: {error}") from error
    assert isinstance(result, Backbone)
    result.eval()
    return result
