"""Videos with text of known words burnt in: titles, clocks, tickers, in several fonts, sizes, scripts and contrasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FPS = 25
FONTS = Path("/usr/share/fonts")
LATIN_FONTS = (
    "truetype/dejavu/DejaVuSans.ttf", "truetype/dejavu/DejaVuSerif.ttf", "truetype/dejavu/DejaVuSansMono.ttf",
    "truetype/dejavu/DejaVuSans-Bold.ttf", "truetype/liberation/LiberationSans-Regular.ttf",
    "truetype/liberation/LiberationSerif-Italic.ttf",
)
CJK_FONT = "opentype/noto/NotoSansCJK-Regular.ttc"

Frame = NDArray[np.uint8]
Background = Callable[[int], Frame]
"""The frame of a number, (height, width, 3)."""


@dataclass(frozen=True)
class Title:
    """A text that stands in the picture for a time."""

    text: str | Callable[[int], str]
    """What it says; of a clock, what it says in each second of the video."""
    left: float
    top: float
    height_px: int
    """Of the font."""
    colour: tuple[int, int, int] = (240, 240, 240)
    start_seconds: float = 0.0
    end_seconds: float = 1e9
    move: tuple[float, float] = (0.0, 0.0)
    """Pixels a second, to the right and down."""
    font: str = LATIN_FONTS[0]

    def at(self, seconds: float) -> str:
        """Return what it says at a time; empty where it is not shown."""
        if not self.start_seconds <= seconds < self.end_seconds:
            return ""
        return self.text if isinstance(self.text, str) else self.text(int(seconds))


@dataclass(frozen=True)
class Shown:
    """A text of a video, and when it was to be seen."""

    text: str
    start_ms: int
    end_ms: int


def make_titled_video(
    path: Path, titles: Sequence[Title], *, seconds: float, background: Background, fps: int = FPS
) -> list[Shown]:
    """Write a video with titles on a background; return what it shows, in order of time."""
    fonts = {title: ImageFont.truetype(str(FONTS / title.font), title.height_px) for title in titles}
    spans: dict[tuple[Title, str], list[int]] = {}

    def frames() -> Iterable[Frame]:
        for number in range(round(seconds * fps)):
            time = number / fps
            picture = Image.fromarray(background(number).copy())
            pen = ImageDraw.Draw(picture)
            for title in titles:
                if text := title.at(time):
                    shown_for = time - title.start_seconds
                    place = (title.left + title.move[0] * shown_for, title.top + title.move[1] * shown_for)
                    pen.text(place, text, font=fonts[title], fill=title.colour)
                    spans.setdefault((title, text), []).append(number)
            yield np.asarray(picture)

    encode(path, frames(), fps=fps)
    shown = [
        Shown(text, numbers[0] * 1000 // fps, (numbers[-1] + 1) * 1000 // fps) for (_, text), numbers in spans.items()
    ]
    return sorted(shown, key=lambda each: each.start_ms)


def plain(width: int, height: int, level: int) -> Background:
    """Return a background of one grey level with the noise of a camera."""
    rng = np.random.default_rng(level)
    pictures = [
        np.clip(level + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8) for _ in range(4)
    ]
    return lambda number: pictures[number % len(pictures)]


def drifting(width: int, height: int, seed: int) -> Background:
    """Return a background of soft spots that move through the picture, like a room recorded with the camera in a hand."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 150, (12, 20, 3)).astype(np.uint8))
    wide = np.asarray(coarse.resize((width * 2, height * 2), Image.Resampling.BICUBIC))

    def frame(number: int) -> Frame:
        left, top = (round(abs((number * step) % (2 * size) - size)) for step, size in ((2.1, width), (1.3, height)))
        return wide[top : top + height, left : left + width]

    return frame


def busy(width: int, height: int, seed: int) -> Background:
    """Return a background of hard-edged blocks of all levels up to 200 that moves, like leaves or a crowd."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (height // 3 + 1, width // 3 + 1, 3)).astype(np.uint8)
    wide = np.kron(blocks, np.ones((6, 6, 1), np.uint8))

    def frame(number: int) -> Frame:
        left, top = (number * 3) % width, number % height
        return wide[top : top + height, left : left + width]

    return frame


def encode(path: Path, frames: Iterable[Frame], *, fps: int) -> None:
    """Write frames (height, width, 3) as H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.codec_context.time_base = Fraction(1, fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "veryfast"}
        for number, pixels in enumerate(frames):
            if not number:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
