"""Names for files that others named: of a form that every file system, shell and table takes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

MOST_BYTES = 200
"""Of a name with its suffix; file systems take 255, and the writer of a file adds some."""
_UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff/\\:*?\"<>|]+")


def safe_name(name: str) -> str:
    r"""Return the last part of a path as a name for a file: without controls, separators, and a dot or dash in front.

    Args:
        name: As a client, a URL or a folder has it.

    Examples:
        >>> safe_name("../../etc/harbour one.MP4")
        'harbour one.MP4'
        >>> safe_name("-rf\n.mp4")
        'rf_.mp4'
    """
    last = re.split(r"[/\\]", name)[-1]
    plain = unicodedata.normalize("NFC", _UNWANTED.sub("_", last)).strip().lstrip(".-~ ").rstrip(". ")
    suffix = PurePosixPath(plain).suffix if len(PurePosixPath(plain).suffix) <= 12 else ""
    stem = plain.removesuffix(suffix) if suffix else plain
    if not stem or (plain.startswith(suffix) and not stem):
        stem = "video"
    return _shortened(stem, MOST_BYTES - len(suffix.encode())) + suffix


class TakenNames:
    """The names of a folder. One is in it in any case of its letters, and any form of its accents."""

    def __init__(self, names: Iterable[str]) -> None:
        self._folded = set(map(_folded, names))

    def __contains__(self, name: str) -> bool:
        return _folded(name) in self._folded

    def add(self, name: str) -> None:
        """Take one more name up."""
        self._folded.add(_folded(name))


def free_name(name: str, taken: Iterable[str] | TakenNames) -> str:
    """Return `name`, or with a number behind its stem, so that no name of `taken` is equal, whatever the case of letters.

    Args:
        name: By `safe_name`.
        taken: Names in the folder.

    Examples:
        >>> free_name("red.mp4", ["RED.mp4"])
        'red-2.mp4'
    """
    names = taken if isinstance(taken, TakenNames) else TakenNames(taken)
    path, number, found = PurePosixPath(name), 1, name
    while found in names:
        number += 1
        found = f"{path.stem}-{number}{path.suffix}"
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _shortened(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode("utf-8", "ignore")
