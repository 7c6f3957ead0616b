"""The registry of backbone families: each family is one file that registers itself; the first that knows a config reads it.

The families of vidseek are the modules of this folder that call `register`. Another package adds a family by an entry point
of the group `vidseek.backbones` that names a `Family` class.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from vidseek_media.errors import ConfigError
from vidseek_media.plugins import Registry, modules_in
from vidseek_training.backbones.base import Backbone, BackboneSpec
from vidseek_training.backbones.files.configs import read_config

ENTRY_POINTS = "vidseek.backbones"


class Family(abc.ABC):
    """Reads folders of one family, before a model exists.

    Its `Backbone` states how a model is trained and exported: `lora_group`, `tower_of`, `export_towers`. Import transformers
    inside the methods: the import takes a second, and all families are loaded.

    Attributes:
        name: Name of the family in lower case, for messages, and by default its `model_type`.
        config_file: JSON file that decides whether a folder is of this family.
        weights: Possible names of the file of weights; the first that exists is read.
        last: Whether it is asked only if no other family knows the folder; true for generic families.
    """

    name: ClassVar[str]
    config_file: ClassVar[str] = "config.json"
    weights: ClassVar[tuple[str, ...]] = ("model.safetensors", "pytorch_model.bin")
    last: ClassVar[bool] = False

    def config_of(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the complete config of a folder; None if it is of another family.

        Args:
            said: Content of `config_file`.

        Raises:
            ConfigError: this family refuses the variant by its name.
        """
        return dict(said) if said.get("model_type") == self.name else None

    @abc.abstractmethod
    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """Return sizes and preprocessing of the model in a folder.

        Args:
            config: Output of `config_of`.
            folder: The backbone's folder.
            name: The name that the user gave it.
        """

    @abc.abstractmethod
    def build(self, config: dict[str, Any], spec: BackboneSpec) -> Backbone:
        """Create a model with random weights. It is also called on torch's device `meta`, where it takes no memory.

        Args:
            config: Output of `config_of`.
            spec: Output of `spec_of`.
        """

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a checkpoint's tensors to the names of the model that `build` creates.

        Args:
            config: Output of `config_of`.
            tensors: Tensors of the checkpoint by name.
        """
        return tensors


REGISTRY: Registry[Family] = Registry(
    Family, what="backbone family", group=ENTRY_POINTS, modules=partial(modules_in, "vidseek_training.backbones"),  # type: ignore[type-abstract]
    broken=partial(ConfigError, code="plugin-broken"), twice=partial(ConfigError, code="plugin-broken"),
)
register = REGISTRY.register


def families() -> tuple[Family, ...]:
    """Return all families, specific ones first.

    Raises:
        ConfigError: an installed package registers an unusable family.
    """
    return tuple(sorted(REGISTRY.load().values(), key=lambda family: (family.last, family.name)))


def names() -> tuple[str, ...]:
    """Return the names of all families, in order."""
    return tuple(sorted(family.name for family in families()))


def config_files() -> tuple[str, ...]:
    """Return the names of the config files of all families, config.json first."""
    return tuple(dict.fromkeys(("config.json", *(family.config_file for family in families()))))


def family_of(folder: Path) -> tuple[Family, dict[str, Any]]:
    """Return the family of the backbone in `folder`, and its complete config.

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
