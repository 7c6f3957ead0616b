"""Frames of a video at wanted times, upright: the only module that opens and decodes video.

The packets are read once without decoding. They say when each frame is shown, so that going through the wanted times in
order needs a seek only where a keyframe lies well ahead of the decoder, and only the wanted frames are converted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vidseek_media.errors import ConfigError, InputRejected

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,nut,ivf,"
    "yuv4mpegpipe,rm,dv,obu,av1,vc1,wtv,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""Containers that are opened. Playlists (hls, concat, dash) are not among them: they would read other files."""

_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89P": "png_pipe", b"RI": "webp_pipe", b"BM": "bmp_pipe"}
"""Pictures are told by their first bytes: by their names FFmpeg would take them for a numbered series of files."""

MAX_PIXELS = 2**27
"""A frame larger than this (8K is a quarter of it) is refused by the decoder before memory is taken."""

SEEK_GAIN_PACKETS = 16
"""A keyframe this many packets ahead is worth a seek; nearer ones are reached by going on."""

SKIPPABLE = frozenset(["h264", "hevc"])
"""Codecs whose decoders leave out, packet by packet, frames that no other refers to, with no trace in the others."""

DECODERS = ("auto", "pyav", "decord")

DECORD_CODECS = frozenset(["h264", "vp9"])
"""Those that decord 0.6 decodes bit by bit as FFmpeg of today (tried on real files; HEVC gave wrong frames)."""

DECORD_PIXELS = frozenset(["yuv420p", "yuvj420p"])
"""decord brings 10 bit to RGB with another rounding."""

DECORD_TOLERANCE_MS = 0.5
"""decord keeps times as float32 seconds, and this far from the packets' times over hours of video."""

_DECORD_REMEDY = "Set frames.decoder to auto in params.yaml"

_FOREIGN = (av.error.FFmpegError, ValueError, OSError)


@dataclass(frozen=True, eq=False)
class PacketPlan:
    """When each frame is shown, read from the packets alone; times are in ticks of `time_base`.

    Arrays of int64 (16 bytes a packet in all for a film without B-frames), so that hours of video take a few MB.
    """

    codec: str
    pixel_format: str
    """FFmpeg's name of it, empty where the header does not say."""
    time_base: Fraction
    pts: NDArray[np.int64]
    """Of every frame that is shown, ascending. Frames that an edit list hides are not among them."""
    key_pts: NDArray[np.int64]
    """Of the keyframes, ascending."""
    key_places: NDArray[np.int64]
    """The place of each keyframe among the packets in file order."""
    packet_pts: NDArray[np.int64]
    """Of every packet, ascending."""
    packet_places: NDArray[np.int64]
    """The place of each of `packet_pts` among the packets in file order."""
    end_pts: int
    """When the last frame ends."""
    step: int
    """From one frame to the next, usually."""
    is_trusted: bool
    """Every packet had a pts of its own. If not, the file is decoded from its beginning."""

    @property
    def first_pts(self) -> int:
        """Time 0 of the video."""
        return int(self.pts[0])

    def ticks_at(self, time_ms: int) -> int:
        """The last tick that is not after `time_ms`."""
        return self.first_pts + time_ms * self.time_base.denominator // (1000 * self.time_base.numerator)

    def ms_of(self, pts: int) -> int:
        """The time of `pts` in whole milliseconds, half up, from the first frame."""
        return int((int(pts) - self.first_pts) * self.time_base * 1000 + Fraction(1, 2))

    def index_at(self, time_ms: int) -> int:
        """The number, from 0, of the frame shown at `time_ms`: the last that does not begin after it."""
        return max(int(np.searchsorted(self.pts, self.ticks_at(time_ms), "right")) - 1, 0)

    def shown_at(self, time_ms: int) -> int:
        """The pts of the frame shown at `time_ms`."""
        return int(self.pts[self.index_at(time_ms)])

    def key_before(self, pts: int) -> tuple[int, int] | None:
        """The pts and the place of the last keyframe that is not shown after `pts`."""
        at = int(np.searchsorted(self.key_pts, pts, "right")) - 1
        return None if at < 0 else (int(self.key_pts[at]), int(self.key_places[at]))

    def place_of(self, pts: int) -> int | None:
        """The place of the packet with `pts`, None where there is none."""
        at = int(np.searchsorted(self.packet_pts, pts))
        if at == len(self.packet_pts) or self.packet_pts[at] != pts:
            return None
        return int(self.packet_places[at])

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
    """The right frame was missing or damaged, and this is the last good one before it. decord cannot say: False."""
    decoder: str
    """pyav or decord: who decoded it."""


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
    decoder: str = "auto",
) -> Iterator[FrameAt]:
    """The frame shown at each of `times_ms`, which must ascend, in one pass through the file.

    Args:
        decoder: `pyav`; `decord`, which takes a file only where it is sure to show the same frames; or `auto`: PyAV
            (on every file tried it was right and the faster of the two), and decord where PyAV brings no frame at all.

    Raises:
        InputRejected: the file cannot be opened, or not one frame of it can be decoded.
        ConfigError: `decoder` is another name.
    """
    if decoder not in DECODERS:
        raise ConfigError(
            f"frames.decoder is {decoder!r}, wanted one of {', '.join(DECODERS)}", remedy="Set it in params.yaml"
        )
    plan = plan or read_plan(path)
    if decoder == "decord":
        yield from _frames_by_decord(path, times_ms, plan, side_px, threads)
        return
    num_done = 0
    try:
        for frame in _frames_by_pyav(path, times_ms, plan, side_px, threads):
            yield frame
            num_done += 1
    except InputRejected as error:
        if decoder == "pyav" or num_done:
            raise
        try:
            yield from _frames_by_decord(path, times_ms, plan, side_px, threads)
        except InputRejected:
            raise error from None


