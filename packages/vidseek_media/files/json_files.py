"""Writes JSON whole or not at all; parses JSON from elsewhere with a limit on its size, every fault a ValueError."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidseek_media.files.folders import write_text

MOST_BYTES = 64 * 2**20
"""Default limit of a JSON file in bytes. The largest file of vidseek, a calibration, has a few MB."""
MOST_MEMORY_BYTES = 2**30
"""Limit of a file of `read_memory`: that of a whole archive, which vidseek alone writes."""
_LOWEST, _HIGHEST = -(2**63), 2**64  # hashes of frames are unsigned


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file of bounded size.

    Args:
        path: The file, in UTF-8.
        most_bytes: Largest size of the file in bytes.

    Returns:
        The parsed value. Its integers fit into 64 bits, its texts are valid Unicode.

    Raises:
        OSError: the file cannot be read; FileNotFoundError if it is missing.
        ValueError: the file is larger than `most_bytes`, or `parse_json` refuses it.

    Examples:
        >>> _ = Path("clip.json").write_text('{"start_ms": 0, "end_ms": 3000}')
        >>> read_json(Path("clip.json"))
        {'start_ms': 0, 'end_ms': 3000}
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # to ask for all that is allowed takes memory for all of it
        content = file.read(min(size, most_bytes) + 1)
        if len(content) > size:
            content += file.read(max(0, most_bytes + 1 - len(content)))  # it has grown, or is a pipe
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes} bytes")
    return parse_json(content)


def read_memory(path: Path, *, version: int) -> dict[str, Any]:
    """Read what an earlier run kept by `write_json` under its `version`; a memory that is no such file is empty.

    Args:
        path: Of the file; it may be missing, broken or of another version.
        version: The number at `version` in its object.
    """
    with suppress(OSError, ValueError):
        content = read_json(path, most_bytes=MOST_MEMORY_BYTES)
        if isinstance(content, dict) and content.get("version") == version:
            return content
    return {}


def write_json(
    path: Path, content: object, *, indent: int | None = 2, sort_keys: bool = False, ensure_ascii: bool = True,
    sync: bool = False,
) -> None:
    """Write a JSON file and its last line end, whole or not at all. All but `path` and `sync` as `json.dumps` has it.

    Args:
        path: Of the file. Its folder is made where it is missing.
        content: What `json.dumps` takes.
        indent: Spaces a level; None: all in one line.
        sort_keys: Whether keys are in alphabetical order.
        ensure_ascii: Whether other letters are escaped.
        sync: As `vidseek_media.files.folders` says.

    Raises:
        OSError: the disk does not take it.
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii)
    write_text(path, f"{text}\n", sync=sync)


def parse_json(content: str | bytes) -> Any:
    """Parse a JSON text in UTF-8 whose integers fit into 64 bits and whose texts are valid Unicode.

    Raises:
        ValueError: it is not JSON, nests too deeply, or holds another number or text. No other error is raised.
    """
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_fraction)
        if "\\u" in text:  # an escape may spell half a character, which neither a table nor a terminal takes
            _require_unicode(value)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    return value


def _require_unicode(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a text in it is not valid Unicode") from error


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else _HIGHEST
    if not _LOWEST <= number < _HIGHEST:
        raise ValueError(f"a number in it has {len(digits)} digits, wanted one of 64 bits")
    return number


def _fraction(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} in it is too large")
    return number
