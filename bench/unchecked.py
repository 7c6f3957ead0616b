"""A stand-in for pydantic where it is not installed: settings have their defaults, and nothing is checked.

`bench.gpu.check` measures on machines where nothing can be installed. There its settings are written in the code and were
checked where pydantic is.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


@contextmanager
def pydantic_or_stand_in() -> Iterator[bool]:
    """Import our rooms inside. Gives whether pydantic itself is there; the stand-in goes when the block ends."""
    if importlib.util.find_spec("pydantic") is not None:
        yield True
        return
    sys.modules["pydantic"] = _module()
    try:
        yield False
    finally:
        del sys.modules["pydantic"]


def _module() -> types.ModuleType:
    module = types.ModuleType("pydantic")
    module.__spec__ = importlib.machinery.ModuleSpec("pydantic", None)
    names: dict[str, Any] = {
        "BaseModel": UncheckedModel, "Field": _default_of, "ConfigDict": dict, "ValidationError": ValueError,
        "ValidationInfo": object, "AfterValidator": _decorator, "PlainValidator": _decorator, "BeforeValidator": _decorator,
        **dict.fromkeys(("model_validator", "field_validator", "model_serializer", "field_serializer"), _decorator),
    }
    for name, value in names.items():
        setattr(module, name, value)
    return module


class UncheckedModel:
    """Keeps what it is given, and the class's defaults for the rest."""

    model_config: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        known = {name for kind in type(self).__mro__ for name in vars(kind).get("__annotations__", {})}
        if unknown := sorted(values.keys() - known):
            raise TypeError(f"{type(self).__name__} has no {', '.join(unknown)}")
        defaults = {name: getattr(type(self), name) for name in known if hasattr(type(self), name)}
        vars(self).update(defaults | values)


def _default_of(default: Any = None, *, default_factory: Callable[[], Any] | None = None, **_: Any) -> Any:
    return default if default_factory is None else default_factory()


def _decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function
