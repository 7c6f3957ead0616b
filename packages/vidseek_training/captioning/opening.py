"""Opens the client of a provider, with address and key from the environment."""

from __future__ import annotations

import os

from vidseek_media.errors import ConfigError
from vidseek_media.installing import require_module
from vidseek_media.secret import secret
from vidseek_training.captioning.provider import KEY_VARIABLE, URL_VARIABLE, Provider
from vidseek_training.captioning.registry import caption_provider
from vidseek_training.captioning.settings import LlmSettings


def open_provider(settings: LlmSettings) -> Provider:
    """Return a client of the provider that the settings name. Nothing is sent.

    Raises:
        ConfigError: the model is not said, the provider's library is not installed, or the key is missing.
    """
    settings.require_complete()
    provider = caption_provider(settings.provider)
    require_module(provider.library, "llm", why=f"caption.llm.provider is {settings.provider}")
    url = os.environ.get(URL_VARIABLE) or None
    return provider.open(settings, url=url, key=_key(provider.key_variable, url))


def _key(own_variable: str, url: str | None) -> str:
    if url is not None:
        return secret(KEY_VARIABLE) or ""
    if key := secret(own_variable):
        return key
    raise ConfigError(
        f"{own_variable} is not set in the environment", code="variable-not-set",
        remedy=f"Set it, or name a server of your own in {URL_VARIABLE} (and its key in {KEY_VARIABLE})",
    )
