"""What is shown when: the frame of a time is the one that a full decode in display order has there, however it is asked."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.conftest import picture_of, write_video
from vidseek_media.decoding.containers import Packet, demux, open_video
from vidseek_media.decoding.frames import FrameAt, decode_at, frames_at
from vidseek_media.decoding.packets import read_plan, vp8_hides, vp9_hides
from vidseek_media.decoding.probe import probe

NumberOf = Callable[[np.ndarray], int]

_NEAR_LOSSLESS = {"preset": "ultrafast", "b-adapt": "0", "qp": "1", "qmin": "1", "qmax": "1"}


def _check_every_way(path: Path) -> list[FrameAt]:
    """All frames in order, equal to a full decode in display order, and to each asked alone and at random."""
    plan = read_plan(path)
    times_ms = [plan.ms_of(int(pts)) + 1 for pts in plan.pts]
    in_order = list(frames_at(path, times_ms, plan=plan))
    everything = _full_decode(path)
    assert len(everything) == len(in_order)
    for wanted, found in zip(everything, in_order, strict=True):
        np.testing.assert_array_equal(found.pixels, wanted)
        assert not found.is_repeated
    for number in random.Random(0).sample(range(len(times_ms)), 6):
        [alone] = frames_at(path, [times_ms[number]])
        assert alone.time_ms == in_order[number].time_ms
        np.testing.assert_array_equal(alone.pixels, in_order[number].pixels)
    some = sorted(random.Random(1).sample(range(len(times_ms)), min(9, len(times_ms))))
    for number, found in zip(some, frames_at(path, [times_ms[n] for n in some]), strict=True):
        np.testing.assert_array_equal(found.pixels, in_order[number].pixels)
    return in_order


def _full_decode(path: Path) -> list[np.ndarray]:
    with open_video(path) as video:
        decoder = video.stream.codec_context
        frames = [f for packet in demux(video.container, video.stream) for f in decoder.decode(packet)]
        frames += decoder.decode(None)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def _bytes_of_piece(path: Path, *, first: int, num_frames: int, start_ms: int, b_frames: int, late_ms: int = 0) -> bytes:
    """A transport or program stream of the frames `first`, `first` + 1, ... 10 (.mpg: 25) a second, from `start_ms` on.

    `start_ms` is a whole number of frames; `late_ms` is added to it.
    """
    codec, rate = ("mpeg2video", 25) if path.suffix == ".mpg" else ("libx264", 10)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {**_NEAR_LOSSLESS, "g": "12", "bf": str(b_frames)}
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture_of(first + number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = start_ms * rate // 1000 + number, Fraction(1, rate)
            container.mux(_later(stream.encode(frame), late_ms))
        container.mux(_later(stream.encode(None), late_ms))
    return path.read_bytes()


def _later(packets: list[Packet], by_ms: int) -> list[Packet]:
    for packet in packets:
        assert packet.pts is not None and packet.dts is not None and packet.time_base
        each_ms = packet.time_base * 1000
        packet.pts, packet.dts = round(packet.pts * each_ms) + by_ms, round(packet.dts * each_ms) + by_ms
        packet.time_base = Fraction(1, 1000)
    return packets


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    starts_ms=st.lists(st.sampled_from([0, 300, 5000, 90_000, 32_400_000, 95_000_000]), min_size=2, max_size=3),
    b_frames=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    lengths=st.lists(st.integers(9, 20), min_size=3, max_size=3),
)
def test_read_plan__lays_joined_pieces_end_to_end(
    tmp_path_factory: pytest.TempPathFactory, starts_ms: list[int], b_frames: list[int], lengths: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("joined")
    path, content, first = folder / "all.ts", b"", 0
    lengths = lengths[: len(starts_ms)]
    for start_ms, num_b, length in zip(starts_ms, b_frames, lengths, strict=False):
        piece = folder / "piece.ts"
        content += _bytes_of_piece(piece, first=first, num_frames=length, start_ms=start_ms, b_frames=num_b)
        first += length
    path.write_bytes(content)
    gaps_ms = [
        later - (earlier + 100 * length)
        for earlier, later, length in zip(starts_ms, starts_ms[1:], lengths, strict=False)
    ]
    is_gapless = all(gap_ms < -400 or gap_ms > 10_000 for gap_ms in gaps_ms)
    found = _check_every_way(path)
    if is_gapless:
        assert [f.time_ms for f in found] == [100 * n for n in range(len(found))]
        assert probe(path).duration_ms == pytest.approx(100 * first, abs=1)
    assert len(found) == first


@pytest.mark.parametrize("overlap_ms", [110, 150, 190])
def test_read_plan__lays_pieces_that_overlap_end_to_end(tmp_path: Path, number_of: NumberOf, overlap_ms: int) -> None:
    content = _bytes_of_piece(tmp_path / "a.ts", first=0, num_frames=12, start_ms=0, b_frames=0)
    content += _bytes_of_piece(
        tmp_path / "b.ts", first=12, num_frames=12, start_ms=1100, b_frames=0, late_ms=100 - overlap_ms
    )
    (tmp_path / "all.ts").write_bytes(content)
    found = _check_every_way(tmp_path / "all.ts")
    assert [number_of(f.pixels) for f in found] == list(range(24))
    assert [f.time_ms for f in found] == [100 * n for n in range(24)]


def test_read_plan__of_program_streams_that_begin_anew_is_as_long_as_both(tmp_path: Path, number_of: NumberOf) -> None:
    pieces = [
        _bytes_of_piece(tmp_path / "a.mpg", first=first, num_frames=25, start_ms=0, b_frames=2) for first in (0, 25)
    ]
    (tmp_path / "all.mpg").write_bytes(b"".join(pieces))
    found = _check_every_way(tmp_path / "all.mpg")
    assert [number_of(f.pixels) for f in found] == list(range(50))
    assert [f.time_ms for f in found] == [40 * n for n in range(50)]


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 0), ("libx264", 3), ("mpeg4", 0), ("mpeg4", 2)])
def test_frames_at__of_avi_follows_display_order(
    tmp_path: Path, number_of: NumberOf, codec: str, b_frames: int
) -> None:
    """AVI numbers its chunks in decode order: frame i is still shown at i steps, from 0."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {**_NEAR_LOSSLESS, "g": "12", "bf": str(b_frames)}
        for number in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")))
        container.mux(stream.encode(None))
    found = _check_every_way(path)
    assert [number_of(f.pixels) for f in found] == list(range(40))
    assert [f.time_ms for f in found] == [100 * n for n in range(40)]
    assert probe(path).duration_ms == 4000


