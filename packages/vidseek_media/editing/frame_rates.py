"""Frame rates as editors name them, and the timecodes that number frames at these rates (SMPTE ST 12-1)."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

STANDARD_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")
)
"""Rates that timelines have, ascending, in frames a second."""

_SAME_RATE = Fraction(1, 5000)
"""Relative difference under which a rate in a header is a rounded form of a standard one: 29.97 and 30000/1001."""
_TIMECODE = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.,])(\d{2,3})")


def nominal_rate(rate: Fraction) -> int:
    """Return the frames that a second of timecode counts: 30 for 29.97."""
    return max(round(rate), 1)


def has_drop_frame(rate: Fraction) -> bool:
    """Return whether drop-frame timecode is defined for a rate: 29.97 and 59.94."""
    return rate.denominator == 1001 and nominal_rate(rate) % 30 == 0


def rate_text(rate: Fraction) -> str:
    """Return a rate as people write it.

    Examples:
        >>> rate_text(Fraction(30000, 1001)), rate_text(Fraction(24000, 1001)), rate_text(Fraction(25))
        ('29.97', '23.976', '25')
    """
    digits = 3 if nominal_rate(rate) == 24 else 2
    return f"{float(rate):.{digits}f}".rstrip("0").rstrip(".")


def near_standard(rate: Fraction) -> Fraction:
    """Return the standard rate that a rate is a rounded form of, else the rate itself.

    Examples:
        >>> near_standard(Fraction("29.97"))
        Fraction(30000, 1001)
    """
    nearest = min(STANDARD_RATES, key=lambda each: abs(each - rate))
    return nearest if abs(nearest - rate) <= nearest * _SAME_RATE else rate


def constant_rate(seconds: NDArray[np.float64], stated: list[Fraction]) -> Fraction:
    """Return the rate of frames at a constant distance.

    A rate that a header states is taken where the frames keep to it, then a standard one, then the measured one.

    Args:
        seconds: When each frame begins, ascending, at least one.
        stated: Rates that the header states, the most reliable first.
    """
    if len(seconds) < 2:
        return near_standard(stated[0]) if stated else Fraction(25)
    measured = (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    by_distance = sorted(STANDARD_RATES, key=lambda rate: abs(float(rate) - measured))
    fitting = (rate for rate in (*map(near_standard, stated), *by_distance) if _fits(seconds, rate))
    return next(fitting, Fraction(measured).limit_denominator(1001))


def _fits(seconds: NDArray[np.float64], rate: Fraction) -> bool:
    """Whether no frame is off by half a frame."""
    off = (seconds - seconds[0]) * float(rate) - np.arange(len(seconds))
    return bool(np.abs(off).max() < 0.5)


def grid_rate(seconds: NDArray[np.float64], stated: list[Fraction]) -> Fraction:
    """Return the standard rate for frames at varying distances: one that has a position for nearly each frame.

    Args:
        seconds: When each frame begins, ascending, at least two.
        stated: Rates that the header states; a standard one among them that is high enough comes first.
    """
    usual = 1 / max(float(np.percentile(np.diff(seconds), 5, method="lower")), 1e-6)
    named = [rate for rate in map(near_standard, stated) if rate in STANDARD_RATES]
    candidates = [*named, *sorted(STANDARD_RATES, key=lambda rate: abs(float(rate) - usual))]
    return next((rate for rate in candidates if rate >= 0.9 * usual), STANDARD_RATES[-1])


def parse_timecode(text: str, rate: Fraction) -> tuple[int, bool] | None:
    """Return the number of the frame that a timecode names, and whether it is drop-frame; None if it names none.

    Args:
        text: `01:00:00:00`; with `;` or `.` before the frames it is drop-frame, at rates that have it.
        rate: In frames a second.

    Examples:
        >>> parse_timecode("01:00:00;00", Fraction(30000, 1001))
        (107892, True)
        >>> parse_timecode("01:00:00:00", Fraction(25))
        (90000, False)
    """
    match = _TIMECODE.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    nominal, is_drop = nominal_rate(rate), match[4] != ":" and has_drop_frame(rate)
    dropped = nominal // 15
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= nominal:
        return None
    if is_drop and seconds == 0 and frames < dropped and minutes % 10:
        return None  # a number that drop-frame timecode leaves out
    minutes += 60 * hours
    number = (60 * minutes + seconds) * nominal + frames
    return number - (dropped * (minutes - minutes // 10) if is_drop else 0), is_drop


def format_timecode(number: int, rate: Fraction, *, is_drop: bool) -> str:
    """Return the timecode of a frame; after 24 hours it begins again at 0.

    Args:
        number: Of the frame, from 00:00:00:00, at least 0.
        rate: In frames a second.
        is_drop: Whether numbers are left out, so that the timecode keeps to the clock.

    Examples:
        >>> format_timecode(1800, Fraction(30000, 1001), is_drop=True)
        '00:01:00;02'
    """
    nominal = nominal_rate(rate)
    if is_drop:
        dropped = nominal // 15
        of_ten_minutes = 600 * nominal - 9 * dropped
        tens, rest = divmod(number, of_ten_minutes)
        minutes = max(rest - dropped, 0) // (60 * nominal - dropped)  # the first minute of ten leaves out nothing
        number += dropped * (9 * tens + minutes)
    number %= 24 * 3600 * nominal
    seconds, frames = divmod(number, nominal)
    minutes, seconds = divmod(seconds, 60)
    width = len(str(nominal - 1)) if nominal > 100 else 2
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}{';' if is_drop else ':'}{frames:0{width}d}"
