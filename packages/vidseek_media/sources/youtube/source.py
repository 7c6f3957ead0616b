"""Videos of YouTube, and of other sites that yt-dlp knows: listed, and each downloaded once.

<downloads>/youtube/<site>-<id>.<ext>             the video
<downloads>/youtube/<site>-<id>.{jpg,webp,...}    its thumbnail
<downloads>/youtube/<site>-<id>.about.json        what the site says of it, written after both: the archive of downloads
<downloads>/youtube/<site>-<id>.<language>.vtt    its subtitles; they are asked for last, and cost no video
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, VidseekError
from vidseek_media.files.folders import whole_file
from vidseek_media.files.json_files import read_json
from vidseek_media.guards import mended_text, moment_or_empty, number_or_none
from vidseek_media.names import plain_name
from vidseek_media.records import Refusal, Rejection
from vidseek_media.settings import DownloadSettings
from vidseek_media.sources.local import path_inside
from vidseek_media.sources.registry import Place, SourceKind, register
from vidseek_media.sources.source import FORGOTTEN, About, Listing, Source
from vidseek_media.sources.youtube.failures import Cause, SiteFailure, Streak, failure_of, stopped
from vidseek_media.sources.youtube.javascript import REMEDY, RUNTIMES, javascript
from vidseek_media.sources.youtube.subtitles import choose_track, load_track
from vidseek_media.urls import bare_url, without_secrets

MAX_BACK_OFF_SECONDS = 60.0

_NOT_YET = {"is_live": "is a live stream that still runs", "is_upcoming": "is not shown yet",
            "post_live": "is a live stream that is still being processed"}

SITE_PREFIX = "yt-dlp:"
"""Before the URL of another site that yt-dlp knows."""
YOUTUBE = re.compile(
    r"https?://(?:[\w-]+\.)*(?:youtube\.com|youtu\.be|youtube-nocookie\.com)(?:[/?:].*)?", re.IGNORECASE
)
"""A page of YouTube."""

log = logging.getLogger("vidseek.media")


@dataclass(frozen=True)
class _Entry:
    """One video that a page lists."""

    address: str
    """Site and id: `Youtube:dQw4w9WgXcQ`."""
    ask: Callable[[Any, bool], Any]
    """Asks a YoutubeDL about it, and downloads it where the second argument is true."""

    @property
    def stem(self) -> str:
        """The name of its files without their suffix."""
        return _stem_of(self.address)


@dataclass(frozen=True)
class _Known:
    """A video that was downloaded."""

    uri: str
    about: About
    page: str
    asked: str
    """Which subtitles were asked for (`_Subtitles.wish`); empty where that is still to be done."""
    subtitles: str = ""
    """Their file; empty where the site has none."""


class Youtube:
    """The videos of a page: one video, a playlist, a channel, or a channel's shorts."""

    def __init__(self, url: str, *, downloads: Path, settings: DownloadSettings) -> None:
        self._url = url
        self._folder = downloads.absolute() / "youtube"
        self._settings = settings

    @property
    def name(self) -> str:
        """The page."""
        return bare_url(self._url)

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """See `Source`. What was downloaded before is not asked for again, but the page is.

        Raises:
            SiteStopped: three videos in a row failed alike, or every one did.
        """
        with _downloader(self._settings, self._folder) as ydl:
            if _of_youtube(self._url):
                _warn_of_javascript()
            run = _Run(ydl, self._folder, self._settings, page=self.name)
            for entry in tqdm(self._entries(ydl), desc="download", unit="video", disable=None):
                if entry.address in forgotten:
                    run.rejected[entry.stem] = FORGOTTEN
                else:
                    run.take(entry)
        return run.listing()

    def path_of(self, uri: str) -> Path:
        """See `Source`: inside the folder of downloads."""
        return path_inside(self._folder, uri)

    def address_of(self, uri: str) -> str:
        """Site and id."""
        record = self._folder / f"{Path(uri).stem}.about.json"
        try:
            return str(read_json(record)["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return Path(uri).stem.replace("-", ":", 1)

    def downloads_of(self, uri: str) -> list[Path]:
        """The video, its thumbnail, its subtitles and the record of it."""
        path_inside(self._folder, uri)
        return _files_of(self._folder, Path(uri).stem)

    def _entries(self, ydl: Any) -> list[_Entry]:
        """What the page lists, the first `max_videos` of it, each once."""
        try:
            found = _walk(ydl, _ask(lambda: ydl.extract_info(self._url, download=False, process=False)))
            entries: dict[str, _Entry] = {}
            while self._settings.max_videos is None or len(entries) < self._settings.max_videos:
                entry = _ask(lambda: next(found, None))
                if entry is None:
                    break
                entries.setdefault(entry.address, entry)
        except SiteFailure as error:
            if error.cause.is_of_the_site and error.cause is not Cause.CHANGED:
                raise stopped(error.cause, self.name, error.message) from error
            raise ConfigError(
                f"{self._url} cannot be listed: {error.message}", code="page-not-listed",
                remedy="Name the page of a video, a playlist or a channel; a private one wants ingest.youtube.cookies",
            ) from error
        return list(entries.values())


@register
class YoutubeKind(SourceKind):
    """A page of YouTube, or `yt-dlp:` and the page of another site that yt-dlp knows."""

    name = "youtube"
    settings = DownloadSettings
    rank = 10

    def reads(self, place: Place) -> bool:
        """Whether it is such a page."""
        return place.text.startswith(SITE_PREFIX) or _of_youtube(place.text)

    def open(self, place: Place, settings: DownloadSettings) -> Source:
        """A `Youtube`."""
        return Youtube(place.text.removeprefix(SITE_PREFIX), downloads=place.downloads, settings=settings)


class _Run:
    """One pass over the videos of a page: what came of each, and whether to go on.

    Raises:
        ArtifactError: the disk takes nothing.
    """

    def __init__(self, ydl: Any, folder: Path, settings: DownloadSettings, *, page: str) -> None:
        self._ydl, self._folder, self._page = ydl, folder, page
        self._subtitles = _Subtitles(ydl, folder, settings)
        self._streak = Streak()
        self._last_words = ""
        self._known: dict[str, _Known] = {}
        self.rejected: dict[str, Refusal] = {}

    def take(self, entry: _Entry) -> None:
        """Have the video here, by an earlier run or by a download, or reject it.

        Raises:
            SiteStopped: it is the third in a row that failed alike.
        """
        known = _read_record(self._folder, entry)
        try:
            if known is None:
                known = self._download(entry)
                self._streak.end()
            elif known.asked != self._subtitles.wish:
                known = self._subtitles.ask_anew(entry, known)
        except SiteFailure as error:
            self._reject(entry, error)
            return
        self._known[known.uri] = known

    def listing(self) -> Listing:
        """What the pass found.

        Raises:
            SiteStopped: nothing is here, and the site itself is why.
            ConfigError: the page lists no video.
        """
        if not self._known and self._streak.cause is not None:
            raise stopped(self._streak.cause, self._page, self._last_words, num=self._streak.num)
        if not self._known and not self.rejected:
            raise ConfigError(
                f"{self._page} lists no video", code="source-empty",
                remedy="Name a video, a playlist or a channel that has some",
            )
        paths = {uri: self._folder / uri for uri in sorted(self._known)}
        return Listing(
            paths, self.rejected, about={uri: known.about for uri, known in self._known.items()},
            rejections=tuple(self._subtitles.rejections),
        )

    def _reject(self, entry: _Entry, error: SiteFailure) -> None:
        self.rejected[entry.stem], self._last_words = Refusal.of(error), error.message
        self._streak.add(error.cause)
        if self._streak.is_full and error.cause.is_of_the_site:
            raise stopped(error.cause, self._page, error.message, num=self._streak.num) from error

    def _download(self, entry: _Entry) -> _Known:
        """Load the video, write down what the site says of it, and ask for its subtitles.

        Raises:
            SiteFailure: this video cannot be had.
        """
        self._ydl.params["outtmpl"] = {"default": str(self._folder / entry.stem).replace("%", "%%") + ".%(ext)s"}
        info = _ask(lambda: entry.ask(self._ydl, True)) or {}
        if reason := _NOT_YET.get(str(info.get("live_status"))):
            raise SiteFailure(reason, cause=Cause.NOT_YET)
        loaded = [Path(each["filepath"]) for each in info.get("requested_downloads") or () if each.get("filepath")]
        if len(loaded) != 1 or not loaded[0].is_file():
            raise SiteFailure("no file of it was downloaded", cause=Cause.NO_FORMAT)
        about = _about_of(info, _files_of(self._folder, entry.stem))
        known = _Known(loaded[0].name, about, page=bare_url(str(info.get("webpage_url") or "")), asked="")
        _write_record(self._folder, entry, known)  # Before its subtitles: they cost no video.
        return self._subtitles.ask(entry, known, info)


class _Subtitles:
    """Asks for the subtitles of one video after the other, until three in a row failed alike."""

    def __init__(self, ydl: Any, folder: Path, settings: DownloadSettings) -> None:
        self._ydl, self._folder = ydl, folder
        self._languages, self._automatic = tuple(settings.subtitles), settings.automatic_captions
        self._streak = Streak()
        self.rejections: list[Rejection] = []

    @property
    def wish(self) -> str:
        """What the settings ask for, as a record has it."""
        kinds = "written, automatic" if self._automatic else "written"
        return f"{kinds}: {' '.join(self._languages)}" if self._languages else "none"

    def ask_anew(self, entry: _Entry, known: _Known) -> _Known:
        """Ask again for a video that is here: the settings have changed, or it failed before."""
        return self.ask(entry, known, None)

    def ask(self, entry: _Entry, known: _Known, info: Mapping[str, Any] | None) -> _Known:
        """Have the subtitles beside the video, and write down that they were asked for.

        Args:
            entry: The video.
            known: What is here of it.
            info: What yt-dlp says of it; None: the site is asked.
        """
        try:
            if self._streak.is_full:
                why = f"not asked for, since those of {self._streak.num} videos in a row failed alike"
                raise SiteFailure(why, cause=self._streak.cause or Cause.BLOCKED)
            name = self._load(entry, info)
        except SiteFailure as error:
            self._streak.add(error.cause)
            refusal = Refusal.of(error, f"subtitles in {', '.join(self._languages)}: ")
            self.rejections.append(
                Rejection(known.uri, "ingest", refusal.reason, "transcript", retryable=refusal.retryable)
            )
            return known
        self._streak.end()
        if known.subtitles and known.subtitles != name:
            (self._folder / known.subtitles).unlink(missing_ok=True)
        found = dataclasses.replace(known, asked=self.wish, subtitles=name)
        _write_record(self._folder, entry, found)
        return found

    def _load(self, entry: _Entry, info: Mapping[str, Any] | None) -> str:
        """The name of the file; empty where the site has none that is wanted."""
        if not self._languages:
            return ""
        if info is None:
            info = _ask(lambda: entry.ask(self._ydl, False)) or {}
        track = choose_track(info, self._languages, automatic=self._automatic)
        if track is None:
            return ""
        target = self._folder / f"{entry.stem}.{track.language}.{track.suffix}"
        _ask(lambda: load_track(self._ydl, track, info, target))
        return target.name


def _read_record(folder: Path, entry: _Entry) -> _Known | None:
    """What is known of a video that is here."""
    try:
        content = read_json(folder / f"{entry.stem}.about.json")
        uri, about = plain_name(content["file"], what="file"), About(**content["about"])
        said = content.get("subtitles") or {}
        name = plain_name(said["file"], what="subtitles") if said.get("file") else ""
        known = _Known(uri, about, str(content.get("page", "")), asked=str(said.get("asked", "")), subtitles=name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not (folder / uri).is_file():
        return None
    is_here = not name or (folder / name).is_file()
    return known if is_here else dataclasses.replace(known, asked="")


def _write_record(folder: Path, entry: _Entry, known: _Known) -> None:
    record = {"address": entry.address, "file": known.uri, "page": known.page, "about": dataclasses.asdict(known.about),
              "subtitles": {"asked": known.asked, "file": known.subtitles}}
    target = folder / f"{entry.stem}.about.json"
    try:
        with whole_file(target) as beside:
            beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(
            f"{target} cannot be written: {error.strerror}", code="download-not-written", remedy="Make room"
        ) from error


def _files_of(folder: Path, stem: str) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.name.startswith(f"{stem}."))


def _walk(ydl: Any, result: Mapping[str, Any]) -> Iterator[_Entry]:
    """The videos of what an extractor gave, in order; a page within the page (a channel's tabs) is asked for in turn.

    The shapes are those of yt-dlp's extractor/common.py: `_type` is video, url, url_transparent, playlist or multi_video.
    """
    kind = result.get("_type", "video")
    if kind in ("playlist", "multi_video"):
        for each in result.get("entries") or ():
            if each:
                yield from _walk(ydl, each)
    elif kind == "video":
        site = str(result.get("extractor_key") or "Site")
        yield _Entry(f"{site}:{result['id']}", lambda ydl, load: ydl.process_ie_result(dict(result), download=load))
    else:
        url, key = str(result["url"]), result.get("ie_key")
        extractor = ydl.get_info_extractor(key) if key else None
        if extractor is not None and extractor.is_single_video(url):
            address = f"{key}:{result.get('id') or extractor.get_temp_id(url) or bare_url(url)}"
            yield _Entry(address, lambda ydl, load: ydl.extract_info(url, download=load, ie_key=key))
        else:
            yield from _walk(ydl, ydl.extract_info(url, download=False, process=False, ie_key=key))


def _ask(ask: Callable[[], Any]) -> Any:
    """What `ask` gives.

    Raises:
        SiteFailure: this video, page or subtitle cannot be had.
        ArtifactError: the disk takes nothing.
    """
    try:
        return ask()
    except VidseekError:
        raise
    except Exception as error:  # an extractor that does not understand its site raises anything
        raise failure_of(error) from error


def _of_youtube(url: str) -> bool:
    return YOUTUBE.fullmatch(url) is not None


def _warn_of_javascript() -> None:
    if not (found := javascript()).is_whole:
        log.warning("YouTube gives fewer formats, or none, without JavaScript: %s. %s", found.in_words(), REMEDY)


def _downloader(settings: DownloadSettings, folder: Path) -> Any:
    """A YoutubeDL that loads one file a video, with sound where the site has such a one, so that no ffmpeg is needed.

    Raises:
        ConfigError: yt-dlp is not installed, or the cookies cannot be read.
    """
    if find_spec("yt_dlp") is None:
        raise ConfigError(
            "the source is a page that yt-dlp reads, and yt-dlp is not installed", code="not-installed",
            remedy="Run `pip install -c constraints.txt -e '.[youtube]'`",
        )
    from yt_dlp import YoutubeDL

    return YoutubeDL(options_of(settings, folder))


def options_of(settings: DownloadSettings, folder: Path) -> dict[str, Any]:
    """The options of yt-dlp (its YoutubeDL.py lists them).

    Raises:
        ConfigError: the cookies cannot be read.
    """
    def wait(n: int) -> float:  # yt-dlp names the argument
        return float(min(2.0**n, MAX_BACK_OFF_SECONDS))

    return {
        # One file, with sound where there is such a one. `res` is the shorter side: at most so many pixels, else the least.
        "format": "b/bv*", "format_sort": [f"res:{settings.max_side_px}", "vcodec:h264"],
        "cookiefile": _cookies_of(settings.cookies),
        "ratelimit": settings.rate_limit_kib * 1024 if settings.rate_limit_kib else None,
        "sleep_interval": settings.sleep_seconds,
        "max_sleep_interval": max(settings.sleep_seconds, settings.max_sleep_seconds),
        "sleep_interval_requests": settings.sleep_requests_seconds,
        "sleep_interval_subtitles": settings.sleep_subtitles_seconds,
        "retries": settings.retries, "fragment_retries": settings.retries, "extractor_retries": settings.retries,
        "retry_sleep_functions": {"http": wait, "fragment": wait, "extractor": wait},
        "match_filter": lambda info, *, incomplete=False: _NOT_YET.get(str(info.get("live_status"))),
        "writethumbnail": True, "cachedir": str(folder / ".cache"), "socket_timeout": 30,
        "js_runtimes": {name: {} for name in RUNTIMES},
        "skip_unavailable_fragments": False,  # A file with holes is no video.
        "quiet": True, "noprogress": True, "logger": _Log(), "noplaylist": True,
        "overwrites": True, "ignoreerrors": False, "color": "no_color",
    }


class _Log:
    """Where yt-dlp says what it does: warnings are shown, each once; what goes wrong comes as an exception."""

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
"""Site and id before a message, which is shown once for all videos."""


def _cookies_of(path: Path | None) -> io.StringIO | None:
    """A copy of the file: yt-dlp writes cookies back to where it read them, and what is the user's stays as it is."""
    if path is None:
        return None
    try:
        return io.StringIO(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"ingest.youtube.cookies, {path}, cannot be read: {error}", code="cookies-unreadable",
            remedy="Export a cookies.txt from a browser (docs/youtube.md), or set it to null",
        ) from error


def _about_of(info: Mapping[str, Any], files: Collection[Path]) -> About:
    categories = [name for name in map(mended_text, info.get("categories") or ()) if name]
    pictures = sorted(path.name for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    views = number_or_none(info.get("view_count"), low=0)
    return About(
        source_id=mended_text(str(info.get("id") or "")), title=mended_text(info.get("title")),
        channel=mended_text(info.get("channel")) or mended_text(info.get("uploader")),
        category=categories[0] if categories else "", published_at=_published_at(info),
        thumbnail=pictures[0] if pictures else "", views=None if views is None else int(views),
    )


def _published_at(info: Mapping[str, Any]) -> str:
    """RFC 3339 in UTC: to the second where the site says it, else the day."""
    stamp, day = info.get("timestamp") or info.get("release_timestamp"), str(info.get("upload_date") or "")
    if isinstance(stamp, int | float) and (moment := moment_or_empty(stamp // 1)):
        return moment
    return moment_or_empty(day) if re.fullmatch(r"[0-9]{8}", day) else ""


def _stem_of(address: str) -> str:
    """The name of a video's files without their suffix: site and id, in letters that every file system takes."""
    wanted = address.replace(":", "-", 1)
    plain = re.sub(r"[^\w-]", "_", wanted, flags=re.ASCII)[:120]
    return plain if plain == wanted else f"{plain}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
