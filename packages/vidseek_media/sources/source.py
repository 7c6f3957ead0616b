"""The interface of a source of videos: it lists videos, makes each a local file, and knows facts about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vidseek_media.records import Refusal, Rejection
from vidseek_media.text.sidecars import Sidecar

VIDEO_SUFFIXES = frozenset([
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".ivf", ".m2ts", ".m2v",
    ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm",
    ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
])
"""Suffixes of files that count as videos unless the user names them. Other files are not listed."""

FORGOTTEN = Refusal("forgotten: `vidseek forget --undo` takes it back", code="forgotten")
"""Of what was forgotten."""


@dataclass(frozen=True)
class Annotations:
    """Facts from the source about one video; files of captions take precedence."""

    source_id: str = ""
    """The source's own name for it."""
    title: str = ""
    channel: str = ""
    category: str = ""
    published_at: str = ""
    """RFC 3339, or empty."""
    thumbnail: str = ""
    """A picture of it, as a path relative to the source root, or empty."""
    views: int | None = None


@dataclass(frozen=True)
class Listing:
    """The videos of a source as local files. No uri is in both `paths` and `rejected`."""

    paths: Mapping[str, Path]
    """Absolute path of each file by uri, in order of uri."""
    rejected: Mapping[str, Refusal] = field(default_factory=dict)
    """Reasons by uri of files that are skipped or could not be downloaded."""
    sidecar: Sidecar = field(default_factory=Sidecar)
    """Content of files of captions, or of the manifest."""
    annotations: Mapping[str, Annotations] = field(default_factory=dict)
    """By uri; sources that know nothing have none."""
    rejections: tuple[Rejection, ...] = ()
    """Of what lies beside videos: transcripts that could not be had."""
    unlisted: Mapping[str, Path] = field(default_factory=dict)
    """Absolute paths by uri of folders that cannot be listed now, and of named files that are not there; they are in
    `rejected` too."""


class Source(Protocol):
    """A place that videos come from. Creating one uses neither disk nor network."""

    @property
    def name(self) -> str:
        """The name in params.yaml, for messages."""

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """List all videos, and download remote ones that are missing or have changed.

        Args:
            forgotten: Addresses (from `address_of`) that must not be downloaded; they are rejected.

        Raises:
            ConfigError: the source does not exist, or its own files are wrong.
            ServiceError: another machine does not answer, or requires something.
        """

    def path_of(self, uri: str) -> Path:
        """Return the local path of a video, without downloading it.

        Args:
            uri: Name of the video in a table.

        Raises:
            InputRejected: the path is outside of what the source may name.
        """

    def address_of(self, uri: str) -> str:
        """Return the address that a video was downloaded from, equal for all sources that name it; empty for a local
        file.
        """

    def downloads_of(self, uri: str) -> list[Path]:
        """Return the files that were downloaded for a video; none for a local file."""
