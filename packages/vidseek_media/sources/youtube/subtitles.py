"""Chooses the subtitles of a video on a site, and downloads them beside the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = ("vtt", "srt")
"""Formats that `transcripts.py` reads, the better one first."""
_ORIGINAL = "-orig"
"""YouTube's automatic captions in the language that is spoken; the others are translations of it by a machine."""


@dataclass(frozen=True)
class Track:
    """One file of subtitles that a site has."""

    language: str
    """As it was asked for."""
    is_automatic: bool
    annotations: Mapping[str, Any]
    """As yt-dlp has it: url or data, ext."""

    @property
    def suffix(self) -> str:
        """vtt or srt."""
        return str(self.annotations["ext"])


def choose_track(info: Mapping[str, Any], languages: Sequence[str], *, automatic: bool) -> Track | None:
    """Choose the track of the first language that the video has; manual subtitles come before automatic captions.

    A language includes its regions (`en` includes `en-GB`). Automatic captions count only in the spoken language, not as
    translations.

    Args:
        info: yt-dlp's info of the video; `subtitles` and `automatic_captions` are read.
        languages: Tags such as `en` and `pt-BR`, most wanted first.
        automatic: Whether automatic captions count.
    """
    written = _tracks(info.get("subtitles"))
    spoken = _spoken(_tracks(info.get("automatic_captions"))) if automatic else {}
    for tracks, is_automatic in ((written, False), (spoken, True)):
        for language in languages:
            if (found := _of_language(tracks, language)) is not None:
                return Track(language, is_automatic, found)
    return None


def load_track(ydl: Any, track: Track, info: Mapping[str, Any], target: Path) -> None:
    """Write the file to `target`. Raises what yt-dlp raises, and OSError."""
    if (text := track.annotations.get("data")) is not None:
        target.write_text(str(text), encoding="utf-8", errors="replace", newline="")
        return
    ydl.dl(str(target), {"http_headers": info.get("http_headers"), **track.annotations}, subtitle=True)


def _tracks(by_language: object) -> dict[str, Mapping[str, Any]]:
    """Return the file of each language in a format that is read; of several the last, which yt-dlp takes too."""
    found: dict[str, Mapping[str, Any]] = {}
    for language, files in (by_language.items() if isinstance(by_language, Mapping) else ()):
        for suffix in SUFFIXES:
            fit = [each for each in files or () if each.get("ext") == suffix and (each.get("url") or each.get("data"))]
            if fit:
                found[str(language)] = fit[-1]
                break
    return found


def _spoken(tracks: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    original = {name.removesuffix(_ORIGINAL): track for name, track in tracks.items() if name.endswith(_ORIGINAL)}
    return original or tracks


def _of_language(tracks: Mapping[str, Mapping[str, Any]], language: str) -> Mapping[str, Any] | None:
    wanted = language.lower()
    names = [name for name in tracks if name.lower() == wanted]
    names += sorted(name for name in tracks if name.lower().startswith(f"{wanted}-"))
    return tracks[names[0]] if names else None
