"""Videos of YouTube and of other sites that yt-dlp supports: listed, and each downloaded once.

<downloads>/youtube/<site>-<id>.<ext>             the video
<downloads>/youtube/<site>-<id>.{jpg,webp,...}    its thumbnail
<downloads>/youtube/<site>-<id>.about.json        its record, written after both: marks a finished download
<downloads>/youtube/<site>-<id>.<language>.vtt    its subtitles, asked for last, so that their failure loses no video
<downloads>/youtube/<site>-<id>.<language>.auto.vtt    the same, where the site made them from speech
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vidseek_media.errors import ConfigError
from vidseek_media.files.json_files import read_json
from vidseek_media.guards import mended_text
from vidseek_media.records import Refusal, Rejection
from vidseek_media.settings import DownloadSettings
from vidseek_media.sources.local import path_inside
from vidseek_media.sources.registry import Place, SourceKind, register
from vidseek_media.sources.source import FORGOTTEN, Listing, Source
from vidseek_media.sources.youtube.download_record import (
    DownloadRecord,
    annotations_of,
    files_of,
    read_record,
    write_record,
)
from vidseek_media.sources.youtube.downloader import NOT_YET, open_downloader
from vidseek_media.sources.youtube.entries import Entry, ask_site, walk_page
from vidseek_media.sources.youtube.failures import Cause, SiteFailure, Streak, stopped
from vidseek_media.sources.youtube.javascript import REMEDY, javascript
from vidseek_media.sources.youtube.subtitles import choose_track, load_track
from vidseek_media.terminal.progress import counted
from vidseek_media.text.subtitle_files import AUTOMATIC
from vidseek_media.urls import bare_url

SITE_PREFIX = "yt-dlp:"
"""Prefix of the URL of another site that yt-dlp supports."""

YOUTUBE = re.compile(
    r"https?://(?:[\w-]+\.)*(?:youtube\.com|youtu\.be|youtube-nocookie\.com)(?:[/?:].*)?", re.IGNORECASE
)
"""A page of YouTube."""

log = logging.getLogger("vidseek.media")


class Youtube:
    """The videos of a page: one video, a playlist, a channel, or a channel's shorts."""

    def __init__(self, url: str, *, downloads: Path, settings: DownloadSettings) -> None:
        self._url = url
        self._folder = downloads.absolute() / "youtube"
        self._settings = settings

    @property
    def name(self) -> str:
        """The page, without credentials."""
        return bare_url(self._url)

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """List the page again, and download new videos; implements `Source.list_videos`.

        Raises:
            SiteStopped: three videos in a row failed for the same reason, or all did.
        """
        with open_downloader(self._settings, self._folder) as ydl:
            if _of_youtube(self._url):
                _warn_of_javascript()
            run = PageDownload(ydl, self._folder, self._settings, page=self.name)
            for entry in counted(self._entries(ydl), "download", unit="video"):
                if entry.address in forgotten:
                    run.rejected[entry.stem] = FORGOTTEN
                else:
                    run.take(entry)
        return run.listing()

    def path_of(self, uri: str) -> Path:
        """Return the path inside the folder of downloads; implements `Source.path_of`."""
        return path_inside(self._folder, uri)

    def address_of(self, uri: str) -> str:
        """Site and id."""
        record = self._folder / f"{Path(uri).stem}.about.json"
        try:
            return str(read_json(record)["address"])
        except (OSError, ValueError, KeyError, TypeError):
            return Path(uri).stem.replace("-", ":", 1)

    def downloads_of(self, uri: str) -> list[Path]:
        """Return the video, its thumbnail, its subtitles and its record."""
        path_inside(self._folder, uri)
        return files_of(self._folder, Path(uri).stem)

    def _entries(self, ydl: Any) -> list[Entry]:
        """Return the first `max_videos` videos of the page, each once."""
        try:
            found = walk_page(ydl, ask_site(lambda: ydl.extract_info(self._url, download=False, process=False)))
            entries: dict[str, Entry] = {}
            while self._settings.max_videos is None or len(entries) < self._settings.max_videos:
                entry = ask_site(lambda: next(found, None))
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
    """A page of YouTube, or `yt-dlp:` and a page of another site that yt-dlp supports."""

    name = "youtube"
    settings = DownloadSettings
    rank = 10

    def reads(self, place: Place) -> bool:
        """Return whether the place is such a page.

        Args:
            place: As the user named it.
        """
        return place.text.startswith(SITE_PREFIX) or _of_youtube(place.text)

    def open(self, place: Place, settings: DownloadSettings) -> Source:
        """Return the source of a page.

        Args:
            place: A page that `reads` accepts.
            settings: Of downloads.
        """
        return Youtube(place.text.removeprefix(SITE_PREFIX), downloads=place.downloads, settings=settings)


