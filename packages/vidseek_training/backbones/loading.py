"""Loads a backbone by name, folder or hub id. A missing or unexpected tensor is an error that names it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vidseek_encoder.bundle import file_sha256
from vidseek_encoder.choices import usable_cores
from vidseek_media.errors import ArtifactError
from vidseek_training.backbones.base import Backbone
from vidseek_training.backbones.files import folder as backbone_files
from vidseek_training.backbones.registry import config_files, family_of
from vidseek_training.freed_memory import keep_freed_memory
from vidseek_training.hub import pinned
from vidseek_training.hub.files import INDEX, parts_of, weight_files
from vidseek_training.torch_files import read_torch

_MOST_SIZE = 2**24
_MOST_LAYERS = 1024


def load(path_or_id: str | Path) -> Backbone:
    """Load a backbone in fp32, in evaluation mode. From then on the process keeps freed memory (`freed_memory`), and torch
    takes no more threads than it may use cores.

    Args:
        path_or_id: `vidseek/<name>` for a shipped one; a folder with a config, weights and a tokenizer in the layout of
            its family (config.json; model.safetensors or pytorch_model.bin, or their parts with an index; tokenizer files as
            `tokenizer_files.find_tokenizer` reads them); or a hub id, `owner/name` or `owner/name@commit`, that was fetched
            before (`vidseek_training.hub`).

    Raises:
        ConfigError: nothing is there, or its family is unknown.
        ArtifactError: its files are missing or broken, or do not hold the tensors that its config describes.

    Examples:
        >>> model = load("vidseek/clip-tiny")
        >>> model.spec.name
        'vidseek/clip-tiny'
    """
    keep_freed_memory()
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # it does not see a container's limit by itself
    folder = resolve(path_or_id)
    family, config = family_of(folder)
    path, tensors = _read_tensors(folder, family.weights)
    try:
        _require_sizes(config)
        spec = family.spec_of(config, folder, name=pinned(str(path_or_id)))
        tensors = family.renamed(config, tensors)
        with torch.device("meta"):  # of no memory: a config may ask for more than there is
            planned = family.build(config, spec)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ArtifactError(
            f"{folder / family.config_file} is of no {family.name} model: {error!r}", code="backbone-broken",
        ) from error
    _require_same(planned.state_dict(), tensors, path)
    _require_numbers([name for name, _ in planned.named_parameters(remove_duplicate=False)], tensors, path)
    with torch.random.fork_rng(devices=()), _NoDraws():  # single vectors are still drawn
        model = family.build(config, spec)
    model.load_state_dict(tensors)
    model.eval()
    return model


class _NoDraws(TorchDispatchMode):
    """Skips random initialisation of weights that a checkpoint overwrites.

    It took five sixths of the time to load a ViT-B/32. Buffers that no checkpoint overwrites (positions, masks) are not
    random,
    and are created as usual. A tensor that would be drawn is filled with the first number of the call instead: the mean of
    `normal_`, the lower bound of `uniform_`. Uninitialised memory could hold anything, and torch repeats a truncated normal
    draw
    until every number lies within its bounds, so loading a SigLIP might never end.
    """

    _DRAWS = frozenset({torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default})

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.erfinv_.default:
            return args[0]
        if func in self._DRAWS:
            tensor, first = (*args, 0.0)[:2]
            return tensor.fill_(first)
        return func(*args, **(kwargs or {}))


def resolve(path_or_id: str | Path) -> Path:
    """Return the folder of a backbone, for the config files of all families (`files.folder.resolve`)."""
    return backbone_files.resolve(path_or_id, configs=config_files())


def revision_of(path_or_id: str | Path) -> str:
    """Return the commit of a hub id's snapshot; empty for shipped backbones and folders."""
    folder = resolve(path_or_id)
    return folder.name if folder.parent.name == "snapshots" else ""


def weights_sha256(path_or_id: str | Path) -> str:
    """Return the sha256 of the file of weights, or of the hashes of its parts in order; empty if there are none."""
    folder = resolve(path_or_id)
    hashes = [file_sha256(path) for path in weight_files(folder, family_of(folder)[0].weights)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest() if hashes else ""


_FLOATS = frozenset([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def _read_tensors(folder: Path, names: Sequence[str]) -> tuple[Path, dict[str, Tensor]]:
    """Return the weights' file (of several the first) and its tensors, those of floating point in fp32."""
    first, tensors = folder / names[0], dict[str, Tensor]()
    path = first
    try:
        for path in weight_files(folder, names) or (_missing_part(folder, names) or first,):
            found: dict[str, Tensor] = read_torch(path) if path.suffix == ".bin" else load_file(path)
            if twice := sorted(tensors.keys() & found.keys()):
                raise ValueError(f"{twice[0]} is in another part too")
            tensors |= {name: tensor.float() if tensor.dtype in _FLOATS else tensor for name, tensor in found.items()}
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", code="backbone-broken", remedy="Fetch the backbone's weights again",
        ) from error
    return path, tensors


def _missing_part(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first file that an index of weights in `folder` names and that is not there."""
    for index in (folder / f"{name}{INDEX}" for name in names):
        parts = [folder / part for part in parts_of(index)] if index.is_file() else []
        if lost := next((part for part in parts if not part.is_file()), None):
            return lost
    return None


def _require_sizes(content: object, name: str = "") -> None:
    """Check that all sizes in a config are plausible, so that absurd numbers of layers are never built.

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


def _require_numbers(names: Sequence[str], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that weights are numbers: quantised ones mean others than they say, and one NaN makes all vectors NaN.

    Raises:
        ArtifactError: some are not.
    """
    odd = sorted(f"{name} ({tensors[name].dtype})" for name in names if tensors[name].dtype != torch.float32)
    if odd:
        raise ArtifactError(
            f"{path}: weights are no floating point of 16 bits or more: {', '.join(odd[:5])}", code="backbone-broken",
            remedy="Take the model's weights as they were before they were quantised",
        )
    endless = sorted(name for name in names if not torch.isfinite(tensors[name]).all())
    if endless:
        raise ArtifactError(
            f"{path}: weights are infinite or no numbers: {', '.join(endless[:5])}", code="backbone-broken",
            remedy="Fetch the backbone's weights again, or take those of an earlier step of its training",
        )


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
        raise ArtifactError(f"{path} does not fit its config.json: {told}", code="backbone-broken")
