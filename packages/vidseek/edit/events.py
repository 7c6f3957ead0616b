"""Events of a timeline: each is a moment of a video by frame numbers and timecode, with handles."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

from vidseek_media.editing.frame_rates import rate_text
from vidseek_media.editing.located_spans import LocatedSpans, SourceTimes
from vidseek_media.errors import InputRejected
from vidseek_media.output import printable
from vidseek_media.urls import bare_url, is_url

_HANDLES = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([fs])")
REEL_LENGTH = 8
"""Characters of a reel name in CMX 3600."""


@dataclass(frozen=True)
class Handles:
    """What is kept of a video before and behind each moment, for transitions: frames, or seconds."""

    frames: int = 0
    seconds: Fraction = Fraction(0)

    @classmethod
    def parse(cls, text: str) -> Handles:
        """Read `12f` or `0.5s`.

        Raises:
            InputRejected: the text has another form.

        Examples:
            >>> Handles.parse("12f").at(Fraction(25)), Handles.parse("0.5s").at(Fraction(30000, 1001))
            (12, 15)
        """
        match = _HANDLES.fullmatch(text.strip())
        if match is None or (match[2] == "f" and "." in match[1]):
            raise InputRejected(
                f"the handles are {text!r}", code="bad-handles", remedy="Write frames as 12f, seconds as 0.5s",
            )
        return cls(frames=int(match[1])) if match[2] == "f" else cls(seconds=Fraction(match[1]))

    def at(self, rate: Fraction) -> int:
        """Return the handles in frames of a rate."""
        return self.frames or round(self.seconds * rate)


@dataclass(frozen=True)
class Moment:
    """A moment that is to be exported."""

    video_id: str
    uri: str
    start_ms: int
    end_ms: int
    title: str = ""
    clip_id: str = ""
    score: float | None = None
    confidence: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the user declared, those that it has a value of."""

    @classmethod
    def of_hit(cls, hit: Mapping[str, Any]) -> Moment:
        """Return the moment of a hit, as `vidseek search --json` and the API give it."""
        return cls(
            str(hit["video_id"]), str(hit["uri"]), int(hit["start_ms"]), int(hit["end_ms"]), str(hit.get("title") or ""),
            str(hit.get("best_clip_id") or ""), hit.get("score"), hit.get("confidence"), hit.get("fields") or {},
        )


@dataclass(frozen=True)
class Event:
    """One piece of a source on a timeline."""

    moment: Moment
    url: str
    """Where an editor finds the file."""
    reel: str
    """Name of the source in CMX 3600: at most 8 letters and digits, of this source alone."""
    times: SourceTimes
    first: int
    """Position of the first frame, with its handle."""
    end: int
    """Position behind the last frame, with its handle."""
    handle_before: int
    """Frames of the handle; fewer than asked for at the beginning of the file."""
    handle_after: int

    @property
    def name(self) -> str:
        """The video's title, or its file's name, in one line."""
        return printable(self.moment.title or self.file_name)

    @property
    def file_name(self) -> str:
        """Name of the video's file, in one line."""
        return printable(PurePosixPath(bare_url(self.moment.uri)).name)

    @property
    def source_in(self) -> str:
        """Timecode of the first frame."""
        return self.times.timecode(self.first)

    @property
    def source_out(self) -> str:
        """Timecode behind the last frame."""
        return self.times.timecode(self.end)

    @property
    def num_frames(self) -> int:
        """Length on the timeline."""
        return self.end - self.first


@dataclass(frozen=True)
class LeftOut:
    """A moment that is on no timeline, and why."""

    moment: Moment
    reason: str
    code: str


