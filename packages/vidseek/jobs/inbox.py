"""The inbox: a folder that people and programs drop videos into, some of them slowly."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vidseek.jobs.intake import is_being_written
from vidseek_media.text.sidecars import PICTURE_SUFFIXES

REJECTED, DUPLICATES = "rejected", "duplicates"
"""Folders of the inbox for files that were not taken."""
UNFINISHED = frozenset([
    ".part", ".partial", ".crdownload", ".download", ".filepart", ".tmp", ".temp", ".!ut", ".aria2", ".opdownload",
])
"""Suffixes of files that other programs are still writing."""
BESIDE = frozenset([".srt", ".vtt", ".csv", ".txt", ".json", ".md", ".nfo", *PICTURE_SUFFIXES])
"""Suffixes of files that lie beside videos; they are left where they are."""


@dataclass
class Inbox:
    """Remembers how files looked, to tell which are complete.

    Args:
        folder: The inbox. It may be missing.
        settle_seconds: A file that has not changed for so long is complete.
    """

    folder: Path
    settle_seconds: float
    _seen: dict[Path, tuple[tuple[int, ...], float]] = field(default_factory=dict)
    """Size, times and inode of each file at the last look, and since when it looks so, by `time.monotonic`."""

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()  # jobs name their files so

    def settled(self) -> list[Path]:
        """Return the files that are complete, in order of their names; each look counts from the one before.

        A file is complete if nothing of it has changed for `settle_seconds` and nobody has it open for writing.
        """
        now, found = time.monotonic(), []
        seen: dict[Path, tuple[tuple[int, ...], float]] = {}
        for path in self._files():
            try:
                stat = path.lstat()
            except OSError:
                continue
            looks = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            before, since = self._seen.get(path, (None, now))
            since = since if before == looks else now
            seen[path] = (looks, since)
            # The clock of a file server may go ahead of ours: then only what was seen here counts.
            age = max(now - since, min(time.time() - stat.st_ctime, time.time() - stat.st_mtime))
            if age >= self.settle_seconds and before == looks and not is_being_written(path):
                found.append(path)
        self._seen = seen
        return found

    @property
    def seen(self) -> list[Path]:
        """The files that were there at the last look, complete or not."""
        return list(self._seen)

    def relative(self, path: Path) -> str:
        """Return the folder of a file within the inbox; empty for the inbox itself."""
        below = path.parent.relative_to(self.folder)
        return "" if below == Path() else str(below)

    def put_aside(self, path: Path, into: str) -> Path | None:
        """Move a file that is not taken into a folder of the inbox, and return where it is; None if it cannot be moved."""
        target = self.folder / into / path.name
        number = 1
        while target.exists() or target.is_symlink():
            number += 1
            target = self.folder / into / f"{path.stem}-{number}{path.suffix}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        except OSError:
            return None
        return target

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.folder):
            is_top = Path(folder) == self.folder
            folders[:] = sorted(
                each for each in folders if not each.startswith(".") and not (is_top and each in (REJECTED, DUPLICATES))
            )
            for name in sorted(names):
                suffix = Path(name).suffix.lower()
                if not name.startswith(".") and suffix not in UNFINISHED and suffix not in BESIDE:
                    yield Path(folder) / name
