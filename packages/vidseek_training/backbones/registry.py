"""The registry of backbone families: a family is one file that registers itself, and a folder belongs to the first that
knows its config.

The families that come with vidseek are the modules of this folder that call `register`. Another package brings its own by
an entry point of the group `vidseek.backbones` that names a `Family` class.
"""

from __future__ import annotations

import abc
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from vidseek_media.errors import ConfigError
from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.files.configs import read_config

ENTRY_POINTS = "vidseek.backbones"


class Family(abc.ABC):
    """What vidseek must know of a family before a model of it exists.

    How a model of it is taught and exported is said by its `Backbone`: `lora_group`, `tower_of`, `export_towers`.
    A family's module imports its part of transformers in its methods: that takes a second, and all families are looked at.

    Attributes:
        name: Of the family, in lower case: in messages, and by default its `model_type`.
        config_file: The JSON file of a folder that says whether the folder is of this family.
        weights: The names that its file of weights may have, the first that is there is taken.
        last: Whether it is asked only where no other family knows the folder: true for generic ones.
    """

    name: ClassVar[str]
    config_file: ClassVar[str] = "config.json"
    weights: ClassVar[tuple[str, ...]] = ("model.safetensors", "pytorch_model.bin")
    last: ClassVar[bool] = False

    def config_of(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `config_file` says, complete, or None where it is of another family.

        Raises:
            ConfigError: it is of a kind that this family declines by name.
        """
        return dict(said) if said.get("model_type") == self.name else None

    @abc.abstractmethod
    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """The sizes and the preprocessing of the model in `folder`, which the user called `name`."""

    @abc.abstractmethod
    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """A model of these sizes with random weights; also called on torch's device `meta`, where it takes no memory."""

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint's tensors under the names that `build`'s model has."""
        return tensors


_REGISTERED: dict[str, Family] = {}


def register(family: type[Family]) -> type[Family]:
    """Make a family known; the decorator of its class.

    Raises:
        ConfigError: another class is registered under this name.
    """
    known = _REGISTERED.get(family.name)
    if known is not None and _origin(type(known)) != _origin(family):
        raise ConfigError(
            f"backbone family {family.name!r} comes from {_origin(family)} and from {_origin(type(known))}",
            code="plugin-broken",
            remedy="Give one of them another name, or uninstall its package",
        )
    _REGISTERED[family.name] = family()
    return family


def families() -> tuple[Family, ...]:
    """All families, specific ones first.

    Raises:
        ConfigError: an installed package names a family that cannot be used.
    """
    _load_all()
    return tuple(sorted(_REGISTERED.values(), key=lambda family: (family.last, family.name)))


def names() -> tuple[str, ...]:
    """The names of all families, in order."""
    return tuple(sorted(family.name for family in families()))


def config_files() -> tuple[str, ...]:
    """The names of the files that mark a folder as a backbone's, config.json first."""
    return tuple(dict.fromkeys(("config.json", *(family.config_file for family in families()))))


def family_of(folder: Path) -> tuple[Family, dict[str, Any]]:
    """The family of the backbone in `folder`, and its complete config.

    Raises:
        ArtifactError: its config cannot be read.
        ConfigError: no family knows it.
    """
    found: dict[str, dict[str, Any]] = {}
    for family in families():
        if family.config_file not in found and (folder / family.config_file).is_file():
            found[family.config_file] = read_config(folder / family.config_file)
        said = found.get(family.config_file)
        config = family.config_of(said) if said is not None else None
        if config is not None:
            return family, config
    came = "; ".join(f"{name}: model_type {said.get('model_type')!r}" for name, said in found.items())
    raise ConfigError(
        f"{folder}: {came or 'no config.json'}; wanted one of the families {', '.join(names())}", code="unknown-family",
        remedy="docs/backbones.md lists what each family reads",
    )


@functools.cache
def _load_all() -> None:
    """Import the modules of this folder, and what other packages bring."""
    package = importlib.import_module("vidseek_training.backbones")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for point in entry_points(group=ENTRY_POINTS):
        _load_point(point)


def _load_point(point: EntryPoint) -> None:
    where = f"the entry point {point.name!r} of {ENTRY_POINTS} ({point.value})"
    remedy = "Fix or uninstall the package that brings it"
    try:
        family = point.load()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(f"{where} cannot be loaded: {error!r}", code="plugin-broken", remedy=remedy) from error
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise ConfigError(
            f"{where} is {family!r}, wanted a class derived from {Family.__name__}", code="plugin-broken",
            remedy=remedy,
        )
    register(family)


def _origin(family: type[Family]) -> str:
    return f"{family.__module__}.{family.__qualname__}"
