"""Videos whose shot boundaries are known because they were cut together here: cuts, dissolves and fades, seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.frames import frames_at

FPS = 25
WIDTH, HEIGHT = 320, 180

Kind = Literal["cut", "dissolve", "fade"]
Frame = NDArray[np.uint8]
Scene = Callable[[int], list[Frame]]
"""So many frames of (HEIGHT, WIDTH, 3), or as many as there are."""


@dataclass(frozen=True)
class Boundary:
    """Where one scene ends and the next begins."""

    kind: Kind
    first: int
    """A cut: the first frame of the new scene. Else: the first frame in which both scenes, or black, are mixed."""
    last: int
    """The last such frame; of a cut the same as `first`."""


def rendered_scene(seed: int) -> Scene:
    """A soft pattern that drifts, with a disc that crosses it."""

    def frames(count: int) -> list[Frame]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(20, 236, (7, 12, 3)).astype(float)
        wide = np.kron(coarse, np.ones((HEIGHT // 5, WIDTH // 9, 1)))
        step, colour = rng.uniform(-1.5, 1.5, 2), rng.integers(0, 256, 3)
        start, speed = rng.uniform(40, 140, 2), rng.uniform(-3, 3, 2)
        ys, xs = np.mgrid[:HEIGHT, :WIDTH]
        made = []
        for i in range(count):
            top, left = _bounce(20 + step * i, np.array(wide.shape[:2]) - (HEIGHT, WIDTH)).astype(int)
            frame = wide[top : top + HEIGHT, left : left + WIDTH].copy()
            y, x = _bounce(start + speed * i, np.array([HEIGHT, WIDTH]))
            frame[(ys - y) ** 2 + (xs - x) ** 2 < 26**2] = colour
            made.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
        return made

    return frames


def _bounce(place: NDArray[np.float64], size: NDArray[Any]) -> NDArray[Any]:
    """`place` thrown back at 0 and at `size`: a jump would be a cut that nobody knows of."""
    return size - np.abs(place % (2 * size) - size)


def recorded_scene(path: Path, *, start_ms: int, end_ms: int) -> Scene:
    """Frames of the video at `path` from `start_ms` to `end_ms`, squeezed into the video's size."""

    def frames(count: int) -> list[Frame]:
        times = range(start_ms, end_ms, 1000 // FPS)[:count]
        return [_squeeze(frame.pixels) for frame in frames_at(path, times)]

    return frames


def join_scenes(
    path: Path, scenes: Sequence[Scene], kinds: Sequence[Kind], *, seed: int, lengths: Sequence[int] = ()
) -> list[Boundary]:
    """Cut `scenes` together with boundaries of `kinds`, in order, each scene 2 to 4 seconds; what is true of the video.

    A dissolve takes 10 to 25 frames, or those of `lengths`; a fade as many out to black and as many in again.
    """
    rng = np.random.default_rng(seed)
    video: list[Frame] = []
    truth: list[Boundary] = []
    for number, scene in enumerate(scenes):
        kind: Kind = kinds[number - 1] if number else "cut"
        drawn = int(rng.integers(10, 26))
        mixed = lengths[number - 1] if lengths and number else drawn
        frames = scene(int(rng.integers(2 * FPS, 4 * FPS + 1)))
        if not number:
            video += frames
            continue
        if kind == "cut":
            truth.append(Boundary("cut", len(video), len(video)))
            video += frames
            continue
        tail, video = video[-mixed:], video[:-mixed]
        head, rest = frames[:mixed], frames[mixed:]
        shares = np.arange(1, mixed + 1) / (mixed + 1)
        black = np.zeros_like(head[0])
        if kind == "dissolve":
            between = [_mix(a, b, share) for a, b, share in zip(tail, head, shares, strict=True)]
        else:
            between = [_mix(a, black, share) for a, share in zip(tail, shares, strict=True)]
            between += [_mix(black, b, share) for b, share in zip(head, shares, strict=True)]
        truth.append(Boundary(kind, len(video), len(video) + len(between) - 1))
        video += between + rest
    _encode(path, video)
    return truth


def _mix(a: Frame, b: Frame, share: float) -> Frame:
    return np.asarray(a * (1 - share) + b * share, np.uint8)


def _squeeze(pixels: Frame) -> Frame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(WIDTH, HEIGHT, "rgb24")
    return np.asarray(frame.to_ndarray(), np.uint8)


def _encode(path: Path, video: Sequence[Frame]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.options = {"crf": "23", "preset": "veryfast"}
        for number, pixels in enumerate(video):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