class PageDownload:
    """Downloads the videos of a page one after the other and stops if the site itself fails.

    Raises:
        ArtifactError: the disk is full or not writable.
    """

    def __init__(self, ydl: Any, folder: Path, settings: DownloadSettings, *, page: str) -> None:
        self._ydl, self._folder, self._page = ydl, folder, page
        self._subtitles = SubtitleDownloads(ydl, folder, settings)
        self._streak = Streak()
        self._last_words = ""
        self._known: dict[str, DownloadRecord] = {}
        self.rejected: dict[str, Refusal] = {}

    def take(self, entry: Entry) -> None:
        """Download a video unless an earlier run did; reject it if that fails.

        Args:
            entry: The video.

        Raises:
            SiteStopped: three videos in a row failed for the same reason.
        """
        known = read_record(self._folder, entry)
        try:
            if known is None:
                known = ask_site(lambda: self._download(entry))  # what a site states about a video may be of any shape
                self._streak.end()
            elif known.asked != self._subtitles.wanted:
                known = self._subtitles.ask(entry, known)
        except SiteFailure as error:
            self._reject(entry, error)
            return
        self._known[known.uri] = known

    def listing(self) -> Listing:
        """Return the downloaded and the rejected videos.

        Raises:
            SiteStopped: no video was downloaded because the site failed.
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
            paths, self.rejected, annotations={uri: known.annotations for uri, known in self._known.items()},
            rejections=tuple(self._subtitles.rejections),
        )

    def _reject(self, entry: Entry, error: SiteFailure) -> None:
        self.rejected[entry.stem], self._last_words = Refusal.of(error), error.message
        self._streak.add(error.cause)
        if self._streak.is_full and error.cause.is_of_the_site:
            raise stopped(error.cause, self._page, error.message, num=self._streak.num) from error

    def _download(self, entry: Entry) -> DownloadRecord:
        """Download the video, write its record, and download its subtitles.

        Raises:
            SiteFailure: this video cannot be downloaded.
        """
        self._ydl.params["outtmpl"] = {"default": str(self._folder / entry.stem).replace("%", "%%") + ".%(ext)s"}
        info = ask_site(lambda: entry.ask(self._ydl, True)) or {}
        if reason := NOT_YET.get(str(info.get("live_status"))):
            raise SiteFailure(reason, cause=Cause.NOT_YET)
        loaded = [Path(each["filepath"]) for each in info.get("requested_downloads") or () if each.get("filepath")]
        if len(loaded) != 1 or not loaded[0].is_file():
            raise SiteFailure("no file of it was downloaded", cause=Cause.NO_FORMAT)
        annotations = annotations_of(info, files_of(self._folder, entry.stem))
        known = DownloadRecord(loaded[0].name, annotations, page=bare_url(mended_text(info.get("webpage_url"))), asked="")
        write_record(self._folder, entry, known)  # before the subtitles, whose failure must not lose the video
        return self._subtitles.ask(entry, known, info)


class SubtitleDownloads:
    """Downloads the subtitles of one video after the other, until three in a row fail for the same reason."""

    def __init__(self, ydl: Any, folder: Path, settings: DownloadSettings) -> None:
        self._ydl, self._folder = ydl, folder
        self._languages, self._automatic = tuple(settings.subtitles), settings.automatic_captions
        self._streak = Streak()
        self.rejections: list[Rejection] = []

    @property
    def wanted(self) -> str:
        """What the settings ask for, as a record stores it."""
        kinds = "written, automatic" if self._automatic else "written"
        return f"{kinds}: {' '.join(self._languages)}" if self._languages else "none"

    def ask(self, entry: Entry, known: DownloadRecord, info: Mapping[str, Any] | None = None) -> DownloadRecord:
        """Download the subtitles beside the video and record that they were asked for.

        Args:
            entry: The video.
            known: Its record.
            info: What yt-dlp returned for it; None to ask the site.

        Returns:
            The new record; the old one if the download failed.
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
                Rejection.of(known.uri, "ingest", refusal, "transcript")
            )
            return known
        self._streak.end()
        if known.subtitles and known.subtitles != name:
            (self._folder / known.subtitles).unlink(missing_ok=True)
        found = dataclasses.replace(known, asked=self.wanted, subtitles=name)
        write_record(self._folder, entry, found)
        return found

    def _load(self, entry: Entry, info: Mapping[str, Any] | None) -> str:
        """Return the name of the subtitle file; empty if the site has none that is wanted."""
        if not self._languages:
            return ""
        if info is None:
            info = ask_site(lambda: entry.ask(self._ydl, False)) or {}
        track = choose_track(info, self._languages, automatic=self._automatic)
        if track is None:
            return ""
        mark = f".{AUTOMATIC}" if track.is_automatic else ""
        target = self._folder / f"{entry.stem}.{track.language}{mark}.{track.suffix}"
        ask_site(lambda: load_track(self._ydl, track, info, target))
        return target.name


def _of_youtube(url: str) -> bool:
    return YOUTUBE.fullmatch(url) is not None


def _warn_of_javascript() -> None:
    if not (found := javascript()).is_whole:
        log.warning("YouTube gives fewer formats, or none, without JavaScript: %s. %s", found.in_words(), REMEDY)
