"""Detects files that were replaced since `ingest`, before anything made from them is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidseek_media.errors import InputRejected
from vidseek_media.ids import video_id_of

_LASTING = frozenset([errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR])
"""Of the rights and the name of a file. Other errors pass: a disk that is not mounted, a server that is away."""


class FileUnreadable(InputRejected):
    """The file could not be read; its bytes may be good."""

    code = "original-unreadable"

    @classmethod
    def of(cls, error: OSError) -> FileUnreadable:
        """Convert an error of the operating system; it is retryable unless permissions or the name are the cause."""
        made = FileUnreadable(f"cannot be read: {error.strerror}")
        made.retryable = error.errno not in _LASTING
        return made


class FileChanged(InputRejected):
    """The file holds other bytes than those that were ingested."""

    code = "file-changed"
    retryable = True


@contextmanager
def original(path: Path, video_id: str, *, seen: dict[Path, tuple[int, ...]] | None = None) -> Iterator[None]:
    """Ensure that the file has the bytes of `video_id` throughout this block; if it raises, discard results of the block.

    The whole file is hashed before (1 to 2 GB a second; it is cached in memory afterwards), and its size and time of change
    are
    compared after.

    Args:
        path: The file.
        video_id: 32 hex digits, from `video_id_of`.
        seen: What earlier blocks of the same files have seen, for many blocks of one file: it is hashed again only when its
            size or time of change is another.

    Raises:
        FileChanged: the file was replaced or changed, before or during the block.
        FileUnreadable: it cannot be read.
    """
    try:
        before = path.stat()
        if seen is None or seen.get(path) != _state(before):
            found = video_id_of(path)
            if found != video_id:
                raise FileChanged(
                    f"its bytes are not those that were ingested (id {found}, wanted {video_id}); "
                    "run again to ingest it anew"
                )
        yield
        after = path.stat()
    except OSError as error:
        raise FileUnreadable.of(error) from error
    if _state(after) != _state(before):
        raise FileChanged("changed while it was being read; run again when it is complete")
    if seen is not None:
        seen[path] = _state(after)


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
