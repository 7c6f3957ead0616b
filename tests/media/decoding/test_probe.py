from __future__ import annotations

import ctypes
import os
import struct
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.media.conftest import picture_of
from tests.raising import raises
from vidseek_media.decoding import packets
from vidseek_media.decoding.probe import examine, probe
from vidseek_media.errors import InputRejected

MakeVideo = Callable[..., Path]

IN_ACCESS, IN_OPEN = 0x1, 0x20
"""Events of inotify(7)."""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
def test_probe__measures_length_rate_size_and_codec(tmp_path: Path, make_video: MakeVideo, suffix: str) -> None:
    found = probe(make_video(tmp_path / f"a{suffix}", num_frames=25, fps=10, width=64, height=48))
    assert (found.duration_ms, found.fps, found.width, found.height, found.codec) == (2500, 10.0, 64, 48, "h264")
    assert found.num_frames == 25


def test_probe__size_is_upright(tmp_path: Path, make_video: MakeVideo) -> None:
    found = probe(make_video(tmp_path / "a.mp4", num_frames=3, width=64, height=48, rotation=90))
    assert (found.width, found.height) == (48, 64)


def test_probe__length_does_not_count_a_late_start(tmp_path: Path, make_video: MakeVideo) -> None:
    times_ms = [3000 + 100 * number for number in range(20)]
    assert probe(make_video(tmp_path / "a.mkv", num_frames=20, times_ms=times_ms)).duration_ms == 2000


@pytest.mark.parametrize("late_ms", [40, 1500])
def test_probe__the_rate_is_that_of_the_picture_where_the_sound_begins_first(tmp_path: Path, late_ms: int) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=48_000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 48_000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = late_ms + 40 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = probe(path)
    assert found.duration_ms == pytest.approx(2000 + late_ms, abs=45)
    assert found.fps == pytest.approx(25, abs=0.1)


def test_probe__of_a_variable_rate_gives_the_average(tmp_path: Path, make_video: MakeVideo) -> None:
    found = probe(make_video(tmp_path / "a.mkv", num_frames=4, times_ms=[0, 500, 1000, 3000]))
    assert found.duration_ms == pytest.approx(3500, abs=500)  # the last frame's length is not in the file
    assert found.fps == pytest.approx(4000 / found.duration_ms, abs=0.001)


def test_probe__of_a_file_that_breaks_off_ends_where_it_breaks(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=50, gop=5, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    assert 1000 < probe(path).duration_ms < 5000


def test_probe__refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with raises(InputRejected, code="file-empty"):
        probe(tmp_path / "a.mp4")


def test_probe__refuses_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1000))
    with raises(InputRejected, code="not-a-video"):
        probe(path)


def test_probe__refuses_a_file_of_which_no_frame_decodes(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=10)
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    path.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
    with raises(InputRejected, code="undecodable"):
        probe(path)


@pytest.mark.realdata
def test_probe__real_files_are_read_or_refused_with_a_reason(realdata: Path) -> None:
    refused = {}
    for path in sorted((realdata / "A_video_formats").iterdir()):
        if path.suffix == ".csv":
            continue
        try:
            assert probe(path).duration_ms > 0
        except InputRejected as error:
            refused[path.name] = error.message
    assert set(refused) == {"invalid-bitstream.webm", "sample_ac3.mp4"}
    assert "only audio" in refused["sample_ac3.mp4"]
    assert "not one frame" in refused["invalid-bitstream.webm"]


