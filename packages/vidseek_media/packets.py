"""The packets of a video: the container opened with care, and read once without decoding, to know when frames are shown."""

from __future__ import annotations

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

from vidseek_media.errors import InputRejected
from vidseek_media.pictures import TooManyPixels

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,nut,ivf,"
    "yuv4mpegpipe,rm,dv,obu,av1,vc1,wtv,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""Containers that are opened. Playlists (hls, concat, dash) are not among them: they would read other files."""

UPLOAD_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,gif,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
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

MAX_PIXELS = 2**27
"""A frame larger than this (8K is a quarter of it) is refused by the decoder before memory is taken."""

FOREIGN = (av.error.FFmpegError, ValueError, OSError)
"""What PyAV raises of a file."""

Packet: TypeAlias = "av.Packet[av.VideoStream]"


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
        raise InputRejected(f"cannot be opened as video: {say(error)}") from error
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
        if decodes:
            _check_size(stream)
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
    ticks, places = array("q"), array("q")
    is_key, is_shown = bytearray(), bytearray()
    last_pts, last_duration, num_packets, num_without_pts = -(2**62), 0, 0, 0
    with open_video(path, decodes=False) as (container, stream):
        if not stream.time_base:
            raise InputRejected("its video stream has no time base")
        time_base, rate = stream.time_base, stream.average_rate or stream.guessed_rate
        codec = str(stream.codec_context.codec.canonical_name)
        pixel_format = stream.codec_context.pix_fmt or ""
        for packet in demux(container, stream):
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


def _check_size(stream: av.VideoStream) -> None:
    """What the header says of it; the decoder looks again at what it finds."""
    width, height = stream.codec_context.width or 0, stream.codec_context.height or 0
    if width * height > MAX_PIXELS:
        raise TooManyPixels(
            f"its frames have {width} x {height} pixels, at most {MAX_PIXELS} are taken", remedy="Make it smaller"
        )


def is_picture(path: Path, plan: PacketPlan) -> bool:
    """Whether the file is one still picture of a format that is told by its first bytes."""
    return len(plan.pts) == 1 and _picture_format(path) is not None


def _whitelists() -> dict[str, str]:
    if _is_upload.get():
        return {"format_whitelist": UPLOAD_DEMUXERS, "codec_whitelist": UPLOAD_DECODERS}
    return {"format_whitelist": DEMUXERS}


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
