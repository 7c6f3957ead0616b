from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.raising import raises
from vidseek_media.decoding.excerpt import cut_excerpt
from vidseek_media.decoding.frames import decode_uniform
from vidseek_media.decoding.packets import read_plan
from vidseek_media.errors import ConfigError, InputRejected


def test_cut_excerpt__holds_the_frames_of_the_span(
    tmp_path: Path, make_video: Callable[..., Path], number_of: Callable[[NDArray[np.uint8]], int]
) -> None:
    video = make_video(tmp_path / "video.mp4", num_frames=50, fps=10)
    out = tmp_path / "excerpt.mp4"
    out.write_bytes(cut_excerpt(video, start_ms=1000, end_ms=3000, side_px=48, fps=5.0))
    assert 1900 <= read_plan(out).duration_ms <= 2100
    assert [number_of(frame) for frame in decode_uniform(out, 10)] == list(range(10, 30, 2))


def test_cut_excerpt__is_small_upright_and_of_even_sides(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    video = make_video(tmp_path / "video.mp4", width=64, height=42, rotation=90)
    out = tmp_path / "excerpt.mp4"
    out.write_bytes(cut_excerpt(video, start_ms=0, end_ms=1000, side_px=21, fps=2.0))
    assert decode_uniform(out, 2).shape == (2, 32, 20, 3)


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"side_px": 1}, {"end_ms": 0}])
def test_cut_excerpt__of_nothing_is_a_config_error(
    tmp_path: Path, make_video: Callable[..., Path], wrong: dict[str, float]
) -> None:
    video = make_video(tmp_path / "video.mp4")
    with raises(ConfigError, code="setting-out-of-range"):
        cut_excerpt(video, **{"start_ms": 0, "end_ms": 500, "side_px": 32, "fps": 2.0, **wrong})  # type: ignore[arg-type]


def test_cut_excerpt__of_no_video_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"no video")
    with raises(InputRejected, code="not-a-video"):
        cut_excerpt(tmp_path / "video.mp4", start_ms=0, end_ms=500, side_px=32, fps=2.0)
