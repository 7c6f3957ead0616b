"""JSON lines files that only grow: every append is whole or taken back, and a torn line spoils no other."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.files.folders import sync_path

LOCK_NAME = ".lock"


@dataclass(frozen=True)
class Lines:
    """What a file of JSON lines holds."""

    values: tuple[dict[str, Any], ...]
    """The JSON objects, in the order of the file."""
    num_broken: int
    """Lines that hold no JSON object: torn by a death or a full disk."""


def append_line(path: Path, content: Mapping[str, Any], *, sync: bool = True, mode: int = 0o644) -> None:
    """Append `content` to the file as one line of JSON; one writer at a time, others wait.

    When this returns with `sync`, the line survives a power loss. When it raises, the file is as it was.

    Args:
        path: Of the file; it is made where it is missing, its folder is not.
        content: What `json.dumps` takes.
        sync: Whether to wait for the disk.
        mode: Rights of a file that is made.

    Raises:
        OSError: the disk does not take the whole line.
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
    """Append a line to an open file that no other process writes to at this moment. As `append_line`.

    Args:
        descriptor: Open to read and to append (`O_RDWR | O_APPEND`).
        content: What `json.dumps` takes.
        sync: Whether to wait for the disk.
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
    """The JSON objects of a file; none where there is no file. Broken lines are counted and passed over.

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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file, and make the folder where it is missing; the lock of a killed process is free.

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
