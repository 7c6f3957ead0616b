"""The positions of moments, against frames whose numbers are burnt in."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media.editing.numbered import (
    NTSC_24,
    NTSC_30,
    NTSC_60,
    frame_at,
    frames_in,
    numbers_of_span,
    varying,
    write_numbered,
)
from tests.raising import raises
from vidseek_media.editing.source_times import locate_spans
from vidseek_media.errors import InputRejected

SPANS = [(0, 1000), (33, 67), (510, 511), (1001, 2002), (1000, 2000), (968, 1034), (1900, 60_000)]


def assert_named(path: Path, spans: Sequence[tuple[int, int]] = SPANS) -> None:
    """The first and the last position of each span show the first and the last frame that it shows."""
    found, frames = locate_spans(path, spans), frames_in(path)
    shown = frame_at(frames, found.times.rate)
    for (start_ms, end_ms), (first, end) in zip(spans, found.positions, strict=True):
        numbers = numbers_of_span(frames, start_ms, end_ms)
        assert (shown(first), shown(end - 1)) == (numbers[0], numbers[-1]), (start_ms, end_ms)
    assert shown(found.times.num_frames - 1) == frames[-1][1]


@pytest.mark.parametrize(("rate", "suffix"), [
    (Fraction(25), "mp4"), (NTSC_30, "mov"), (NTSC_24, "mp4"), (NTSC_60, "mov"), (NTSC_30, "mkv"), (NTSC_24, "mkv"),
    (NTSC_60, "ts"), (Fraction(25), "ts"), (Fraction(25, 2), "mp4"),
])
def test_locate_spans__names_the_frames_at_a_constant_rate(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    path = write_numbered(tmp_path / f"a.{suffix}", rate, int(2.5 * rate))
    assert_named(path)
    times = locate_spans(path, []).times
    assert (times.rate, times.is_variable, times.num_frames) == (rate, False, int(2.5 * rate))
    assert times.first_timecode is None and not times.has_sound


def test_locate_spans__varying_rate_is_exact_in_time(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(30), 60, times=varying(60))
    assert_named(path, [(0, 1000), (600, 700), (1234, 2345), (2900, 60_000)])
    assert locate_spans(path, []).times.is_variable


def test_locate_spans__edit_list_that_begins_late(tmp_path: Path) -> None:
    """Frames before the edit are in the file, and are not counted."""
    whole = write_numbered(tmp_path / "whole.mp4", NTSC_30, 75, gop=30)
    cut = tmp_path / "cut.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "0.5", "-i", whole, "-c", "copy", cut], check=True)
    assert frames_in(cut)[0][1] > 0
    assert_named(cut, [(0, 500), (400, 1000), (1000, 60_000)])


def test_locate_spans__video_that_begins_after_the_sound(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(25), 50, begin=Fraction(1), sound=True)
    found = locate_spans(path, [(0, 2000), (1400, 1800)])
    assert found.positions == ((25, 50), (35, 45))  # the first second shows nothing
    assert found.times.has_sound
    assert_named(path, [(1000, 2000), (1400, 1800)])


@pytest.mark.parametrize(("rate", "text", "suffix"), [
    (Fraction(25), "10:00:00:00", "mov"), (NTSC_30, "00:59:59;28", "mov"), (NTSC_30, "01:00:00:00", "mp4"),
    (NTSC_24, "23:59:59:23", "mov"), (NTSC_60, "00:01:00;04", "mov"), (NTSC_30, "01:00:00;00", "mkv"),
])
def test_locate_spans__reads_the_timecode(tmp_path: Path, rate: Fraction, text: str, suffix: str) -> None:
    path = write_numbered(tmp_path / f"a.{suffix}", rate, 10, timecode=text)
    times = locate_spans(path, []).times
    assert times.timecode(0) == text
    assert times.is_drop == (";" in text)


def test_locate_spans__refuses_what_is_not_there(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(25), 25)
    for span in [(1000, 2000), (5, 5), (-1, 5)]:
        with raises(InputRejected, code="span-outside"):
            locate_spans(path, [span])
