"""What is said in a video, from the SRT or WebVTT file beside it: read, cleaned, and cut to a span."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidseek_media.errors import InputRejected
from vidseek_media.records import Rejection

SUFFIXES = (".srt", ".vtt")

_TIME = r"(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True)
class Cue:
    """What is said in `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    """Plain text, none of them blank."""


def read_transcripts(paths: Mapping[str, Path], videos: Mapping[str, str]) -> tuple[dict[str, list[Cue]], list[Rejection]]:
    """Cues by video_id of the videos that have a transcript, and the transcript files that cannot be read.

    Of `harbour.mp4` that is `harbour.srt` or `harbour.vtt`, else the first by name of `harbour.<language>.srt` and so on.

    Args:
        paths: Of the files, by uri.
        videos: video_id by uri.
    """
    found: dict[str, list[Cue]] = {}
    refused: list[Rejection] = []
    for uri, video_id in videos.items():
        path = _beside(paths[uri])
        if path is None or video_id in found:
            continue
        try:
            found[video_id] = read_cues(path)
        except InputRejected as error:
            refused.append(Rejection(PurePosixPath(uri).with_name(path.name).as_posix(), "ingest", error.message))
    return found, refused


def read_cues(path: Path) -> list[Cue]:
    """The cues of an SRT or WebVTT file, in order of time.

    Raises:
        InputRejected: it is not UTF-8, or holds no cue.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputRejected(f"is not UTF-8: byte {error.start}; save it as UTF-8") from error
    cues = parse_cues(text)
    if not cues:
        raise InputRejected("holds no cue with a time like 00:00:01,000 --> 00:00:02,500")
    return cues


def parse_cues(text: str) -> list[Cue]:
    """The cues of `text` (SRT or WebVTT), in order of time; markup is dropped, and what is blank or ends before it begins.

    A cue is a line of times and what follows it up to a blank line (https://www.w3.org/TR/webvtt1/).
    """
    cues: list[Cue] = []
    lines = iter([*text.splitlines(), ""])
    for line in lines:
        match = _TIMING.match(line)
        if match is None:
            continue
        start_ms, end_ms = _ms_of(match.groups()[:4]), _ms_of(match.groups()[4:])
        said = []
        for each in lines:
            if not each.strip():
                break
            if plain := " ".join(html.unescape(_MARKUP.sub("", each)).split()):
                said.append(plain)
        if said and start_ms < end_ms:
            cues.append(Cue(start_ms, end_ms, tuple(said)))
    return sorted(cues, key=lambda cue: (cue.start_ms, cue.end_ms))


def said_in(cues: Iterable[Cue], start_ms: int, end_ms: int, *, max_characters: int) -> str:
    """What is said in `[start_ms, end_ms)`: the cues whose middle lies there, at most so many characters, in whole words.

    A line that only repeats the one before (rolling captions do) is said once.
    """
    said: list[str] = []
    for cue in cues:
        if start_ms <= (cue.start_ms + cue.end_ms) // 2 < end_ms:
            said += cue.lines
    text = " ".join(line for line, _ in itertools.groupby(said))
    if len(text) <= max_characters:
        return text
    return text[: max_characters + 1].rsplit(" ", 1)[0][:max_characters]


def _beside(video: Path) -> Path | None:
    for suffix in SUFFIXES:
        if (path := video.with_suffix(suffix)).is_file():
            return path
    prefix = f"{video.stem}."
    try:
        names = sorted(p.name for p in video.parent.iterdir() if p.name.startswith(prefix) and p.suffix in SUFFIXES)
    except OSError:
        return None
    return video.parent / names[0] if names else None


def _ms_of(parts: tuple[str | None, ...]) -> int:
    hours, minutes, seconds, fraction = parts
    return ((int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)) * 1000 + int((fraction or "").ljust(3, "0"))
