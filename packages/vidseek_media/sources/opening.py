"""Opens the source that `ingest.source` names: the first registered kind that reads it (`registry.py`)."""

from __future__ import annotations

from pathlib import Path

from vidseek_media.errors import ConfigError
from vidseek_media.secret import secret
from vidseek_media.settings import IngestSettings
from vidseek_media.sources.local import SOURCE_REMEDY, Folder
from vidseek_media.sources.registry import Place, kinds
from vidseek_media.sources.source import Source

ENVIRONMENT_PREFIX = "env:"
"""Before a variable of the environment that has the source: a URL with a password or a signature belongs there."""


def open_source(
    text: str, *, base: Path = Path(), downloads: Path, settings: IngestSettings | None = None
) -> Source:
    """Return the source that `text` names. No network is used, and the disk only to tell a folder from a pattern.

    Args:
        text: A folder; a pattern (`/archive/**/*.mp4`) or one video file; a manifest (.csv, .parquet, .jsonl); a URL
            (`file://` is a path); a page of YouTube, or `yt-dlp:` and the page of another site that yt-dlp knows; a text
            that an installed package registers a source for; or `env:` and the name of an environment variable that holds
            one of these.
        base: Folder that relative paths start from.
        downloads: Folder for files that are downloaded.
        settings: The section `ingest` of params.yaml, with the settings of each kind of source; None takes the defaults.

    Raises:
        InputRejected: `text` looks like a URL but is not a valid one.
        ConfigError: the environment variable is not set, no kind of source reads `text`, or settings are wrong.

    Examples:
        >>> Path("videos").mkdir()
        >>> _ = Path("videos/red.mp4").write_bytes(b"")
        >>> source = open_source("videos", downloads=Path("downloads"))
        >>> list(source.list_videos().paths)
        ['red.mp4']
    """
    if text.startswith(ENVIRONMENT_PREFIX):
        text = _of_environment(text.removeprefix(ENVIRONMENT_PREFIX))
    place = Place(text, base, downloads)
    for kind in kinds():
        if kind.reads(place):
            return kind.open(place, kind.settings_in(settings or IngestSettings()))
    raise ConfigError(f"no kind of source reads {text}", code="source-unreadable", remedy=SOURCE_REMEDY)


def _of_environment(variable: str) -> str:
    if text := secret(variable):
        return text
    raise ConfigError(
        f"the source is {ENVIRONMENT_PREFIX}{variable}, and {variable} is not set", code="variable-not-set",
        remedy="Set it in the environment",
    )


def source_of(source: Path | Source) -> Source:
    """Return the source itself, or the source of a folder."""
    return Folder(source) if isinstance(source, Path) else source
