"""One function makes pixels of every picture, whatever its format says of turning, transparency and depth."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.raising import raises
from vidseek_media.decoding.frames import decode_at
from vidseek_media.decoding.pictures import MAX_SCANS, MAX_SEGMENTS, TooManyPixels, decode_picture
from vidseek_media.decoding.probe import probe
from vidseek_media.errors import InputRejected


def written(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def decoded(content: bytes, **how: Any) -> NDArray[np.uint8]:
    return decode_picture(content, **{"max_pixels": 10_000_000, **how})


def quarters() -> Image.Image:
    """Four quarters of other greys, so that every turn and mirror shows."""
    values = np.zeros((16, 32, 3), np.uint8)
    values[:8, 16:], values[8:, :16], values[8:, 16:] = 80, 160, 240
    return Image.fromarray(values)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture__is_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(written(quarters(), kind, exif=exif))
    turned = quarters()
    turned.getexif()[0x0112] = orientation
    np.testing.assert_allclose(found, np.asarray(ImageOps.exif_transpose(turned)), atol=24)


def drawing(mode: str) -> tuple[bytes, str]:
    """A black square on a transparent ground."""
    alpha = np.zeros((64, 64), np.uint8)
    alpha[16:48, 16:48] = 255
    whole = np.zeros((64, 64, 4), np.uint8)
    whole[..., 3] = alpha
    image = Image.fromarray(whole)
    match mode:
        case "LA":
            return written(image.convert("LA")), "PNG"
        case "P":
            paletted = Image.fromarray((alpha > 0).astype(np.uint8), "P")
            paletted.putpalette([0, 0, 0, 0, 0, 0])
            return written(paletted, transparency=0), "PNG"
        case "L of one level":
            return written(Image.fromarray(np.where(alpha, 0, 7).astype(np.uint8)), transparency=7), "PNG"
        case "RGB of one colour":
            rgb = np.zeros((64, 64, 3), np.uint8)
            rgb[alpha == 0] = (1, 2, 3)
            return written(Image.fromarray(rgb), transparency=(1, 2, 3)), "PNG"
        case "16 bit of one level":
            return written(Image.fromarray(np.where(alpha, 0, 700).astype(np.uint16)), transparency=700), "PNG"
        case kind:
            return written(image, kind, **({"lossless": True} if kind == "WEBP" else {})), kind


@pytest.mark.parametrize("mode", [
    "PNG", "WEBP", "TIFF", "GIF", "LA", "P", "L of one level", "RGB of one colour", "16 bit of one level",
])
def test_picture__what_is_transparent_is_white(mode: str) -> None:
    content, _ = drawing(mode)
    found = decoded(content)
    assert found.shape == (64, 64, 3)
    np.testing.assert_array_equal(found[:, :, 0] == 255, ~(np.pad(np.ones((32, 32), bool), 16)))
    assert set(np.unique(found)) == {0, 255}


def test_picture__half_transparent_is_half_white() -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    np.testing.assert_allclose(decoded(written(image))[0, 0], [227, 177, 127], atol=1)


def test_picture__transparent_edges_do_not_darken_when_made_smaller() -> None:
    values = np.zeros((512, 512, 4), np.uint8)
    values[:, ::2] = (255, 255, 255, 255)  # white beside what is black and transparent
    assert decoded(written(Image.fromarray(values)), max_side_px=100).min() >= 254


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_picture__16_bit_greys_keep_their_levels(kind: str) -> None:
    levels = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(32, 32)
    found = decoded(written(Image.fromarray(levels), kind))[..., 0]
    np.testing.assert_allclose(found, levels / 257, atol=0.51)


def test_picture__fractions_go_from_0_to_1() -> None:
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_allclose(decoded(written(Image.fromarray(levels), "TIFF"))[..., 0], levels * 255, atol=0.51)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_picture__cmyk_is_not_inverted(kind: str) -> None:
    content = written(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)  # red ink
    assert kind != "JPEG" or b"Adobe" in content
    np.testing.assert_allclose(decoded(content)[8, 8], [255, 0, 0], atol=12)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_picture__of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    found = decoded(written(frames[0], kind, save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(found[8, 8], [255, 0, 0], atol=12)


@pytest.mark.parametrize("mode", ["PNG", "WEBP", "LA", "P", "16 bit of one level"])
def test_picture__in_the_archive_looks_as_in_a_query(tmp_path: Path, mode: str) -> None:
    content, _ = drawing(mode)
    (tmp_path / "a").write_bytes(content)
    np.testing.assert_array_equal(decode_at(tmp_path / "a", [0])[0][1], decoded(content))
    assert decode_at(tmp_path / "a", [0], side_px=32)[0][1].shape == (32, 32, 3)


@pytest.mark.parametrize("gap", [b"", bytes(200)])
@pytest.mark.parametrize("side_px", [None, 20])
def test_picture__with_another_behind_it_is_one_picture(tmp_path: Path, gap: bytes, side_px: int | None) -> None:
    """Phones put a map of brightness or depth behind the picture; FFmpeg takes it for a second frame."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    first, second = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise).save(first, "JPEG", quality=95)
    Image.fromarray(noise).resize((16, 12)).save(second, "JPEG")
    path = tmp_path / "phone.jpg"
    path.write_bytes(first.getvalue() + gap + second.getvalue())
    assert probe(path).num_frames == 1
    wanted = decode_picture(path.read_bytes(), max_pixels=2**20, shorter_side_px=side_px)
    [(_, found)] = decode_at(path, [30], side_px=side_px)
    np.testing.assert_array_equal(found, wanted)


