"""Decodes a still picture to RGB, equally for a query, an upload, and a file of the archive."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from vidseek_media.errors import InputRejected

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is read. Formats that start another program (EPS) or that nobody sends are not among them."""
PLUGINS = tuple(f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Mpo"))
"""The modules of FORMATS."""
MAX_SIDE_PX = 1024
"""A larger picture of a query is made smaller; no encoder looks at more."""
QUERY_PIXELS = 2**27

MAX_SCANS = 100
"""Of a JPEG. Encoders write about ten; each costs a walk over the whole picture, however few bytes it has."""
MAX_SEGMENTS = 5_000
"""Of a JPEG, between its scans. A large colour profile and notes take some hundred."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ALONE = frozenset({0x01, 0xD8, 0xD9})
"""Markers without a length behind them."""
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}
"""What brings each EXIF orientation upright."""


AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker of uploads may have no other


class TooManyPixels(InputRejected):
    """A picture or a video has larger frames than are taken; no other decoder is tried."""

    code = "too-many-pixels"


def read_query_picture(path: Path) -> NDArray[np.uint8]:
    """Decode the picture in a file with the limits of a query.

    Raises:
        InputRejected: it is no such picture or broken, or would take too long; TooManyPixels if it is too large.
    """
    return decode_picture(path.read_bytes(), max_pixels=QUERY_PIXELS, max_side_px=MAX_SIDE_PX)


def decode_picture(
    content: bytes, *, max_pixels: int, max_side_px: int | None = None, shorter_side_px: int | None = None
) -> NDArray[np.uint8]:
    """Decode a picture, upright: uint8 RGB of shape (height, width, 3).

    Transparent parts are shown over white, deeper channels are scaled to 8 bits, and the first frame of an animation is
    taken.

    Args:
        content: Bytes of a file in one of `FORMATS`.
        max_pixels: Most pixels, checked in the header before anything is decoded.
        max_side_px: Longest longer side of the result in pixels; larger pictures are reduced. None: no limit.
        shorter_side_px: Longest shorter side of the result in pixels; larger pictures are reduced. None: no limit.

    Raises:
        InputRejected: it is no such picture or broken, or would take too long; TooManyPixels if it is too large.
    """
    try:
        _check_segments(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit of pixels; ours is checked here
            flat, turn = _read(content, max_pixels, max_side_px, shorter_side_px)
        return np.asarray(flat.transpose(turn) if turn is not None else flat)
    except InputRejected:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(
            f"the image has too many pixels, at most {max_pixels / 1e6:g} megapixels are taken", remedy="Make it smaller"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        kind = "no known picture" if isinstance(error, UnidentifiedImageError) else type(error).__name__
        raise InputRejected(
            f"the image cannot be read: {kind}", code="image-unreadable", remedy=f"Send one of {', '.join(FORMATS)}",
        ) from error


def _read(
    content: bytes, max_pixels: int, max_side_px: int | None, shorter_side_px: int | None
) -> tuple[Image.Image, Transpose | None]:
    """Return the picture as RGB, and the turn that brings it upright."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        _check_pixels(image, max_pixels)
        image.load()
        _check_pixels(image, max_pixels)  # of what was really in it
        turn = _UPRIGHT.get(_orientation_of(image))
        return _over_white(_smaller(_in_8_bit(image), max_side_px, shorter_side_px)), turn


def _check_pixels(image: Image.Image, most: int) -> None:
    width, height = image.size
    if width * height > most:
        raise TooManyPixels(
            f"the image has {width} x {height} pixels, at most {most / 1e6:g} megapixels are taken", remedy="Make it smaller"
        )


def _check_segments(content: bytes) -> None:
    """Refuse a JPEG of so many scans or segments that decoding it is work without end. Nothing is decoded for it."""
    if not content.startswith(b"\xff\xd8"):
        return
    num_scans, num_segments, place = 0, 0, 0
    while (found := _MARKER.search(content, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker == 0xD9:  # the end; what cameras put behind it is not read
            return
        num_scans += marker == 0xDA
        num_segments += 1
        if num_scans > MAX_SCANS or num_segments > MAX_SEGMENTS:
            raise InputRejected(
                f"the image is a JPEG of more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments", code="image-unreadable",
                remedy="Save it anew, without notes",
            )
        if marker not in _ALONE:
            place += int.from_bytes(content[place : place + 2], "big")


def _orientation_of(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a broken note turns nothing, and the picture is still one
        return 1


def _in_8_bit(image: Image.Image) -> Image.Image:
    """Return the picture as L, LA, RGB or RGBA."""
    if image.mode.startswith(("I", "F")):
        return _levels(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _levels(image: Image.Image) -> Image.Image:
    """Return a grey picture of more than 8 bit as 8: whole numbers are of 16 bit unless larger, fractions go from 0 to 1."""
    values = np.asarray(image)
    if values.dtype.kind == "f":
        most = 1.0 if not values.size or np.nanmax(values) <= 1 else 255.0
        grey = Image.fromarray(_scaled(np.nan_to_num(values), most))
    elif values.dtype.itemsize == 2:
        grey = Image.fromarray(_scaled(np.arange(2**16), 2**16 - 1)[values])
    else:
        most = 2**16 - 1 if not values.size or values.max() < 2**16 else 2**31 - 1
        grey = Image.fromarray(_scaled(values, most))
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # the one level that a PNG says is transparent
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _scaled(values: NDArray[Any], most: float) -> NDArray[np.uint8]:
    """Return values of 0 to `most` as 0 to 255."""
    scaled: NDArray[np.float64 | np.float32] = values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)
    scaled = np.multiply(scaled, 255 / most, out=scaled)
    scaled = np.add(scaled, 0.5, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _smaller(image: Image.Image, max_side_px: int | None, shorter_side_px: int | None) -> Image.Image:
    if max_side_px is not None and max(image.size) > max_side_px:
        image = image.resize(_sized(image, max_side_px / max(image.size)), Resampling.BICUBIC, reducing_gap=2.0)
    if shorter_side_px is not None and min(image.size) > shorter_side_px:
        image = image.resize(_sized(image, shorter_side_px / min(image.size)), Resampling.BOX)
    return image


def _sized(image: Image.Image, scale: float) -> tuple[int, int]:
    width, height = image.size
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "LA":
        image = image.convert("RGBA")
    if image.mode != "RGBA":
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
