"""The bytes of a video are its id: a file that was replaced since `ingest` is found out before its frames are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidseek_media.errors import InputRejected
from vidseek_media.ids import video_id_of

TRY_AGAIN = " (another run tries it again)"
"""Ends the reason of a rejection that is `retryable`, for people."""


class FileChanged(InputRejected):
    """The file holds other bytes than those that were ingested."""

    code = "file-changed"


@contextmanager
def original(path: Path, video_id: str) -> Iterator[None]:
    """What is done inside is done with the file whose id is `video_id`; nothing of it may be kept where this raises.

    The whole file is hashed before (1 to 2 GB a second, and then it lies in memory), and its size and time of change are
    compared after.

    Raises:
        FileChanged: the file was replaced or changed, before or meanwhile.
        InputRejected: it cannot be read.
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
        raise InputRejected(f"cannot be read: {error.strerror}", code="file-unreadable") from error
    if _state(after) != _state(before):
        raise FileChanged("changed while it was being read; run again when it is complete")


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
