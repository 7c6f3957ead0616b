from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.decoding.display import (
    HLG,
    PQ,
    over_white,
    rotation_matrix,
    sample_aspect_ratio,
    size_shown,
    to_sdr,
    upright,
)
from vidseek_media.decoding.frames import decode_at, frames_at
from vidseek_media.decoding.probe import probe
from vidseek_media.errors import InputRejected

MakeVideo = Callable[..., Path]

MATRICES = {
    "upright": (1, 0, 0, 1), "left and right": (-1, 0, 0, 1), "turned twice": (-1, 0, 0, -1),
    "up and down": (1, 0, 0, -1), "transposed": (0, 1, 1, 0), "clockwise": (0, 1, -1, 0),
    "transversed": (0, -1, -1, 0), "against the clock": (0, -1, 1, 0),
}
"""(a, b, c, d) of the eight orientations: (x, y) is shown at (a x + c y, b x + d y)."""


@pytest.mark.parametrize("name", MATRICES)
def test_decode_at__shows_every_orientation_as_the_matrix_says(tmp_path: Path, name: str) -> None:
    """The reference moves each pixel by the definition of the matrix."""
    a, b, c, d = MATRICES[name]
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16], pixels[16:, 32:] = 255, 128
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 48, 32, "yuv444p", {"qp": "1"}
        one = 1 << 16
        stream.set_display_matrix([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    wanted = np.zeros((32, 48, 3) if b == 0 else (48, 32, 3), np.uint8)
    xs, ys = np.meshgrid(np.arange(48), np.arange(32))
    shown_x, shown_y = a * xs + c * ys, b * xs + d * ys
    wanted[shown_y - shown_y.min(), shown_x - shown_x.min()] = pixels
    [(_, found)] = decode_at(path, [0])
    np.testing.assert_allclose(found.astype(int), wanted, atol=6)


@pytest.mark.parametrize("degrees", [-90, 0, 90, 180, 270])
def test_rotation_matrix__turns_as_rot90_does(degrees: int) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(upright(pixels, rotation_matrix(degrees)), np.rot90(pixels, degrees // 90 % 4))


@pytest.mark.parametrize(
    ("size", "ratio", "side_px", "wanted"),
    [
        ((720, 576), Fraction(64, 45), None, (1024, 576)),  # DVD, PAL, 16:9
        ((720, 480), Fraction(8, 9), None, (640, 480)),  # DV, NTSC, 4:3
        ((1440, 1080), Fraction(4, 3), 540, (960, 540)),  # HDV
        ((720, 576), Fraction(64, 45), 288, (512, 288)),
        ((64, 48), Fraction(1), 96, (64, 48)),
    ],
)
def test_size_shown__has_square_pixels(
    size: tuple[int, int], ratio: Fraction, side_px: int | None, wanted: tuple[int, int]
) -> None:
    assert size_shown(*size, ratio, side_px) == wanted


@pytest.mark.parametrize(("ratio", "wanted"), [(None, 1), (0, 1), (1000, 1), (Fraction(4, 3), Fraction(4, 3))])
def test_sample_aspect_ratio__that_cannot_be_is_one(ratio: Fraction | None, wanted: Fraction) -> None:
    assert sample_aspect_ratio(ratio) == wanted


def test_decode_at__of_wide_pixels_shows_a_circle_as_a_circle(tmp_path: Path) -> None:
    """A circle on the screen is stored as an ellipse, 3/4 as wide as it is high."""
    path = tmp_path / "a.mkv"
    xs, ys = np.meshgrid(np.arange(144), np.arange(96))
    stored = np.where(((xs - 72) * 4 / 3) ** 2 + (ys - 48) ** 2 < 40**2, 255, 0).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 144, 96, "yuv420p", {"qp": "1"}
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([stored] * 3, -1), format="rgb24")))
        container.mux(stream.encode(None))
    [(_, found)] = decode_at(path, [0])
    assert found.shape == (96, 192, 3)
    inside = found[..., 0] > 128
    assert np.ptp(np.flatnonzero(inside.any(0))) == pytest.approx(np.ptp(np.flatnonzero(inside.any(1))), abs=2)
    assert (probe(path).width, probe(path).height) == (192, 96)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_to_sdr__keeps_order_brings_white_near_white_and_never_wraps(transfer: int) -> None:
    ramp = np.repeat(np.linspace(0, 65535, 513).astype(np.uint16)[:, None], 3, 1)[None]
    found = to_sdr(ramp, transfer, is_wide=True)[0].astype(int)
    assert (np.diff(found, axis=0) >= 0).all()
    assert found[0].max() <= 1
    assert found[-1].min() == 255
    white = {PQ: 0.5807, HLG: 0.75}[transfer]  # 203 cd/m2, ITU-R BT.2408
    assert 235 <= to_sdr(np.full((1, 1, 3), round(white * 65535), np.uint16), transfer, is_wide=True).min() <= 250


def test_to_sdr__of_wide_colours_stays_neutral_and_saturates() -> None:
    grey = to_sdr(np.full((1, 1, 3), 26000, np.uint16), PQ, is_wide=True)
    assert np.ptp(grey) <= 1
    red = to_sdr(np.array([[[30000, 0, 0]]], np.uint16), PQ, is_wide=True)[0, 0]
    assert red[0] > 100 and red[1:].max() == 0


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.mov", "qtrle", "argb"), ("a.mkv", "ffv1", "bgra"), ("b.mov", "prores_ks", "yuva444p10le"),
     ("c.mov", "png", "rgba")],
)
def test_decode_at__of_transparent_video_shows_it_over_white(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    pixels = np.zeros((48, 64, 4), np.uint8)
    pixels[..., 0], pixels[:, 32:, 3] = 255, 255  # Red, its left half transparent.
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)))
        container.mux(stream.encode(None))
    [(_, found)] = decode_at(tmp_path / name, [0])
    np.testing.assert_allclose(found[:, 2:28].astype(int), 255, atol=3)
    np.testing.assert_allclose(found[:, 36:62].astype(int), np.broadcast_to([255, 0, 0], (48, 26, 3)), atol=3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_over_white__mixes_in_every_depth_and_believes_no_frame_that_shows_nothing(dtype: type) -> None:
    most = np.iinfo(dtype).max
    half = np.array([[[0, most, 0, most // 2 + 1]]], dtype)
    np.testing.assert_allclose(over_white(half)[0, 0] / most, [0.5, 1, 0.5], atol=0.01)
    nothing = np.array([[[10, 20, 30, 0]]], dtype)
    np.testing.assert_array_equal(over_white(nothing), nothing[..., :3])


@pytest.mark.parametrize(("color_range", "wanted"), [(1, (0, 255)), (2, (16, 235))])
def test_decode_at__of_grey_video_shows_the_range_that_it_says(
    tmp_path: Path, color_range: int, wanted: tuple[int, int]
) -> None:
    """FFmpeg itself takes grey for full range, and would lift the black of a monochrome video."""
    levels = np.full((48, 64), 16, np.uint8)
    levels[:, 32:] = 235
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        stream.codec_context.color_range = color_range
        frame = av.VideoFrame.from_ndarray(levels, format="gray")
        frame.color_range = color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    [(_, found)] = decode_at(tmp_path / "a.mkv", [0])
    assert (found[0, 0].tolist(), found[0, 63].tolist()) == ([wanted[0]] * 3, [wanted[1]] * 3)


def test_frames_at__says_what_is_interlaced(tmp_path: Path) -> None:
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"flags": "+ilme+ildct", "top": "1"}
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert all(frame.is_interlaced for frame in frames_at(path, [0, 200]))


def test_frames_at__of_progressive_video_is_not_interlaced(tmp_path: Path, make_video: MakeVideo) -> None:
    assert not any(frame.is_interlaced for frame in frames_at(make_video(tmp_path / "a.mp4"), [0, 500]))


def test_probe__refuses_a_picture_that_stands_for_hours(tmp_path: Path, make_video: MakeVideo) -> None:
    times_ms = [*range(0, 5000, 100), 7_200_000, *range(7_200_100, 7_201_000, 100)]
    path = make_video(tmp_path / "a.mkv", num_frames=60, times_ms=times_ms)
    with raises(InputRejected, code="broken-times", naming="50 of 60") as refused:
        probe(path)
    assert refused.value.remedy
