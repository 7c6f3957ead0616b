"""Read the packets of a video once, without decoding, to know when each frame is shown.

Time 0 is the container's start, as in players and subtitles. Timestamps are checked before they are used: transport streams
that were joined or restarted are laid end to end, frames that are never shown are not counted, and a file whose packets
carry times in decode order (AVI) gets times in display order.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.containers import OpenVideo, Packet, demux, open_video
from vidseek_media.decoding.display import sample_aspect_ratio
from vidseek_media.decoding.timeline import (
    NO_TIME,
    PacketScan,
    distinct_times,
    is_ascending,
    join_pieces,
    origin_of,
    shown_packets,
    usual_step,
)
from vidseek_media.errors import InputRejected

MAX_TICKS = 2**52
"""A larger timestamp is treated as missing."""

_MAY_BREAK, _HAS_NO_TIMES = 0x0200, 0x0080
"""AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS of avformat.h: timestamps of this container may jump, or do not exist."""

_LOSES_EARLY_TIMES = "matroska,webm"
"""FFmpeg's demuxer of these gives no time for packets that are shown before time 0."""


@dataclass(frozen=True, eq=False)
class PacketPlan:
    """When each frame is shown, read from the packets without decoding. Times are in ticks of `time_base`.

    The arrays take about 25 bytes a packet: a few MB for hours of video.
    """

    codec: str
    is_still: bool
    """Whether it is one still picture, which Pillow decodes."""
    pixel_format: str
    """FFmpeg's name; empty if the header does not state it."""
    sample_aspect_ratio: Fraction
    """Width to height of one sample; 1 if the file does not state it or states an impossible one."""
    transfer: int
    """Transfer characteristics of the header (H.273); 2 if it does not state them."""
    first_size: tuple[int, int] | None
    """Width and height of the first frame; None if the header may state those of a later frame."""
    time_base: Fraction
    origin: int
    """Time 0 of the video: the container's start, at or before the first frame."""
    pts: NDArray[np.int64]
    """Of all shown frames, ascending. Frames hidden by an edit list or the codec are left out."""
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
    """The usual distance of two frames."""
    is_trusted: bool
    """Whether every packet has a distinct presentation time on one line. If not, the file is decoded from its beginning."""
    is_ranked: bool
    """Whether packets' times cannot be matched to frames; then frame i in display order has the i-th of `pts`."""

    def ticks_at(self, time_ms: int) -> int:
        """Return the last tick at or before a time.

        Args:
            time_ms: From the container's start.
        """
        return self.origin + time_ms * self.time_base.denominator // (1000 * self.time_base.numerator)

    def ms_of(self, pts: int) -> int:
        """Return a time in whole milliseconds from the container's start, rounded half up.

        Args:
            pts: In ticks.
        """
        return int((int(pts) - self.origin) * self.time_base * 1000 + Fraction(1, 2))

    def index_at(self, time_ms: int) -> int:
        """Return the number, from 0, of the frame shown at a time: the last one that begins at or before it.

        Args:
            time_ms: From the container's start.
        """
        return max(int(np.searchsorted(self.pts, self.ticks_at(time_ms), "right")) - 1, 0)

    def shown_at(self, time_ms: int) -> int:
        """Return the pts of the frame shown at a time.

        Args:
            time_ms: From the container's start.
        """
        return int(self.pts[self.index_at(time_ms)])

    def key_before(self, pts: int) -> tuple[int, int] | None:
        """Return pts and place of the last keyframe that is shown at or before a time; None if there is none.

        Args:
            pts: In ticks.
        """
        at = int(np.searchsorted(self.key_pts, pts, "right")) - 1
        return None if at < 0 else (int(self.key_pts[at]), int(self.key_places[at]))

    def place_of(self, pts: int) -> int | None:
        """Return the place in the file of the packet with a time; None if there is none.

        Args:
            pts: In ticks.
        """
        at = int(np.searchsorted(self.packet_pts, pts))
        if at == len(self.packet_pts) or self.packet_pts[at] != pts:
            return None
        return int(self.packet_places[at])

    @property
    def duration_ms(self) -> int:
        """From the container's start to the end of the last frame, at least 1."""
        return max(self.ms_of(self.end_pts), 1)

    def pts_by_place(self) -> NDArray[np.int64]:
        """Return the time of each packet in file order, `NO_TIME` if it has none."""
        times = np.full(len(self.is_shown), NO_TIME, np.int64)
        times[self.packet_places] = self.packet_pts
        return times


