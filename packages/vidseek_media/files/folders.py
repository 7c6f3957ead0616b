"""Files and folders that a stage writes: whole or absent."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vidseek_media.errors import ConfigError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require_replaceable(path: Path, *, marks: Collection[str]) -> None:
    """See to it that a folder which somebody named, and which is there, may be replaced by a new one.

    Args:
        path: The folder.
        marks: Files of which one is in every folder that was written here before.

    Raises:
        ConfigError: it holds something else.
    """
    if path.is_dir() and not path.is_symlink():
        if not any(path.iterdir()) or any((path / mark).is_file() for mark in marks):
            return
    elif not path.exists() and not path.is_symlink():
        return
    raise ConfigError(
        f"{path} is there, and was not written by vidseek: it would be lost", code="folder-not-ours",
        remedy="Name another folder",
    )


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A fresh folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    What processes that were killed left beside it vanishes too.

    Raises:
        OSError: the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    for old in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if old == beside or not _lives(old.suffix.removeprefix(".")):
            shutil.rmtree(old, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def whole_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """The name of a file beside `path`, which takes its place when the block ends well, and vanishes when it does not.

    Args:
        path: Of the file.
        sync: Whether it survives a power loss once the block has ended: for what a person was told is kept.

    Raises:
        OSError: the disk does not take it; a full one is told with `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        if sync:
            sync_path(beside)
        beside.replace(path)
        if sync:
            sync_path(path.parent)
    except OSError as error:
        if error.errno in _FULL and error.filename is None:  # a write does not know its file's name
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk does not take them.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():  # some network disks cannot with folders
            raise
    finally:
        os.close(descriptor)


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
