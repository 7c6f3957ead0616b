"""Imports a model that another project adapted: merges its low-rank updates into a backbone's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.folders import require_replaceable, whole_folder
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.hub.files import CONFIGS, TOKENIZER, known_configs
from vidseek_training.importing.folding import Folded, fold
from vidseek_training.importing.pickled import FlatModule, classes_of, read_pickled, read_plain

MARK = "imported.md"
"""Is in every folder that was written here: what it was made of."""


@dataclass(frozen=True)
class Imported:
    """The folder that was written."""

    folder: Path
    base: str
    num_folded: int
    num_taken: int
    orders: tuple[str, ...]
    was_unpickled: bool


def import_backbone(
    source: Path, out: Path, *, base: str, allow_pickle: bool = False, scale: float | None = None,
    product: str | None = None, say: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Merge updates into the weights of a base, and write the result as a backbone's folder, whole or not at all.

    Args:
        source: A state dict (torch or safetensors), or a pickled module.
        out: A folder that does not exist, or that an import wrote.
        base: Name, folder or hub id of the backbone that it was trained on.
        allow_pickle: Whether to read a pickled module, as `vidseek_training.importing.pickled` describes.
        scale: s in `W + s A B`; None takes the file's.
        product: How A and B form an update, one of `folding.ORDERS`; None takes the one that fits the shapes.
        say: Receives warnings.

    Raises:
        ConfigError: `source` is pickled, and this is not allowed or cannot be read safely on this machine; `out` holds other
            files; or there is no such base.
        ArtifactError: `source` is broken, or does not fit the base.
    """
    require_replaceable(out, marks=[MARK])
    module, was_unpickled = _read(source, allow_pickle, say)
    model = backbones.load(base)
    folded = fold(module, _weights_of(model), scale=scale, product=product)
    for order in folded.orders:
        if "too" in order:
            say(f"Warning: the update is taken as {order}: say --product where it is another one")
    with whole_folder(out) as folder:
        _write(folder, model, folded, source)
        _require_loads(folder, folded)
    return Imported(out, model.spec.name, folded.num_folded, folded.num_taken, folded.orders, was_unpickled)


def _read(source: Path, allow_pickle: bool, say: Callable[[str], None]) -> tuple[FlatModule, bool]:
    try:
        return read_plain(source), False
    except OSError as error:
        raise ConfigError(
            f"{source} cannot be read: {error}", code="adapted-model-missing", remedy="Name the file of the adapted model"
        ) from error
    except ValueError as error:
        plain_fault = error
    if source.suffix == ".safetensors":
        raise ArtifactError(
            f"{source} cannot be read: {plain_fault}", code="adapted-model-unreadable",
            remedy="Save it again where it was made",
        )
    named = ", ".join(classes_of(source))
    what = f"{source} is not tensors alone: {f'it is a pickle of {named}' if named else plain_fault}"
    if not allow_pickle:
        raise ConfigError(
            what, code="pickle-not-allowed",
            remedy="Save its state dict where it was made: torch.save(module.state_dict(), ...). Or, where you trust who "
                   "made it, --allow-pickle",
        )
    say(f"Warning: {what}. A pickle can hold code. It is read in a process without network, keys and other files, and no "
        "class or function of its own is called; import only what comes from people you trust.")
    return read_pickled(source), True


def _weights_of(model: Backbone) -> dict[str, Tensor]:
    """Its weights, each once: a parameter may be there under two names."""
    seen: set[int] = set()
    found = {}
    # The longer name is that of transformers' own model, under which checkpoints have it.
    for name, tensor in sorted(model.state_dict().items(), key=lambda item: -item[0].count(".")):
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            found[name] = tensor.detach().float()
    return found


def _write(folder: Path, model: Backbone, folded: Folded, source: Path) -> None:
    of = backbones.resolve(model.spec.name)
    for name in (*known_configs(), *CONFIGS, *TOKENIZER):
        if (of / name).is_file():
            shutil.copyfile(of / name, folder / name)
    tensors = {name: tensor.contiguous().clone() for name, tensor in folded.tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / MARK).write_text(
        f"# Made by `vidseek backbone import`\n\n- Base: `{model.spec.name}`.\n- Updates: `{source.name}`, sha256 "
        f"{file_sha256(source)}: {folded.num_folded} weights as W + s A B ({', '.join(folded.orders)}), {folded.num_taken} "
        "others taken as they are.\n", encoding="utf-8",
    )


def _require_loads(folder: Path, folded: Folded) -> None:
    """Check that the written folder loads as a backbone with exactly these weights."""
    found = _weights_of(backbones.load(folder))
    if found.keys() != folded.tensors.keys() or not all(torch.equal(found[name], folded.tensors[name]) for name in found):
        raise ArtifactError(
            f"{folder}: what was written does not come back as it was", code="adapted-model-not-exact",
            remedy="Report this base: its family renames weights in a way that import does not know",
        )
