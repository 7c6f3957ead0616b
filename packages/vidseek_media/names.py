"""Checks names that are read from files, so that none of them can point to another place.

A name that becomes part of a path comes from a file, and the file may come from a colleague, a DVC remote or a model hub.
Every function returns the name or raises ValueError, which the reader converts into its own error.
"""

from __future__ import annotations

import re
import uuid

MOST_LETTERS = 128
"""Of a plain name: a file system takes 255 bytes, and temporary names are longer than the names themselves."""
MOST_PARTS = 8
"""Of a relative path."""
MOST_SHOWN = 80
"""Letters of a refused value that a message shows."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def shown(value: object) -> str:
    """Format a value for a message: printable ASCII on one line, cut if long."""
    text = ascii(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def hex_digits(value: object, num: int, *, what: str) -> str:
    """Return a text of lower-case hex digits, such as an encoder_version, a build or a video id.

    Args:
        value: The value to check.
        num: Number of digits.
        what: What the value is, for the message.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{num}}}", value):
        raise ValueError(f"{what} is {shown(value)}, wanted {num} hex digits")
    return value


def plain_name(value: object, *, what: str) -> str:
    """Return one component of a path: letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`.

    Args:
        value: The value to check; at most `MOST_LETTERS` letters.
        what: What the value is, for the message.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(value, str) or len(value) > MOST_LETTERS or not _PLAIN.fullmatch(value) or ".." in value:
        raise ValueError(
            f"{what} is {shown(value)}, wanted a name of at most {MOST_LETTERS} letters, digits, '_', '.' and '-'"
        )
    return value


def relative_file(value: object, *, what: str) -> str:
    """Return a path below a folder: plain names joined by `/`.

    Args:
        value: The value to check.
        what: What the value is, for the message.

    Raises:
        ValueError: it is absolute, leads upwards, or has a component that `plain_name` refuses.
    """
    parts = value.split("/") if isinstance(value, str) else []
    if not 1 <= len(parts) <= MOST_PARTS:
        raise ValueError(f"{what} is {shown(value)}, wanted a path of at most {MOST_PARTS} names")
    for part in parts:
        plain_name(part, what=f"a part of {what}")
    return "/".join(parts)


def shard_file(value: object) -> str:
    """Return the name of a frame shard relative to the frames folder: `shards/<name>.tar`.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(value, str) or not value.startswith("shards/") or not value.endswith(".tar"):
        raise ValueError(f"a shard is {shown(value)}, wanted shards/<name>.tar")
    plain_name(value.removeprefix("shards/"), what="a shard")
    return value


def video_id(value: object) -> str:
    """32 hex digits.

    Raises:
        ValueError: it is anything else.
    """
    return hex_digits(value, 32, what="a video_id")


def clip_id(value: object) -> str:
    """Return a UUID in its usual form: lower case, with hyphens.

    Raises:
        ValueError: it is anything else.
    """
    try:
        found = str(uuid.UUID(value)) if isinstance(value, str) and len(value) == 36 else None
    except ValueError:
        found = None
    if found is None or found != value:
        raise ValueError(f"a clip_id is {shown(value)}, wanted a UUID")
    return found
