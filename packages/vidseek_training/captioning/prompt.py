"""The prompt of the model, the schema of its answer, and the check of an answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vidseek_media.guards import mended_text
from vidseek_media.records import Video
from vidseek_training.captioning.settings import CAPTION_DETAILS, LlmSettings

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
"""Of each caption; a longer one is no caption of its detail."""

MOST_LEVELS = 5
"""Of objects and lists that wrap an answer."""

MIN_CHARACTERS = 3

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {detail: {"type": "string"} for detail in CAPTION_DETAILS},
    "required": list(CAPTION_DETAILS),
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
    """Return the caption of each detail, its white space made plain.

    Raises:
        BadAnswer: `text` is not of the schema, or a caption is empty, too long, or says that there is none.
    """
    content = object_in(text)
    captions: dict[str, str] = {}
    for detail in CAPTION_DETAILS:
        said = content.get(detail)
        if not isinstance(said, str):
            raise BadAnswer(f"has no text for {detail}: {text[:80]!r}")
        captions[detail] = mended_text(said)  # Half an emoji is no reason to pay for the answer again.
        if not MIN_CHARACTERS <= len(captions[detail]) <= MAX_CHARACTERS[detail]:
            wanted = f"wanted {MIN_CHARACTERS} to {MAX_CHARACTERS[detail]}"
            raise BadAnswer(f"has {len(captions[detail])} characters for {detail}, {wanted}: {captions[detail][:60]!r}")
        if _REFUSAL.search(captions[detail].replace("’", "'")):
            raise BadAnswer(f"is a refusal: {captions[detail][:80]!r}")
    return captions


_REASONING = re.compile(r"<(think|thinking|thought|reasoning|analysis)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_COMMA_AT_END = re.compile(r",\s*([}\]])")
_DECODER = json.JSONDecoder(strict=False)
"""Takes a raw newline inside a text."""


def object_in(text: str) -> dict[str, Any]:
    """Return the last JSON object in `text` that has a text for each detail, else the last one.

    Servers that know no schema let a model reason aloud first, wrap its JSON in a Markdown fence or in a further object,
    put a remark behind it, or begin with a mark of the byte order. All of that is paid for, and what it says is clear.

    Raises:
        BadAnswer: there is none.
    """
    whole = text.strip().lstrip("\ufeff")
    found, why = [_DECODER.decode(whole)] if _is_json(whole) else [], ""
    if not any(_within(found, depth=MOST_LEVELS)):
        found, why = _objects_in(_REASONING.sub(" ", whole))
    if not found:
        found, _ = _objects_in(_COMMA_AT_END.sub(r"\1", _REASONING.sub(" ", whole)))
    objects = list(_within(found, depth=MOST_LEVELS))
    if not objects:
        raise BadAnswer(f"is no JSON object ({why}): {text[:80]!r}")
    answers = [each for each in objects if all(isinstance(each.get(detail), str) for detail in CAPTION_DETAILS)]
    return (answers or objects)[-1]


def _is_json(text: str) -> bool:
    """Return whether all of `text` is JSON: what looks like reasoning in it is said in a caption."""
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _objects_in(text: str) -> tuple[list[Any], str]:
    """Return the outermost JSON objects in `text`, and why the last `{` that begins none does not."""
    found: list[Any] = []
    why, at = "no { in it", text.find("{")
    while at >= 0:
        try:
            content, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            why, end = str(error), at + 1
        else:
            found.append(content)
        at = text.find("{", end)
    return found, why


def _within(content: object, *, depth: int) -> Iterator[dict[str, Any]]:
    """Yield the objects in `content`, itself last: as values, in lists, and as JSON in a text (arguments of a tool)."""
    if isinstance(content, str) and content.lstrip().startswith("{") and _is_json(content):
        content = _DECODER.decode(content)
    if depth and isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from _within(each, depth=depth - 1)
    if isinstance(content, dict):
        yield content
