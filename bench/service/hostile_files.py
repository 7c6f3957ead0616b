"""Uploads that cost far more to decode than to send, made here: pictures and videos within the service's limits of size."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

START_OF_SCAN, END_OF_IMAGE, COMMENT = 0xDA, 0xD9, 0xFE


@dataclass(frozen=True)
class HostileFiles:
    """What the clients of `bench.service.hostile` upload."""

    ordinary_picture: bytes
    pictures: tuple[bytes, ...]
    videos: tuple[bytes, ...]

    @staticmethod
    def make(*, video_frames: int = 150) -> HostileFiles:
        """Make all of them: a few seconds, most of them for the videos."""
        pictures = scans_jpeg(side=4000, scans=1200), run_bmp(side=1500), marker_jpeg()
        videos = heavy_video(num_frames=video_frames), heavy_video(num_frames=20)[:-20_000]
        return HostileFiles(ordinary_picture(), pictures, videos)


def ordinary_picture() -> bytes:
    """A JPEG as a camera gives it, scaled to 640 x 480."""
    rows, columns = np.mgrid[0:480, 0:640]
    pixels = np.stack([rows // 2, columns // 3, (rows + columns) // 5], axis=2).astype(np.uint8)
    return _encoded(Image.fromarray(pixels), "JPEG")


def scans_jpeg(*, side: int, scans: int) -> bytes:
    """A grey progressive JPEG whose last scan comes `scans` times more: a decoder walks over all blocks for each."""
    plain = _encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    end = plain.rindex(bytes((0xFF, END_OF_IMAGE)))
    last = _begin_of_last_scan(plain)
    return plain[:end] + plain[last:end] * scans + plain[end:]


def run_bmp(*, side: int) -> bytes:
    """A run-length encoded BMP of runs of one pixel each: Pillow reads these in Python."""
    row = b"\x01\x07" * side + b"\0\0"
    content = row * side + b"\0\1"
    palette = b"".join(struct.pack("<BBBB", grey, grey, grey, 0) for grey in range(256))
    offset = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(content), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(content), 2835, 2835, 256, 256)
    return head + info + palette + content


def marker_jpeg(*, num_markers: int = 1_000_000) -> bytes:
    """A JPEG with empty comments before its picture: Pillow looks at each in Python."""
    plain = _encoded(Image.new("RGB", (64, 64), "red"), "JPEG")
    return plain[:2] + bytes((0xFF, COMMENT, 0, 2)) * num_markers + plain[2:]


def heavy_video(*, num_frames: int, width: int = 1920, height: int = 1080) -> bytes:
    """An H.264 video with one keyframe: to show its end, all of it is decoded."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width + 64, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        path = Path(folder) / "heavy.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            options = {"preset": "ultrafast", "crf": "40", "g": "100000", "sc_threshold": "0"}
            stream = container.add_stream("libx264", rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(num_frames):
                shifted = np.ascontiguousarray(noise[:, number % 64 : number % 64 + width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def _encoded(image: Image.Image, kind: str, **options: bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _begin_of_last_scan(jpeg: bytes) -> int:
    """Where the last scan begins, with the tables before it."""
    segments = list(_segments(jpeg))
    scans = [number for number, (marker, _) in enumerate(segments) if marker == START_OF_SCAN]
    return segments[scans[-2]][1] if len(scans) > 1 else segments[scans[-1]][0]


def _segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment, and where it ends, entropy-coded bytes included."""
    place = 2
    while jpeg[place + 1] != END_OF_IMAGE:
        marker = jpeg[place + 1]
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        while marker == START_OF_SCAN and (jpeg[place] != 0xFF or jpeg[place + 1] in (0, *range(0xD0, 0xD8))):
            place += 1
        yield marker, place
