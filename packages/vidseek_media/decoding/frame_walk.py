"""Decode the frames at wanted times: with seeks as the packet plan allows, or every frame in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import av

from vidseek_media.decoding.containers import FOREIGN, OpenVideo, Packet, Stream, check_size, demux, message_of, open_video
from vidseek_media.decoding.packets import PacketPlan
from vidseek_media.errors import InputRejected

SEEK_GAIN_PACKETS = 16
"""Packets to the next keyframe from which a seek is faster than decoding on."""

SKIPPABLE = frozenset(["h264", "hevc"])
"""Codecs whose decoders can skip non-reference frames packet by packet without changing other frames."""

MAX_REORDER_DEPTH = 16
"""Frames that a decoder holds back at most (H.264, H.265). An older packet gives no frame any more."""

_Decoded = tuple[int, av.VideoFrame]
"""A time in ticks and the frame shown from then on."""


class PlanBroken(Exception):
    """The decoder gave other frames than the packet plan says."""


@dataclass(frozen=True)
class WantedFrame:
    """A wanted time and the decoder's frame that is shown then."""

    wanted_ms: int
    pts: int
    frame: av.VideoFrame
    is_repeated: bool
    """Whether the right frame is missing or damaged and this is the one before it."""


def walks_of(plan: PacketPlan) -> Iterator[Callable[[Path, Sequence[int], PacketPlan, int], Iterator[WantedFrame]]]:
    """Yield the ways to go through a file, from the fastest to the one that does not rely on the packets' times.

    Each takes (path, wanted times in milliseconds, ascending; plan; decoder threads), yields a frame for each wanted time in
    order, and raises `PlanBroken` if the decoder contradicts the plan.

    Args:
        plan: Of the file.
    """
    if plan.is_trusted and plan.codec in SKIPPABLE:
        yield partial(_walk_planned, skips=True)
    if plan.is_trusted:
        yield partial(_walk_planned, skips=False)
    yield _walk_all


class FirstFrame:
    """Decodes the first frame of a file from packets that are read for another purpose, and no frame more.

    Args:
        video: Just opened.
    """

    def __init__(self, video: OpenVideo) -> None:
        self._stream = video.stream
        self._frame: av.VideoFrame | None = None
        self._failures: list[str] = []

    def feed(self, packet: Packet | None) -> None:
        """Take the next packet of the file; None at its end.

        Raises:
            TooManyPixels: the header states a frame size over `MAX_PIXELS`.
        """
        if self._frame is None:
            check_size(self._stream)
            self._frame = next(iter(_decode_packet(self._stream, packet, self._failures)), None)

    def get(self) -> av.VideoFrame:
        """Return the frame, after the last packet.

        Raises:
            InputRejected: no packet gave a frame.
        """
        self.feed(None)
        return self._frame or _refuse(self._failures)


def _refuse(failures: Sequence[str]) -> NoReturn:
    reason = failures[0] if failures else "its packets give no picture"
    raise InputRejected(f"not one frame can be decoded: {reason}", code="undecodable")


def decode_all(video: OpenVideo, failures: list[str]) -> Iterator[av.VideoFrame]:
    """Yield every frame in display order. Its pts is its packet's place in the file, which needs no valid timestamps.

    Args:
        video: Just opened.
        failures: Gets the errors of packets that cannot be decoded.
    """
    for place, packet in enumerate(demux(video.container, video.stream)):
        packet.pts = packet.dts = place
        yield from _decode_packet(video.stream, packet, failures)
    yield from _decode_packet(video.stream, None, failures)


def _walk_planned(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, threads: int, *, skips: bool
) -> Iterator[WantedFrame]:
    """Go through the wanted times in order, with a seek if it is faster. `skips` leaves out non-reference frames."""
    targets = [plan.shown_at(time_ms) for time_ms in times_ms]
    with open_video(path, threads=threads) as video:
        decoding = _Decoding(video, plan, frozenset(targets) if skips else None)
        shown: _Decoded | None = None
        ahead: _Decoded | None = None
        for time_ms, target in zip(times_ms, targets, strict=True):
            key = plan.key_before(target)
            is_fresh = True
            if key is not None and key[1] > decoding.place + SEEK_GAIN_PACKETS:
                decoding.seek(key[0])
                ahead, is_fresh = None, False
            while not is_fresh or shown is None or shown[0] < target:
                ahead = ahead or decoding.next_frame()
                if ahead is None or ahead[0] > target:
                    break
                shown, ahead, is_fresh = ahead, None, True
            if not is_fresh or shown is None or (skips and shown[0] != target):
                raise PlanBroken
            yield WantedFrame(time_ms, *shown, is_repeated=shown[0] != target)


