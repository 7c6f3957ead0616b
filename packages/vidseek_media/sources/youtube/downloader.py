"""yt-dlp's downloader with our options."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

from vidseek_media.errors import ConfigError
from vidseek_media.installing import require_module
from vidseek_media.settings import DownloadSettings
from vidseek_media.sources.youtube.javascript import RUNTIMES
from vidseek_media.urls import without_secrets

MAX_BACK_OFF_SECONDS = 60.0

NOT_YET = {"is_live": "is a live stream that still runs", "is_upcoming": "is not shown yet",
            "post_live": "is a live stream that is still being processed"}

log = logging.getLogger("vidseek.media")


def open_downloader(settings: DownloadSettings, folder: Path) -> Any:
    """Return a YoutubeDL that loads one file a video, with sound if the site has such a file, so that no ffmpeg is needed.

    Args:
        settings: Of downloads.
        folder: The download folder.

    Raises:
        ConfigError: yt-dlp is not installed, or the cookies cannot be read.
    """
    require_module("yt_dlp", "youtube", why="the source is a page that yt-dlp reads")
    from yt_dlp import YoutubeDL

    return YoutubeDL(options_of(settings, folder))


def options_of(settings: DownloadSettings, folder: Path) -> dict[str, Any]:
    """Return the options of yt-dlp, which its YoutubeDL.py describes.

    Args:
        settings: Of downloads.
        folder: The download folder.

    Raises:
        ConfigError: the cookies cannot be read.
    """
    def wait(n: int) -> float:  # yt-dlp names the argument
        return float(min(2.0**n, MAX_BACK_OFF_SECONDS))

    return {
        # One file, with sound if possible. `res` is the shorter side: the largest up to this limit, else the smallest.
        "format": "b/bv*", "format_sort": [f"res:{settings.max_side_px}", "vcodec:h264"],
        "cookiefile": _cookies_of(settings.cookies),
        "ratelimit": settings.rate_limit_kib * 1024 if settings.rate_limit_kib else None,
        "sleep_interval": settings.sleep_seconds,
        "max_sleep_interval": max(settings.sleep_seconds, settings.max_sleep_seconds),
        "sleep_interval_requests": settings.sleep_requests_seconds,
        "sleep_interval_subtitles": settings.sleep_subtitles_seconds,
        "retries": settings.retries, "fragment_retries": settings.retries, "extractor_retries": settings.retries,
        "retry_sleep_functions": {"http": wait, "fragment": wait, "extractor": wait},
        "match_filter": lambda info, *, incomplete=False: NOT_YET.get(str(info.get("live_status"))),
        "writethumbnail": True, "cachedir": str(folder / ".cache"), "socket_timeout": 30,
        "js_runtimes": {name: {} for name in RUNTIMES},
        "skip_unavailable_fragments": False,  # or the file would have gaps
        "quiet": True, "noprogress": True, "logger": _Log(), "noplaylist": True,
        "overwrites": True, "ignoreerrors": False, "color": "no_color",
    }


class _Log:
    """yt-dlp's logger: shows each warning once and drops the rest, because errors arrive as exceptions."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def debug(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None:
        line = without_secrets(" ".join(str(message).split()))[:500]
        what = _OF_A_VIDEO.sub("", line)
        if what not in self._said:
            self._said.add(what)
            log.warning("yt-dlp: %s", line)

    def error(self, message: str) -> None: ...


_OF_A_VIDEO = re.compile(r"^\[[^\]]*\] [\w-]+: ")
"""Site and id before a message, removed to recognise the same warning for another video."""


def _cookies_of(path: Path | None) -> io.StringIO | None:
    """Return a copy of the cookie file, because yt-dlp writes changed cookies back to where it read them."""
    if path is None:
        return None
    try:
        return io.StringIO(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"ingest.youtube.cookies, {path}, cannot be read: {error}", code="cookies-unreadable",
            remedy="Export a cookies.txt from a browser (docs/youtube.md), or set it to null",
        ) from error
