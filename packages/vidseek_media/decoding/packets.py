"""The packets of a video: the container is opened with care and read once, without decoding, to know when frames are shown.

Time 0 is the container's start, as players and subtitles have it. Timestamps are checked before they are believed:
transport streams that were joined or restarted are laid end to end, frames that are never shown are not counted, and
a file whose packets carry times in decode order (AVI) gets its times in display order.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition
from numpy.typing import NDArray

from vidseek_media.decoding import hidden_frames
from vidseek_media.decoding.display import sample_aspect_ratio
from vidseek_media.decoding.pictures import TooManyPixels
from vidseek_media.errors import InputRejected

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,nut,ivf,"
    "yuv4mpegpipe,rm,dv,obu,av1,vc1,wtv,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""Containers that are opened. Playlists (hls, concat, dash) are not among them: they would read other files."""

UPLOAD_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,gif,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
UPLOAD_DECODERS = (
    "h264,hevc,libdav1d,libaom-av1,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg2video,mpeg1video,mjpeg,gif,png,webp,bmp,h263,"
    "msmpeg4v1,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,flv,theora,prores"
)
"""Of an upload only these containers and decoders are taken: what phones, cameras, browsers and editors write. FFmpeg has
hundreds more, and each is code that a stranger could reach."""

_is_upload: ContextVar[bool] = ContextVar("is_upload", default=False)


@contextmanager
def as_upload() -> Iterator[None]:
    """Within it videos are opened with the containers and decoders of uploads alone."""
    token = _is_upload.set(True)
    try:
        yield
    finally:
        _is_upload.reset(token)


_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89P": "png_pipe", b"RI": "webp_pipe", b"BM": "bmp_pipe"}
"""Pictures are told by their first bytes: by their names FFmpeg would take them for a numbered series of files."""

_MOTION_JPEG = (".mjpeg", ".mjpg")
"""One JPEG after the other: a video that begins as a picture does, and is told by its name alone."""

MAX_PIXELS = 2**27
"""A frame larger than this (8K is a quarter of it) is refused by the decoder before memory is taken."""

FOREIGN = (av.error.FFmpegError, ValueError, OSError)
"""What PyAV raises of a file."""

Packet: TypeAlias = "av.Packet[av.VideoStream]"

BACKWARD_MS, FORWARD_MS = 100, 10_000
"""A decoding time that goes back by more than the first, or ahead by more than the second where the container allows
breaks, begins a new piece. The limits are ffmpeg's (`ts_discontinuity_detect` in ffmpeg_demux.c)."""

MAX_TICKS = 2**52
"""A timestamp beyond this is noise, and counts as none."""