def decoder_of(path: Path, plan: PacketPlan, *, decoder: str = "auto") -> tuple[str, str]:
    """Who would decode the file, pyav or decord, where `frames.decoder` is `decoder`; and why, in words.

    Raises:
        InputRejected: not one frame of it can be decoded so.
    """
    refused = ""
    try:
        _open_decord(path, plan, threads=1)
    except InputRejected as error:
        refused = error.message
        if decoder == "decord":
            raise
    if decoder == "decord":
        return "decord", "it is asked for, and sure to show the frames that the packets promise"
    try:
        next(_frames_by_pyav(path, [0], plan, None, 1))
    except InputRejected:
        if decoder == "pyav" or refused:
            raise
        next(_frames_by_decord(path, [0], plan, None, 1))
        return "decord", "PyAV brings no frame of it"
    if decoder == "pyav":
        return "pyav", "it is asked for"
    return "pyav", f"right on every file tried, and faster; {refused or 'decord would show the same frames'}"


def _frames_by_pyav(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, side_px: int | None, threads: int
) -> Iterator[FrameAt]:
    convert = _Converter(side_px)
    num_done = 0
    for walk in _walks(plan):
        try:
            for frame in walk(path, times_ms[num_done:], plan, threads):
                yield convert.frame(frame, plan)
                num_done += 1
            return
        except _PlanBroken:
            continue  # The packets promised what the decoder did not hold: go on in a way that trusts them less.


