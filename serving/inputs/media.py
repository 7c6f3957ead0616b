"""Finds the video of a clip on the disk; requests name clips, never paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.source import Source

_ONE_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
    ".mkv": "video/x-matroska", ".avi": "video/x-msvideo", ".ts": "video/mp2t", ".flv": "video/x-flv",
}


class ClipGone(InputRejected):
    """The live index has no such clip."""

    category = "clip_not_found"
    code = "clip-not-found"


class MediaGone(InputRejected):
    """The video of a clip does not lie where the archive's source may have it."""

    category = "media_not_found"
    code = "media-not-found"


class VideoGone(InputRejected):
    """The archive has no such video."""

    category = "video_not_found"
    code = "video-not-found"

    @classmethod
    def of(cls, video_id: str) -> VideoGone:
        """Return the error for an id that no video of the archive has."""
        return cls(f"the archive has no video {video_id}", remedy="Take a video_id of a hit")


class RangeNotThere(InputRejected):
    """The range begins behind the end of the file."""

    category = "range_not_satisfiable"
    code = "range-not-satisfiable"


@dataclass(frozen=True)
class Media:
    """A video file of the archive's source."""

    path: Path
    content_type: str


def find_media(source: Source | Path | None, uri: str) -> Media:
    """Return the file of a video.

    Args:
        source: The source of the archive, or its folder.
        uri: Name of the video in the index.

    Raises:
        MediaGone: the file is missing, or outside of what the source may name (`Source.path_of`).
    """
    try:
        path = source_of(source).path_of(uri).resolve() if source is not None else None
    except (InputRejected, ConfigError):
        path = None
    if path is None or not path.is_file():
        raise MediaGone(
            f"{uri} is not in the archive's source", remedy="See that ingest.source is where this service runs"
        )
    return Media(path, _TYPES.get(path.suffix.lower(), "application/octet-stream"))


def takes_range(header: str | None, size: int) -> bool:
    """Whether a Range header asks for a single range; any other header is ignored.

    Args:
        header: The header; None if there is none.
        size: Size of the file in bytes.

    Raises:
        RangeNotThere: the range begins behind the end.
    """
    asked = _ONE_RANGE.fullmatch((header or "").strip())
    if asked is None:
        return False
    first, last, suffix = asked.groups()
    if suffix is None and last and int(last) < int(first):
        return False
    if (int(first) >= size) if suffix is None else (int(suffix) == 0 or size == 0):
        raise RangeNotThere(f"the range {header} of {size} bytes", remedy="Ask for bytes that the file has")
    return True
