"""The registry of speech engines: modules of `engines/`, and entry points of other packages."""

from __future__ import annotations

from functools import partial

from vidseek_media.errors import ConfigError
from vidseek_media.installing import require_module
from vidseek_media.plugins import Registry, modules_in
from vidseek_media.speech.engine import SpeechEngine

ENTRY_POINTS = "vidseek.speech_engines"
"""The group in which another package names its `SpeechEngine` class."""

REGISTRY: Registry[SpeechEngine] = Registry(
    SpeechEngine, what="the speech engine", group=ENTRY_POINTS,  # type: ignore[type-abstract]
    modules=lambda: modules_in("vidseek_media.speech.engines"),
    broken=partial(ConfigError, code="plugin-broken"), twice=partial(ConfigError, code="plugin-broken"),
)
register = REGISTRY.register


def speech_engine(name: str) -> SpeechEngine:
    """Return the engine of a name.

    Raises:
        ConfigError: there is none, or an installed package registers an unusable engine.
    """
    engines = REGISTRY.load()
    if name not in engines:
        raise ConfigError(
            f"speech.engine is {name!r}, there are {', '.join(sorted(engines))}", code="unknown-choice",
            remedy=f"Mend params.yaml, or install the package that brings it (entry point group {ENTRY_POINTS})",
        )
    return engines[name]


def require_engine(name: str, model: str | None) -> None:
    """Check that an engine can be opened, as far as that shows without a model or a network.

    Args:
        name: As `speech.engine` has it.
        model: As `speech.model` has it.

    Raises:
        ConfigError: there is no such engine, a library is missing, or it wants a model.
    """
    engine = speech_engine(name)
    for library in filter(None, ("silero_vad", engine.library)):
        require_module(library, engine.extra)
    if engine.needs_model and model is None:
        raise ConfigError(
            f"the speech engine {name} wants a model, and none was said", code="setting-missing",
            remedy="Name a folder with a converted model, or one of the hub: faster-whisper=Systran/faster-whisper-small",
        )
