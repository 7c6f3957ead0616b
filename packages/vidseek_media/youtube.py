"""Videos of YouTube, and of other sites that yt-dlp knows: listed, and each downloaded once. The one home of yt-dlp.

<downloads>/youtube/<site>-<id>.<ext>           the video
<downloads>/youtube/<site>-<id>.{jpg,webp,...}  its thumbnail
<downloads>/youtube/<site>-<id>.about.json      what the site says of it, written last: the archive of downloads
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, ServiceError
from vidseek_media.folders import whole_file
from vidseek_media.guards import mended_text, moment_or_empty, number_or_none
from vidseek_media.json_files import read_json
from vidseek_media.listing import FORGOTTEN, About, Listing
from vidseek_media.local import path_inside
from vidseek_media.names import plain_name
from vidseek_media.records import Refusal
from vidseek_media.settings import DownloadSettings
from vidseek_media.urls import bare_url

MAX_BACK_OFF_SECONDS = 60.0

_BLOCKED = re.compile(r"not a bot|HTTP Error 429|Too Many Requests|rate.?limited|captcha", re.IGNORECASE)
"""What a site says to a caller whom it takes for a machine: every further video would be refused too."""
_SILENT = re.compile(
    r"urlopen error|timed? ?out|Connection (?:refused|reset|aborted)|Failed to resolve|Name or service not known|"
    r"Temporary failure in name resolution|Network is unreachable|No route to host|HTTP Error 5\d\d|Unable to connect|"
    r"TransportError|NewConnectionError",
    re.IGNORECASE,
)
"""Said where the site does not answer, or not now."""
_DISK = re.compile(
    r"No space left|Errno (?:13|17|20|27|28|30|122)\b|unable to (?:create directory|open for writing|write data)",
    re.IGNORECASE,
)
"""Said where this machine's disk takes nothing."""
_NOT_YET = {"is_live": "is a live stream that still runs", "is_upcoming": "is not shown yet",
            "post_live": "is a live stream that is still being processed"}


