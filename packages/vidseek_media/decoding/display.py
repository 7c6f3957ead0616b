"""Converts a decoded frame to what a player shows: upright, square pixels, high dynamic range reduced to standard range."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67, the two of high dynamic range."""

BT2020 = 9
"""Colour primaries of ITU-T H.273."""

REFERENCE_WHITE_NITS = 203.0
"""What a white page has in HDR (ITU-R BT.2408)."""

_HLG_PEAK_NITS, _HLG_SYSTEM_GAMMA = 1000.0, 1.2
"""The display that ITU-R BT.2100 takes as its reference."""

_KNEE = 0.75
"""Linear light up to this share of reference white stays as it is; what is brighter is compressed into the rest."""

_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""

_LUMA_BT2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)

_ASPECTS = (Fraction(1, 4), Fraction(4))
"""A sample aspect ratio beyond these is a mistake of the writer, and is taken for 1."""


def is_hdr(transfer: int) -> bool:
    """Whether `transfer` (H.273) is PQ or HLG."""
    return transfer in (PQ, HLG)


def sample_aspect_ratio(ratio: Fraction | None) -> Fraction:
    """Return the width to height of one sample; 1 if it is unknown or impossible."""
    return ratio if ratio and _ASPECTS[0] <= ratio <= _ASPECTS[1] else Fraction(1)


def size_shown(width: int, height: int, aspect: Fraction, side_px: int | None) -> tuple[int, int]:
    """Return width and height with square pixels, with the shorter side reduced to `side_px`.

    As in players, a frame keeps its height, and its width follows from the sample aspect ratio.

    Args:
        width: Width of the stored frame in samples.
        height: Height of the stored frame in samples.
        aspect: Width to height of one sample.
        side_px: Largest shorter side in pixels; None does not reduce it.
    """
    shown_width = width * aspect
    shorter = min(shown_width, Fraction(height))
    scale = Fraction(1) if side_px is None or shorter <= side_px else side_px / shorter
    return max(round(shown_width * scale), 1), max(round(height * scale), 1)


def upright(pixels: NDArray[np.uint8], matrix: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Rotate and mirror a frame by a display matrix.

    Args:
        pixels: Shape (height, width, 3).
        matrix: 9 values as in `AV_FRAME_DATA_DISPLAYMATRIX` (ISO/IEC 14496-12: a point (x, y) of the stored frame is shown
            at
            (a x + c y, b x + d y), with y downwards); None for a frame that is upright. Angles are rounded to quarter turns.
    """
    if matrix is None:
        return pixels
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if max(abs(a), abs(d)) < max(abs(b), abs(c)):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def rotation_matrix(degrees: float) -> NDArray[np.int32]:
    """Return the display matrix of an anticlockwise rotation, rounded to a multiple of 90 degrees."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][round(degrees / 90) % 4]
    return np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1], np.int32)


def is_mirrored(matrix: NDArray[np.int32] | None) -> bool:
    """Whether `matrix` (as of `upright`) shows left and right exchanged."""
    if matrix is None:
        return False
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    return a * d - b * c < 0


def over_white(pixels: NDArray[Any]) -> NDArray[Any]:
    """RGBA, of 8 or 16 bit, as RGB over white; as it is where alpha is 0 throughout, which is a mistake of the writer."""
    most = np.iinfo(pixels.dtype).max
    alpha = pixels[..., 3:].astype(np.uint64)
    if not alpha.any():
        return np.ascontiguousarray(pixels[..., :3])
    mixed = (pixels[..., :3] * alpha + most * (most - alpha) + most // 2) // most
    return mixed.astype(pixels.dtype)


def full_range(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels of 8 or 16 bit whose black is 16 of 255 and white 235 (limited range), with black 0 and white 255."""
    unit = 1 if pixels.dtype.itemsize == 1 else 256
    most = np.iinfo(pixels.dtype).max
    spread = (pixels.astype(np.float32) - 16 * unit) * (most / (219 * unit))
    return np.clip(np.rint(spread), 0, most).astype(pixels.dtype)


def to_sdr(pixels: NDArray[np.uint16], transfer: int, *, is_wide: bool) -> NDArray[np.uint8]:
    """HDR pixels as standard dynamic range, with reference white near 255.

    Args:
        pixels: shape (height, width, 3), RGB, 0 to 65535, as the transfer function encodes them.
        transfer: `PQ` or `HLG`.
        is_wide: the primaries are those of BT.2020; else of BT.709.

    Returns:
        Shape (height, width, 3), RGB, encoded as BT.709 video.
    """
    light = _light_of(transfer)[pixels]  # Linear, 1.0 is reference white.
    if transfer == HLG:
        luminance = light @ _LUMA_BT2020
        gain = luminance ** (_HLG_SYSTEM_GAMMA - 1) * (_HLG_PEAK_NITS / REFERENCE_WHITE_NITS)
        light = np.asarray(light * gain[..., None], np.float32)
    if is_wide:
        light = np.asarray(np.maximum(light @ _TO_BT709.T, 0), np.float32)
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    light = np.asarray(np.where(light > _KNEE, _KNEE + (1 - _KNEE) * -np.expm1(-over), light), np.float32)
    encoded = np.where(light < 0.018, 4.5 * light, 1.099 * np.maximum(light, 1e-9) ** 0.45 - 0.099)
    return np.asarray(np.clip(np.rint(255 * encoded), 0, 255), np.uint8)


@cache
def _light_of(transfer: int) -> NDArray[np.float32]:
    """Linear light of each 16-bit code: PQ in shares of reference white, HLG in shares of the scene's peak."""
    code = np.linspace(0, 1, 2**16)
    if transfer == PQ:
        power = code ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        return np.asarray(nits / REFERENCE_WHITE_NITS, np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.asarray(np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12), np.float32)
