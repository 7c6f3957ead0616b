"""The provider for Gemini: how to limit thinking, and the cost of images and video in tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vidseek_training.captioning.provider import CaptionProvider, Provider, Thinking

_GENERATION = re.compile(r"gemini-(\d+(?:\.\d+)?)")
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thoughts for a word, where the model takes a number."""
_LEAST_OF_PRO = 128
"""Gemini 2.5 Pro always thinks."""

_PICTURE_TOKENS = {"low": 280, "medium": 560, "high": 1120}
_FRAME_TOKENS = {"low": 70, "medium": 70, "high": 280}
"""From Gemini 3 on, by media_resolution."""
_TILE_TOKENS = 258
_TILE_PX, _ONE_TILE_PX = 768, 384


def generation_of(model: str) -> float | None:
    """Return the generation in a model's name.

    Args:
        model: Name of the model (`caption.llm.model`).

    Returns:
        2.5 for `gemini-2.5-flash`; infinity for an alias of the latest model, such as `gemini-flash-latest`; None if the
        name
        does not state it, as for a tuned model.
    """
    name = model.lower().rsplit("/", 1)[-1]
    if match := _GENERATION.match(name):
        return float(match[1])
    return math.inf if name.startswith("gemini-") and name.endswith("-latest") else None


def thinking_fields(model: str, thinking: Thinking, max_output_tokens: int) -> dict[str, Any]:
    """Return the fields of a request that limit thinking, in the form of the model's generation.

    Args:
        model: Name of the model (`caption.llm.model`).
        thinking: `auto` sets the least that every model of the generation accepts; `model` sets nothing; otherwise a word or
            a number of tokens.
        max_output_tokens: Most tokens of the answer, thoughts included; half of them stay for the captions.
    """
    generation = generation_of(model)
    if thinking == "model" or (thinking == "auto" and (generation is None or generation < 2.5)):
        return {}
    if isinstance(thinking, int):
        return {"thinking_config": {"thinking_budget": thinking}}
    if generation is not None and generation < 3:
        least = _LEAST_OF_PRO if "pro" in model else 0
        wanted = least if thinking == "auto" else max(least, _BUDGETS[thinking])
        return {"thinking_config": {"thinking_budget": min(wanted, max_output_tokens // 2)}}
    level = {"auto": "low", "none": "minimal"}.get(thinking, thinking)
    return {"thinking_config": {"thinking_level": level}}


def picture_tokens(model: str, width: int, height: int, options: Mapping[str, Any]) -> int:
    """Return the cost of an image in tokens.

    From Gemini 3 on, `media_resolution` determines it. Before, an image of at most 384 pixels a side is one tile of 258
    tokens;
    a larger one is cut into tiles of two thirds of its shorter side, 256 to 768 pixels
    (https://ai.google.dev/gemini-api/docs/tokens, .../media-resolution).

    Args:
        model: Name of the model (`caption.llm.model`).
        width: Width in pixels.
        height: Height in pixels.
        options: Options of the request (`caption.llm.options`).
    """
    generation, resolution = generation_of(model), _resolution_of(options)
    if generation is None or generation >= 3:
        return _PICTURE_TOKENS.get(resolution, _PICTURE_TOKENS["high"])
    if resolution == "low":
        return 64
    if resolution == "medium" or max(width, height) <= _ONE_TILE_PX:
        return _TILE_TOKENS
    side = min(_TILE_PX, max(256, math.floor(min(width, height) / 1.5)))
    return _TILE_TOKENS * math.ceil(width / side) * math.ceil(height / side)


def video_tokens(model: str, seconds: float, fps: float, options: Mapping[str, Any]) -> int:
    """Return the cost of a video without sound in tokens: that of its frames.

    Args:
        model: Name of the model (`caption.llm.model`).
        seconds: Length of the video in seconds.
        fps: Frames that the model reads in a second.
        options: Options of the request (`caption.llm.options`).
    """
    generation, resolution = generation_of(model), _resolution_of(options)
    if generation is None or generation >= 3:
        each = _FRAME_TOKENS.get(resolution, _FRAME_TOKENS["low"])
    else:
        each = 66 if resolution == "low" else _TILE_TOKENS
    return math.ceil(seconds * fps * each)


def _resolution_of(options: Mapping[str, Any]) -> str:
    said = next((value for name, value in options.items() if name.replace("_", "").lower() == "mediaresolution"), "")
    return str(said).lower().removeprefix("media_resolution_")


def _open(settings: Any, *, url: str | None, key: str) -> Provider:
    from vidseek_training.captioning.gemini import Gemini

    return Gemini(settings, url=url, key=key, models_page=PROVIDER.models_page)


PROVIDER = CaptionProvider(
    name="gemini", library="google.genai", key_variable="GEMINI_API_KEY",
    models_page="https://ai.google.dev/gemini-api/docs/models", open=_open, thinking_fields=thinking_fields,
    thinking_options=frozenset({"thinkingconfig"}), picture_tokens=picture_tokens, video_tokens=video_tokens,
)
