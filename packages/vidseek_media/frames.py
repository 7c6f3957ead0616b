"""Frames of a video at wanted times, upright: the only module that opens and decodes video.

The packets are read once without decoding. They say when each frame is shown, so that going through the wanted times in
order needs a seek only where a keyframe lies well ahead of the decoder, and only the wanted frames are converted.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vidseek_media.errors import InputRejected

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,nut,ivf,"
    "yuv4mpegpipe,rm,dv,obu,av1,vc1,wtv"
)
"""Containers that are opened. Playlists (hls, concat, dash) are not among them: they would read other files."""

MAX_PIXELS = 2**27
"""A frame larger than this (8K is a quarter of it) is refused by the decoder before memory is taken."""

SEEK_GAIN_PACKETS = 16
"""A keyframe this many packets ahead is worth a seek; nearer ones are reached by going on."""

_FOREIGN = (av.error.FFmpegError, ValueError, OSError)


@dataclass(frozen=True)
class PacketPlan:
    """When each frame is shown, read from the packets alone; times are in ticks of `time_base`."""

    time_base: Fraction
    pts: tuple[int, ...]
    """Of every frame that is shown, ascending. Frames that an edit list hides are not among them."""
    keyframes: tuple[tuple[int, int], ...]
    """(pts, place among the packets in file order), ascending by pts."""
    places: dict[int, int]
    """The place of each packet by its pts."""
    end_pts: int
    """When the last frame ends."""
    step: int
    """From one frame to the next, usually."""
    is_trusted: bool
    """Every packet had a pts of its own. If not, the file is decoded from its beginning."""

    @property
    def first_pts(self) -> int:
        """Time 0 of the video."""
        return self.pts[0]

    def ticks_at(self, time_ms: int) -> int:
        """The last tick that is not after `time_ms`."""
        return self.first_pts + time_ms * self.time_base.denominator // (1000 * self.time_base.numerator)

    def ms_of(self, pts: int) -> int:
        """The time of `pts` in whole milliseconds, half up, from the first frame."""
        return int((pts - self.first_pts) * self.time_base * 1000 + Fraction(1, 2))

    def shown_at(self, time_ms: int) -> int:
        """The pts of the frame shown at `time_ms`: the last that does not begin after it."""
        return self.pts[max(bisect.bisect_right(self.pts, self.ticks_at(time_ms)) - 1, 0)]

    @property
    def duration_ms(self) -> int:
        """From the first frame to the end of the last."""
        return max(self.ms_of(self.end_pts), 1)


@dataclass(frozen=True)
class FrameAt:
    """The frame shown at a wanted time."""

    wanted_ms: int
    time_ms: int
    """When the frame begins, from the first frame of the video."""
    pixels: NDArray[np.uint8]
    """Shape (height, width, 3), RGB, upright. Wanted times that show the same frame share the same array."""
    is_repeated: bool
    """The right frame was missing or damaged, and this is the last good one before it."""


def bin_centres(start_ms: int, end_ms: int, num_frames: int) -> list[int]:
    """The centres of `num_frames` equal bins of `[start_ms, end_ms)`, whole milliseconds, half up, ascending."""
    length = end_ms - start_ms
    return [
        min(start_ms + ((2 * i + 1) * length + num_frames) // (2 * num_frames), end_ms - 1) for i in range(num_frames)
    ]


def decode_at(
    path: Path, times_ms: Sequence[int], *, side_px: int | None = None, threads: int = 1
) -> list[tuple[int, NDArray[np.uint8]]]:
    """The frames shown at `times_ms`, in that order, as (time of the frame, uint8 (height, width, 3) RGB upright).

    Time 0 is the first frame; a time at or after the end gives the last frame. All have one size: the shorter side is
    `side_px`, or the video's own where that is smaller or `side_px` is None.

    Raises:
        InputRejected: the file cannot be decoded.
        ValueError: a time is negative.
    """
    if any(time_ms < 0 for time_ms in times_ms):
        raise ValueError(f"wanted times must not be negative, got {min(times_ms)} ms")
    found = {f.wanted_ms: f for f in frames_at(path, sorted(set(times_ms)), side_px=side_px, threads=threads)}
    return [(found[time_ms].time_ms, found[time_ms].pixels) for time_ms in times_ms]


def decode_uniform(
    path: Path, num_frames: int, side_px: int | None = None, *, threads: int = 1
) -> NDArray[np.uint8]:
    """`num_frames` frames at the bin centres of the whole file: uint8 (num_frames, height, width, 3), RGB, upright.

    Raises:
        InputRejected: the file cannot be decoded.
    """
    plan = read_plan(path)
    times_ms = bin_centres(0, max(plan.duration_ms, 1), num_frames)
    return np.stack([f.pixels for f in frames_at(path, times_ms, side_px=side_px, threads=threads, plan=plan)])


def frames_at(
    path: Path,
    times_ms: Sequence[int],
    *,
    side_px: int | None = None,
    threads: int = 1,
    plan: PacketPlan | None = None,
) -> Iterator[FrameAt]:
    """The frame shown at each of `times_ms`, which must ascend, in one pass through the file.

    Raises:
        InputRejected: the file cannot be opened, or not one frame of it can be decoded.
    """
    plan = plan or read_plan(path)
    convert = _Converter(side_px)
    num_done = 0
    if plan.is_trusted:
        try:
            for frame in _walk_planned(path, times_ms, plan, threads):
                yield convert.frame(frame, plan)
                num_done += 1
            return
        except _PlanBroken:
            pass  # The packets promised what the decoder did not hold: go through from the beginning instead.
    for frame in _walk_all(path, times_ms[num_done:], plan, threads):
        yield convert.frame(frame, plan)


@contextmanager
def open_video(path: Path, *, threads: int = 1) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its best video stream as FFmpeg chooses: the default one, then the richer; no cover picture.

    Raises:
        InputRejected: the file is no video that can be opened.
    """
    try:
        container = av.open(
            f"file:{path.absolute()}",
            metadata_errors="ignore",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except _FOREIGN as error:
        raise InputRejected(f"cannot be opened as video: {_say(error)}") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            kinds = sorted({s.type for s in container.streams})
            raise InputRejected(f"has no video stream, only {', '.join(kinds) or 'nothing'}")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        if stream.codec_context is None:
            raise InputRejected("its video codec is unknown: no decoder for it")
        # Frame threads hang for ever when a damaged file is closed (tried with PyAV 18); slice threads do not.
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = threads
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container, cast(av.VideoStream, stream)


def read_plan(path: Path) -> PacketPlan:
    """The plan of `path`, from its packets, with nothing decoded.

    Raises:
        InputRejected: the file cannot be opened, or holds no packet of video.
    """
    places: dict[int, int] = {}
    shown: list[int] = []
    keyframes: list[tuple[int, int]] = []
    last_pts, last_duration, num_packets, is_trusted = -(2**62), 0, 0, True
    with open_video(path) as (container, stream):
        if not stream.time_base:
            raise InputRejected("its video stream has no time base")
        time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        for packet in _demux(container, stream):
            place, num_packets = num_packets, num_packets + 1
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None or packet.pts is None or pts in places:
                is_trusted = False
            if pts is None:
                continue
            places[pts] = place
            if packet.is_keyframe:
                keyframes.append((pts, place))
            if not packet.is_discard:
                shown.append(pts)
                if pts > last_pts:
                    last_pts, last_duration = pts, packet.duration or 0
    if not num_packets:
        raise InputRejected("holds no frames: its video stream is empty")
    shown = sorted(set(shown))
    step = _usual_step(shown, time_base, rate)
    if not shown:  # A bare stream (.h264, say) has no times: its frames follow each other at the nominal rate.
        shown, is_trusted = [place * step for place in range(num_packets)], False
    return PacketPlan(
        time_base=time_base,
        pts=tuple(shown),
        keyframes=tuple(sorted(keyframes)),
        places=places,
        # Some writers say one tick for every frame (flv, some mkv): then the usual step is nearer the truth.
        end_pts=shown[-1] + (last_duration if 2 * last_duration >= step else step),
        step=step,
        is_trusted=is_trusted and bool(keyframes),
    )


def _usual_step(pts: list[int], time_base: Fraction, rate: Fraction | None) -> int:
    if len(pts) > 1:
        return int(np.median(np.diff(pts)))
    return max(int(1 / (rate or 25) / time_base), 1)


class _PlanBroken(Exception):
    """The decoder gave other frames than the packets promised."""


_Decoded = tuple[int, av.VideoFrame]
"""(pts, frame)"""

_Packet: TypeAlias = "av.Packet[av.VideoStream]"


@dataclass(frozen=True)
class _Wanted:
    """A wanted time with the frame shown then, not yet converted."""

    wanted_ms: int
    pts: int
    frame: av.VideoFrame
    is_repeated: bool


def _walk_planned(path: Path, times_ms: Sequence[int], plan: PacketPlan, threads: int) -> Iterator[_Wanted]:
    key_pts = [pts for pts, _ in plan.keyframes]
    with open_video(path, threads=threads) as (container, stream):
        decoding = _Decoding(container, stream, plan)
        shown: _Decoded | None = None
        ahead: _Decoded | None = None
        for time_ms in times_ms:
            target = plan.shown_at(time_ms)
            key = bisect.bisect_right(key_pts, target) - 1
            is_fresh = True
            if key >= 0 and plan.keyframes[key][1] > decoding.place + SEEK_GAIN_PACKETS:
                decoding.seek(plan.keyframes[key][0])
                ahead, is_fresh = None, False
            while not is_fresh or shown is None or shown[0] < target:
                ahead = ahead or decoding.next_frame()
                if ahead is None or ahead[0] > target:
                    break
                shown, ahead, is_fresh = ahead, None, True
            if not is_fresh or shown is None:
                raise _PlanBroken
            yield _Wanted(time_ms, *shown, is_repeated=shown[0] != target)


class _Decoding:
    """A decoder that knows its place among the packets of the plan."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream, plan: PacketPlan) -> None:
        self.place = -1
        self._container, self._stream, self._plan = container, stream, plan
        self._frames = self._decode()
        self._last_pts = -(2**62)

    def seek(self, pts: int) -> None:
        """Stand at the keyframe shown at `pts`, or one before it."""
        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except _FOREIGN as error:
            raise _PlanBroken from error
        self._frames, self._last_pts = self._decode(limit_pts=pts), -(2**62)

    def next_frame(self) -> _Decoded | None:
        """The next frame with its pts, None at the end."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        if frame.pts is None or frame.pts <= self._last_pts or frame.pts not in self._plan.places:
            raise _PlanBroken
        self._last_pts = frame.pts
        return frame.pts, frame

    def _decode(self, limit_pts: int | None = None) -> Iterator[av.VideoFrame]:
        for packet in _demux(self._container, self._stream):
            if limit_pts is not None:
                if packet.pts is None or packet.pts > limit_pts or not packet.is_keyframe:
                    raise _PlanBroken  # The container's seek landed elsewhere than the packets say.
                limit_pts = None
            if packet.pts is not None:
                self.place = self._plan.places.get(packet.pts, self.place)
            yield from _decode_packet(self._stream, packet)
        yield from _decode_packet(self._stream, None)


def _walk_all(path: Path, times_ms: Sequence[int], plan: PacketPlan, threads: int) -> Iterator[_Wanted]:
    """Decode every frame from the beginning; times come from the decoder and are made to ascend."""
    shown: _Decoded | None = None
    waiting = list(reversed(times_ms))
    failures: list[str] = []
    with open_video(path, threads=threads) as (container, stream):
        for pts, frame in _in_order(_decode_all(container, stream, failures), plan):
            shown = shown or (pts, frame)
            while waiting and pts > plan.ticks_at(waiting[-1]):
                yield _Wanted(waiting.pop(), *shown, is_repeated=False)
            shown = (pts, frame)
            if not waiting:
                return
    if shown is None:
        reason = failures[0] if failures else "its packets give no picture"
        raise InputRejected(f"not one frame can be decoded: {reason}")
    while waiting:
        wanted_ms = waiting.pop()
        yield _Wanted(wanted_ms, *shown, is_repeated=plan.ticks_at(wanted_ms) > shown[0] + 2 * plan.step)


def _decode_all(
    container: av.container.InputContainer, stream: av.VideoStream, failures: list[str]
) -> Iterator[av.VideoFrame]:
    for packet in _demux(container, stream):
        yield from _decode_packet(stream, packet, failures)
    yield from _decode_packet(stream, None, failures)


def _in_order(frames: Iterator[av.VideoFrame], plan: PacketPlan) -> Iterator[_Decoded]:
    """Frames with ascending times: of pts and dts, whichever went astray less often (as FFmpeg's best effort)."""
    last, last_pts, last_dts, bad_pts, bad_dts = plan.first_pts - plan.step, -(2**62), -(2**62), 0, 0
    for frame in frames:
        pts, dts = frame.pts, frame.dts
        bad_pts += pts is None or pts <= last_pts
        bad_dts += dts is None or dts <= last_dts
        last_pts, last_dts = last_pts if pts is None else pts, last_dts if dts is None else dts
        time = pts if pts is not None and (bad_pts <= bad_dts or dts is None) else dts
        last = max(time, last + 1) if time is not None else last + plan.step
        yield last, frame


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[_Packet]:
    """Packets in file order; a file that breaks off ends where it breaks."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except _FOREIGN:
        return


def _decode_packet(
    stream: av.VideoStream, packet: _Packet | None, failures: list[str] | None = None
) -> list[av.VideoFrame]:
    """The frames that `packet` (None: the end) brings out; a damaged packet brings none."""
    try:
        return list(stream.codec_context.decode(packet))
    except _FOREIGN as error:
        if failures is not None:
            failures.append(_say(error))
        return []


class _Converter:
    """Decoder frames to RGB of one size, upright; the same frame twice is converted once."""

    def __init__(self, side_px: int | None) -> None:
        self._side_px = side_px
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._last: tuple[av.VideoFrame, NDArray[np.uint8]] | None = None

    def frame(self, wanted: _Wanted, plan: PacketPlan) -> FrameAt:
        if self._last is None or self._last[0] is not wanted.frame:
            self._last = (wanted.frame, self._pixels(wanted.frame))
        return FrameAt(wanted.wanted_ms, max(plan.ms_of(wanted.pts), 0), self._last[1], wanted.is_repeated)

    def _pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        if self._size is None:  # A stream may change its size on the way; the frames of one call have one size.
            self._size = _fit(frame.width, frame.height, self._side_px)
        width, height = self._size
        is_smaller = (width, height) != (frame.width, frame.height)
        try:
            rgb = self._reformatter.reformat(
                frame, width, height, "rgb24",
                interpolation=Interpolation.AREA if is_smaller else Interpolation.BILINEAR, threads=1,
            ).to_ndarray()
        except _FOREIGN as error:
            raise InputRejected(f"frames of {frame.format.name} cannot be turned into RGB: {_say(error)}") from error
        turned = np.rot90(rgb, round(frame.rotation / 90) % 4)
        return np.ascontiguousarray(turned, dtype=np.uint8)


def _fit(width: int, height: int, side_px: int | None) -> tuple[int, int]:
    """The size whose shorter side is `side_px`, never enlarged."""
    shorter = min(width, height)
    if side_px is None or shorter <= side_px:
        return width, height
    return max(round(width * side_px / shorter), 1), max(round(height * side_px / shorter), 1)


def _say(error: BaseException) -> str:
    """A library's error in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
