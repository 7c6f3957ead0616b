"""Cuts a span of a video into a small MP4 file, without sound, at few frames a second."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.frames import frames_at
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.ids import to_ms


def cut_excerpt(path: Path, *, start_ms: int, end_ms: int, side_px: int, fps: float) -> bytes:
    """Encode a span of a video as H.264 in MP4, upright.

    Args:
        path: The video file.
        start_ms: Start of the span in milliseconds.
        end_ms: End of the span in milliseconds, exclusive.
        side_px: Largest shorter side in pixels; sizes are even numbers.
        fps: Frames a second, above 0.

    Raises:
        InputRejected: the span cannot be decoded.
        ConfigError: `fps` or `side_px` is not positive, or the span is empty.
    """
    if fps <= 0 or side_px < 2 or not 0 <= start_ms < end_ms:
        raise ConfigError(
            f"an excerpt of [{start_ms}, {end_ms}) ms at {side_px} px and {fps:g} frames a second is none",
            code="setting-out-of-range",
        )
    times_ms = list(takewhile(lambda time_ms: time_ms < end_ms, (start_ms + to_ms(i / fps) for i in count())))
    pictures = [_even(frame.pixels) for frame in frames_at(path, sorted(set(times_ms)), side_px=side_px)]
    try:
        return _encode(pictures, Fraction(fps).limit_denominator(1000))
    except av.error.FFmpegError as error:
        raise InputRejected(
            f"{path.name}: [{start_ms}, {end_ms}) ms cannot be encoded: {error}", code="excerpt-not-encoded",
        ) from error


def _encode(pictures: list[NDArray[np.uint8]], rate: Fraction) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "26"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without the last row and column where their number is odd: 4:2:0 has no half pixels."""
    height, width = (max(2, side - side % 2) for side in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width])