def read_plan(path: Path) -> PacketPlan:
    """Read a video's packets and return when each frame is shown. Nothing is decoded.

    Args:
        path: The file.

    Raises:
        InputRejected: the file cannot be opened, holds no packet of video, or is encrypted.
    """
    with open_video(path, decodes=False) as video:
        return plan_of(video)


def plan_of(video: OpenVideo, *, on_packet: Callable[[Packet], None] | None = None) -> PacketPlan:
    """Read the packets of an open video, from where it is to its end, and return when each frame is shown.

    Args:
        video: Just opened.
        on_packet: Gets each packet, after it was read for the plan.

    Raises:
        InputRejected: as in `read_plan`.
    """
    header, scan = _read(video, on_packet)
    is_shown = shown_packets(scan, header.codec)
    has_time = scan.times != NO_TIME
    step = usual_step(np.unique(scan.times[is_shown & has_time]), header.time_base, header.rate)
    times, is_joined = join_pieces(scan, is_shown, round(1 / header.time_base), step, may_break=header.may_break)
    packet_places = np.argsort(times, kind="stable")[np.count_nonzero(~has_time) :]
    packet_pts = times[packet_places]
    shown = packet_pts[is_shown[packet_places]]
    is_ranked = header.is_reordered or not scan.has_pts.all() or not is_ascending(shown)
    if is_ranked:
        shown = distinct_times(shown, int(is_shown.sum()), step)
    last = np.flatnonzero(is_shown)[-1] if is_ranked else packet_places[is_shown[packet_places]][-1]
    last_duration = int(scan.durations[last])
    keys = scan.is_key[packet_places]
    return PacketPlan(
        codec=header.codec, is_still=video.is_picture or (header.codec == "gif" and len(shown) == 1),
        pixel_format=header.pixel_format, sample_aspect_ratio=header.sample_aspect_ratio,
        transfer=header.transfer, first_size=header.first_size, time_base=header.time_base,
        origin=origin_of(header.start, int(shown[0]), header.time_base, may_break=header.may_break),
        pts=shown, key_pts=packet_pts[keys], key_places=packet_places[keys], packet_pts=packet_pts,
        packet_places=packet_places, is_shown=is_shown,
        # Some writers state one tick for every frame (flv, some mkv); the usual step is then a better estimate.
        end_pts=int(shown[-1]) + (last_duration if 2 * last_duration > step else step),
        step=step, is_trusted=not is_ranked and not is_joined and bool(keys.any()), is_ranked=is_ranked,
    )


@dataclass(frozen=True)
class _Header:
    """What the container's header states, as `PacketPlan` has it."""

    codec: str
    pixel_format: str
    sample_aspect_ratio: Fraction
    transfer: int
    first_size: tuple[int, int] | None
    time_base: Fraction
    rate: Fraction | None
    """Frames a second."""
    start: int | None
    """Of the container, in microseconds."""
    may_break: bool
    """Whether timestamps of this container may jump."""
    is_reordered: bool
    """Whether the decoder reorders frames although times ascend in file order; the times are then wrong."""


