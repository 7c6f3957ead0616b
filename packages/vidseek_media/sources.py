"""What `ingest.source` may be: a folder, a pattern, a manifest, a URL that fsspec reads, or videos of YouTube."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from vidseek_media.errors import ConfigError
from vidseek_media.listing import VIDEO_SUFFIXES, Source
from vidseek_media.local import Folder, Pattern, is_pattern
from vidseek_media.manifests import Manifest
from vidseek_media.remote import Remote, split_url
from vidseek_media.rows import READERS
from vidseek_media.secret import secret
from vidseek_media.settings import DownloadSettings
from vidseek_media.urls import is_url
from vidseek_media.youtube import YOUTUBE, Youtube

SITE_PREFIX = "yt-dlp:"
"""Before the URL of another site that yt-dlp knows."""
ENVIRONMENT_PREFIX = "env:"
"""Before a variable of the environment that has the source: a URL with a password or a signature belongs there."""


def open_source(
    text: str, *, base: Path = Path(), downloads: Path, settings: DownloadSettings | None = None
) -> Source:
    """The source that `text` names. Neither disk (but to tell a folder from a pattern) nor network is touched.

    Args:
        text: A folder; a pattern (`/archive/**/*.mp4`) or one video file; a manifest (.csv, .parquet, .jsonl); a URL
            (`file://` is a path); a page of YouTube, or `yt-dlp:` and the page of another site that yt-dlp knows; or
            `env:` and the variable of the environment that has one of these.
        base: What relative paths are relative to.
        downloads: Where files from elsewhere are kept.
        settings: Of downloads by yt-dlp.

    Raises:
        InputRejected: it looks like a URL, and is none.
        ConfigError: the variable of the environment is not set.
    """
    if text.startswith(ENVIRONMENT_PREFIX):
        text = _of_environment(text.removeprefix(ENVIRONMENT_PREFIX))
    if text.startswith(SITE_PREFIX) or YOUTUBE.fullmatch(text):
        return Youtube(text.removeprefix(SITE_PREFIX), downloads=downloads, settings=settings or DownloadSettings())
    if text.lower().startswith("file://"):
        text = unquote(split_url(text).path)
    elif is_url(text):
        return Remote(text, downloads=downloads)
    path = base / Path(text).expanduser()
    if path.is_dir():
        return Folder(path)
    is_file = path.is_file()  # then brackets in its name are no wildcards
    if path.suffix.lower() in READERS and (is_file or not is_pattern(text)):
        return Manifest(path, downloads=downloads)
    if path.suffix.lower() in VIDEO_SUFFIXES and is_file:
        return Pattern(path, is_literal=True)
    if path.suffix.lower() in VIDEO_SUFFIXES or is_pattern(text):
        return Pattern(path)
    return Folder(path)


def _of_environment(variable: str) -> str:
    if text := secret(variable):
        return text
    raise ConfigError(
        f"the source is {ENVIRONMENT_PREFIX}{variable}, and {variable} is not set",
        code="variable-not-set", remedy="Set it in the environment"
    )


def source_of(source: Path | Source) -> Source:
    """The source itself, or that of a folder."""
    return Folder(source) if isinstance(source, Path) else source
