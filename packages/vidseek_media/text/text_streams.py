"""Reads the subtitles that a video file carries as text: mov_text, subrip, ass, webvtt. Pictures of text are not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av

from vidseek_media.decoding.containers import FOREIGN, open_subtitles

MAX_STREAMS = 32
MAX_CUES = 100_000
"""Of one file."""
DEFAULT_MS = 3000
"""How long a text is shown if the file does not say, and nothing follows."""


class TextCue(NamedTuple):
    """A text that is shown in `[start_ms, end_ms)`, as the file spells it, with markup."""

    start_ms: int
    end_ms: int
    text: str
    language: str
    """As the stream says: mostly three letters; empty if it is unknown."""


def read_text_streams(path: Path) -> list[TextCue]:
    """Return the texts of all text streams of a video, those of a stream in order of time.

    Time 0 is the container's start, as that of frames. A packet that cannot be decoded is left out.

    Args:
        path: The video.

    Raises:
        InputRejected: the file cannot be opened.
    """
    with open_subtitles(path) as (container, streams):
        if not streams:
            return []
        origin = (container.start_time or 0) / av.time_base
        found: dict[int, list[TextCue]] = {stream.index: [] for stream in streams[:MAX_STREAMS]}
        with _ends_where_broken():
            for packet in container.demux(streams[:MAX_STREAMS]):
                if packet.size and packet.pts is not None and sum(map(len, found.values())) < MAX_CUES:
                    found[packet.stream.index] += _cues(packet, origin)
    return [cue for cues in found.values() for cue in _with_ends(sorted(cues))]


@contextmanager
def _ends_where_broken() -> Iterator[None]:
    """A truncated file ends at its last whole packet."""
    try:
        yield
    except FOREIGN:
        return


def _cues(packet: Any, origin: float) -> Iterator[TextCue]:
    start = float(packet.pts * packet.time_base) - origin
    seconds = float((packet.duration or 0) * packet.time_base)
    language = str(packet.stream.metadata.get("language", ""))
    try:
        subtitles = packet.stream.codec_context.decode2(packet)
    except FOREIGN:
        return
    for each in subtitles or ():
        text = getattr(each, "dialogue", b"") or getattr(each, "text", b"")
        if text and start + seconds > 0:
            start_ms = max(0, round(1000 * start))
            yield TextCue(start_ms, round(1000 * (start + seconds)), text.decode("utf-8", "replace"), language)


def _with_ends(cues: list[TextCue]) -> Iterator[TextCue]:
    """Yield the cues; one that has no length is shown until the next one."""
    for place, cue in enumerate(cues):
        if cue.end_ms > cue.start_ms:
            yield cue
            continue
        following = next((each.start_ms for each in cues[place + 1 :] if each.start_ms > cue.start_ms), None)
        yield cue._replace(end_ms=cue.start_ms + DEFAULT_MS if following is None else following)