def _frames_by_decord(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, side_px: int | None, threads: int
) -> Iterator[FrameAt]:
    """As `frames_at`.

    Raises:
        InputRejected: decord is not sure to show the frames that the packets promise.
    """
    reader = _open_decord(path, plan, threads)
    convert = _Converter(side_px)
    last: tuple[int, NDArray[np.uint8]] | None = None
    for time_ms in times_ms:
        index = plan.index_at(time_ms)
        if last is None or last[0] != index:
            try:
                rgb = reader[index].asnumpy()
            except Exception as error:  # decord raises bare classes of its own
                raise InputRejected(f"decord cannot decode frame {index}: {_say(error)}") from error
            last = (index, convert.picture(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        yield FrameAt(time_ms, plan.ms_of(plan.pts[index]), last[1], is_repeated=False, decoder="decord")


def _open_decord(path: Path, plan: PacketPlan, threads: int) -> Any:
    """A decord reader whose frame i is frame i of `plan`."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    why = "" if plan.is_trusted else "its packets lack times"
    if plan.codec not in DECORD_CODECS:
        why = f"its {plan.codec} does not decode exactly as elsewhere"
    elif plan.pixel_format not in DECORD_PIXELS:
        why = f"its pixels are {plan.pixel_format}"
    if not why:
        try:
            reader = decord.VideoReader(str(path), num_threads=threads)
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0] * 1000
        except Exception as error:  # decord raises bare classes of its own
            raise InputRejected(f"decord cannot open it: {_say(error)}", remedy=_DECORD_REMEDY) from error
        times_ms = (plan.pts - plan.first_pts) * float(plan.time_base * 1000)
        if len(starts) != len(times_ms):
            why = f"it counts {len(starts)} frames, the packets are {len(times_ms)}"
        elif np.abs(starts - starts[0] - times_ms).max() > DECORD_TOLERANCE_MS:
            why = "its times are not those of the packets"
        else:
            return reader
    raise InputRejected(f"decord is not sure to show the right frames: {why}", remedy=_DECORD_REMEDY)


def _walks(plan: PacketPlan) -> Iterator[Callable[[Path, Sequence[int], PacketPlan, int], Iterator[_Wanted]]]:
    """The ways through a file, from the fastest to the one that trusts the packets in nothing."""
    if plan.is_trusted and plan.codec in SKIPPABLE:
        yield partial(_walk_planned, skips=True)
    if plan.is_trusted:
        yield partial(_walk_planned, skips=False)
    yield _walk_all


@contextmanager
def open_video(path: Path, *, threads: int = 1) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its best video stream as FFmpeg chooses: the default one, then the richer; no cover picture.

    Raises:
        InputRejected: the file is no video that can be opened.
    """
    try:
        container = av.open(
            f"file:{path.absolute()}",
            format=_picture_format(path),
            metadata_errors="ignore",
            options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
        )
    except _FOREIGN as error:
        raise InputRejected(f"cannot be opened as video: {_say(error)}") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            kinds = sorted({s.type for s in container.streams})
            raise InputRejected(f"has no video stream, only {', '.join(kinds)}" if kinds else "is a container of nothing")
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
        InputRejected: the file cannot be opened, holds no packet of video, or is encrypted.
    """
    ticks, places = array("q"), array("q")
    is_key, is_shown = bytearray(), bytearray()
    last_pts, last_duration, num_packets, num_without_pts = -(2**62), 0, 0, 0
    with open_video(path) as (container, stream):
        if not stream.time_base:
            raise InputRejected("its video stream has no time base")
        time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        codec = str(stream.codec_context.codec.canonical_name)
        pixel_format = stream.codec_context.pix_fmt or ""
        for packet in _demux(container, stream):
            if packet.has_sidedata("encryption_info"):  # Decoded all the same, it may give frames, of noise.
                raise InputRejected("is encrypted: nobody can see it without its key")
            place, num_packets = num_packets, num_packets + 1
            num_without_pts += packet.pts is None
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                continue
            ticks.append(pts)
            places.append(place)
            is_key.append(packet.is_keyframe)
            is_shown.append(not packet.is_discard)
            if pts > last_pts and not packet.is_discard:
                last_pts, last_duration = pts, packet.duration or 0
    if not num_packets:
        raise InputRejected("holds no frames: its video stream is empty")
    order = np.argsort(np.frombuffer(ticks, np.int64), kind="stable")
    packet_pts, packet_places = np.frombuffer(ticks, np.int64)[order], np.frombuffer(places, np.int64)[order]
    keys, visible = np.frombuffer(is_key, bool)[order], np.frombuffer(is_shown, bool)[order]
    shown = np.unique(packet_pts[visible])
    step = _usual_step(shown, time_base, rate)
    is_trusted = not num_without_pts and len(np.unique(packet_pts)) == num_packets and bool(keys.any())
    if not len(shown):  # A bare stream (.h264, say) has no times: its frames follow each other at the nominal rate.
        shown, is_trusted = np.arange(num_packets) * step, False
    return PacketPlan(
        codec=codec,
        pixel_format=pixel_format,
        time_base=time_base,
        pts=shown,
        key_pts=packet_pts[keys],
        key_places=packet_places[keys],
        packet_pts=packet_pts,
        packet_places=packet_places,
        # Some writers say one tick for every frame (flv, some mkv): then the usual step is nearer the truth.
        end_pts=int(shown[-1]) + (last_duration if 2 * last_duration >= step else step),
        step=step,
        is_trusted=is_trusted,
    )


def _picture_format(path: Path) -> str | None:
    """The demuxer of a picture, None for anything else (an AVI begins as a WebP does)."""
    with path.open("rb") as file:
        head = file.read(12)
    return None if head[:2] == b"RI" and head[8:] != b"WEBP" else _PICTURES.get(head[:2])


def _usual_step(pts: NDArray[np.int64], time_base: Fraction, rate: Fraction | None) -> int:
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


def _walk_planned(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, threads: int, *, skips: bool
) -> Iterator[_Wanted]:
    """Go through the wanted times in order, with seeks where they pay; `skips` leaves out what nothing refers to."""
    targets = [plan.shown_at(time_ms) for time_ms in times_ms]
    with open_video(path, threads=threads) as (container, stream):
        decoding = _Decoding(container, stream, plan, frozenset(targets) if skips else None)
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
                raise _PlanBroken
            yield _Wanted(time_ms, *shown, is_repeated=shown[0] != target)


class _Decoding:
    """A decoder that knows its place among the packets of the plan."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        plan: PacketPlan,
        wanted: frozenset[int] | None,
    ) -> None:
        self.place = -1
        self._container, self._stream, self._plan, self._wanted = container, stream, plan, wanted
        self._failures: list[str] = []
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
        if frame.pts is None or frame.pts <= self._last_pts or self._plan.place_of(frame.pts) is None:
            raise _PlanBroken
        self._last_pts = frame.pts
        return frame.pts, frame

    def _decode(self, limit_pts: int | None = None) -> Iterator[av.VideoFrame]:
        context = self._stream.codec_context
        for packet in _demux(self._container, self._stream):
            if limit_pts is not None:
                if packet.pts is None or packet.pts > limit_pts or not packet.is_keyframe:
                    raise _PlanBroken  # The container's seek landed elsewhere than the packets say.
                limit_pts = None
            place = None if packet.pts is None else self._plan.place_of(packet.pts)
            if place is not None:
                self.place = place
            if self._wanted is not None:
                context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
            yield from self._sound(_decode_packet(self._stream, packet, self._failures))
        yield from self._sound(_decode_packet(self._stream, None, self._failures))

    def _sound(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """`frames`; what a decoder conceals depends on the frames that it was given, so damage ends all skipping."""
        if self._wanted is not None and (self._failures or any(frame.is_corrupt for frame in frames)):
            raise _PlanBroken
        return frames


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
            self._last = (wanted.frame, self.picture(wanted.frame))
        time_ms = max(plan.ms_of(wanted.pts), 0)
        return FrameAt(wanted.wanted_ms, time_ms, self._last[1], wanted.is_repeated, decoder="pyav")

    def picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """`frame` as uint8 (height, width, 3) RGB, upright, of the size of the first one."""
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