def test_probe__refuses_times_that_cannot_be(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mkv", num_frames=3, times_ms=[0, 100, 2_000_000_000])
    with raises(InputRejected, code="broken-times", naming="3 frames"):
        probe(path)


def test_examine__says_the_rates_the_keyframes_and_the_decoder(tmp_path: Path, make_video: MakeVideo) -> None:
    found = examine(make_video(tmp_path / "a.mp4", num_frames=30, fps=10, gop=10, pixel_format="yuv420p"))
    assert (found.probe.num_frames, found.num_keyframes, found.pixel_format) == (30, 3, "yuv420p")
    assert (found.shortest_frame_ms, found.longest_frame_ms, found.is_variable_rate) == (100.0, 100.0, False)
    assert (found.header_duration_ms, found.header_fps, found.times) == (3000, 10.0, "packets")
    assert found.decoder == "pyav" and "right on every file tried" in found.why


def test_examine__of_a_variable_rate_gives_both_ends_of_it(tmp_path: Path, make_video: MakeVideo) -> None:
    found = examine(make_video(tmp_path / "a.mkv", num_frames=4, times_ms=[0, 500, 1000, 3000]))
    assert (found.shortest_frame_ms, found.longest_frame_ms, found.is_variable_rate) == (500.0, 2000.0, True)


@pytest.mark.parametrize(("fps", "is_variable"), [(30, False), (7, False)])
def test_examine__rounding_to_milliseconds_is_no_variable_rate(
    tmp_path: Path, make_video: MakeVideo, fps: int, is_variable: bool
) -> None:
    times_ms = [round(1000 * number / fps) for number in range(20)]
    assert examine(make_video(tmp_path / "a.mkv", num_frames=20, times_ms=times_ms)).is_variable_rate is is_variable


def test_examine__length_is_of_the_packets_where_the_header_lies(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mkv", num_frames=20, fps=10)
    content = path.read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration: a float of 8 bytes, in ms (RFC 9559)
    path.write_bytes(content[:place] + struct.pack(">d", 700_000.0) + content[place + 8 :])
    found = examine(path)
    assert found.header_duration_ms == 700_000
    assert found.probe.duration_ms == pytest.approx(2000, abs=100)  # Matroska does not say how long the last frame is


def test_examine__the_decoder_that_is_asked_for_or_why_not(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=12, pixel_format="yuv420p")
    assert examine(path, decoder="decord").decoder == "decord"
    assert (examine(path, decoder="pyav").decoder, examine(path, decoder="pyav").why) == ("pyav", "it is asked for")
    other = make_video(tmp_path / "b.mp4", num_frames=12, codec="libx265")
    with raises(InputRejected, code="unsure-frames", naming="hevc"):
        examine(other, decoder="decord")


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "is_variable"), [
    ("var_fps_video.mp4", True), ("sample.avi", True), ("bikes.mp4", False), ("sample.flv", False), ("video_1.mp4", False),
])
def test_examine__of_real_files_tells_variable_rates(realdata: Path, name: str, is_variable: bool) -> None:
    assert examine(realdata / "A_video_formats" / name).is_variable_rate is is_variable


@pytest.mark.parametrize("look", [probe, examine])
def test_probe__reads_the_packets_once(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], object]
) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=60, gop=5)
    whole, num_read = packets.demux, 0

    def counted(container: Any, stream: Any) -> Iterator[Any]:
        nonlocal num_read
        for packet in whole(container, stream):
            num_read += 1
            yield packet

    monkeypatch.setattr(packets, "demux", counted)
    look(path)
    assert num_read == 60


@pytest.mark.parametrize("look", [probe, examine])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.gif", "a.png"])
def test_probe__opens_the_file_once(
    tmp_path: Path, make_video: MakeVideo, look: Callable[[Path], object], name: str
) -> None:
    """As the kernel counts it, whichever library opens the file."""
    path = tmp_path / name
    if name in ("a.png", "a.gif"):
        Image.new("RGB", (64, 48), "red").save(path)
    else:
        make_video(path, num_frames=30)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        # Equal events in a row are one: reading between two openings keeps these apart.
        assert libc.inotify_add_watch(watch, bytes(path), IN_OPEN | IN_ACCESS) > 0, os.strerror(ctypes.get_errno())
        look(path)
        events = [mask for _, mask, _, _ in struct.iter_unpack("=iIII", os.read(watch, 4096))]
    finally:
        os.close(watch)
    assert events.count(IN_OPEN) == 1 and IN_ACCESS in events
