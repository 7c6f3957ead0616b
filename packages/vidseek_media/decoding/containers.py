"""Open video files with FFmpeg, with limits on containers, decoders and frame size: the only module that opens a video."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import av.error
from av.stream import Discard, Disposition

from vidseek_media.decoding.pictures import TooManyPixels
from vidseek_media.errors import InputRejected

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,gif,h264,hevc,m4v,mjpeg,mxf,nut,ivf,"
    "yuv4mpegpipe,rm,dv,obu,av1,vc1,wtv,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""Containers that are opened. Playlists (hls, concat, dash) are excluded because they read other files."""

UPLOAD_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,gif,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)

UPLOAD_DECODERS = (
    "h264,hevc,libdav1d,libaom-av1,av1,vp8,vp9,libvpx,libvpx-vp9,mpeg4,mpeg2video,mpeg1video,mjpeg,gif,png,webp,bmp,h263,"
    "msmpeg4v1,msmpeg4v2,msmpeg4,wmv1,wmv2,wmv3,vc1,flv,theora,prores"
)
"""Containers and decoders of uploads: what phones, cameras, browsers and editors write. FFmpeg has hundreds more, and each
is code that an attacker could reach."""

_PICTURES = {b"\xff\xd8": "jpeg_pipe", b"\x89P": "png_pipe", b"RI": "webp_pipe", b"BM": "bmp_pipe"}
"""Demuxers of still pictures by first bytes. By file name FFmpeg would read a numbered series of files."""

_MOTION_JPEG = (".mjpeg", ".mjpg")
"""A series of JPEG images. It begins like a single one, so only the file name tells them apart."""

MAX_PIXELS = 2**27
"""The decoder refuses larger frames before it allocates memory. An 8K frame is a quarter of this."""

FOREIGN = (av.error.FFmpegError, ValueError, OSError)
"""Errors that PyAV raises for a broken file."""

Packet: TypeAlias = "av.Packet[av.VideoStream]"

Container: TypeAlias = "av.container.InputContainer"

Stream: TypeAlias = "av.VideoStream"

AudioStream: TypeAlias = "av.AudioStream"

_is_upload: ContextVar[bool] = ContextVar("is_upload", default=False)


@contextmanager
def as_upload() -> Iterator[None]:
    """Within this context videos are opened with the containers and decoders of uploads only."""
    token = _is_upload.set(True)
    try:
        yield
    finally:
        _is_upload.reset(token)


@dataclass(frozen=True)
class OpenVideo:
    """An open file, and its video stream."""

    container: Container
    stream: Stream
    is_picture: bool
    """Whether it is a still picture by its first bytes; an animated PNG or WebP counts as one."""
    file: io.FileIO | io.BytesIO

    def content(self) -> bytes:
        """Return the whole file. The container reads on from its end."""
        self.file.seek(0)
        return self.file.read()


@contextmanager
def open_video(path: Path, *, threads: int = 1, decodes: bool = True) -> Iterator[OpenVideo]:
    """Open a video and its best video stream by FFmpeg's choice: the default one, else the one with most pixels.

    The file is opened once. A still picture is read into memory.

    Args:
        path: The file. Other files that it refers to are not read.
        threads: Decoder threads, at least 1.
        decodes: Whether frames will be decoded; then a frame size over `MAX_PIXELS` in the header is refused.

    Raises:
        InputRejected: the file cannot be opened, or has no video stream (a cover picture is none).
        TooManyPixels: the header states a frame size over `MAX_PIXELS`.
    """
    with _open(path) as (container, file, is_picture):
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
            check_size(cast(av.VideoStream, stream))
        # Frame threads hang when a damaged file is closed (PyAV 18); slice threads do not.
        stream.codec_context.thread_type = "SLICE"
        stream.codec_context.thread_count = threads
        limits = {"codec_whitelist": UPLOAD_DECODERS} if _is_upload.get() else {}
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **limits}
        yield OpenVideo(container, cast(av.VideoStream, stream), is_picture, file)