@dataclass(frozen=True)
class Places:
    """Where an editor finds the files.

    Attributes:
        root: Folder of the source on the editor's machine; empty for the paths of this machine.
        relative_to: Folder that URLs are relative to; None for whole ones.
    """

    root: str = ""
    relative_to: Path | None = None

    def url_of(self, uri: str, path: Path | None) -> str:
        """Return the URL of a video's file, with what URLs cannot have escaped.

        Args:
            uri: As the source names it.
            path: Its file on this machine; None where that must not be told: the URL is then relative to the source.
        """
        if self.root and not is_url(uri):
            return f"{_folder_url(self.root)}/{quote(uri.lstrip('/'))}"
        if path is None:
            return bare_url(uri) if is_url(uri) else quote(uri)
        path = path.absolute()
        if self.relative_to is None:
            return path.as_uri()
        folder = self.relative_to.absolute()
        return quote(Path(os.path.relpath(path, folder)).as_posix())


def _folder_url(root: str) -> str:
    if is_url(root):
        return root.rstrip("/")
    windows = PureWindowsPath(root)
    if windows.drive:
        return windows.as_uri().rstrip("/")
    return f"file://{quote(str(PurePosixPath('/') / root)).rstrip('/')}"


def events_of(
    moments: Iterable[Moment], located: Mapping[str, LocatedSpans], urls: Mapping[str, str], handles: Handles
) -> list[Event]:
    """Return the events of moments, in their order.

    Args:
        moments: What is exported.
        located: Of each video_id: its times, and the positions of its moments, in their order.
        urls: Where each video's file is found, by video_id.
        handles: What is kept around each moment; cut off at the ends of files.
    """
    uris: dict[str, str] = {}
    events, num_done = [], dict.fromkeys(located, 0)
    for moment in moments:
        found = located[moment.video_id]
        first, end = found.positions[num_done[moment.video_id]]
        num_done[moment.video_id] += 1
        uris.setdefault(moment.video_id, moment.uri)
        wanted = handles.at(found.times.rate)
        before, after = min(wanted, first), max(min(wanted, found.times.num_frames - end), 0)
        events.append(Event(
            moment, urls[moment.video_id], "", found.times, first - before, end + after, before, after,
        ))
    reels = reel_names(uris)
    return _numbered_alike([replace(event, reel=reels[event.moment.video_id]) for event in events])


def _numbered_alike(events: list[Event]) -> list[Event]:
    """Return the events; a source without timecode counts as the others of its rate do, drop-frame or not."""
    drops = {event.times.rate for event in events if event.times.is_drop}
    keeps = {event.times.rate for event in events if event.times.first_timecode is not None and not event.times.is_drop}
    return [
        replace(event, times=replace(event.times, is_drop=True))
        if event.times.first_timecode is None and event.times.rate in drops - keeps else event
        for event in events
    ]


def reel_names(uris: Mapping[str, str]) -> dict[str, str]:
    """Return a reel name for each video: letters and digits of its file's name, made unique by a number at the end.

    Args:
        uris: Of each video_id.

    Examples:
        >>> reel_names({"a": "2026/Harbour north.mp4", "b": "2025/harbour-north.mp4", "c": "港.mp4"})
        {'a': 'HARBOURN', 'b': 'HARBOUR2', 'c': 'REEL'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for video_id, uri in uris.items():
        stem = re.sub(r"[^A-Z0-9]", "", PurePosixPath(uri).stem.upper()) or "REEL"
        name, number = stem[:REEL_LENGTH], 1
        while name in taken or name in ("AX", "BL"):  # reels with a meaning of their own
            number += 1
            name = f"{stem[: REEL_LENGTH - len(str(number))]}{number}"
        taken.add(name)
        names[video_id] = name
    return names


def notes_of(events: Sequence[Event]) -> list[str]:
    """Return what a person should know of a timeline: each kind of thing once."""
    notes = []
    bare = {event.moment.video_id for event in events if event.times.first_timecode is None}
    if bare:
        notes.append(f"{_videos(len(bare))} without timecode: counted from 00:00:00:00")
    varying = {event.moment.video_id: event.times.rate for event in events if event.times.is_variable}
    for rate in sorted(set(varying.values())):
        num = sum(each == rate for each in varying.values())
        notes.append(
            f"{_videos(num)} of varying frame rate: positions are at {rate_text(rate)} frames a second, "
            "exact in time, not in frame numbers"
        )
    return notes


def _videos(num: int) -> str:
    return "1 video" if num == 1 else f"{num} videos"
