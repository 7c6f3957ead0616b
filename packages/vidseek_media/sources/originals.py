"""The bytes of a video are its id: a file that was replaced since `ingest` is found out before its frames are kept."""

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
        """What the operating system says; it is retryable unless rights or the name are why."""
        made = FileUnreadable(f"cannot be read: {error.strerror}")
        made.retryable = error.errno not in _LASTING
        return made


class FileChanged(InputRejected):
    """The file holds other bytes than those that were ingested."""

    code = "file-changed"
    retryable = True


@contextmanager
def original(path: Path, video_id: str) -> Iterator[None]:
    """What is done inside is done with the file whose id is `video_id`; nothing of it may be kept where this raises.

    The whole file is hashed before (1 to 2 GB a second, and then it lies in memory), and its size and time of change are
    compared after.

    Raises:
        FileChanged: the file was replaced or changed, before or meanwhile.
        FileUnreadable: it cannot be read.
    """
    try:
        before = path.stat()
        found = video_id_of(path)
        if found != video_id:
            raise FileChanged(
                f"its bytes are not those that were ingested (id {found}, wanted {video_id}); run again to ingest it anew"
            )
        yield
        after = path.stat()
    except OSError as error:
        raise FileUnreadable.of(error) from error
    if _state(after) != _state(before):
        raise FileChanged("changed while it was being read; run again when it is complete")


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