@dataclass(frozen=True)
class _Entry:
    """One video that a page lists."""

    address: str
    """Site and id: `Youtube:dQw4w9WgXcQ`."""
    ask: Callable[[Any], Any]
    """Downloads it with a YoutubeDL."""


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
        """See `Source`. What was downloaded before is not asked for again, but the page is."""
        paths: dict[str, Path] = {}
        rejected: dict[str, Refusal] = {}
        about: dict[str, About] = {}
        with _downloader(self._settings, self._folder) as ydl:
            entries = self._entries(ydl)
            for entry in tqdm(entries, desc="download", unit="video", disable=None):
                known = self._record(entry.address)
                if entry.address in forgotten:
                    rejected[_stem_of(entry.address)] = FORGOTTEN
                    continue
                try:
                    uri, said = known or self._download(ydl, entry)
                except InputRejected as error:
                    rejected[_stem_of(entry.address)] = Refusal.of(error)
                else:
                    paths[uri], about[uri] = self._folder / uri, said
        if not paths and not rejected:
            raise ConfigError(f"{self._url} lists no video", remedy="Name a video, a playlist or a channel that has some")
        return Listing(dict(sorted(paths.items())), rejected, about=about)

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
        """The video, its thumbnail and the record of it."""
        path_inside(self._folder, uri)
        stem = Path(uri).stem
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(path for path in found if path.name.startswith(f"{stem}."))

    def _entries(self, ydl: Any) -> list[_Entry]:
        """What the page lists, the first `max_videos` of it, each once."""
        try:
            found = _walk(ydl, _ask(lambda: ydl.extract_info(self._url, download=False, process=False), self._url))
            entries: dict[str, _Entry] = {}
            while self._settings.max_videos is None or len(entries) < self._settings.max_videos:
                entry = _ask(lambda: next(found, None), self._url)
                if entry is None:
                    break
                entries.setdefault(entry.address, entry)
        except InputRejected as error:
            raise ConfigError(
                f"{self._url} cannot be listed: {error.message}",
                remedy="Name the page of a video, a playlist or a channel; a private one wants ingest.youtube.cookies",
            ) from error
        return list(entries.values())

    def _record(self, address: str) -> tuple[str, About] | None:
        """What is known of a video that is here."""
        try:
            content = read_json(self._file_of(address))
            uri, about = plain_name(content["file"], what="file"), About(**content["about"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (uri, about) if (self._folder / uri).is_file() else None

    def _file_of(self, address: str) -> Path:
        return self._folder / f"{_stem_of(address)}.about.json"

    def _download(self, ydl: Any, entry: _Entry) -> tuple[str, About]:
        """Load the video, and write down what the site says of it.

        Raises:
            InputRejected: this video cannot be had.
            ServiceError: the site gives none now.
        """
        stem = _stem_of(entry.address)
        ydl.params["outtmpl"] = {"default": str(self._folder / stem).replace("%", "%%") + ".%(ext)s"}
        info = _ask(lambda: entry.ask(ydl), self._url)
        if reason := _NOT_YET.get(str((info or {}).get("live_status"))):
            raise InputRejected(reason)
        loaded = [Path(each["filepath"]) for each in (info or {}).get("requested_downloads") or () if each.get("filepath")]
        if len(loaded) != 1 or not loaded[0].is_file():
            raise InputRejected("no file of it was downloaded")
        about = _about_of(info, [path for path in self._folder.iterdir() if path.name.startswith(f"{stem}.")])
        record = {"address": entry.address, "file": loaded[0].name, "page": bare_url(str(info.get("webpage_url") or "")),
                  "about": dataclasses.asdict(about)}
        target = self._file_of(entry.address)
        try:
            with whole_file(target) as beside:
                beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"{target} cannot be written: {error.strerror}", remedy="Make room") from error
        return loaded[0].name, about


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
        yield _Entry(f"{site}:{result['id']}", lambda ydl: ydl.process_ie_result(dict(result), download=True))
    else:
        url, key = str(result["url"]), result.get("ie_key")
        extractor = ydl.get_info_extractor(key) if key else None
        if extractor is not None and extractor.is_single_video(url):
            address = f"{key}:{result.get('id') or extractor.get_temp_id(url) or bare_url(url)}"
            yield _Entry(address, lambda ydl: ydl.extract_info(url, download=True, ie_key=key))
        else:
            yield from _walk(ydl, ydl.extract_info(url, download=False, process=False, ie_key=key))


def _ask(ask: Callable[[], Any], page: str) -> Any:
    """What `ask` gives.

    Raises:
        InputRejected: this video or page cannot be had.
        ServiceError: the site gives nothing now, or takes us for a machine.
        ArtifactError: the disk takes nothing.
    """
    from yt_dlp.utils import YoutubeDLError

    try:
        return ask()
    except YoutubeDLError as error:
        said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR:").split())
        if _DISK.search(said):
            raise _not_written(said[:200]) from error
        if _BLOCKED.search(said):
            raise ServiceError(
                f"the site takes us for a machine and gives nothing more of {page}: {said[:200]}",
                remedy="Wait some hours; set ingest.youtube.cookies to a cookies.txt of a browser that is signed in, and "
                "ingest.youtube.sleep_seconds higher. What is downloaded is kept (docs/youtube.md)",
            ) from error
        if _SILENT.search(said):
            raise ServiceError(
                f"the site does not answer for {page}: {said[:200]}",
                remedy="See that it is reachable, then run it again: what is downloaded is kept",
            ) from error
        raise InputRejected(said.split(". See ")[0][:300]) from error
    except OSError as error:
        raise _not_written(str(error)) from error
    except Exception as error:  # an extractor that does not understand its site raises anything
        raise InputRejected(f"yt-dlp fails on it: {type(error).__name__}: {error}") from error


def _not_written(why: str) -> ArtifactError:
    return ArtifactError(f"a download cannot be written: {why}", remedy="Make room, then run it again")


def _downloader(settings: DownloadSettings, folder: Path) -> Any:
    """A YoutubeDL that loads one file a video, with sound where the site has such a one, so that no ffmpeg is needed.

    Raises:
        ConfigError: yt-dlp is not installed, or the cookies cannot be read.
    """
    if find_spec("yt_dlp") is None:
        raise ConfigError(
            "the source is a page that yt-dlp reads, and yt-dlp is not installed",
            remedy="Run `pip install -c constraints.txt -e '.[youtube]'`",
        )
    from yt_dlp import YoutubeDL

    return YoutubeDL(options_of(settings, folder))


def options_of(settings: DownloadSettings, folder: Path) -> dict[str, Any]:
    """The options of yt-dlp (its YoutubeDL.py lists them).

    Raises:
        ConfigError: the cookies cannot be read.
    """
    height = f"[height<=?{settings.max_height}]"

    def wait(n: int) -> float:  # yt-dlp names the argument
        return float(min(2.0**n, MAX_BACK_OFF_SECONDS))

    return {
        "format": f"b{height}/bv*{height}/b/bv*",
        "cookiefile": _cookies_of(settings.cookies),
        "ratelimit": settings.rate_limit_kib * 1024 if settings.rate_limit_kib else None,
        "sleep_interval": settings.sleep_seconds,
        "retries": settings.retries, "fragment_retries": settings.retries, "extractor_retries": settings.retries,
        "retry_sleep_functions": {"http": wait, "fragment": wait, "extractor": wait},
        "match_filter": lambda info, *, incomplete=False: _NOT_YET.get(str(info.get("live_status"))),
        "writethumbnail": True, "cachedir": str(folder / ".cache"), "socket_timeout": 30,
        "js_runtimes": {"deno": {}, "node": {}},
        "quiet": True, "noprogress": True, "no_warnings": True, "logger": _Quiet(), "noplaylist": True,
        "overwrites": True, "ignoreerrors": False, "color": "no_color",
    }


class _Quiet:
    """Where yt-dlp says what it does; what goes wrong comes as an exception."""

    def debug(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...


def _cookies_of(path: Path | None) -> io.StringIO | None:
    """A copy of the file: yt-dlp writes cookies back to where it read them, and what is the user's stays as it is."""
    if path is None:
        return None
    try:
        return io.StringIO(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"ingest.youtube.cookies, {path}, cannot be read: {error}",
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
