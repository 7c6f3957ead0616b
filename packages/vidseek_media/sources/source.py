"""What a source of videos is: it lists them, brings each to a path on this machine, and says what it knows of them."""

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
"""What counts as a video by its name, where nobody names it. Files of other kinds are not listed."""

FORGOTTEN = Refusal("forgotten: `vidseek forget --undo` takes it back")
"""Of what was forgotten."""


@dataclass(frozen=True)
class About:
    """What the source itself says of one video; a sidecar's word comes first."""

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
    """The videos of a source, each on this machine. No uri is in both `paths` and `rejected`."""

    paths: Mapping[str, Path]
    """Where each file lies, by uri, in order of uri; absolute, so that it is the same file wherever one works."""
    rejected: Mapping[str, Refusal] = field(default_factory=dict)
    """Why, by uri, of files that are not to be looked at, or that could not be had."""
    sidecar: Sidecar = field(default_factory=Sidecar)
    """What files of captions, or the manifest, say of them."""
    about: Mapping[str, About] = field(default_factory=dict)
    """By uri; sources that know nothing have none."""
    rejections: tuple[Rejection, ...] = ()
    """Of what lies beside videos: transcripts that could not be had."""


class Source(Protocol):
    """Where videos come from. Making one touches neither disk nor network."""

    @property
    def name(self) -> str:
        """As the params have it, for messages."""

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """All videos, those that lie elsewhere downloaded; what is here already and unchanged is not loaded again.

        Args:
            forgotten: Addresses (see `address_of`) that are not to be downloaded: they are rejected.

        Raises:
            ConfigError: the source is not there, or its own files are wrong.
            ServiceError: another machine does not answer, or wants something.
        """

    def path_of(self, uri: str) -> Path:
        """Where the file that `uri` of a table names is, or would be, on this machine; nothing is loaded for it.

        Raises:
            InputRejected: it lies outside of what the source may name.
        """

    def address_of(self, uri: str) -> str:
        """Where a downloaded video came from, whichever source names it; empty for a file that is the user's own."""

    def downloads_of(self, uri: str) -> list[Path]:
        """The files that were downloaded for this video; none for a file that is the user's own."""
