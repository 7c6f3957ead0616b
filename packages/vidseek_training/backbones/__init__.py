"""Model families behind one protocol: texts and clips of T frames to features of one dimension.

What this module names is imported when somebody asks for it: `files`, which reads a backbone's folder, needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidseek_training.backbones.base import Backbone, BackboneSpec
    from vidseek_training.backbones.loading import load, resolve, revision_of, weights_sha256
    from vidseek_training.backbones.registry import Family, register
    from vidseek_training.hub import pinned

__all__ = ["Backbone", "BackboneSpec", "Family", "load", "pinned", "register", "resolve", "revision_of", "weights_sha256"]

_MODULES = {
    "Backbone": "backbones.base", "BackboneSpec": "backbones.base", "Family": "backbones.registry",
    "register": "backbones.registry", "pinned": "hub",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vidseek_training.{_MODULES.get(name, 'backbones.loading')}"), name)
