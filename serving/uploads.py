"""Bytes of a request to frames, within limits: pictures here, clips in a worker process that may die of them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vidseek_media.errors import InputRejected
from vidseek_media.workers import run_each

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_SIDE_PX = 1024
"""A larger picture is made smaller before it waits in a queue; no encoder looks at more."""


def decode_image(content: bytes, *, max_megapixels: int) -> NDArray[np.uint8]:
    """The picture upright: uint8 RGB (height, width, 3), no side longer than `MAX_SIDE_PX`.

    Raises:
        InputRejected: it is no picture of `IMAGE_FORMATS`, broken, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > max_megapixels * 1_000_000:
                raise InputRejected(
                    f"the image has {width} x {height} pixels, at most {max_megapixels} megapixels are taken",
                    remedy="Make it smaller",
                )
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        return np.asarray(upright)
    except InputRejected:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise InputRejected(
            f"the image cannot be read: {type(error).__name__}", remedy=f"Send one of {', '.join(IMAGE_FORMATS)}"
        ) from error


def decode_clip(
    content: bytes, *, num_frames: int, side_px: int, max_seconds: float, timeout_seconds: float
) -> NDArray[np.uint8]:
    """`num_frames` frames at bin centres: uint8 RGB (num_frames, height, width, 3), upright.

    Raises:
        InputRejected: it cannot be decoded, or not in time, or is longer than `max_seconds`.
    """
    decode = partial(_decode_whole, num_frames=num_frames, side_px=side_px, max_seconds=max_seconds)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        path = Path(folder) / "clip"
        path.write_bytes(content)
        return _in_worker(decode, path, "the clip cannot be used", "Send a whole video file", timeout_seconds)


def decode_strip(path: Path, *, times_ms: Sequence[int], side_px: int, timeout_seconds: float) -> NDArray[np.uint8]:
    """The frames of a video at `times_ms`, side by side: uint8 RGB (height, n * width, 3).

    The shorter side of a frame has at most `side_px`.

    Raises:
        InputRejected: it cannot be decoded, or not in time.
    """
    decode = partial(_decode_strip, times_ms=tuple(times_ms), side_px=side_px)
    return _in_worker(decode, path, "the video cannot be shown", "Run `vidseek probe` on it", timeout_seconds)


def _in_worker(
    decode: Callable[[Path], NDArray[np.uint8]], path: Path, what: str, remedy: str, timeout_seconds: float
) -> NDArray[np.uint8]:
    (outcome,) = run_each(decode, [path], workers=1, timeout_seconds=timeout_seconds)
    if outcome.value is None:
        reason = outcome.error.message if outcome.error else "nothing was decoded"
        raise InputRejected(f"{what}: {reason}", remedy=remedy) from outcome.error
    return outcome.value


def _decode_whole(path: Path, *, num_frames: int, side_px: int, max_seconds: float) -> NDArray[np.uint8]:
    from vidseek_media.frames import decode_uniform  # decoders live in the worker, not in the service
    from vidseek_media.packets import read_plan

    length_ms = read_plan(path).duration_ms
    if length_ms > max_seconds * 1000:
        raise InputRejected(f"it lasts {length_ms / 1000:.1f} s, at most {max_seconds:g} s are taken")
    return decode_uniform(path, num_frames=num_frames, side_px=side_px)


def _decode_strip(path: Path, *, times_ms: tuple[int, ...], side_px: int) -> NDArray[np.uint8]:
    from vidseek_media.frames import decode_at

    return np.concatenate([frame for _, frame in decode_at(path, list(times_ms), side_px=side_px)], axis=1)
