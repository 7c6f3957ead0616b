"""A cache of earlier ingests about files and videos; it changes no result."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from vidseek_media.decoding.probe import Probe
from vidseek_media.errors import ConfigError, foreign
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.records import UNNAMED, Refusal

LEDGER_VERSION = f"2 av{version('av')}"
"""A ledger of another version is not believed: another decoder, or other rules of time and size, may measure otherwise."""

log = logging.getLogger("vidseek.media")

LEDGER_FILE = "ingest.json"
SAVE_SECONDS = 10.0
MOST_BYTES = 2**30
"""A kilobyte for each of a million videos."""


@dataclass
class Ledger:
    """Files by absolute path, probes and rejections by video id."""

    path: Path
    files: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    """Size, time of change of the bytes and of the inode in ns, and video_id. The second time nobody can set back."""
    probes: dict[str, Probe] = field(default_factory=dict)
    rejections: dict[str, Refusal] = field(default_factory=dict)
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Load the ledger at `path` (without suffix: the folder of `ingest.json`).

        A missing or broken one, or one of another version, is empty.
        """
        path = path if path.suffix else path / LEDGER_FILE
        try:
            content = read_json(path, most_bytes=MOST_BYTES)
            if content["version"] != LEDGER_VERSION:
                return cls(path)
            return cls(
                path,
                {str(key): _file_of(entry) for key, entry in content["files"].items() if len(entry) == _FILE_FIELDS},
                {key: Probe(**value) for key, value in content["probes"].items()},
                {str(key): _refusal_of(value) for key, value in content["rejections"].items()},
            )
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            log.warning("%s is broken (%r) and is made anew: all files are read again", path, error)
            return cls(path)

    def id_of(self, path: Path, stat: os.stat_result) -> str | None:
        """Return the video_id of a file if its size and times are unchanged; else None.

        Args:
            path: The file.
            stat: Its present size and times.
        """
        known = self.files.get(str(path))
        return known[3] if known and known[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) else None

    def last_id_of(self, path: Path) -> str | None:
        """Return the video_id that a file had when it was last read and could be used; else None."""
        known = self.files.get(str(path))
        return known[3] if known and known[3] in self.probes else None

    def note(self, path: Path, stat: os.stat_result, video_id: str) -> None:
        """Remember the video_id of a file.

        Args:
            path: The file.
            stat: Its size and times when it was hashed.
            video_id: 32 hex digits.
        """
        self.files[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, video_id)

    def is_as_noted(self, path: Path) -> bool:
        """Whether the file's size and time are still those that were noted."""
        try:
            return self.id_of(path, path.stat()) is not None
        except OSError:
            return False

    def knows(self, video_id: str) -> bool:
        """Whether the video was probed."""
        return video_id in self.probes or video_id in self.rejections

    def forget_missing(self, there: Iterable[Path]) -> None:
        """Drop the files that are gone: neither `there` nor on the disk. Probes stay, for a file may return."""
        known = {str(path) for path in there}
        self.files = {key: value for key, value in self.files.items() if key in known or _is_there(key)}

    def forget(self, video_ids: Collection[str]) -> int:
        """Drop all that is known of these videos, and say how many entries that were."""
        before = len(self.files) + len(self.probes) + len(self.rejections)
        self.files = {key: value for key, value in self.files.items() if value[3] not in video_ids}
        self.probes = {key: value for key, value in self.probes.items() if key not in video_ids}
        self.rejections = {key: value for key, value in self.rejections.items() if key not in video_ids}
        return before - len(self.files) - len(self.probes) - len(self.rejections)

    def save_now_and_then(self) -> None:
        """Save, if that is long ago."""
        if time.monotonic() - self.saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write it: whole or not at all.

        Raises:
            ConfigError: the disk does not take it.
        """
        content = {
            "version": LEDGER_VERSION,
            "files": self.files,
            "probes": {key: vars(value) for key, value in self.probes.items()},
            "rejections": {key: [why.reason, why.code] for key, why in self.rejections.items()},
        }
        with foreign(
            ConfigError, f"the ledger {self.path} cannot be written", code="ledger-not-writable",
            remedy="Make room for it, or remove what is in its way; it holds nothing that cannot be read again",
        ):
            write_json(self.path, content, indent=None, sort_keys=True)  # an indent is written by slow Python
        self.saved_at = time.monotonic()


_FILE_FIELDS = 4
"""Entries of another number are an older ledger's: those files are hashed again, and their probes are kept."""


def _refusal_of(entry: object) -> Refusal:
    """Return an entry, which is the reason alone where an earlier version wrote it."""
    reason, code = entry if isinstance(entry, list) else (entry, UNNAMED)
    return Refusal(str(reason), code=str(code))


def _is_there(path: str) -> bool:
    """Return whether a file is on the disk; of one that cannot be looked at nobody knows that it is not."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def _file_of(entry: list[object]) -> tuple[int, int, int, str]:
    size, mtime, ctime, video_id = entry
    return int(str(size)), int(str(mtime)), int(str(ctime)), str(video_id)
