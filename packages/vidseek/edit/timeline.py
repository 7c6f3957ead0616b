"""A timeline of OpenTimelineIO: the one module that makes its objects."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from vidseek.edit.events import Event
from vidseek_media.editing.frame_rates import nominal_rate, rate_text
from vidseek_media.errors import InputRejected
from vidseek_media.installing import require_module

EXTRA = "edit"
ADAPTERS = {"otio": "opentimelineio", "edl": "otio_cmx3600_adapter", "fcpxml": "otio_fcpx_xml_adapter"}
"""The module that each format of a timeline needs, beside OpenTimelineIO itself."""


def require_library(format_name: str) -> None:
    """Check that OpenTimelineIO, and an adapter of it, are installed.

    Args:
        format_name: A key of `ADAPTERS`.

    Raises:
        ConfigError: they are not; the error names the pip command.
    """
    require_module("opentimelineio", EXTRA)
    require_module(ADAPTERS[format_name], EXTRA)


def timeline_of(events: Sequence[Event], name: str, *, is_counted: bool = False, urls: Sequence[str] = ()) -> Any:
    """Return a timeline with one video track: the events one behind the other.

    Args:
        events: At least one.
        name: Of the timeline.
        is_counted: Whether rates are whole numbers, 30 for 29.97: positions are then a plain count of frames.
        urls: Of the events' files; empty for their own.
    """
    import opentimelineio as otio

    timeline = otio.schema.Timeline(name)
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for event, url in zip(events, urls or [event.url for event in events], strict=True):
        rate = float(nominal_rate(event.times.rate) if is_counted else event.times.rate)
        origin = event.times.origin
        clip = otio.schema.Clip(
            name=event.name,
            media_reference=otio.schema.ExternalReference(
                target_url=url, available_range=_range(otio, origin, event.times.num_frames, rate)
            ),
            source_range=_range(otio, origin + event.first, event.num_frames, rate),
        )
        clip.media_reference.name = event.file_name
        clip.metadata["vidseek"] = _metadata(event)
        clip.metadata["cmx_3600"] = {"reel": event.reel, "comments": [f"REEL {event.reel} IS {event.file_name}"]}
        track.append(clip)
    return timeline


def _range(otio: Any, start: int, length: int, rate: float) -> Any:
    return otio.opentime.TimeRange(otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(length, rate))


def _metadata(event: Event) -> dict[str, Any]:
    moment, times = event.moment, event.times
    known = {
        "video_id": moment.video_id, "clip_id": moment.clip_id, "start_ms": moment.start_ms, "end_ms": moment.end_ms,
        "score": moment.score, "confidence": moment.confidence, "handle_before": event.handle_before,
        "handle_after": event.handle_after, "source_in": event.source_in, "source_out": event.source_out,
        "is_drop_frame": times.is_drop, "is_variable_rate": times.is_variable,
        "has_timecode": times.first_timecode is not None,
    }
    return {name: value for name, value in known.items() if value is not None}


def otio_text(events: Sequence[Event], name: str) -> str:
    """Return the timeline as OpenTimelineIO's JSON; each event has the rate of its source.

    Raises:
        ConfigError: OpenTimelineIO is not installed.
    """
    require_library("otio")
    import opentimelineio as otio

    return str(otio.adapters.write_to_string(timeline_of(events, name), "otio_json"))


def one_rate(events: Sequence[Event], what: str) -> Fraction:
    """Return the rate of all events.

    Args:
        events: At least one.
        what: The format that holds one rate.

    Raises:
        InputRejected: they have several rates.
    """
    rates = sorted({event.times.rate for event in events})
    if len(rates) > 1:
        num = {rate: len({event.moment.video_id for event in events if event.times.rate == rate}) for rate in rates}
        said = ", ".join(f"{num[rate]} of {rate_text(rate)}" for rate in rates)
        raise InputRejected(
            f"{what} holds one frame rate, and the videos have several: {said}", code="mixed-rates",
            remedy="Export to .otio, which holds them all, or one file for each rate",
        )
    return rates[0]
