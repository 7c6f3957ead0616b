"""LoRA adapters with peft: attach, save, load strictly, scale and merge."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.layer import _ConvNd as ConvAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.names import shown
from vidseek_training.backbones import Backbone
from vidseek_training.settings import TrainSettings

_NOTES = "vidseek.json"
_MOST_BYTES = 2**20
_MOST_RANK = 1024
_MOST_SCALE = 100.0
"""Of the logarithm of the factor on cosines: CLIP's is 4.6 at the most."""
_MOST_TARGETS = 4096
_READ = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "inference_mode", "peft_type"})
"""Keys of adapter_config.json that are read."""
_NOT_READ = frozenset({
    "auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type", "init_lora_weights", "megatron_core",
})
"""Keys that may say what they like: who loads an adapter has the model and the weights. All others must be as usual."""


@dataclass(frozen=True)
class AdapterNotes:
    """Facts about an adapter that peft's own files lack."""

    backbone: str
    logit_scale: float
    num_tensors: int
    """Number of tensors of the adapter; loading fails if fewer are found."""


def attach(model: Backbone, settings: TrainSettings) -> PeftModel:
    """Add an untrained LoRA adapter to `model` in place. All other weights are frozen, except the logit scale.

    Args:
        model: The backbone.
        settings: Rank, alpha, dropout, and the modules, towers and layers to adapt. Dropout is not applied to convolutions.

    Returns:
        The peft model that wraps `model`; `model` itself now runs with the adapter.

    Raises:
        ConfigError: the settings select no module of the backbone.

    Examples:
        >>> from vidseek_training.backbones import load
        >>> handle = attach(load("vidseek/clip-tiny"), TrainSettings(rank=4, alpha=8))
        >>> handle.peft_config["default"].r
        4
        >>> all("lora_" in name for name in state_of(handle))
        True
    """
    targets = model.lora_targets(settings.targets, last_layers=settings.last_layers, towers=settings.towers)
    if not targets:
        raise ConfigError(
            f"{model.spec.name}: no module of {', '.join(settings.targets)} in the towers {', '.join(settings.towers)}",
            code="no-lora-targets",
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
    """Return a copy of the adapter's tensors."""
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(handle).items()}


def set_scaled(handle: PeftModel, state: dict[str, Tensor], scale: float) -> None:
    """Load an adapter's tensors with its update multiplied by a factor.

    Args:
        handle: The peft model.
        state: Tensors from `state_of`.
        scale: Factor on the update: 0 is the base, 1 the adapter as trained.
    """
    ups = ("lora_B", "lora_embedding_B")
    scaled = {name: tensor * scale if any(up in name for up in ups) else tensor for name, tensor in state.items()}
    set_peft_model_state_dict(handle, scaled)


class UpdateGauge:
    """Measures the spectral norm of each layer's update relative to the weight that it is added to.

    The weights are frozen, so their norms are computed once. The update of a layer is B A times its scaling, of rank r; its
    norm
    is computed exactly from two r x r matrices.
    """

    def __init__(self, handle: PeftModel) -> None:
        layers = {name: layer for name, layer in handle.named_modules() if isinstance(layer, LoraLayer)}
        norms = {name: spectral_norm(layer.get_base_layer().weight.flatten(1)) for name, layer in layers.items()}
        # Where a weight is zero there is nothing to overwrite.
        self._layers = {name.removeprefix("base_model.model."): layers[name] for name, norm in norms.items() if norm}
        self._weights = torch.tensor([norm for norm in norms.values() if norm], dtype=torch.float64)

    def ratios(self) -> dict[str, float]:
        """Return for each adapted layer, by name, the spectral norm of its update divided by that of its weight."""
        if not self._layers:
            return {}
        factors = [_factors(layer) for layer in self._layers.values()]
        with torch.no_grad():
            downs = torch.stack([(down @ down.T).double() for down, _, _ in factors])
            ups = torch.stack([(up.T @ up).double() for _, up, _ in factors])
            # The largest singular value of B A is the root of the largest eigenvalue of root(B'B) A A' root(B'B).
            values, vectors = torch.linalg.eigh(ups)
            root = vectors * values.clamp_min(0).sqrt()[:, None, :] @ vectors.mT
            norms = torch.linalg.eigvalsh(root @ downs @ root)[:, -1].clamp_min(0).sqrt().cpu()
        scalings = torch.tensor([scaling for _, _, scaling in factors], dtype=torch.float64)
        found = (norms * scalings / self._weights).tolist()
        return dict(zip(self._layers, found, strict=True))


    def hold(self, limit: float) -> int:
        """Scale down every update whose ratio is above `limit`, and return how many there were."""
        held = 0
        for name, ratio in self.ratios().items():
            if ratio > limit:
                with torch.no_grad():
                    _up(self._layers[name]).mul_(limit / ratio * (1 - 1e-6))  # under it, in fp32 too
                held += 1
        return held

    def __len__(self) -> int:
        return len(self._layers)


