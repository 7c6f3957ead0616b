"""Append-only JSON lines files: an append is complete or undone, and a torn line does not affect others."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.folders import sync_path

LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Lines:
    """The content of a JSON lines file."""

    values: tuple[dict[str, Any], ...]
    """The JSON objects, in the order of the file."""
    num_broken: int
    """Number of lines without a JSON object, torn by a crash or a full disk."""


def append_line(path: Path, content: Mapping[str, Any], *, sync: bool = True, mode: int = 0o644) -> None:
    """Append one line of JSON to a file, with one writer at a time.

    If it raises, the file is as before. If it returns and `sync` is set, the line survives a power loss.

    Args:
        path: The file; it is created if missing, its folder is not.
        content: The object to write.
        sync: Whether to wait for the disk.
        mode: Permissions of a created file.

    Raises:
        OSError: the disk cannot hold the whole line.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        append_to(descriptor, content, sync=sync)
        if is_new and sync:
            sync_path(path.parent)
    finally:
        os.close(descriptor)


def append_to(descriptor: int, content: Mapping[str, Any], *, sync: bool) -> None:
    """Append one line of JSON to an open file that no other process is writing to.

    Args:
        descriptor: File descriptor, opened with `O_RDWR | O_APPEND`.
        content: The object to write.
        sync: Whether to wait for the disk.

    Raises:
        OSError: the disk cannot hold the whole line.
    """
    before = os.fstat(descriptor).st_size
    is_torn = before > 0 and os.pread(descriptor, 1, before - 1) != b"\n"
    line = b"\n" * is_torn + json.dumps(content, ensure_ascii=True).encode() + b"\n"
    try:
        written = 0
        while written < len(line):  # at a full disk a write takes a part, and the next one says why
            written += os.write(descriptor, line[written:])
        if sync:
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):  # if not even this works, the next append begins a line of its own
            os.ftruncate(descriptor, before)
            os.fsync(descriptor)
        raise


def read_lines(path: Path) -> Lines:
    """Read the JSON objects of a file; a missing file gives none. Broken lines are counted and skipped.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Lines((), 0)
    values: list[dict[str, Any]] = []
    num_broken = 0
    for line in content.split(b"\n"):
        plain = line.strip(b"\0 \t\r")  # after a power loss, some file systems leave null bytes
        if not line:
            continue
        value = _object_of(plain)
        if value is None:
            num_broken += 1
        else:
            values.append(value)
    return Lines(tuple(values), num_broken)


def append_said(path: Path, said: Mapping[str, Any], *, again: str, pattern: str = "") -> None:
    """Append what a person said, synced to the disk, to a file whose folder is created. Safe between processes.

    Args:
        path: The file.
        said: The object to write.
        again: What the person does when the disk can hold it: `tag it again`.
        pattern: Of files of the folder: one that sorts after `path` is continued in its place.

    Raises:
        ArtifactError: the disk cannot hold it; nothing of it is kept.
    """
    remedy = f"Make room or mend the rights, then {again}"
    with foreign(ArtifactError, f"{path} cannot be written", code="not-writable", remedy=remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        path = max([path, *path.parent.glob(pattern)]) if pattern else path
        append_line(path, said)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock file of a folder inside this block; the folder is created, and the lock of a killed process is free.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