def test_frames_at__of_a_transport_stream_cut_inside_a_gop_begins_at_its_first_keyframe(
    tmp_path: Path, number_of: NumberOf
) -> None:
    whole = _bytes_of_piece(tmp_path / "a.ts", first=0, num_frames=40, start_ms=0, b_frames=2)
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[: 188 * 3] + whole[188 * (len(whole) // 188 // 4) :])
    found = _check_every_way(path)
    numbers = [number_of(f.pixels) for f in found]
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] > 0


@pytest.mark.parametrize("options", [{"x264-params": "open-gop=1"}, {"x264-params": "intra-refresh=1"}])
def test_frames_at__alone_equals_all_in_order_where_keyframes_are_not_clean(
    tmp_path: Path, options: dict[str, str]
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"g": "20", "bf": "0" if "refresh" in str(options) else "3", **options}
        noise = np.random.default_rng(0)
        for _ in range(80):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 96, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _check_every_way(path)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_read_plan__of_matroska_does_not_count_leading_frames_before_zero(tmp_path: Path, codec: str) -> None:
    """As `ffmpeg -ss` writes it with `-c copy`: the first keyframe is at 0, frames that are shown before it follow it."""
    source, path = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    x264 = {**_NEAR_LOSSLESS, "g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    x265 = {"preset": "ultrafast", "x265-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0:open-gop=1:log-level=none"}
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = x264 if codec == "libx264" else x265
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(source)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        start = [number for number, packet in enumerate(packets) if packet.is_keyframe][1]
        shift = packets[start].pts or 0
        num_leading = sum((packet.pts or 0) < shift for packet in packets[start:])
        for packet in packets[start:]:
            packet.pts = (packet.pts or 0) - shift
            packet.dts, packet.stream = (packet.dts or 0) - shift, copy
            new.mux_one(packet)
    assert num_leading > 0
    found = _check_every_way(path)
    assert len(found) == len(packets) - start - num_leading
    assert [f.time_ms for f in found] == [100 * n for n in range(len(found))]
    assert probe(path).duration_ms == 100 * len(found)


@pytest.mark.parametrize(("suffix", "codec"), [(".mpeg", "mpeg1video"), (".m2v", "mpeg2video"), (".h264", "libx264")])
def test_frames_at__of_a_bare_stream_follows_display_order(
    tmp_path: Path, number_of: NumberOf, suffix: str, codec: str
) -> None:
    path = tmp_path / f"a{suffix}"
    muxer = {".mpeg": "mpeg1video", ".m2v": "mpeg2video", ".h264": "h264"}[suffix]
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {**_NEAR_LOSSLESS, "g": "12", "bf": "2"}
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = _check_every_way(path)
    assert [number_of(f.pixels) for f in found] == list(range(30))
    assert [f.time_ms for f in found] == [40 * n for n in range(30)]
    assert probe(path).duration_ms == 1200


def test_frames_at__where_the_size_changes_a_frame_alone_has_the_size_of_the_first(tmp_path: Path) -> None:
    small, large = (
        write_video(tmp_path / f"{width}.ts", num_frames=12, width=width, height=width * 3 // 4) for width in (64, 96)
    )
    for name, parts in {"up": [small, large], "down": [large, small]}.items():
        path = tmp_path / f"{name}.ts"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        in_order = [pixels for _, pixels in decode_at(path, range(0, 2400, 100))]
        assert {pixels.shape[1] for pixels in in_order} == {64 if name == "up" else 96}
        for number in (3, 14, 22):
            np.testing.assert_array_equal(decode_at(path, [100 * number])[0][1], in_order[number])


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_read_plan__does_not_count_frames_that_vp8_and_vp9_hide(
    tmp_path: Path, number_of: NumberOf, codec: str
) -> None:
    path = _write_with_hidden_frames(tmp_path, codec, num_frames=40, gop=8)
    found = _check_every_way(path)
    assert [number_of(f.pixels) for f in found] == list(range(40))
    assert (probe(path).num_frames, probe(path).fps, probe(path).duration_ms) == (40, 25.0, 1600)


def test_vp9_hides__reads_every_profile() -> None:
    for profile in range(4):
        low, high = profile & 1, profile >> 1
        for shows_existing, shows in ((0, 0), (0, 1), (1, 0)):
            bits = [1, 0, low, high, *([0] if profile == 3 else []), shows_existing, 0, shows, 0]
            head = int("".join(map(str, bits[:8])), 2)
            assert vp9_hides(memoryview(bytes([head, 0]))) == (not shows_existing and not shows)


def test_hides__takes_any_bytes() -> None:
    for content in (b"", b"\0", b"\xc9", b"\xff" * 40, b"\xdf" * 3):
        assert vp8_hides(memoryview(content)) in (True, False)
        assert vp9_hides(memoryview(content)) in (True, False)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_decode_at__counts_from_the_start_of_the_sound(tmp_path: Path, number_of: NumberOf, suffix: str) -> None:
    """The picture begins 2 s after the sound, as in a file that was cut by stream copy."""
    path = tmp_path / f"late{suffix}"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=48000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.options = {"preset": "ultrafast", "qp": "1", "bf": "2", "b-adapt": "0"}
        for number in range(5 * 48000 // 1024):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.rate, samples.pts = 48000, number * 1024
            container.mux(sound.encode(samples))
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")
            frame.pts, frame.time_base = 20 + number, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(sound.encode(None))
        container.mux(video.encode(None))
    priming_ms = 25  # AAC begins with up to 1,024 samples that a player passes over.
    found = decode_at(path, [0, 1000, 2000 + 1000 + priming_ms, 4900 + priming_ms + 50])
    assert [number_of(pixels) for _, pixels in found] == [0, 0, 10, 29]
    assert found[2][0] == pytest.approx(3000, abs=priming_ms)
    assert probe(path).duration_ms == pytest.approx(5000, abs=priming_ms)


def test_frames_at__of_equal_timestamps_shows_every_frame_once(tmp_path: Path, number_of: NumberOf) -> None:
    path = _with_times(write_video(tmp_path / "a.mkv", num_frames=20, b_frames=0), tmp_path / "b.mkv", [0, 0, 100, 100])
    assert len(read_plan(path).pts) == 20
    found = decode_at(path, [0, 1, 100, 101, 400, 1950])
    assert [number_of(pixels) for _, pixels in found] == [0, 1, 2, 3, 4, 19]


def _with_times(source: Path, path: Path, first_ms: list[int]) -> Path:
    """`source` copied, its first packets at `first_ms`."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(p for p in before.demux(video=0) if p.size):
            if number < len(first_ms):
                packet.pts = packet.dts = first_ms[number]
            packet.stream = stream
            after.mux(packet)
    return path


def _write_with_hidden_frames(folder: Path, codec: str, *, num_frames: int, gop: int) -> Path:
    """A WebM file in which a hidden copy of each keyframe precedes it, in a packet with a time of its own."""
    plain, path = folder / "plain.webm", folder / "hidden.webm"
    with av.open(str(plain), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"g": str(gop), "keyint_min": str(gop), "crf": "4", "b": "2M", "deadline": "realtime"}
        for number in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_of(number, 64, 48), format="rgb24")))
        container.mux(stream.encode(None))
    shown_bit = 1 << (4 if codec == "libvpx" else 1)
    with av.open(str(plain)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size and packet.is_keyframe and packet.pts:
                content = bytes(packet)
                hidden = av.Packet(bytes([content[0] & ~shown_bit]) + content[1:])
                hidden.pts = hidden.dts = packet.pts - 5
                hidden.time_base, hidden.is_keyframe, hidden.stream = packet.time_base, True, stream
                after.mux(hidden)
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    return path
