"""Frames of a video at wanted times, upright: the only module that decodes video.

The packets are read once without decoding. They say when each frame is shown, so that going through the wanted times in
order needs a seek only where a keyframe lies well ahead of the decoder, and only the wanted frames are converted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import av
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from vidseek_media.decoding.display import (
    BT2020,
    full_range,
    is_hdr,
    is_mirrored,
    over_white,
    rotation_matrix,
    size_shown,
    to_sdr,
    upright,
)
from vidseek_media.decoding.packets import (
    FOREIGN,
    MAX_PIXELS,
    Packet,
    PacketPlan,
    demux,
    is_picture,
    open_video,
    read_plan,
    say,
)
from vidseek_media.decoding.pictures import decode_picture
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.settings import Decoder

SEEK_GAIN_PACKETS = 16
"""A keyframe this many packets ahead is worth a seek; nearer ones are reached by going on."""

SKIPPABLE = frozenset(["h264", "hevc"])
"""Codecs whose decoders leave out, packet by packet, frames that no other refers to, with no trace in the others."""

DECODERS: tuple[Decoder, ...] = get_args(Decoder)

DECORD_CODECS = frozenset(["h264", "vp9"])
"""Those that decord 0.6 decodes bit by bit as FFmpeg of today (tried on real files; HEVC gave wrong frames)."""

DECORD_PIXELS = frozenset(["yuv420p", "yuvj420p"])
"""decord brings 10 bit to RGB with another rounding."""

DECORD_TOLERANCE_MS = 0.5
"""decord keeps times as float32 seconds, and this far from the packets' times over hours of video."""

_DECORD_REMEDY = "Set frames.decoder to auto in params.yaml"


@dataclass(frozen=True)
class FrameAt:
    """The frame shown at a wanted time."""

    wanted_ms: int
    time_ms: int
    """When the frame begins, from the container's start; of a time before the first frame, when that begins."""
    pixels: NDArray[np.uint8]
    """Shape (height, width, 3), RGB, upright, with square pixels, in standard dynamic range.

    Wanted times that show the same frame share the same array.
    """
    is_repeated: bool
    """The right frame was missing or damaged, and this is the last good one before it. decord cannot say: False."""
    decoder: str
    """What decoded it: pyav or decord; pillow, where the file is a still picture."""
    is_interlaced: bool = False
    """Its lines are two fields of different times. decord cannot say: False."""


