"""Shots of videos that are odd in their frames: each gives sane cuts, and clips without gaps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_media.cutting.shots import find_cuts, shot_spans
from vidseek_media.decoding.packets import read_plan
from vidseek_media.settings import ShotSettings

pytest.importorskip("scenedetect")
RNG = np.random.default_rng(0)
ONE, OTHER = (np.kron(RNG.integers(20, 236, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(2))
Frames = list[NDArray[np.uint8]]


def encode(path: Path, frames: Frames, *, times: list[int] | None = None, options: dict[str, str] | None = None) -> Path:
    """Frames at `times`, in units of 40 ms."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast", **(options or {})}
        stream.codec_context.time_base = Fraction(1, 25)
        for number, pixels in zip(times or itertools.count(), frames, strict=False):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def flashes() -> Frames:
    return [np.full_like(ONE, 255) if number % 3 == 0 else ONE for number in range(60)]


@pytest.mark.parametrize(
    ("frames", "cuts_ms"),
    [
        pytest.param(lambda: [ONE], [], id="one frame"), pytest.param(lambda: [ONE, OTHER], [], id="two frames"),
        pytest.param(lambda: [ONE] * 60, [], id="still throughout"),
        pytest.param(lambda: [ONE * 0] * 60, [], id="black throughout"),
        pytest.param(flashes, [], id="flashes alone"),
        pytest.param(lambda: [ONE] * 30 + [OTHER] * 5 + [ONE] * 30, [], id="a shot of 0.2 s, then the same picture"),
        pytest.param(lambda: [ONE] * 30 + [OTHER] * 30, [1200], id="one cut"),
    ],
)
def test_find_cuts__of_odd_frames(tmp_path: Path, frames: Callable[[], Frames], cuts_ms: list[int]) -> None:
    path = encode(tmp_path / "odd.mp4", frames())
    assert find_cuts(path, settings=ShotSettings()) == cuts_ms


def test_find_cuts__goes_by_the_clock_where_the_rate_varies(tmp_path: Path) -> None:
    times = [*range(30), *range(30, 150, 4)]
    path = encode(tmp_path / "varying.mp4", [ONE] * 40 + [OTHER] * 20, times=times)
    assert find_cuts(path, settings=ShotSettings()) == [times[40] * 40]


def test_find_cuts__of_interlaced_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "interlaced.mp4", [ONE] * 30 + [OTHER] * 30, options={"x264-params": "interlaced=1"})
    assert find_cuts(path, settings=ShotSettings()) == [1200]


@pytest.mark.slow
def test_find_cuts__of_8k_frames(tmp_path: Path) -> None:
    wide = [np.broadcast_to(np.uint8(level), (4320, 7680, 3)) for level in (40, 200)]
    path = encode(tmp_path / "wide.mp4", [wide[0]] * 3 + [wide[1]] * 3)
    assert find_cuts(path, settings=ShotSettings()) in ([], [120])  # too short for a comparison with neighbours


def test_find_cuts__of_a_still_picture_finds_none(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(ONE).save(tmp_path / "one.png")
    assert find_cuts(tmp_path / "one.png", settings=ShotSettings()) == []


def test_shot_spans__of_any_cuts_cover_the_video_without_gaps(tmp_path: Path) -> None:
    path = encode(tmp_path / "fast.mp4", [[ONE, OTHER][number // 6 % 2] for number in range(120)])
    duration_ms = read_plan(path).duration_ms
    spans = list(shot_spans(find_cuts(path, settings=ShotSettings()), duration_ms, min_ms=2000, max_ms=10_000))
    assert spans[0][0] == 0 and spans[-1][1] == duration_ms
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(end - start >= 2000 for start, end in spans)
