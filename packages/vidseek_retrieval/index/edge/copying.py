"""Copies the files of a finished shard for a new collection: shared where Edge never writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

SHARED = frozenset({"matrix.dat", "quantized.data", "links_compressed.bin", "links.bin", "inverted_index.dat"})
"""Files of an optimised segment that are written once: vectors, graphs, and the lists of words. What is deleted or added is
noted in other files."""
_STORED_WITH = "matrix.dat"
"""Lies beside the vectors that are written once, and not beside those of a segment that takes new points."""
_CHUNK = 2**30
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)


def copy_shard(source: Path, target: Path) -> list[Path]:
    """Copy a folder of a finished shard; files that Edge never writes become hard links where the file system allows it.

    On a file system that shares blocks between files (Btrfs, XFS), the others take no room either.

    Args:
        source: The shard's folder.
        target: The folder to make; it must not exist.

    Returns:
        The files that were copied, below `target`; the others are links.

    Raises:
        OSError: the disk cannot hold it.
    """
    copied = []
    for path in _files(source):
        beside = target / path.relative_to(source)
        beside.parent.mkdir(parents=True, exist_ok=True)
        if not (is_shared(path) and _link(path, beside)):
            copy_file(path, beside)
            copied.append(beside)
    return copied


def bytes_to_copy(source: Path) -> int:
    """Return how many bytes on the disk `copy_shard` takes."""
    return sum(512 * path.stat().st_blocks for path in _files(source) if not is_shared(path))


def is_shared(path: Path) -> bool:
    """Return whether Edge never writes a file of a shard again."""
    if path.name not in SHARED:
        return False
    return path.name != "quantized.data" or (path.parent / _STORED_WITH).exists()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file with its holes: Edge allocates files ahead, and a plain copy would fill them with zeros.

    Raises:
        OSError: the disk cannot hold it.
    """
    with source.open("rb") as reader, target.open("xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        os.truncate(writer.fileno(), size)
        for begin, end in stretches(reader.fileno(), size):
            while begin < end:
                begin += _copy(reader.fileno(), writer.fileno(), begin, min(_CHUNK, end - begin))


def _copy(reader: int, writer: int, at: int, count: int) -> int:
    try:
        copied = os.copy_file_range(reader, writer, count, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        copied = os.pwrite(writer, os.pread(reader, min(count, 2**24), at), at)
    if not copied:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return copied


def stretches(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each part of a file that is not a hole, in order.

    Args:
        file: Descriptor of the open file.
        size: Its size in bytes.
    """
    at = 0
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        at = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, at


def _link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