def _read(video: OpenVideo, on_packet: Callable[[Packet], None] | None) -> tuple[_Header, PacketScan]:
    stream, container = video.stream, video.container
    if not stream.time_base:
        raise InputRejected("its video stream has no time base", code="no-time-base")
    context, flags, name = stream.codec_context, container.format.flags, container.format.name
    # As the header states them: a decoder that gets the packets changes them.
    first_size, depth, transfer = (context.width, context.height), context.reorder_depth, int(context.color_trc)
    pixel_format = context.pix_fmt or ""
    scan = _scan(video, on_packet)
    # AVI only numbers its chunks and a raw stream has no times: presentation times are guessed by FFmpeg.
    if name == "avi" or flags & _HAS_NO_TIMES:
        scan = scan.by_dts()
    if name == _LOSES_EARLY_TIMES:
        scan = scan.before_zero()
    # Without a global header the size was probed and may be that of a later frame.
    is_probed = bool(flags & (_MAY_BREAK | _HAS_NO_TIMES))
    return _Header(
        codec=str(context.codec.canonical_name), pixel_format=pixel_format,
        sample_aspect_ratio=sample_aspect_ratio(stream.sample_aspect_ratio), transfer=transfer,
        first_size=None if is_probed else first_size, time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate, start=container.start_time,
        may_break=bool(flags & _MAY_BREAK), is_reordered=bool(depth) and is_ascending(scan.times),
    ), scan


def _scan(video: OpenVideo, on_packet: Callable[[Packet], None] | None) -> PacketScan:
    times, decoding_times, durations = array("q"), array("q"), array("q")
    has_pts, is_key, is_hidden = bytearray(), bytearray(), bytearray()
    hides = HIDES.get(str(video.stream.codec_context.codec.canonical_name))
    for packet in itertools.islice(demux(video.container, video.stream), 1 if video.is_picture else None):
        if packet.has_sidedata("encryption_info"):  # decoding would give noise
            raise InputRejected("is encrypted: it cannot be shown without its key", code="encrypted")
        pts, dts = _sane(packet.pts), _sane(packet.dts)
        times.append(dts if pts == NO_TIME else pts)
        decoding_times.append(dts)
        durations.append(packet.duration or 0)
        has_pts.append(pts != NO_TIME)
        is_key.append(packet.is_keyframe)
        is_hidden.append(packet.is_discard or bool(hides and hides(memoryview(packet))))
        if on_packet:
            on_packet(packet)
    if not times:
        raise InputRejected("holds no frames: its video stream is empty", code="no-frames")
    ticks = [np.frombuffer(part, np.int64) for part in (times, decoding_times, durations)]
    flags = [np.frombuffer(part, np.bool_) for part in (has_pts, is_key, is_hidden)]
    return PacketScan(ticks[0], ticks[1], ticks[2], flags[0], flags[1], flags[2])


def _sane(time: int | None) -> int:
    return NO_TIME if time is None or abs(time) > MAX_TICKS else time


def vp8_hides(packet: memoryview) -> bool:
    """Return whether a VP8 packet is a hidden reference frame: `show_frame` is 0 (RFC 6386, section 9.1).

    Args:
        packet: Its bytes.
    """
    return bool(len(packet)) and not packet[0] >> 4 & 1


def vp9_hides(packet: memoryview) -> bool:
    """Return whether no frame of a VP9 packet or superframe is shown (VP9 bitstream specification, 6.2 and annex B).

    Args:
        packet: Its bytes.
    """
    return bool(len(packet)) and not any(_vp9_shows(frame[0]) for frame in _vp9_frames(packet) if len(frame))


HIDES: dict[str, Callable[[memoryview], bool]] = {"vp8": vp8_hides, "vp9": vp9_hides}
"""Whether a packet's frame is never shown, by FFmpeg's codec name. Each packet of AV1 is a temporal unit and shows one."""


def _vp9_shows(head: int) -> bool:
    """From the first byte of a frame: marker (2 bits), profile (2), reserved (in profile 3), then three flags."""
    if head >> 6 != 2:
        return True  # not a VP9 frame: left to the decoder
    reserved = 1 if head >> 4 & 3 == 3 else 0
    shows_existing, shows = head >> (3 - reserved) & 1, head >> (1 - reserved) & 1
    return bool(shows_existing or shows)


def _vp9_frames(packet: memoryview) -> Iterator[memoryview]:
    marker = packet[-1]
    num_frames, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = 2 + width * num_frames
    if marker & 0xE0 != 0xC0 or len(packet) < index or packet[-index] != marker:
        yield packet
        return
    start = 0
    for number in range(num_frames):
        at = len(packet) - index + 1 + number * width
        size = int.from_bytes(packet[at : at + width], "little")
        yield packet[start : start + size]
        start += size