def test_picture__a_gif_of_one_frame_in_the_archive_looks_as_in_a_query(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 4), np.uint8)
    pixels[:, :32, 3], pixels[:, 32:, 3] = 0, 255
    path = tmp_path / "a.gif"
    Image.fromarray(pixels).save(path)
    wanted = decode_picture(path.read_bytes(), max_pixels=2**20, shorter_side_px=20)
    [(_, found)] = decode_at(path, [0], side_px=20)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG", "BMP", "TIFF", "AVIF"])
def test_picture__over_the_limit_is_refused_by_its_header(kind: str) -> None:
    content = written(Image.new("RGB", (300, 200)), kind)
    with raises(TooManyPixels, code="too-many-pixels", naming="0.059999"):
        decoded(content, max_pixels=59_999)
    assert decoded(content, max_pixels=60_000, max_side_px=30).shape == (20, 30, 3)


def test_picture__a_canvas_of_4_gigapixels_takes_no_memory() -> None:
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    gif += b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    with raises(TooManyPixels, code="too-many-pixels"):
        decoded(gif + b"\x02\x02\x44\x01\0;")


@pytest.mark.parametrize("kind", ["EPS", "PPM", "PCX", "TGA", "ICO", "JPEG2000", "PDF", "IM", "SGI"])
def test_picture__of_another_format_is_refused(kind: str) -> None:
    with raises(InputRejected, code="image-unreadable"):
        decoded(written(Image.new("RGB", (16, 16)), kind))


def repeated_scans(num: int, *, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    content = written(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * num + content[-2:]


def test_jpeg__of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert decoded(repeated_scans(20)).shape == (64, 64, 3)
    begin = time.process_time()
    with raises(InputRejected, code="image-unreadable", naming=MAX_SCANS):
        decoded(repeated_scans(1200, side=3000))
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("marker", [0xFE, 0xE1, 0xDB, 0xC4])
def test_jpeg__of_many_segments_is_refused_before_it_is_decoded(marker: int) -> None:
    content = written(Image.new("L", (8, 8)), "JPEG")
    with raises(InputRejected, code="image-unreadable", naming=MAX_SEGMENTS):
        decoded(content[:2] + bytes([0xFF, marker, 0, 2]) * 100_000 + content[2:])


def test_jpeg__what_lies_behind_its_end_or_in_its_notes_is_not_counted() -> None:
    """Cameras put videos and other pictures there."""
    content = written(Image.new("L", (8, 8)), "JPEG")
    note = b"\xff\xda" * 1000
    noted = content[:2] + b"\xff\xfe" + struct.pack(">H", len(note) + 2) + note + content[2:] + b"\xff\xda\0\2" * 100_000
    assert decoded(noted).shape == (8, 8, 3)


def test_png__texts_that_unpack_to_gigabytes_are_refused() -> None:
    content = written(Image.new("L", (8, 8)))
    text = b"zTXt" + b"k\0\0" + zlib.compress(bytes(2**24), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    with raises(InputRejected, code="image-unreadable"):
        decoded(content[:33] + chunk * 100 + content[33:])


@given(st.sampled_from(["PNG", "GIF", "WEBP", "JPEG", "BMP", "TIFF", "AVIF"]), st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_picture__whatever_bytes_are_changed_it_is_one_or_refused(kind: str, data: st.DataObject) -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    content = bytearray(written(Image.fromarray(values), kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        found = decoded(bytes(content[:cut] if data.draw(st.booleans()) else content))
    except InputRejected as error:
        assert error.message and error.remedy
    else:
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
