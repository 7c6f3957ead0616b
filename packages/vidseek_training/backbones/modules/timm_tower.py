"""A vision tower of timm in an open_clip model: PE-Core, MobileCLIP2, EVA-02. `make open-clip` installs timm.

timm imports torchvision, but its towers call nothing of it. torchvision is not installed: beside another build of torch it
fails to import, and transformers' models fail with it (docs/decisions/2026-11-27-timm-without-torchvision.md). Empty classes
replace it while timm is imported.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from vidseek_media.errors import ConfigError, foreign


class TimmTower(nn.Module):
    """Pictures (n, 3, side, side) to features (n, dimension).

    Args:
        config: The `vision_cfg` of an open_clip_config.json.
        dimension: Of the common space.

    Raises:
        ConfigError: timm is not there, does not know the model, or its projection is of another kind.
    """

    def __init__(self, config: Mapping[str, Any], dimension: int) -> None:
        super().__init__()
        name, pool, projection = config["timm_model_name"], config.get("timm_pool", "avg"), config.get("timm_proj", "linear")
        if projection not in (None, "", "none", "linear") or pool in ("abs_attn", "rot_attn"):
            raise ConfigError(
                f"open_clip_config.json: vision_cfg has timm_pool {pool!r} and timm_proj {projection!r}, which is not built",
                code="backbone-not-built",
                remedy="docs/backbones.md lists what is read",
            )
        # Without a projection of its own the trunk's classifier projects to the common space.
        classes = 0 if projection else dimension
        self.trunk = _create(name, num_classes=classes, global_pool=pool, side=config.get("image_size"))
        self.head = nn.Sequential()
        if projection == "linear":
            bias = bool(config.get("timm_proj_bias", False))
            self.head.add_module("proj", nn.Linear(self.trunk.num_features, dimension, bias=bias))

    def forward(self, pictures: Tensor) -> Tensor:
        """Features of any length."""
        features: Tensor = self.head(self.trunk(pictures))
        return features


def _create(name: str, *, num_classes: int, global_pool: str, side: int | None) -> Any:
    timm = import_timm()
    if not timm.is_model(name):
        raise ConfigError(
            f"open_clip_config.json: timm {timm.__version__} has no model {name!r}", code="backbone-not-built",
            remedy="Run `make open-clip`, which installs the version that was tried",
        )
    options = {}
    published = timm.get_pretrained_cfg(name)
    if side is not None and name.startswith(("vit_", "eva")) and published and published.input_size[-1] != side:
        options["img_size"] = side  # the positions of a transformer are of one size
    return timm.create_model(name, pretrained=False, num_classes=num_classes, global_pool=global_pool, **options)


def import_timm() -> ModuleType:
    """timm, with or without torchvision.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    with foreign(
        ConfigError, "the vision tower of this open_clip model is one of timm, which cannot be imported",
        code="not-installed", remedy="Run `make open-clip`, which installs timm without what else it asks for",
        errors=(ImportError, RuntimeError, AttributeError),
    ), torchvision_or_none():
        import timm
    module: ModuleType = timm
    return module


@contextmanager
def torchvision_or_none() -> Iterator[None]:
    """Replace everything of torchvision by empty classes inside this block if it is not installed."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    finder = _Absent()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


class _EmptyClass(type):
    def __getattr__(cls, name: str) -> _EmptyClass:
        if name.startswith("__"):
            raise AttributeError(name)
        return _EmptyClass(name, (), {})


class _EmptyModule(ModuleType):
    def __getattr__(self, name: str) -> _EmptyClass:
        if name.startswith("__"):
            raise AttributeError(name)
        return _EmptyClass(name, (), {})


class _Absent(MetaPathFinder, Loader):
    """Finds torchvision and all that is below it, empty."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """For torchvision alone."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty one."""
        return _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is in it."""
