"""The provider for OpenAI and servers of its protocol: how to limit thinking, and the cost of images in tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vidseek_media.errors import ConfigError
from vidseek_training.captioning.provider import CaptionProvider, Provider, Thinking

_REASONS = re.compile(r"(o\d|gpt-([5-9]|\d\d))(?!.*chat)")
"""Models that think, by their names."""

_TILES = (("gpt-4o-mini", 2833, 5667), ("gpt-5", 70, 140), ("o1", 75, 150), ("o3", 75, 150), ("gpt-4", 85, 170))
"""Prefix of the name, tokens of a picture, tokens of each tile of 512 pixels."""
_TILED = re.compile(r"gpt-4o|gpt-4-|gpt-4\.[015](?!-mini|-nano)|gpt-5(\.1)?(?!\.|-mini|-nano|-codex-mini)|o1|o3")
_PATCH_PX = 32
_MULTIPLIERS = (("o4-mini", 1.72), ("-mini", 1.62), ("-nano", 2.46))
_MOST_PATCHES, _MOST_PATCHES_NEWER = 1536, 2500
_NEWER = re.compile(r"gpt-(5\.([4-9]|\d\d)|[6-9]|\d\d)")
UNKNOWN_PICTURE_TOKENS = 258
"""A guess for a model of one's own."""


def thinking_fields(model: str, thinking: Thinking, max_output_tokens: int) -> dict[str, Any]:
    """Return the fields of a request that limit thinking.

    Args:
        model: Name of the model (`caption.llm.model`).
        thinking: `auto` sets the least effort that all thinking models of OpenAI accept, and nothing for other names;
            `model`
            sets nothing; any other word is passed on.
        max_output_tokens: Not used, since an effort is not a number.

    Raises:
        ConfigError: `thinking` is a number.
    """
    del max_output_tokens
    if isinstance(thinking, int):
        raise ConfigError(
            f"caption.llm.thinking is {thinking}, and OpenAI's protocol takes none, minimal, low, medium or high",
            code="settings-disagree",
            remedy="Take one of these, or your server's own field in caption.llm.options",
        )
    if thinking == "auto":
        return {"reasoning_effort": "low"} if _REASONS.match(_name_of(model)) else {}
    return {} if thinking == "model" else {"reasoning_effort": thinking}


def picture_tokens(model: str, width: int, height: int, options: Mapping[str, Any]) -> int:
    """Return the cost of an image in tokens.

    Newer models count patches of 32 pixels, times a factor for small models; older ones count tiles of 512 pixels
    (https://developers.openai.com/api/docs/guides/images-vision). For other servers' models it is an estimate.

    Args:
        model: Name of the model (`caption.llm.model`).
        width: Width in pixels.
        height: Height in pixels.
        options: Options of the request (`caption.llm.options`); not used.
    """
    del options
    name = _name_of(model)
    if _TILED.match(name):
        base, tile = next((base, tile) for prefix, base, tile in _TILES if name.startswith(prefix))
        return base + tile * _num_tiles(width, height)
    if not re.match(r"gpt-[4-9]|gpt-\d\d|o\d", name):
        return UNKNOWN_PICTURE_TOKENS
    factor = next((factor for part, factor in _MULTIPLIERS if part in name), 1.0)
    most = _MOST_PATCHES_NEWER if _NEWER.match(name) else _MOST_PATCHES
    return math.ceil(factor * min(most, math.ceil(width / _PATCH_PX) * math.ceil(height / _PATCH_PX)))


def _num_tiles(width: int, height: int) -> int:
    """Return the number of tiles of a picture reduced to 2,048 x 2,048, then to a shorter side of 768."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height))
    return math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def _name_of(model: str) -> str:
    """Without what a proxy puts before it, `openai/gpt-...`."""
    return model.lower().rsplit("/", 1)[-1]


def _open(settings: Any, *, url: str | None, key: str) -> Provider:
    from vidseek_training.captioning.openai_endpoint import OpenAIEndpoint

    return OpenAIEndpoint(settings, url=url, key=key, models_page=PROVIDER.models_page)


PROVIDER = CaptionProvider(
    name="openai", library="openai", key_variable="OPENAI_API_KEY",
    models_page="https://developers.openai.com/api/docs/models; a server of your own lists its models at /models",
    open=_open, thinking_fields=thinking_fields,
    thinking_options=frozenset({"reasoningeffort", "reasoning", "chattemplatekwargs", "think"}),
    picture_tokens=picture_tokens,
)
