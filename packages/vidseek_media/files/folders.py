"""Writes files and folders of stages whole or not at all."""

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
    """Check that a folder named by the user may be replaced.

    Args:
        path: The folder. It may be missing or empty.
        marks: File names of which vidseek writes at least one into each such folder.

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
    """Write a folder whole or not at all: yield a fresh folder beside `path` that replaces it when the block succeeds.

    When the block raises, the fresh folder is removed and `path` keeps its content. Fresh folders that killed processes left
    beside `path` are removed too.

    Args:
        path: The folder to write; its parent folders are created.

    Raises:
        OSError: the disk cannot hold it.

    Example:
        >>> with whole_folder(Path("report")) as folder:
        ...     _ = (folder / "result.json").write_text("{}")
        >>> [path.name for path in Path("report").iterdir()]
        ['result.json']
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
    """Write a file whole or not at all: yield a path beside `path` that replaces it when the block succeeds.

    When the block raises, the new file is removed and `path` keeps its content.

    Args:
        path: The file to write; its parent folders are created.
        sync: Whether to wait until the file is on the disk, so that it survives a power loss.

    Raises:
        OSError: the disk cannot hold it; the error of a full disk names `path`.

    Example:
        >>> with whole_file(Path("notes.txt")) as beside:
        ...     _ = beside.write_text("done")
        >>> Path("notes.txt").read_text()
        'done'
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
        OSError: the disk cannot hold them.
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
    """Whether a process with this id runs on this machine; a text that is not a number counts as running."""
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
