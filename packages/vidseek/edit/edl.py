"""Edit decision lists (CMX 3600), by OpenTimelineIO's adapter.

The adapter decides by the rate alone whether timecode is drop-frame, and writes no FCM line. So it is given plain counts of
frames, and the timecodes of its event lines are numbered here, each as its source is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from vidseek.edit.events import Event
from vidseek.edit.timeline import one_rate, require_library, timeline_of
from vidseek_media.editing.frame_rates import STANDARD_RATES, format_timecode, nominal_rate, rate_text
from vidseek_media.errors import InputRejected

MOST_EVENTS = 999
"""An event's number has three digits."""
RATES = (*STANDARD_RATES, Fraction(48000, 1001), Fraction(48))
"""Whose frames timecode counts."""
_EVENT = re.compile(r"(?P<head>\d{3}  .{8} V     C        )\S+ \S+ \S+ \S+")
_FCM = {True: "FCM: DROP FRAME", False: "FCM: NON-DROP FRAME"}


def edl_text(events: Sequence[Event], name: str) -> str:
    """Return the timeline as an edit decision list: a cut for each event, the record side from 00:00:00:00 on.

    Args:
        events: At least one, all of one rate.
        name: Of the timeline.

    Raises:
        InputRejected: the events have several rates, or one that no timecode counts; or there are more than 999.
        ConfigError: OpenTimelineIO or its adapter is not installed.
    """
    require_library("edl")
    import opentimelineio as otio

    rate = one_rate(events, "an EDL")
    if len(events) > MOST_EVENTS:
        raise InputRejected(
            f"{len(events)} moments, an EDL numbers {MOST_EVENTS}", code="too-many-events",
            remedy=f"Search with --limit {MOST_EVENTS}, or export to .otio",
        )
    events = _at_timecode_rate(events, rate)
    rate = events[0].times.rate
    timeline = timeline_of(events, name, is_counted=True)
    text = str(otio.adapters.write_to_string(timeline, "cmx_3600", rate=float(nominal_rate(rate))))
    return _numbered(text, events, is_drop=all(event.times.is_drop for event in events))


def _at_timecode_rate(events: Sequence[Event], rate: Fraction) -> Sequence[Event]:
    """Return the events at the least rate with timecode that is a multiple of theirs: 10 frames a second are counted as 30."""
    times = next((factor for factor in range(1, round(max(RATES)) + 1) if factor * rate in RATES), None)
    if times is None:
        raise InputRejected(
            f"an EDL counts {', '.join(map(rate_text, sorted(RATES)))} frames a second, the videos have {rate_text(rate)}",
            code="no-timecode-rate", remedy="Export to .otio or .fcpxml",
        )
    return events if times == 1 else [_multiplied(event, times) for event in events]


def _multiplied(event: Event, factor: int) -> Event:
    first = event.times.first_timecode
    return replace(
        event, first=factor * event.first, end=factor * event.end, handle_before=factor * event.handle_before,
        handle_after=factor * event.handle_after,
        times=replace(
            event.times, rate_numerator=factor * event.times.rate_numerator, num_frames=factor * event.times.num_frames,
            first_timecode=None if first is None else factor * first,
        ),
    )


def _numbered(text: str, events: Sequence[Event], *, is_drop: bool) -> str:
    """Put FCM lines and each event's timecodes in.

    Args:
        text: As the adapter wrote it.
        events: Those of the text, in order.
        is_drop: Whether the record side is drop-frame.
    """
    lines: list[str] = []
    waiting, record, said = list(reversed(events)), 0, is_drop
    for line in text.splitlines():
        match = _EVENT.fullmatch(line)
        if match is not None and waiting:
            event = waiting.pop()
            if event.times.is_drop != said:
                said = event.times.is_drop
                lines.append(_FCM[said])
            ends = [format_timecode(at, event.times.rate, is_drop=is_drop) for at in (record, record + event.num_frames)]
            line = f"{match['head']}{event.source_in} {event.source_out} {ends[0]} {ends[1]}"
            record += event.num_frames
        lines.append(line)
        if line.startswith("TITLE:"):
            lines.append(_FCM[is_drop])
    return "\n".join(lines) + "\n"
