"""The registry of caption providers: modules of `providers/`, and entry points of other packages."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from vidseek_media.errors import ConfigError
from vidseek_training.captioning import providers
from vidseek_training.captioning.provider import CaptionProvider

ENTRY_POINTS = "vidseek.caption_providers"
"""The group in which another package names its `CaptionProvider`."""


def provider_names() -> tuple[str, ...]:
    """Return the names that `caption.llm.provider` may have, sorted. No provider is loaded."""
    return tuple(sorted({*_built_in(), *(point.name for point in entry_points(group=ENTRY_POINTS))}))


@cache
def caption_provider(name: str) -> CaptionProvider:
    """Return the provider registered under a name; built-in providers come before those of other packages.

    Raises:
        ConfigError: there is none, or its package cannot be loaded.
    """
    found = import_module(f"{providers.__name__}.{name}").PROVIDER if name in _built_in() else _from_another_package(name)
    if not isinstance(found, CaptionProvider) or found.name != name:
        raise ConfigError(
            f"the entry point {name} of {ENTRY_POINTS} is {found!r}, wanted a CaptionProvider of that name",
            code="bad-plugin", remedy="Mend or remove the package that brings it",
        )
    return found


def _built_in() -> frozenset[str]:
    return frozenset(module.name for module in pkgutil.iter_modules(providers.__path__))


def _from_another_package(name: str) -> object:
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            return point.load()
        except Exception as error:
            raise ConfigError(
                f"the caption provider {name} ({point.value}) cannot be loaded: {error}",
                code="bad-plugin", remedy="Mend or remove the package that brings it",
            ) from error
    raise ConfigError(
        f"caption.llm.provider is {name!r}, there are {', '.join(provider_names())}",
        code="unknown-choice",
        remedy=f"Mend params.yaml, or install the package that brings it (entry point group {ENTRY_POINTS})",
    )
