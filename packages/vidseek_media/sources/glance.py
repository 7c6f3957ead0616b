"""Look at a file without reading it whole: length by its header, size, sound and subtitles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidseek_media.decoding.containers import TEXT_CODECS, open_video
from vidseek_media.decoding.probe import probe

LARGE_BYTES = 2**30
"""A file from this size on is measured by its header alone."""


@dataclass(frozen=True)
class Glance:
    """What a file seems to be."""

    duration_ms: int
    side_px: int
    """Of the shorter side."""
    has_sound: bool
    has_subtitles: bool
    """As a text stream in the file."""


def glance(path: Path) -> Glance:
    """Look at a video file. A file below `LARGE_BYTES` is measured as `ingest` measures it.

    Args:
        path: The file.

    Raises:
        InputRejected: it is no video that can be used.
    """
    with open_video(path) as video:
        kinds = [(stream.type, stream.codec_context) for stream in video.container.streams]
        header_us = video.container.duration
        size = video.stream.codec_context.width, video.stream.codec_context.height
    has_sound = any(kind == "audio" for kind, _ in kinds)
    has_subtitles = any(kind == "subtitle" and codec is not None and codec.name in TEXT_CODECS for kind, codec in kinds)
    if header_us and path.stat().st_size >= LARGE_BYTES:
        return Glance(int(header_us // 1000), min(size), has_sound, has_subtitles)
    found = probe(path)
    return Glance(found.duration_ms, min(found.width, found.height), has_sound, has_subtitles)
