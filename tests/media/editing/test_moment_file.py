"""Moments as files: exactly the frames of the span, with the sound of that time."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.editing.numbered import (
    NTSC_24,
    NTSC_30,
    NTSC_60,
    frames_in,
    numbers_of_span,
    varying,
    write_numbered,
)
from tests.raising import raises
from vidseek_media.editing.moment_file import moment_bytes, write_moment
from vidseek_media.errors import InputRejected


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "suffix", "times"), [
    (Fraction(25), "mp4", None), (NTSC_30, "mov", None), (NTSC_24, "mkv", None), (NTSC_60, "ts", None),
    (Fraction(30), "mp4", varying(60)),
])
@pytest.mark.parametrize("out", ["mp4", "matroska"])
def test_write_moment__has_the_frames_and_their_durations(
    tmp_path: Path, rate: Fraction, suffix: str, times: list[Fraction] | None, out: str
) -> None:
    path = write_numbered(tmp_path / f"a.{suffix}", rate, 60, times=times)
    whole = frames_in(path)
    for start_ms, end_ms in [(0, 500), (217, 901), (700, 60_000)]:
        made = tmp_path / "made"
        done = write_moment(path, made, start_ms=start_ms, end_ms=end_ms, name=out)
        frames = frames_in(made)
        numbers = [number for _, number in frames]
        assert numbers == numbers_of_span(whole, start_ms, end_ms)
        assert done.num_frames == len(numbers)
        begins = {number: time for time, number in whole}
        for time, number in frames:
            assert abs(time - (begins[number] - begins[numbers[0]])) < Fraction(2, 1000)


def test_write_moment__copies_from_a_keyframe_to_the_end_of_a_group(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(25), 60, gop=12, b_frames=2, sound=True)
    made = tmp_path / "made.mp4"
    done = write_moment(path, made, start_ms=480, end_ms=960)
    assert done.is_copied and done.has_sound
    assert [number for _, number in frames_in(made)] == list(range(12, 24))
    with av.open(str(path)) as source, av.open(str(made)) as copy:
        theirs = {bytes(packet) for packet in source.demux(video=0)}
        assert all(bytes(packet) in theirs for packet in copy.demux(video=0) if packet.size)
    assert not write_moment(path, made, start_ms=480, end_ms=600).is_copied  # frames between would need what follows
    assert not write_moment(path, made, start_ms=520, end_ms=960).is_copied


@pytest.mark.parametrize(("start_ms", "end_ms"), [(480, 1440), (1000, 2000), (250, 1250)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_write_moment__keeps_the_sound_of_its_time(tmp_path: Path, start_ms: int, end_ms: int, suffix: str) -> None:
    """The tone sounds in the first half of each second."""
    path = write_numbered(tmp_path / f"a.{suffix}", Fraction(25), 60, sound=True)
    made = tmp_path / "made.mp4"
    done = write_moment(path, made, start_ms=start_ms, end_ms=end_ms)
    assert done.has_sound
    samples, first = sound_of(made)
    at = done.start_ms / 1000 + first + np.arange(len(samples)) / 48_000
    within = at < done.end_ms / 1000
    loud = np.abs(np.convolve(np.abs(samples), np.ones(480) / 480, "same")) > 0.1
    sure = within & (np.abs((at % 0.5) - 0.25) < 0.22)  # not near where it changes
    assert (loud[sure] == ((at % 1) < 0.5)[sure]).mean() > 0.99
    assert abs(len(samples) / 48_000 + first - (done.end_ms - done.start_ms) / 1000) < 0.05


def sound_of(path: Path) -> tuple[np.ndarray, float]:
    """The samples that a player plays, and when they begin, in seconds."""
    with av.open(str(path)) as container:
        frames = [(float(each.pts * each.time_base), each.to_ndarray()[0]) for each in container.decode(audio=0)]
    start = frames[0][0]
    samples = np.concatenate([each for _, each in frames])
    early = max(round(-start * 48_000), 0)
    return samples[early:], max(start, 0.0)


def test_write_moment__of_sound_that_begins_late_and_ends_early(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(25), 25, begin=Fraction(1), sound=True)
    made = tmp_path / "made.mp4"
    done = write_moment(path, made, start_ms=1200, end_ms=2000)
    assert [number for _, number in frames_in(made)] == list(range(5, 25))
    assert done.has_sound


def test_moment_bytes__is_the_same_as_a_file(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", NTSC_30, 60)
    content = moment_bytes(path, start_ms=500, end_ms=1000)
    with av.open(io.BytesIO(content)) as container:
        assert container.format.name.startswith("mov")
    (tmp_path / "b.mp4").write_bytes(content)
    assert [number for _, number in frames_in(tmp_path / "b.mp4")] == numbers_of_span(frames_in(path), 500, 1000)


def test_write_moment__refuses_a_span_outside(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "a.mp4", Fraction(25), 25)
    with raises(InputRejected, code="span-outside"):
        write_moment(path, tmp_path / "b.mp4", start_ms=5000, end_ms=6000)
    assert not (tmp_path / "b.mp4").exists()
