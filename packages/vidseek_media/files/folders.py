"""Writes files and folders whole or not at all: the one writer of the project.

Each is written under a name of its own beside its place, `.<name>.<8 hex digits>.part`, and renamed when it is complete.
Any number of threads and processes may write the same one: the last to finish stays. The writer holds a lock (`flock`) on
what it writes, so that `sweep` can tell what a killed process left from what is being written.

Sync: `sync=True` waits for the disk, and is for what nobody can make again: what a person decided or said, and what the
index answers from. What a stage computes is not synced: after a power loss the stage runs again.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vidseek_media.errors import ArtifactError, ConfigError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LEFT = re.compile(r"\..*\.[0-9a-f]{8}\.(part|new)", re.DOTALL)
_UNLOCKED_SECONDS = 60.0
"""After so long a file that its writer has not locked has no writer."""
_MOST_NAME_BYTES = 255 - len("..01234567.part")
"""Of the name that the one beside begins with: file systems take 255."""
_held: set[int] = set()
"""Open descriptors that hold the locks of this process."""


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

    Examples:
        >>> with whole_folder(Path("report")) as folder:
        ...     _ = (folder / "result.json").write_text("{}")
        >>> [path.name for path in Path("report").iterdir()]
        ['result.json']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, _stem(path))
    beside, descriptor = _begin(path, is_folder=True)
    try:
        yield beside
        _swap(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _release(descriptor)


@contextmanager
def whole_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Write a file whole or not at all: yield a path beside `path` that replaces it when the block succeeds.

    When the block raises, the new file is removed and `path` keeps its content.

    Args:
        path: The file to write; its parent folders are created.
        sync: Whether to wait until the file is on the disk, so that it survives a power loss.

    Raises:
        OSError: the disk cannot hold it; the error of a full disk names `path`.

    Examples:
        >>> with whole_file(Path("notes.txt")) as beside:
        ...     _ = beside.write_text("done")
        >>> Path("notes.txt").read_text()
        'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside, descriptor = _begin(path, is_folder=False)
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
        _release(descriptor)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write a file of UTF-8 text as `whole_file` does, line ends as they are in `text`.

    Raises:
        OSError: the disk does not take it.
    """
    write_bytes(path, text.encode(), sync=sync)


def write_bytes(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file as `whole_file` does.

    Raises:
        OSError: the disk does not take it.
    """
    with whole_file(path, sync=sync) as beside:
        beside.write_bytes(content)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder of several files, which is created where it is missing.

    Nothing is left in the folder, and a process that is killed holds it no longer. A disk that cannot lock lets all through.

    Args:
        folder: The folder.

    Raises:
        ArtifactError: another process is writing into it.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ArtifactError(
            f"another process is writing into {folder}", code="folder-busy",
            remedy="Wait for it to end, then run this again",
        ) from error
    except OSError:
        pass  # some network disks cannot
    _held.add(descriptor)
    try:
        yield
    finally:
        _release(descriptor)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what writers that were killed left in `folder`. A disk that cannot lock files keeps it.

    Args:
        folder: Where they wrote; it may be missing.
        name: Of the files and folders that they wrote, a pattern of `glob`.
    """
    for left in folder.glob(f".{name}.*"):
        _sweep_one(left)


def sweep_below(root: Path) -> None:
    """Remove what writers that were killed left in a folder and in all folders below it, as `sweep` does.

    Args:
        root: The folder; it may be missing. Links below it are not followed.
    """
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if name.startswith("."):
                _sweep_one(Path(folder, name))


def _sweep_one(left: Path) -> None:
    if not _LEFT.fullmatch(left.name):
        return
    with suppress(OSError):  # BlockingIOError where it is being written
        if left.suffix == ".new" and time.time() - left.lstat().st_mtime < _UNLOCKED_SECONDS:
            return
        descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(left)
        finally:
            os.close(descriptor)


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


def _stem(path: Path) -> str:
    """The pattern of names that those beside `path` begin with."""
    return glob.escape(os.fsdecode(os.fsencode(path.name)[:_MOST_NAME_BYTES]))


def _fresh(path: Path) -> Path:
    """A name beside `path` that nobody else has."""
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:_MOST_NAME_BYTES])}.{secrets.token_hex(4)}.part")


def _begin(path: Path, *, is_folder: bool) -> tuple[Path, int]:
    """An empty file or folder beside `path`, and an open descriptor that holds its lock."""
    beside = _fresh(path)
    unlocked = beside.with_suffix(".new")  # which no sweep takes while it is new
    if is_folder:
        unlocked.mkdir()
        descriptor = os.open(unlocked, os.O_RDONLY)
    else:
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    _held.add(descriptor)
    with suppress(OSError):  # some network disks cannot
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unlocked.rename(beside)
    return beside, descriptor


def _release(descriptor: int) -> None:
    if descriptor in _held:  # not in a process that was forked within the block
        _held.discard(descriptor)
        os.close(descriptor)


def _leave_to_parent() -> None:
    """In a forked process: a lock ends with the process that took it."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


def _swap(beside: Path, path: Path) -> None:
    """Rename the folder `beside` to `path`; the folder that was there goes."""
    while True:
        before = _fresh(path)
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                path.rename(before)
        try:
            beside.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another writer was faster
                with suppress(OSError):
                    before.rename(path)
                raise
        finally:
            shutil.rmtree(before, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