class _Decoding:
    """A decoder that knows its place among the packets of the plan.

    Attributes:
        place: Of the packet that was decoded last, in file order; -1 before the first.
    """

    def __init__(self, video: OpenVideo, plan: PacketPlan, wanted: frozenset[int] | None) -> None:
        self.place = -1
        self._container, self._stream, self._plan, self._wanted = video.container, video.stream, plan, wanted
        self._failures: list[str] = []
        self._frames = self._decode()
        self._last_pts = -(2**62)

    def seek(self, pts: int) -> None:
        """Seek to the keyframe shown at a time, or to an earlier one.

        Args:
            pts: In ticks.
        """
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except FOREIGN as error:
            raise PlanBroken from error
        self._frames, self._last_pts = self._decode(limit_pts=pts), -(2**62)

    def next_frame(self) -> _Decoded | None:
        """Return the next frame with its pts; None at the end."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        if frame.pts is None or frame.pts <= self._last_pts or self._plan.place_of(frame.pts) is None:
            raise PlanBroken
        self._last_pts = frame.pts
        return frame.pts, frame

    def _decode(self, limit_pts: int | None = None) -> Iterator[av.VideoFrame]:
        context = self._stream.codec_context
        for packet in demux(self._container, self._stream):
            if limit_pts is not None:
                if packet.pts is None or packet.pts > limit_pts or not packet.is_keyframe:
                    raise PlanBroken  # the seek did not land at the keyframe of the plan
                limit_pts = None
            place = None if packet.pts is None else self._plan.place_of(packet.pts)
            if place is not None:
                self.place = place
            if self._wanted is not None:
                context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
            yield from self._sound(_decode_packet(self._stream, packet, self._failures))
        yield from self._sound(_decode_packet(self._stream, None, self._failures))

    def _sound(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """Return the frames unless one is damaged while skipping: error concealment depends on the frames before."""
        if self._wanted is not None and (self._failures or any(frame.is_corrupt for frame in frames)):
            raise PlanBroken
        return frames


def _walk_all(path: Path, times_ms: Sequence[int], plan: PacketPlan, threads: int) -> Iterator[WantedFrame]:
    """Decode every frame from the beginning, in display order."""
    shown: _Decoded | None = None
    waiting = list(reversed(times_ms))
    failures: list[str] = []

    def wanted() -> WantedFrame:
        assert shown is not None
        wanted_ms = waiting.pop()
        return WantedFrame(wanted_ms, *shown, is_repeated=shown[0] != plan.shown_at(wanted_ms))

    with open_video(path, threads=threads) as video:
        for pts, frame in _timed(decode_all(video, failures), plan):
            shown = shown or (pts, frame)
            while waiting and pts > plan.ticks_at(waiting[-1]):
                yield wanted()
            shown = (pts, frame)
            if not waiting:
                return
    if shown is None:
        _refuse(failures)
    while waiting:
        yield wanted()


def _timed(frames: Iterator[av.VideoFrame], plan: PacketPlan) -> Iterator[_Decoded]:
    """Yield frames with ascending times: from their packets, or by their place in display order."""
    if plan.is_ranked:
        yield from _timed_by_rank(frames, plan)
        return
    pts_by_place = plan.pts_by_place()
    last: int | None = None
    for frame in frames:
        pts = int(pts_by_place[frame.pts]) if frame.pts is not None and frame.pts < len(pts_by_place) else None
        if pts is None or (last is not None and pts <= last):
            pts = plan.pts[0] if last is None else last + 1
        last = int(pts)
        yield last, frame


def _timed_by_rank(frames: Iterator[av.VideoFrame], plan: PacketPlan) -> Iterator[_Decoded]:
    """Give frame i in display order the i-th time; i also counts frames that were lost to damage."""
    is_open = plan.is_shown.copy()
    num_lost, counted_to = 0, 0
    for num_done, frame in enumerate(frames):
        place = frame.pts if frame.pts is not None else counted_to
        if place < len(is_open):
            is_open[place] = False
        until = max(place - MAX_REORDER_DEPTH, counted_to)
        num_lost += int(is_open[counted_to:until].sum())
        counted_to = until
        yield int(plan.pts[min(num_done + num_lost, len(plan.pts) - 1)]), frame


def _decode_packet(
    stream: Stream, packet: Packet | None, failures: list[str] | None = None
) -> list[av.VideoFrame]:
    """Return the frames that the decoder outputs for a packet (None: at the end); a damaged packet gives none."""
    try:
        return list(stream.codec_context.decode(packet))
    except FOREIGN as error:
        if failures is not None:
            failures.append(message_of(error))
        return []
