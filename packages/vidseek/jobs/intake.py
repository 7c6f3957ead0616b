"""Takes a video into the source: it is checked first, and is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek.archive import Archive
from vidseek.jobs.file_names import TakenNames, free_name, safe_name
from vidseek.settings import JobSettings
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.files.folders import sweep, sync_path, whole_file
from vidseek_media.sources.local import Folder, uri_of
from vidseek_media.sources.source import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from vidseek_media.sources.ledger import Ledger

ENOUGH_ROOM_BYTES = 64 * 2**20
"""That stay free on a disk when an upload is taken."""


@dataclass(frozen=True)
class Destination:
    """Where added videos are put."""

    source: Folder
    folder: str
    """Below the root of the source, or empty."""
    _taken: dict[Path, TakenNames] = field(default_factory=dict, compare=False, repr=False)
    """The names of each folder that a file was put into: a folder of many is listed once, not for each file."""

    @classmethod
    def of(cls, archive: Archive, settings: JobSettings) -> Destination:
        """Return the folder of `ingest.source` that added videos go to.

        Raises:
            ConfigError: the source is no folder of this machine.
        """
        source = archive.source
        if not isinstance(source, Folder):
            raise ConfigError(
                f"ingest.source is {source.name if source else 'not set'}, and a video can be put into a folder alone",
                code="source-takes-no-files",
                remedy="Put it where the source has it, then `vidseek watch --once`, or let ingest.source be a folder",
            )
        return cls(source, settings.folder)

    @property
    def root(self) -> Path:
        """The root of the source."""
        return self.source.root.resolve()

    def uri_in(self, path: Path) -> str | None:
        """Return the uri of a file that lies in the source already; None for any other."""
        real = path.parent.resolve() / path.name
        return uri_of(real, self.root) if real.is_relative_to(self.root) else None

    def put(self, file: Path, name: str, *, below: str = "", noting: Callable[[str], None] = lambda uri: None) -> Path:
        """Move a file into the source under a name that is free there, and return its path. It is there whole or not.

        Args:
            file: Of our own: it is moved, or copied and removed where it lies on another disk.
            name: As it was given.
            below: A folder below that of the settings, such as the one it had in the inbox.
            noting: Called with its uri before it is moved, so that who is killed meanwhile knows where to look.

        Raises:
            ConfigError: `ingest.source` is a pattern that takes no such file.
            OSError: the disk does not take it.
        """
        folder = self.root.joinpath(self.folder, *map(safe_name, Path(below).parts))
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(self.root):
            raise ConfigError(f"{folder} leads out of {self.root}", code="source-takes-no-files",
                              remedy="Set jobs.folder to another")
        if (taken := self._taken.get(folder)) is None:
            taken = self._taken[folder] = TakenNames(each.name for each in folder.iterdir())
        while True:
            path = folder / free_name(safe_name(name), taken)
            uri = uri_of(path, self.root)
            if not self.source.takes(uri):
                raise ConfigError(
                    f"{self.source.name} takes no file named {path.name}", code="source-takes-no-files",
                    remedy="Give it a name that ingest.source matches, or let ingest.source be a folder",
                )
            taken.add(path.name)
            noting(uri)
            with suppress(FileExistsError):  # somebody else has put one there meanwhile
                _move(file, path)
                return path


def check_file(path: Path, *, name: str) -> None:
    """Check that a file may be a video, by its name and kind alone.

    Args:
        path: The file.
        name: As it was given, for messages.

    Raises:
        InputRejected: it is a link, no regular file, empty, or has no suffix of a video.
        OSError: it cannot be looked at.
    """
    check_name(name)
    mode = path.lstat()
    if not stat.S_ISREG(mode.st_mode):
        what = "a link" if stat.S_ISLNK(mode.st_mode) else "no regular file"
        raise InputRejected(f"{name} is {what}", code="not-a-file", remedy="Add the video file itself")
    if mode.st_size == 0:
        raise InputRejected(f"{name} is empty", code="not-a-video", remedy="Add the whole file")


def check_name(name: str) -> None:
    """Check that a name is that of a video file.

    Raises:
        InputRejected: it has no suffix that counts as a video.
    """
    suffix = Path(safe_name(name)).suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        raise InputRejected(
            f"{name[-100:]} ends in {suffix or 'no suffix'}, which is no suffix of a video", code="not-a-video",
            remedy=f"Files that count end in {' '.join(sorted(VIDEO_SUFFIXES))}",
        )


def known_videos(archive: Archive) -> dict[str, str]:
    """Return the uri of each video of the archive by its id; empty where nothing was ingested."""
    from vidseek_media.sources.ingest import read_videos

    if not (archive.ingest / "videos.parquet").exists():
        return {}
    return {video.video_id: video.uris[0] for video in read_videos(archive.ingest)}


def note_probes(archive: Archive, probes: Mapping[Path, tuple[str, object]]) -> None:
    """Tell the ledger what was measured of files that are in the source now, so that `ingest` need not read them again."""
    from vidseek_media.decoding.probe import Probe
    from vidseek_media.sources.ledger import Ledger

    book: Ledger = Ledger.load(archive.ledger)
    for path, (video_id, probe) in probes.items():
        if isinstance(probe, Probe):
            with suppress(OSError):
                book.note(path, path.stat(), video_id)
                book.probes[video_id] = probe
    book.save()


def is_being_written(path: Path) -> bool:
    """Whether a process has the file open for writing, as far as the file system tells."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False


def require_room(folder: Path, num_bytes: int) -> None:
    """Check that a disk has room for so many bytes and some more.

    Raises:
        OSError: it has not (ENOSPC).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < num_bytes + ENOUGH_ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _move(file: Path, path: Path) -> None:
    """Move `file` to `path`, where nothing is.

    Raises:
        FileExistsError: something is there.
    """
    try:
        os.link(file, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # another disk, or one that has no links
        require_room(path.parent, file.stat().st_size)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        sweep(path.parent, glob.escape(path.name))  # of a copy that was cut off
        with whole_file(path, sync=True) as beside:
            shutil.copyfile(file, beside)
            shutil.copystat(file, beside)
    else:
        sync_path(path.parent)
    file.unlink()
