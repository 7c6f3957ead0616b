"""Videos made for tests: the brightness of a frame is its number, so that a test knows which frame came back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

LEVELS_PER_FRAME = 4
TICKS_PER_SECOND = 1000


def picture_of(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """All of one grey, 4 levels a frame; the upper left quarter is white, so that turns show."""
    picture = np.full((height, width, 3), LEVELS_PER_FRAME * number, np.uint8)
    picture[: height // 2, : width // 2] = 255
    return picture


def write_video(
    path: Path,
    *,
    num_frames: int = 30,
    fps: int = 10,
    width: int = 64,
    height: int = 48,
    gop: int = 12,
    b_frames: int = 2,
    codec: str = "libx264",
    rotation: int = 0,
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    pixel_format: str = "",
) -> Path:
    """A nearly lossless video of up to 60 frames (lossless x264 has no B-frames); `times_ms` overrides `fps`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format or ("yuv444p" if codec == "libx264" else "yuv420p")
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS_PER_SECOND)
        if codec == "libx265":
            stream.options = {"preset": "ultrafast", "x265-params": f"keyint={gop}:bframes={b_frames}:log-level=none"}
        elif codec == "mpeg2video":
            stream.options = {"g": str(gop), "bf": str(b_frames)}
        elif codec == "libx264":
            stream.options = {
                "qp": "1", "preset": "ultrafast", "g": str(gop), "bf": str(b_frames), "sc_threshold": "0",
                "b-adapt": "0",
            }
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture_of(number, width, height), format="rgb24")
            frame.time_base = Fraction(1, TICKS_PER_SECOND)
            frame.pts = times_ms[number] if times_ms else number * TICKS_PER_SECOND // fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """`write_video`."""
    return write_video


@pytest.fixture
def number_of() -> Callable[[NDArray[np.uint8]], int]:
    """The number of the frame that these pixels show."""

    def read(pixels: NDArray[np.uint8]) -> int:
        # The lower right quarter: the upper left one is white.
        corner = pixels[pixels.shape[0] * 3 // 4 :, pixels.shape[1] * 3 // 4 :]
        return round(float(corner.mean()) / LEVELS_PER_FRAME)

    return read