def bin_centres(start_ms: int, end_ms: int, num_frames: int) -> list[int]:
    """Return the centres of `num_frames` equal bins of a span, in whole milliseconds (half rounded up), ascending.

    Args:
        start_ms: Start of the span in milliseconds.
        end_ms: End of the span in milliseconds, exclusive, after `start_ms`.
        num_frames: Number of bins, above 0.

    Example:
        >>> bin_centres(0, 3000, 3)
        [500, 1500, 2500]
    """
    length = end_ms - start_ms
    return [
        min(start_ms + ((2 * i + 1) * length + num_frames) // (2 * num_frames), end_ms - 1) for i in range(num_frames)
    ]


def decode_at(
    path: Path, times_ms: Sequence[int], *, side_px: int | None = None, threads: int = 1
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return the frames shown at the given times, as pairs (start time of the frame in ms, pixels).

    A time before the first frame gives the first frame; a time at or after the end gives the last.

    Args:
        path: A video file, or a still picture.
        times_ms: Times in milliseconds from the container's start (time 0 of players), at least 0, in any order.
        side_px: Length in pixels to which the shorter side is reduced; a smaller video, or None, keeps its own size.
        threads: Threads of the decoder, at least 1.

    Returns:
        One pair for each time, in the order of `times_ms`. Pixels are uint8 RGB of shape (height, width, 3), upright, and
        all of one size.

    Raises:
        InputRejected: the file cannot be decoded.
        ValueError: a time is negative.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (64, 48), "red").save("red.png")
        >>> [(time_ms, pixels)] = decode_at(Path("red.png"), [0], side_px=24)
        >>> pixels.shape, pixels[0, 0].tolist()
        ((24, 32, 3), [255, 0, 0])
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

    A file that is one still picture is read by Pillow (`pictures.py`), as a picture of a query is.

    Args:
        decoder: `pyav`; `auto`, which is PyAV (on every file tried it was right and the faster of the two); or `decord`,
            which takes a file only where it is sure to show the same frames, and PyAV brings one of them.

    Raises:
        InputRejected: the file cannot be opened, or not one frame of it can be decoded.
        ConfigError: `decoder` is another name.
    """
    if decoder not in DECODERS:
        raise ConfigError(
            f"frames.decoder is {decoder!r}, wanted one of {', '.join(DECODERS)}",
            code="unknown-choice", remedy="Set it in params.yaml"
        )
    plan = plan or read_plan(path)
    if is_picture(path) or (plan.codec == "gif" and len(plan.pts) == 1):
        yield from _frames_of_picture(path, times_ms, side_px)
    elif decoder == "decord":
        yield from _frames_by_decord(path, times_ms, plan, side_px, threads)
    else:
        yield from _frames_by_pyav(path, times_ms, plan, side_px, threads)


def decoder_of(path: Path, plan: PacketPlan, *, decoder: str = "auto") -> tuple[str, str]:
    """The decoder of the file where `frames.decoder` is `decoder`: pillow, pyav or decord; and why, in words.

    Raises:
        InputRejected: not one frame of it can be decoded so.
    """
    [first] = frames_at(path, [0], plan=plan, decoder=decoder)
    if first.decoder == "pillow":
        return "pillow", "it is one still picture"
    if decoder == "auto":
        return "pyav", "right on every file tried, and faster"
    is_decord = decoder == "decord"
    return decoder, f"it is asked for{', and sure to show the frames that the packets promise' if is_decord else ''}"


def _frames_of_picture(path: Path, times_ms: Sequence[int], side_px: int | None) -> Iterator[FrameAt]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputRejected(f"cannot be read: {say(error)}", code="undecodable") from error
    pixels = decode_picture(content, max_pixels=MAX_PIXELS, shorter_side_px=side_px)
    for time_ms in times_ms:
        yield FrameAt(time_ms, 0, pixels, is_repeated=False, decoder="pillow")


def _frames_by_pyav(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, side_px: int | None, threads: int
) -> Iterator[FrameAt]:
    convert = _Converter(side_px, plan.sample_aspect_ratio)
    num_done = 0
    for walk in _walks(plan):
        try:
            for frame in walk(path, times_ms[num_done:], plan, threads):
                yield convert.frame(frame, plan, path)
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
    # Its FFmpeg is old and has no limit of pixels: what PyAV refuses does not reach it.
    next(_frames_by_pyav(path, [0], plan, None, 1))
    reader = _open_decord(path, plan, threads)
    convert = _Converter(side_px, plan.sample_aspect_ratio)
    last: tuple[int, NDArray[np.uint8]] | None = None
    for time_ms in times_ms:
        index = plan.index_at(time_ms)
        if last is None or last[0] != index:
            try:
                rgb = reader[index].asnumpy()
            except Exception as error:  # decord raises bare classes of its own
                raise InputRejected(f"decord cannot decode frame {index}: {say(error)}", code="undecodable") from error
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
    elif plan.sample_aspect_ratio != 1 or is_hdr(plan.transfer) or _is_mirrored(path):
        why = "its pixels are not square, it is mirrored, or of high dynamic range"
    if not why:
        try:
            reader = decord.VideoReader(str(path), num_threads=threads)
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0] * 1000
        except Exception as error:  # decord raises bare classes of its own
            raise InputRejected(f"decord cannot open it: {say(error)}", code="undecodable", remedy=_DECORD_REMEDY) from error
        times_ms = (plan.pts - plan.pts[0]) * float(plan.time_base * 1000)
        if len(starts) != len(times_ms):
            why = f"it counts {len(starts)} frames, the packets are {len(times_ms)}"
        elif np.abs(starts - starts[0] - times_ms).max() > DECORD_TOLERANCE_MS:
            why = "its times are not those of the packets"
        else:
            return reader
    raise InputRejected(f"decord is not sure to show the right frames: {why}", code="unsure-frames", remedy=_DECORD_REMEDY)


def _is_mirrored(path: Path) -> bool:
    """Whether the first frame says so; False where PyAV brings none."""
    with open_video(path) as (container, stream):
        first = next(_decode_all(container, stream, []), None)
        return first is not None and is_mirrored(_display_matrix(first))


def _walks(plan: PacketPlan) -> Iterator[Callable[[Path, Sequence[int], PacketPlan, int], Iterator[_Wanted]]]:
    """The ways through a file, from the fastest to the one that trusts the packets in nothing."""
    if plan.is_trusted and plan.codec in SKIPPABLE:
        yield partial(_walk_planned, skips=True)
    if plan.is_trusted:
        yield partial(_walk_planned, skips=False)
    yield _walk_all


class _PlanBroken(Exception):
    """The decoder gave other frames than the packets promised."""


_Decoded = tuple[int, av.VideoFrame]
"""(pts, frame)"""


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
        except FOREIGN as error:
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
        for packet in demux(self._container, self._stream):
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
    """Decode every frame from the beginning, in display order."""
    shown: _Decoded | None = None
    waiting = list(reversed(times_ms))
    failures: list[str] = []

    def wanted() -> _Wanted:
        assert shown is not None
        wanted_ms = waiting.pop()
        return _Wanted(wanted_ms, *shown, is_repeated=shown[0] != plan.shown_at(wanted_ms))

    with open_video(path, threads=threads) as (container, stream):
        for pts, frame in _timed(_decode_all(container, stream, failures), plan):
            shown = shown or (pts, frame)
            while waiting and pts > plan.ticks_at(waiting[-1]):
                yield wanted()
            shown = (pts, frame)
            if not waiting:
                return
    if shown is None:
        reason = failures[0] if failures else "its packets give no picture"
        raise InputRejected(f"not one frame can be decoded: {reason}", code="undecodable")
    while waiting:
        yield wanted()


def _decode_all(
    container: av.container.InputContainer, stream: av.VideoStream, failures: list[str]
) -> Iterator[av.VideoFrame]:
    """Every frame in display order; its pts is the place of its packet in the file, which no broken clock disturbs."""
    for place, packet in enumerate(demux(container, stream)):
        packet.pts = packet.dts = place
        yield from _decode_packet(stream, packet, failures)
    yield from _decode_packet(stream, None, failures)


MAX_REORDER_DEPTH = 16
"""Frames that a decoder holds back at most (H.264, H.265): a packet older than that brings no frame any more."""


def _timed(frames: Iterator[av.VideoFrame], plan: PacketPlan) -> Iterator[_Decoded]:
    """Frames with ascending times: of their packets, or where those do not tell, by their place in display order."""
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
    """Frame i in display order has the i-th time, where i counts the frames that damage has taken too."""
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
    stream: av.VideoStream, packet: Packet | None, failures: list[str] | None = None
) -> list[av.VideoFrame]:
    """The frames that `packet` (None: the end) brings out; a damaged packet brings none."""
    try:
        return list(stream.codec_context.decode(packet))
    except FOREIGN as error:
        if failures is not None:
            failures.append(say(error))
        return []


class _Converter:
    """Decoder frames to RGB of one size, as a player shows them; the same frame twice is converted once."""

    def __init__(self, side_px: int | None, aspect: Fraction) -> None:
        self._side_px, self._aspect = side_px, aspect
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._last: tuple[av.VideoFrame, NDArray[np.uint8]] | None = None

    def frame(self, wanted: _Wanted, plan: PacketPlan, path: Path) -> FrameAt:
        """`wanted` of the video `path`, of the size of the first frame there."""
        if self._size is None:
            self._size = size_shown(*_size_of_first(path, wanted, plan), self._aspect, self._side_px)
        if self._last is None or self._last[0] is not wanted.frame:
            self._last = (wanted.frame, self.picture(wanted.frame))
        return FrameAt(
            wanted.wanted_ms, max(plan.ms_of(wanted.pts), 0), self._last[1], wanted.is_repeated, decoder="pyav",
            is_interlaced=bool(wanted.frame.interlaced_frame),
        )

    def picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """`frame` as uint8 (height, width, 3) RGB, upright, of the size of the first one."""
        self._size = self._size or size_shown(frame.width, frame.height, self._aspect, self._side_px)
        flat = self._over_white(frame) if any(each.is_alpha for each in frame.format.components) else frame
        transfer = int(frame.color_trc)
        rgb = self._rgb(flat, "rgb48le" if is_hdr(transfer) else "rgb24")
        if is_hdr(transfer):
            is_wide = frame.color_primaries in (BT2020, _UNSPECIFIED)
            rgb = to_sdr(np.asarray(rgb, np.uint16), transfer, is_wide=is_wide)
        return np.ascontiguousarray(upright(np.asarray(rgb, np.uint8), _display_matrix(frame)))

    def _rgb(self, frame: av.VideoFrame, pixel_format: str) -> NDArray[Any]:
        assert self._size is not None
        width, height = self._size
        is_smaller = width * height < frame.width * frame.height
        rgb = self._converted(
            frame, width, height, pixel_format, Interpolation.AREA if is_smaller else Interpolation.BILINEAR
        )
        # swscale takes grey for full range whatever the frame says.
        is_lifted = frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG
        return full_range(rgb) if is_lifted else rgb

    def _over_white(self, frame: av.VideoFrame) -> av.VideoFrame:
        """`frame` in RGB over white, before it is scaled, as still pictures are; one that shows nothing at all as it is."""
        is_deep = max(component.bits for component in frame.format.components) > 8
        rgba = self._converted(frame, frame.width, frame.height, "rgba64le" if is_deep else "rgba", Interpolation.BILINEAR)
        return av.VideoFrame.from_ndarray(over_white(rgba), format="rgb48le" if is_deep else "rgb24")

    def _converted(
        self, frame: av.VideoFrame, width: int, height: int, pixel_format: str, interpolation: Interpolation
    ) -> NDArray[Any]:
        try:
            return self._reformatter.reformat(
                frame, width, height, pixel_format, interpolation=interpolation, threads=1
            ).to_ndarray()
        except FOREIGN as error:
            raise InputRejected(
                f"frames of {frame.format.name} cannot be turned into RGB: {say(error)}", code="undecodable",
            ) from error


def _size_of_first(path: Path, wanted: _Wanted, plan: PacketPlan) -> tuple[int, int]:
    """Width and height of the file's first frame.

    A stream may change its size on the way (joined files): what a frame looks like does not depend on the others asked for.
    """
    frame = wanted.frame
    if wanted.pts != plan.pts[0] and (frame.width, frame.height) != plan.first_size:
        with open_video(path) as (container, stream):
            frame = next(_decode_all(container, stream, []), frame)
    return frame.width, frame.height


_UNSPECIFIED = 2
"""Colour primaries that a file does not state (H.273)."""


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    try:
        side_data = cast(Mapping[SideDataType, Buffer], frame.side_data)  # PyAV's own annotation is that of a dict.
        return np.frombuffer(bytes(side_data[SideDataType.DISPLAYMATRIX]), np.int32)
    except KeyError:
        return None
    except ValueError:  # PyAV 18.1 refuses all of a frame's side data where it does not know the kind of one (EXIF).
        return rotation_matrix(frame.rotation)
