"""Copies of made archives: what takes seconds to make is made once, and each test changes a copy of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

_BLOCK = 1 << 16
_EMPTY = bytes(_BLOCK)


def copy_tree(source: Path, target: Path) -> Path:
    """Copy the folder into `target`, which may be there; gives `target`. Holes of files stay holes.

    An index has a hundred megabytes of them.
    """
    shutil.copytree(source, target, symlinks=True, copy_function=_copy_file, dirs_exist_ok=True)
    return target


def _copy_file(source: str, target: str) -> str:
    with Path(source).open("rb") as read, Path(target).open("wb") as written:
        while block := read.read(_BLOCK):
            if block == _EMPTY[: len(block)]:
                written.seek(len(block), 1)
            else:
                written.write(block)
        written.truncate()
    shutil.copystat(source, target)
    return target
