"""The record of a downloaded video: its files, its subtitles, and what the site states about it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.guards import mended_text, moment_or_empty, number_or_none
from vidseek_media.names import plain_name
from vidseek_media.sources.source import Annotations
from vidseek_media.sources.youtube.entries import Entry


@dataclass(frozen=True)
class DownloadRecord:
    """A downloaded video."""

    uri: str
    """The file's name in the download folder."""
    annotations: Annotations
    """What the site states about it."""
    page: str
    """Its page, without credentials."""
    asked: str
    """Which subtitles were asked for (`SubtitleDownloads.wanted`); empty if they are still to be asked for."""
    subtitles: str = ""
    """Their file; empty if the site has none."""


def read_record(folder: Path, entry: Entry) -> DownloadRecord | None:
    """Read the record of a downloaded video.

    Args:
        folder: The download folder.
        entry: The video.

    Returns:
        None if there is no valid record or its video is missing. If its subtitles are missing, `asked` is empty.
    """
    try:
        content = read_json(folder / f"{entry.stem}.about.json")
        uri, annotations = plain_name(content["file"], what="file"), Annotations(**content["about"])
        said = content.get("subtitles") or {}
        name = plain_name(said["file"], what="subtitles") if said.get("file") else ""
        known = DownloadRecord(
            uri, annotations, str(content.get("page", "")), asked=str(said.get("asked", "")), subtitles=name
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not (folder / uri).is_file():
        return None
    is_here = not name or (folder / name).is_file()
    return known if is_here else dataclasses.replace(known, asked="")


def write_record(folder: Path, entry: Entry, known: DownloadRecord) -> None:
    """Write the record of a downloaded video.

    Args:
        folder: The download folder.
        entry: The video.
        known: Its record.

    Raises:
        ArtifactError: the disk is full or not writable.
    """
    record = {
        "address": entry.address,
        "file": known.uri,
        "page": known.page,
        "about": dataclasses.asdict(known.annotations),
        "subtitles": {"asked": known.asked, "file": known.subtitles},
    }
    target = folder / f"{entry.stem}.about.json"
    with foreign(ArtifactError, f"{target} cannot be written", code="download-not-written", remedy="Make room"):
        write_json(target, record, indent=1, ensure_ascii=False)


def files_of(folder: Path, stem: str) -> list[Path]:
    """Return all files of a video, sorted by name.

    Args:
        folder: The download folder.
        stem: The name of its files without suffix.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.name.startswith(f"{stem}."))


def annotations_of(info: Mapping[str, Any], files: Collection[Path]) -> Annotations:
    """Return what the site states about a video.

    Args:
        info: As yt-dlp gives it; not trusted.
        files: Of the video; the first image is its thumbnail.
    """
    said = info.get("categories")
    categories = [name for name in map(mended_text, said if isinstance(said, list | tuple) else [said]) if name]
    pictures = sorted(path.name for path in files if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    views = number_or_none(info.get("view_count"), low=0)
    return Annotations(
        source_id=mended_text(str(info.get("id") or "")), title=mended_text(info.get("title")),
        channel=mended_text(info.get("channel")) or mended_text(info.get("uploader")),
        category=categories[0] if categories else "", published_at=_published_at(info),
        thumbnail=pictures[0] if pictures else "", views=None if views is None else int(views),
    )


def _published_at(info: Mapping[str, Any]) -> str:
    """Return the time of publication in RFC 3339, UTC: to the second if the site states it, else the day; "" if neither."""
    stamp, day = info.get("timestamp") or info.get("release_timestamp"), str(info.get("upload_date") or "")
    if not isinstance(stamp, bool) and isinstance(stamp, int | float) and (moment := moment_or_empty(stamp // 1)):
        return moment
    return moment_or_empty(day) if re.fullmatch(r"[0-9]{8}", day) else ""
