"""Rates and timecodes against OpenTimelineIO, which counts them by itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.editing.numbered import NTSC_24, NTSC_30, NTSC_60
from vidseek_media.editing.frame_rates import (
    STANDARD_RATES,
    constant_rate,
    format_timecode,
    grid_rate,
    has_drop_frame,
    near_standard,
    parse_timecode,
)

DAY = 24 * 3600


@settings(deadline=None)
@given(st.sampled_from(STANDARD_RATES), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_timecode__counts_as_opentimelineio_does(rate: Fraction, drops: bool, share: float) -> None:
    otio = pytest.importorskip("opentimelineio")
    is_drop = drops and has_drop_frame(rate)
    # OpenTimelineIO begins the day anew after a day of real time also where it drops no
    # frame, so that 29.97 never comes to 23:59:59:29 there; behind it only our own hold.
    dropped = DAY // 600 * 9 * round(rate) // 15 if has_drop_frame(rate) else 0
    number = int(share * (DAY * round(rate) - dropped))
    written = format_timecode(number, rate, is_drop=is_drop)
    theirs = otio.opentime.to_timecode(otio.opentime.RationalTime(number, float(rate)), float(rate), is_drop)
    assert written == theirs
    assert parse_timecode(written, rate) == (number, is_drop)


@pytest.mark.parametrize("rate", STANDARD_RATES)
def test_timecode__without_dropped_frames_numbers_the_whole_day(rate: Fraction) -> None:
    last = DAY * round(rate) - 1
    assert format_timecode(last, rate, is_drop=False) == f"23:59:59:{round(rate) - 1}"
    assert parse_timecode(f"23:59:59:{round(rate) - 1}", rate) == (last, False)


@pytest.mark.parametrize(("text", "rate"), [
    ("", NTSC_30), ("1:00:00:00", NTSC_30), ("01:00:00:30", NTSC_30), ("01:01:00;00", NTSC_30),
    ("25:00:00:00", Fraction(25)), ("00:60:00:00", Fraction(25)), ("none", Fraction(25)),
])
def test_parse_timecode__names_no_frame(text: str, rate: Fraction) -> None:
    assert parse_timecode(text, rate) is None


def test_parse_timecode__drop_frame_where_there_is_none_is_not_drop() -> None:
    assert parse_timecode("01:00:00;00", Fraction(25)) == (90_000, False)
    assert parse_timecode("01:00:00;00", NTSC_24) == (86_400, False)


@pytest.mark.parametrize("rate", STANDARD_RATES)
@pytest.mark.parametrize("ticks", [1000, 90_000])
def test_constant_rate__of_rounded_times(rate: Fraction, ticks: int) -> None:
    seconds = np.array([round(number / rate * ticks) / ticks for number in range(4000)])
    assert constant_rate(seconds, []) == rate
    assert constant_rate(seconds[:10], [Fraction(f"{float(rate):.2f}") if rate != NTSC_24 else Fraction("23.976")]) == rate


def test_constant_rate__believes_no_header_that_is_wrong() -> None:
    assert constant_rate(np.arange(100) / 25, [Fraction(30)]) == 25
    assert constant_rate(np.arange(100) / 12.5, []) == Fraction(25, 2)


def test_near_standard__leaves_other_rates() -> None:
    assert near_standard(Fraction("23.98")) == NTSC_24
    assert near_standard(Fraction(15)) == 15


def test_grid_rate__has_a_position_for_each_frame() -> None:
    assert grid_rate(np.cumsum([1 / 30] * 50 + [1 / 10] * 50), [Fraction(17)]) == 30
    assert grid_rate(np.cumsum([1 / 59.94] * 50 + [1 / 10] * 50), [NTSC_60]) == NTSC_60
