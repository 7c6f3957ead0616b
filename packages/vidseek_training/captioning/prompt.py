"""The prompt of the model, the schema of its answer, and the check of an answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from vidseek_media.guards import mended_text
from vidseek_media.records import Video
from vidseek_training.captioning.settings import GRAINS, LlmSettings

DEFAULT_PROMPT = """\
You see one clip of a video, in order of time. Describe what can be seen, so that somebody who looks for this moment \
finds it with words.

Give three captions:
- short: three to eight words, who or what does what.
- sentence: one plain sentence of 8 to 25 words, with what moves, where, and in which direction.
- detail: two or three sentences with things, colours, places, actions in their order, and text that can be read.

Say only what is to be seen. Name no person, guess no place, judge nothing, and do not speak of frames, images, \
pictures, videos or clips."""

MAX_CHARACTERS: Mapping[str, int] = {"short": 120, "sentence": 400, "detail": 1000}
"""Of each caption; a longer one is no caption of its grain."""

MIN_CHARACTERS = 3

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {grain: {"type": "string"} for grain in GRAINS},
    "required": list(GRAINS),
    "additionalProperties": False,
}
"""JSON schema of an answer."""

_PLACES = re.compile(r"\{(title|category|channel)\}")

_REFUSAL = re.compile(
    r"^(i'?m|i am|we are|we're) (very |so |really )?(sorry|unable|not able)|^sorry\b|^as an? (ai|language model)\b"
    r"|^(i|we) (can ?not|can'?t|could not|couldn'?t|won'?t|do not|don'?t) (help|assist|describe|provide|identify|see|view|"
    r"determine|comply|process|access)|^(unable|not able) to (describe|provide|determine|process|view|see)\b",
    re.IGNORECASE,
)


class BadAnswer(Exception):
    """The model's answer holds no captions; the message has the reason."""


def prompt_of(settings: LlmSettings, video: Video) -> str:
    """Return the prompt for the clips of a video.

    Args:
        settings: The section `caption.llm`.
        video: The video.
    """
    text = (settings.prompt or DEFAULT_PROMPT).strip()
    return _PLACES.sub(lambda match: str(getattr(video, match[1])), text)


def prompt_hash(settings: LlmSettings) -> str:
    """Return 8 hex digits over everything that determines a request except the clip: prompt, schema, media, options."""
    asked: dict[str, Any] = {
        "prompt": (settings.prompt or DEFAULT_PROMPT).strip(), "schema": SCHEMA, "send": settings.send,
        "options": settings.options,
    }
    if settings.send == "frames":
        asked["num_frames"] = settings.num_frames
    else:
        asked["video"] = [settings.video_side_px, settings.video_fps]
    if settings.thinking != "auto":  # Answers from before there was such a setting stay those of `auto`.
        asked["thinking"] = settings.thinking
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def read_answer(text: str) -> dict[str, str]:
    """Return the caption of each grain, its white space made plain.

    Raises:
        BadAnswer: `text` is not of the schema, or a caption is empty, too long, or says that there is none.
    """
    content = _object_in(text)
    captions: dict[str, str] = {}
    for grain in GRAINS:
        said = content.get(grain)
        if not isinstance(said, str):
            raise BadAnswer(f"has no text for {grain}: {text[:80]!r}")
        captions[grain] = mended_text(said)  # Half an emoji is no reason to pay for the answer again.
        if not MIN_CHARACTERS <= len(captions[grain]) <= MAX_CHARACTERS[grain]:
            wanted = f"wanted {MIN_CHARACTERS} to {MAX_CHARACTERS[grain]}"
            raise BadAnswer(f"has {len(captions[grain])} characters for {grain}, {wanted}: {captions[grain][:60]!r}")
        if _REFUSAL.search(captions[grain].replace("’", "'")):
            raise BadAnswer(f"is a refusal: {captions[grain][:80]!r}")
    return captions


_REASONING = re.compile(r"<(think|thinking|thought|reasoning|analysis)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_DECODER = json.JSONDecoder(strict=False)
"""Takes a raw newline inside a text."""


def _object_in(text: str) -> dict[str, Any]:
    """Return the last JSON object in `text`.

    Servers that know no schema let a model reason aloud first, wrap its JSON in a Markdown fence, or begin with a mark of
    the byte order. All of that is paid for, and what it says is clear.

    Raises:
        BadAnswer: there is none.
    """
    plain = _REASONING.sub(" ", text.lstrip("\ufeff"))
    found: dict[str, Any] | None = None
    why, at = "no { in it", plain.find("{")
    while at >= 0:
        try:
            content, end = _DECODER.raw_decode(plain, at)
        except (ValueError, RecursionError) as error:
            why, end = str(error), at + 1
        else:
            found = content
        at = plain.find("{", end)
    if found is None:
        raise BadAnswer(f"is no JSON object ({why}): {text[:80]!r}")
    return found
