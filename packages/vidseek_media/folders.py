"""Folders that a stage writes: whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A fresh folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    What processes that were killed left beside it vanishes too.

    Raises:
        OSError: the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    for old in path.parent.glob(f".{path.name}.*"):
        if old == beside or not _lives(old.suffix.removeprefix(".")):
            shutil.rmtree(old, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _lives(pid: str) -> bool:
    """Whether a process of that number runs on this machine; what is no number is not ours to judge."""
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
