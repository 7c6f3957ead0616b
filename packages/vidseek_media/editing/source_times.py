"""Where spans of a video lie among its frames: frame numbers, rate and timecode, as editors count them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from vidseek_media.decoding.containers import OpenVideo, open_video
from vidseek_media.decoding.packets import PacketPlan, plan_of
from vidseek_media.decoding.probe import is_variable_rate
from vidseek_media.editing.frame_rates import constant_rate, grid_rate, parse_timecode
from vidseek_media.editing.located_spans import LocatedSpans, SourceTimes
from vidseek_media.errors import InputRejected
from vidseek_media.records import Span

_GRID_SLACK = 0.02
"""Of a frame: times are rounded to ticks, so that a frame may begin a little behind its position."""


def frames_of_span(plan: PacketPlan, start_ms: int, end_ms: int) -> tuple[int, int]:
    """Return which frames a span shows: the number of the first, and that behind the last.

    A frame begins at its time in whole milliseconds, as the ends of clips are written: spans that meet where a frame begins
    share no frame.

    Args:
        plan: Of the video.
        start_ms: Start of the span.
        end_ms: End of the span, exclusive.

    Raises:
        InputRejected: the span is empty, or begins behind the end of the video.
    """
    if not 0 <= start_ms < end_ms or start_ms >= plan.duration_ms:
        raise InputRejected(
            f"the span is [{start_ms}, {end_ms}) ms of a video of {plan.duration_ms} ms", code="span-outside",
            remedy="Take start_ms and end_ms of a hit",
        )
    first = max(_num_begun(plan, start_ms + 1) - 1, 0)
    return first, max(_num_begun(plan, end_ms), first + 1)


def _num_begun(plan: PacketPlan, time_ms: int) -> int:
    """Return how many frames begin before a time, in whole milliseconds."""
    place = int(np.searchsorted(plan.pts, plan.ticks_at(time_ms), "right"))
    while place and plan.ms_of(plan.pts[place - 1]) >= time_ms:
        place -= 1
    while place < len(plan.pts) and plan.ms_of(plan.pts[place]) < time_ms:
        place += 1
    return place


def locate_spans(path: Path, spans: Sequence[Span]) -> LocatedSpans:
    """Read a video's packets, and return its rate and timecode, and the positions of spans. Nothing is decoded.

    Args:
        path: The video.
        spans: In milliseconds from the container's start.

    Raises:
        InputRejected: the file cannot be opened, is a still picture, or a span lies outside of it.
    """
    with open_video(path, decodes=False) as video:
        stated = [rate for rate in (video.stream.average_rate, video.stream.guessed_rate) if rate]
        plan = plan_of(video)
        if plan.is_still:
            raise InputRejected("is a still picture: a timeline takes videos", code="no-frames-to-cut")
        grid = _Grid(plan, stated)
        positions = tuple(grid.positions(*frames_of_span(plan, *span)) for span in spans)
        return LocatedSpans(_times_of(video, grid), positions)


class _Grid:
    """The positions of a video's frames.

    Frames at a constant distance are counted. Where the video begins a whole frame or more behind the container's start, the
    positions before it show nothing, as in players. A frame of a variable rate has the first position at or behind its
    beginning, which shows it where it lasts that long.
    """

    def __init__(self, plan: PacketPlan, stated: list[Fraction]) -> None:
        seconds = (plan.pts - plan.pts[0]).astype(np.float64) * float(plan.time_base)
        self._plan, self.is_variable = plan, is_variable_rate(plan)
        self.rate = grid_rate(seconds, stated) if self.is_variable else constant_rate(seconds, stated)
        self._before = floor(self._frames(int(plan.pts[0])) + Fraction(1, 10))

    def positions(self, first: int, end: int) -> tuple[int, int]:
        """Return the position of a frame, and that behind another.

        Args:
            first: Number of the first frame.
            end: Number behind the last frame.
        """
        start = self._position(first)
        return start, max(self._position(end), start + 1)

    def _position(self, number: int) -> int:
        if not self.is_variable:
            return number + self._before
        pts = self._plan.end_pts if number == len(self._plan.pts) else int(self._plan.pts[number])
        tick = self._plan.time_base * self.rate
        return max(ceil(self._frames(pts) - max(tick, Fraction(_GRID_SLACK))), 0)

    @property
    def num_positions(self) -> int:
        return max(self._position(len(self._plan.pts)), 1)

    def _frames(self, pts: int) -> Fraction:
        return (pts - self._plan.origin) * self._plan.time_base * self.rate


def _times_of(video: OpenVideo, grid: _Grid) -> SourceTimes:
    context = video.stream.codec_context
    number, is_drop = _timecode_of(video, grid.rate) or (None, False)
    has_sound = any(stream.type == "audio" and stream.codec_context is not None for stream in video.container.streams)
    return SourceTimes(
        grid.rate.numerator, grid.rate.denominator, grid.is_variable, grid.num_positions, number, is_drop, context.width,
        context.height, has_sound,
    )


def _timecode_of(video: OpenVideo, rate: Fraction) -> tuple[int, bool] | None:
    """Return what the video stream says, a track of timecode (tmcd), or the container."""
    others = [stream for stream in video.container.streams if stream.type == "data"]
    holders: list[Any] = [video.stream, *others, video.container]
    for holder in holders:
        if (found := parse_timecode(_tag(holder.metadata, "timecode"), rate)) is not None:
            return found
    return None


def _tag(metadata: Any, name: str) -> str:
    """Return a tag whatever its capitals: Matroska writes TIMECODE."""
    return next((str(value) for key, value in metadata.items() if key.lower() == name), "")