@contextmanager
def open_sound(path: Path) -> Iterator[tuple[Container, AudioStream | None]]:
    """Open a file and its best audio stream by FFmpeg's choice: the default one, else the one with most channels.

    Args:
        path: The file. Other files that it refers to are not read.

    Raises:
        InputRejected: the file cannot be opened, or there is no decoder for its sound.
    """
    with _open(path) as (container, _, _):
        stream = container.streams.best("audio")
        for other in container.streams:
            if stream is None or other.index != stream.index:
                other.discard = Discard.all
        if stream is not None and stream.codec_context is None:
            raise InputRejected("its audio codec is unknown: no decoder for it", code="unknown-codec")
        yield container, cast("AudioStream | None", stream)


TEXT_CODECS = frozenset(["mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text"])
"""Of subtitle streams that hold text."""


@contextmanager
def open_subtitles(path: Path) -> Iterator[tuple[Container, list[Any]]]:
    """Open a file and its subtitle streams that hold text; packets of other streams are passed over.

    Args:
        path: The file. Other files that it refers to are not read.

    Raises:
        InputRejected: the file cannot be opened.
    """
    with _open(path) as (container, _, _):
        streams = [
            stream for stream in container.streams
            if stream.type == "subtitle" and stream.codec_context is not None and stream.codec_context.name in TEXT_CODECS
        ]
        kept = {stream.index for stream in streams}
        for other in container.streams:
            if other.index not in kept:
                other.discard = Discard.all
        yield container, streams


def demux(container: Container, stream: Stream) -> Iterator[Packet]:
    """Yield the packets in file order; a truncated file ends at its last whole packet.

    Args:
        container: As `open_video` gives it.
        stream: Its video stream.
    """
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FOREIGN:
        return


def message_of(error: BaseException) -> str:
    """Return an error of a library in one line of at most 200 characters.

    Args:
        error: As the library raised it.
    """
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


_LENIENT: Mapping[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Metadata that is not UTF-8 stops no file. PyAV 19 has no such option: it lets every file through."""


@contextmanager
def _open(path: Path) -> Iterator[tuple[Container, io.FileIO | io.BytesIO, bool]]:
    """Open a file; give it with the bytes that it is read from, and whether it is a still picture."""
    with ExitStack() as stack:
        try:
            on_disk = stack.enter_context(path.open("rb", buffering=0))
            picture_format = _picture_format(on_disk)
            # Phones append further images to a JPEG (brightness map, depth map, MPO); only the first is shown.
            is_picture = picture_format is not None and path.suffix.lower() not in _MOTION_JPEG
            file = io.BytesIO(on_disk.read()) if is_picture else on_disk
            options = {"protocol_whitelist": "file", **_whitelists()}
            opened: Container = av.open(file, "r", format=picture_format, options=options, **_LENIENT)  # type: ignore[call-overload]
            container = stack.enter_context(opened)
        except FOREIGN as error:
            raise InputRejected(f"cannot be opened as video: {message_of(error)}", code="not-a-video") from error
        yield container, file, is_picture


def check_size(stream: Stream) -> None:
    """Check the size that the header states. The decoder checks each frame again.

    Raises:
        TooManyPixels: it is over `MAX_PIXELS`.
    """
    width, height = stream.codec_context.width or 0, stream.codec_context.height or 0
    if width * height > MAX_PIXELS:
        raise TooManyPixels(
            f"its frames have {width} x {height} pixels, at most {MAX_PIXELS} are taken", remedy="Make it smaller"
        )


def _whitelists() -> dict[str, str]:
    if _is_upload.get():
        return {"format_whitelist": UPLOAD_DEMUXERS, "codec_whitelist": UPLOAD_DECODERS}
    return {"format_whitelist": DEMUXERS}


def _picture_format(file: io.FileIO) -> str | None:
    """Return the demuxer of a still picture, None for another file. AVI and WebP share their first bytes."""
    head = file.read(12)
    file.seek(0)
    return None if head[:2] == b"RI" and head[8:] != b"WEBP" else _PICTURES.get(head[:2])