NO_PICTURE_BEFORE_A_KEYFRAME = frozenset(["h264", "hevc", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1"])
"""Their decoders show nothing before the first keyframe, and none of the frames that precede it in display order."""

_NO_TIME = -(2**62)

_MAY_BREAK, _HAS_NO_TIMES = 0x0200, 0x0080
"""AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS of avformat.h: timestamps of this container may jump, or it has none."""

_LOSES_EARLY_TIMES = "matroska,webm"
"""Of packets shown before the container's zero FFmpeg's demuxer gives no time at all."""


@dataclass(frozen=True, eq=False)
class PacketPlan:
    """When each frame is shown, read from the packets alone; times are in ticks of `time_base`.

    Arrays of int64, about 25 bytes a packet, so that hours of video take a few MB.
    """

    codec: str
    pixel_format: str
    """FFmpeg's name of it, empty where the header does not say."""
    sample_aspect_ratio: Fraction
    """Width to height of one sample; 1 where the file does not say, or says what cannot be."""
    transfer: int
    """Transfer characteristics (H.273), as the header has them; 2 where it does not say."""
    first_size: tuple[int, int] | None
    """Width and height of the first frame, None where the header may have those of a later one."""
    time_base: Fraction
    origin: int
    """Time 0 of the video: the container's start. Never after the first frame."""
    pts: NDArray[np.int64]
    """Of every frame that is shown, ascending. Frames that an edit list or the codec hides are not among them."""
    key_pts: NDArray[np.int64]
    """Of the keyframes, ascending."""
    key_places: NDArray[np.int64]
    """The place of each keyframe among the packets in file order."""
    packet_pts: NDArray[np.int64]
    """Of every packet, ascending."""
    packet_places: NDArray[np.int64]
    """The place of each of `packet_pts` among the packets in file order."""
    is_shown: NDArray[np.bool_]
    """For each packet in file order: whether its frame is shown."""
    end_pts: int
    """When the last frame ends."""
    step: int
    """From one frame to the next, usually."""
    is_trusted: bool
    """Every packet has a presentation time of its own on one line. If not, the file is decoded from its beginning."""
    is_ranked: bool
    """The packets' times do not say which frame is shown when: frame i in display order has the i-th of `pts`."""

    def ticks_at(self, time_ms: int) -> int:
        """The last tick that is not after `time_ms`."""
        return self.origin + time_ms * self.time_base.denominator // (1000 * self.time_base.numerator)

    def ms_of(self, pts: int) -> int:
        """The time of `pts` in whole milliseconds, half up, from the container's start."""
        return int((int(pts) - self.origin) * self.time_base * 1000 + Fraction(1, 2))

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
        """From the container's start to the end of the last frame."""
        return max(self.ms_of(self.end_pts), 1)

    def pts_by_place(self) -> NDArray[np.int64]:
        """The time of each packet in file order, far below all others where a packet has none."""
        times = np.full(len(self.is_shown), _NO_TIME, np.int64)
        times[self.packet_places] = self.packet_pts
        return times


@contextmanager
def open_video(
    path: Path, *, threads: int = 1, decodes: bool = True
) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its best video stream as FFmpeg chooses: the default one, then the richer; no cover picture.

    Raises:
        InputRejected: the file is no video that can be opened; TooManyPixels, where `decodes`, for too large frames.
    """
    try:
        container = av.open(
            f"file:{path.absolute()}",
            format=_picture_format(path),
            metadata_errors="ignore",
            options={"protocol_whitelist": "file", **_whitelists()},
        )
    except FOREIGN as error:
        raise InputRejected(f"cannot be opened as video: {say(error)}", code="not-a-video") from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            kinds = sorted({s.type for s in container.streams})
            raise InputRejected(
                f"has no video stream, only {', '.join(kinds)}" if kinds else "is a container of nothing",
                code="no-video-stream",
            )
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        if stream.codec_context is None:
            raise InputRejected("its video codec is unknown: no decoder for it", code="unknown-codec")
        if decodes:
            _check_size(cast(av.VideoStream, stream))
        # Frame threads hang for ever when a damaged file is closed (tried with PyAV 18); slice threads do not.
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = threads
        limits = {"codec_whitelist": UPLOAD_DECODERS} if _is_upload.get() else {}
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **limits}
        yield container, cast(av.VideoStream, stream)


def read_plan(path: Path) -> PacketPlan:
    """The plan of `path`, from its packets, with nothing decoded.

    Raises:
        InputRejected: the file cannot be opened, holds no packet of video, or is encrypted.
    """
    with open_video(path, decodes=False) as (container, stream):
        if not stream.time_base:
            raise InputRejected("its video stream has no time base", code="no-time-base")
        scan = _scan(container, stream, most=1 if is_picture(path) else None)
        time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        context = stream.codec_context
        codec, pixel_format = str(context.codec.canonical_name), context.pix_fmt or ""
        aspect, transfer = sample_aspect_ratio(stream.sample_aspect_ratio), int(context.color_trc)
        may_break = bool(container.format.flags & _MAY_BREAK)
        # A stream without a header is probed, and may have the size that it has later on.
        is_probed = may_break or bool(container.format.flags & _HAS_NO_TIMES)
        first_size = None if is_probed else (context.width, context.height)
        # AVI numbers its chunks in file order, a bare stream does not even that: presentation times are FFmpeg's guess.
        if container.format.name == "avi" or container.format.flags & _HAS_NO_TIMES:
            scan = scan.by_dts()
        if container.format.name == _LOSES_EARLY_TIMES:
            scan = scan.before_zero()
        # Times that ascend in file order contradict a decoder that reorders.
        is_reordered = bool(context.reorder_depth) and _ascends(scan.times)
        start = container.start_time
    is_shown = _shown(scan, codec)
    has_time = scan.times != _NO_TIME
    step = _usual_step(np.unique(scan.times[is_shown & has_time]), time_base, rate)
    times, is_joined = _end_to_end(scan, is_shown, round(1 / time_base), step, may_break=may_break)
    packet_places = np.argsort(times, kind="stable")[np.count_nonzero(~has_time) :]
    packet_pts = times[packet_places]
    shown = packet_pts[is_shown[packet_places]]
    is_ranked = is_reordered or not scan.has_pts.all() or not _ascends(shown)
    if is_ranked:
        shown = _one_each(shown, int(is_shown.sum()), step)
    last = np.flatnonzero(is_shown)[-1] if is_ranked else packet_places[is_shown[packet_places]][-1]
    last_duration = int(scan.durations[last])
    keys = scan.is_key[packet_places]
    return PacketPlan(
        codec=codec,
        pixel_format=pixel_format,
        sample_aspect_ratio=aspect,
        transfer=transfer,
        first_size=first_size,
        time_base=time_base,
        origin=_origin(start, int(shown[0]), time_base, may_break=may_break),
        pts=shown,
        key_pts=packet_pts[keys],
        key_places=packet_places[keys],
        packet_pts=packet_pts,
        packet_places=packet_places,
        is_shown=is_shown,
        # Some writers say one tick for every frame (flv, some mkv): then the usual step is nearer the truth.
        end_pts=int(shown[-1]) + (last_duration if 2 * last_duration > step else step),
        step=step,
        is_trusted=not is_ranked and not is_joined and bool(keys.any()),
        is_ranked=is_ranked,
    )


def _check_size(stream: av.VideoStream) -> None:
    """What the header says of it; the decoder looks again at what it finds."""
    width, height = stream.codec_context.width or 0, stream.codec_context.height or 0
    if width * height > MAX_PIXELS:
        raise TooManyPixels(
            f"its frames have {width} x {height} pixels, at most {MAX_PIXELS} are taken", remedy="Make it smaller"
        )


def is_picture(path: Path) -> bool:
    """Whether the file is a still picture, told by its first bytes: an animation that FFmpeg takes for one is one too.

    Phones put further pictures behind a JPEG (a map of brightness, of depth, MPO): only the first is shown.
    """
    return _picture_format(path) is not None and path.suffix.lower() not in _MOTION_JPEG


def _whitelists() -> dict[str, str]:
    if _is_upload.get():
        return {"format_whitelist": UPLOAD_DEMUXERS, "codec_whitelist": UPLOAD_DECODERS}
    return {"format_whitelist": DEMUXERS}


@dataclass(frozen=True, eq=False)
class _Scan:
    """What the packets say, in file order; times in ticks, `_NO_TIME` where there is none."""

    times: NDArray[np.int64]
    """The presentation time, else the decoding time."""
    dts: NDArray[np.int64]
    durations: NDArray[np.int64]
    has_pts: NDArray[np.bool_]
    is_key: NDArray[np.bool_]
    is_hidden: NDArray[np.bool_]
    """By an edit list, or by the codec."""

    def by_dts(self) -> _Scan:
        """The same with decoding times alone; where presentation times differ from them, no packet has one."""
        is_same = bool((self.times == self.dts).all())
        return dataclasses.replace(self, times=self.dts, has_pts=self.has_pts & is_same)

    def before_zero(self) -> _Scan:
        """The same where packets without a time, if all follow the first keyframe, have the ticks before 0."""
        lost, keys = np.flatnonzero(self.times == _NO_TIME), np.flatnonzero(self.is_key)
        if not len(lost) or not len(keys) or lost[0] < keys[0] or lost[-1] > [*keys, len(self.times)][1] or lost[0] == 0:
            return self
        times, has_pts = self.times.copy(), self.has_pts.copy()
        times[lost], has_pts[lost] = np.arange(-len(lost), 0), True
        return dataclasses.replace(self, times=times, has_pts=has_pts)


def _scan(container: av.container.InputContainer, stream: av.VideoStream, *, most: int | None) -> _Scan:
    times, decoding_times, durations = array("q"), array("q"), array("q")
    has_pts, is_key, is_hidden = bytearray(), bytearray(), bytearray()
    hides = hidden_frames.HIDES.get(str(stream.codec_context.codec.canonical_name))
    for packet in itertools.islice(demux(container, stream), most):
        if packet.has_sidedata("encryption_info"):  # Decoded all the same, it may give frames, of noise.
            raise InputRejected("is encrypted: it cannot be shown without its key", code="encrypted")
        pts, dts = _sane(packet.pts), _sane(packet.dts)
        times.append(dts if pts == _NO_TIME else pts)
        decoding_times.append(dts)
        durations.append(packet.duration or 0)
        has_pts.append(pts != _NO_TIME)
        is_key.append(packet.is_keyframe)
        is_hidden.append(packet.is_discard or bool(hides and hides(memoryview(packet))))
    if not times:
        raise InputRejected("holds no frames: its video stream is empty", code="no-frames")
    ticks = [np.frombuffer(part, np.int64) for part in (times, decoding_times, durations)]
    flags = [np.frombuffer(part, np.bool_) for part in (has_pts, is_key, is_hidden)]
    return _Scan(ticks[0], ticks[1], ticks[2], flags[0], flags[1], flags[2])


def _sane(time: int | None) -> int:
    return _NO_TIME if time is None or abs(time) > MAX_TICKS else time


def _ascends(times: NDArray[np.int64]) -> bool:
    return bool((np.diff(times) > 0).all())


def _shown(scan: _Scan, codec: str) -> NDArray[np.bool_]:
    """Which packets give a frame that is shown; all that are not hidden where the rest would leave none."""
    visible = ~scan.is_hidden
    if codec in NO_PICTURE_BEFORE_A_KEYFRAME and scan.is_key.any():
        first_key = int(scan.is_key.argmax())
        after_key = np.arange(len(visible)) >= first_key
        if scan.has_pts.all():  # Leading pictures come after the keyframe in the file, and before it on the screen.
            after_key &= _leads_not(scan, first_key)
        if (visible & after_key).any():
            visible &= after_key
    return visible if visible.any() else np.ones_like(visible)


def _leads_not(scan: _Scan, first_key: int) -> NDArray[np.bool_]:
    """False for the leading pictures of the first keyframe: up to the next keyframe, those with an earlier time."""
    following = np.flatnonzero(scan.is_key[first_key + 1 :])
    end = first_key + 1 + int(following[0]) if len(following) else len(scan.times)
    leads_not = np.ones(len(scan.times), bool)
    leads_not[first_key:end] = scan.times[first_key:end] >= scan.times[first_key]
    return leads_not


def _end_to_end(
    scan: _Scan, is_shown: NDArray[np.bool_], second: int, step: int, *, may_break: bool
) -> tuple[NDArray[np.int64], bool]:
    """The times of the packets with pieces laid end to end, and whether there are several.

    Args:
        second: one second in ticks.
        may_break: whether the container allows a clock that jumps ahead; one that goes back is always a new piece.
    """
    breaks = set(_breaks_of_dts(scan, second, step, may_break=may_break))
    if may_break:
        breaks |= set(_breaks_of_keys(scan, second))
    if not breaks:
        return scan.times, False
    times = scan.times.copy()
    end = None
    for first, last in itertools.pairwise([0, *sorted(breaks), len(times)]):
        piece = times[first:last]
        seen = piece[is_shown[first:last] & (piece != _NO_TIME)]
        if not len(seen):
            continue
        if end is not None:
            piece[piece != _NO_TIME] += end - seen.min()
            seen = seen + (end - seen.min())
        end = int(seen.max()) + step
    return times, True


def _breaks_of_dts(scan: _Scan, second: int, step: int, *, may_break: bool) -> Iterator[int]:
    """Places where a piece begins, by decoding times that jump. Those that FFmpeg guesses near a break are no witnesses."""
    is_near = (scan.dts <= scan.times) & (scan.times - scan.dts < second * FORWARD_MS // 1000)
    timed = np.flatnonzero((scan.dts != _NO_TIME) & is_near)
    jumps = np.diff(scan.dts[timed])
    is_break = jumps < -(second * BACKWARD_MS // 1000)
    if may_break:
        is_break |= jumps - step > second * FORWARD_MS // 1000
    for at in np.flatnonzero(is_break):
        before, after = int(timed[at]), int(timed[at + 1])
        keys = np.flatnonzero(scan.is_key[before + 1 : after + 1])
        yield before + 1 + int(keys[0]) if len(keys) else after


def _breaks_of_keys(scan: _Scan, second: int) -> Iterator[int]:
    """Places of keyframes that are shown before a frame which precedes them in the file: no codec allows that."""
    keys = np.flatnonzero(scan.is_key)
    if not len(keys) or not scan.has_pts.all():
        return
    latest_of_gops = np.maximum.reduceat(scan.times, keys)
    latest = int(latest_of_gops[0])
    for place, latest_of_gop in zip(keys[1:].tolist(), latest_of_gops[1:].tolist(), strict=True):
        if scan.times[place] < latest - second * BACKWARD_MS // 1000:
            yield place
            latest = latest_of_gop
        latest = max(latest, latest_of_gop)


def _one_each(times: NDArray[np.int64], count: int, step: int) -> NDArray[np.int64]:
    """`count` ascending times: those that are known, the rest at the usual step after them."""
    if len(times) == 0:  # A bare stream (.h264, say) has no times: its frames follow each other at the nominal rate.
        return np.arange(count, dtype=np.int64) * step
    missing = times[-1] + step * np.arange(1, count - len(times) + 1)
    every = np.concatenate([times, missing])
    # Equal times are moved apart by a tick: the i-th is at least one more than the one before it.
    places = np.arange(count)
    return np.asarray(np.maximum.accumulate(every - places) + places, dtype=np.int64)


def _origin(start: int | None, first: int, time_base: Fraction, *, may_break: bool) -> int:
    """The container's start in ticks, `first` (of the shown frames) where it is unknown, later or over a break away."""
    if start is None:
        return first
    origin = math.floor(Fraction(start, 1_000_000) / time_base + Fraction(1, 2))
    is_apart = may_break and (first - origin) * time_base * 1000 > FORWARD_MS
    return first if origin > first or is_apart else origin


def _picture_format(path: Path) -> str | None:
    """The demuxer of a picture, None for anything else (an AVI begins as a WebP does)."""
    with path.open("rb") as file:
        head = file.read(12)
    return None if head[:2] == b"RI" and head[8:] != b"WEBP" else _PICTURES.get(head[:2])


def _usual_step(pts: NDArray[np.int64], time_base: Fraction, rate: Fraction | None) -> int:
    if len(pts) > 1:
        return int(np.median(np.diff(pts)))
    return max(int(1 / (rate or 25) / time_base), 1)


def demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Packet]:
    """Packets in file order; a file that breaks off ends where it breaks."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FOREIGN:
        return


def say(error: BaseException) -> str:
    """A library's error in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