def _up(layer: LoraLayer) -> Tensor:
    """Return B, the matrix that is zero at the start."""
    if "default" in layer.lora_B:
        return layer.lora_B["default"].weight
    return layer.lora_embedding_B["default"]


def _factors(layer: LoraLayer) -> tuple[Tensor, Tensor, float]:
    """Return A (r, in), B (out, r) and the factor on their product."""
    down = layer.lora_A["default"].weight if "default" in layer.lora_A else layer.lora_embedding_A["default"]
    factors = (each.detach().double().flatten(1) for each in (down, _up(layer)))
    return *factors, float(layer.scaling["default"])


def spectral_norm(weight: Tensor) -> float:
    """Estimate the largest singular value of a matrix by block power iteration. The result is never too large.

    Args:
        weight: Shape (m, n).
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(weight.shape[1], min(4, *weight.shape), generator=generator)
    weight = weight.detach().float()
    basis = torch.linalg.qr(start.to(weight.device)).Q
    for _ in range(40):
        basis = torch.linalg.qr(weight.T @ (weight @ basis)).Q
    return float(torch.linalg.matrix_norm(weight @ basis, 2))


def save(handle: PeftModel, model: Backbone, folder: Path) -> None:
    """Write the adapter in peft's format, with vidseek.json beside it.

    Args:
        handle: The peft model.
        model: The backbone that it wraps.
        folder: The folder to write.
    """
    # Asking the hub whether the vocabulary grew is pointless here, and would need a network.
    handle.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    notes = AdapterNotes(model.spec.name, float(model.logit_scale.detach()), len(get_peft_model_state_dict(handle)))
    write_json(folder / _NOTES, notes.__dict__)


def load_into(model: Backbone, folder: Path) -> PeftModel:
    """Add a saved adapter to `model` in place.

    Args:
        model: The backbone.
        folder: The adapter, as `save` writes it.

    Returns:
        The peft model that wraps `model`, in evaluation mode.

    Raises:
        ArtifactError: the adapter is missing or broken, or was made for another model: its tensors do not fit exactly.
    """
    try:
        notes = _notes_of(read_json(folder / _NOTES, most_bytes=_MOST_BYTES))
        tensors = load_file(folder / "adapter_model.safetensors")
        config = _config_of(read_json(folder / "adapter_config.json", most_bytes=_MOST_BYTES), tensors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, SafetensorError) as error:
        raise ArtifactError(
            f"adapter {folder} cannot be read: {error}", code="adapter-broken", remedy="Run `dvc repro train` again",
        ) from error
    try:
        handle = get_peft_model(model, config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArtifactError(
            f"adapter {folder} is for {notes.backbone}, not for {model.spec.name}: {error}", code="adapter-does-not-fit",
        ) from error
    wanted = get_peft_model_state_dict(handle)
    matched = [name for name, tensor in tensors.items() if name in wanted and wanted[name].shape == tensor.shape]
    if not len(matched) == len(tensors) == len(wanted) == notes.num_tensors:
        raise ArtifactError(
            f"adapter {folder}: {len(matched)} of its {len(tensors)} tensors fit the {len(wanted)} that "
            f"{model.spec.name} has places for, {notes.num_tensors} were saved", code="adapter-does-not-fit",
            remedy=f"Use it with the backbone that it was trained on, {notes.backbone}",
        )
    set_peft_model_state_dict(handle, tensors)
    model.logit_scale.data.fill_(notes.logit_scale)
    return handle.eval()


def _notes_of(content: Any) -> AdapterNotes:
    notes = AdapterNotes(**content)
    if not isinstance(notes.backbone, str) or len(notes.backbone) > 1024 or not notes.backbone.isprintable():
        raise ValueError(f"{_NOTES} names the backbone {shown(notes.backbone)}")
    if not abs(notes.logit_scale) <= _MOST_SCALE or not isinstance(notes.num_tensors, int):
        raise ValueError(f"{_NOTES} holds {shown(content)}")
    return notes


def _config_of(content: Any, tensors: Mapping[str, Tensor]) -> LoraConfig:
    """Read an adapter_config.json as a config of the kind that `attach` creates.

    peft's own reader accepts everything: patterns as targets, ranks of any size, initialisations that change the base.

    Raises:
        ValueError, TypeError, KeyError: it is of another kind, or does not fit `tensors`.
    """
    usual = LoraConfig().to_dict()
    asked = {name: value for name, value in content.items() if value and name not in _READ | _NOT_READ}
    others = {name for name, value in asked.items() if value != usual.get(name)}
    if others or content["peft_type"] != "LORA":
        raise ValueError(f"adapter_config.json sets {shown(sorted(others))}, wanted plain LoRA")
    rank, alpha, dropout, targets = (content[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules"))
    if not isinstance(rank, int) or not 0 < rank <= _MOST_RANK or not all(rank in each.shape for each in tensors.values()):
        raise ValueError(f"adapter_config.json has the rank {shown(rank)}, its tensors have another")
    if not 0 < alpha <= 1e6 or not 0 <= dropout < 1:
        raise ValueError(f"adapter_config.json has alpha {shown(alpha)} and dropout {shown(dropout)}")
    if not isinstance(targets, list) or not 0 < len(targets) <= _MOST_TARGETS or not all(map(_is_module, targets)):
        raise ValueError("target_modules of adapter_config.json is no list of modules")
    if not all(each.is_floating_point() for each in tensors.values()):
        raise ValueError("a tensor is not of floating-point numbers")
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=float(dropout), bias="none", target_modules=targets,
        use_rslora=bool(content.get("use_rslora")), inference_mode=bool(content.get("inference_mode")),
    )


def _is_module(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_.]{1,256}", name) is not None


def merged(model: Backbone, folder: Path | None) -> Backbone:
    """Return a copy of `model` with an adapter folded into its weights.

    The same adapter gives the same bits whatever computes them, so that an archive's vectors stay valid (`encoder_version`).

    Args:
        model: The backbone; it is not changed.
        folder: The adapter, as `save` writes it; None returns a plain copy.

    Raises:
        ArtifactError: the adapter is missing, broken or made for another model, or the merged weights are not finite.

    Examples:
        >>> from vidseek_training.backbones import load
        >>> model = load("vidseek/clip-tiny")
        >>> save(attach(model, TrainSettings(rank=4, alpha=8)), model, Path("adapter"))
        >>> names = merged(load("vidseek/clip-tiny"), Path("adapter")).state_dict()
        >>> any("lora_" in name for name in names)
        False
    """
    model = copy.deepcopy(model)
    model.eval()
    if folder is None:
        return model
    handle = load_into(model, folder)
    for name, layer in handle.named_modules():
        if isinstance(layer, LoraLayer):
            for adapter in layer.active_adapters:
                _fold(layer, adapter)
            if not torch.isfinite(layer.get_base_layer().weight).all():
                raise ArtifactError(f"adapter {folder} cannot be merged: {name} is not finite", code="adapter-broken")
    result = handle.unload()
    assert isinstance(result, Backbone)
    result.eval()
    return result


def _fold(layer: LoraLayer, adapter: str) -> None:
    """Add an adapter's product to the weight of its layer.

    A library's product depends in its last bits on its threads and on the processor. Here each number is a sum over the rank
    in a fixed order, of products that are rounded one by one, as IEEE 754 wants it of every machine.
    """
    weight = layer.get_base_layer().weight
    if adapter in layer.lora_embedding_A:  # a weight's row is a token, its factors are those of the transposed weight
        left, right = layer.lora_embedding_A[adapter].double().t(), layer.lora_embedding_B[adapter].double().t()
    else:
        left, right = (each[adapter].weight.double().flatten(1) for each in (layer.lora_B, layer.lora_A))
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.float64)
    for rank in range(right.shape[0]):
        total += left[:, rank, None] * right[rank]
    total *= layer.scaling[adapter]
    with torch.no_grad():
        weight.copy_(weight.double() + total.view(weight.shape))
