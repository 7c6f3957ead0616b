from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.media.damaging import damage_packets
from tests.raising import raises
from vidseek_media.decoding import containers, frame_walk, frames
from vidseek_media.decoding.frame_walk import SKIPPABLE
from vidseek_media.decoding.frames import FrameAt, bin_centres, decode_at, decode_uniform, frames_at
from vidseek_media.decoding.packets import PacketPlan, read_plan
from vidseek_media.decoding.pictures import TooManyPixels
from vidseek_media.errors import ConfigError, InputRejected

MakeVideo = Callable[..., Path]
NumberOf = Callable[[np.ndarray], int]


def test_bin_centres__are_the_middles_of_equal_bins() -> None:
    assert bin_centres(1000, 5000, 4) == [1500, 2500, 3500, 4500]
    assert bin_centres(0, 3000, 8) == [188, 563, 938, 1313, 1688, 2063, 2438, 2813]  # 187.5 + 375 i, half up


def test_bin_centres__of_a_span_shorter_than_its_bins_stay_inside() -> None:
    assert bin_centres(7, 8, 8) == [7] * 8


def test_decode_at__gives_the_last_frame_that_begins_not_after_the_time(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=30, fps=10)
    wanted = {0: 0, 99: 0, 100: 1, 101: 1, 1549: 15, 2900: 29, 2999: 29}
    found = decode_at(path, list(wanted))
    assert [number_of(pixels) for _, pixels in found] == list(wanted.values())
    assert [time_ms for time_ms, _ in found] == [100 * number for number in wanted.values()]


def test_decode_at__after_the_end_gives_the_last_frame(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    [(time_ms, pixels)] = decode_at(make_video(tmp_path / "a.mp4", num_frames=5), [10_000])
    assert (time_ms, number_of(pixels)) == (400, 4)


def test_decode_at__keeps_the_order_asked_for(tmp_path: Path, make_video: MakeVideo, number_of: NumberOf) -> None:
    found = decode_at(make_video(tmp_path / "a.mp4"), [2000, 0, 2000, 500])
    assert [number_of(pixels) for _, pixels in found] == [20, 0, 20, 5]


def test_decode_at__refuses_a_negative_time(tmp_path: Path, make_video: MakeVideo) -> None:
    with raises(ValueError, naming="-1 ms"):
        decode_at(make_video(tmp_path / "a.mp4"), [-1])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
@pytest.mark.parametrize("gop", [1, 7, 250])
def test_decode_at__finds_every_frame_alone(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf, suffix: str, gop: int
) -> None:
    b_frames = 0 if suffix == ".avi" else 2
    path = make_video(tmp_path / f"a{suffix}", num_frames=50, gop=gop, b_frames=b_frames)
    for number in range(0, 50, 7):
        [(_, pixels)] = decode_at(path, [100 * number + 50])
        assert number_of(pixels) == number


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_decode_at__counts_from_the_first_frame_where_a_file_begins_late(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf, suffix: str
) -> None:
    times_ms = [5000 + 100 * number for number in range(20)]
    path = make_video(tmp_path / f"a{suffix}", num_frames=20, times_ms=times_ms)
    assert [(time_ms, number_of(pixels)) for time_ms, pixels in decode_at(path, [0, 1950])] == [(0, 0), (1900, 19)]


def test_decode_at__follows_a_variable_frame_rate(tmp_path: Path, make_video: MakeVideo, number_of: NumberOf) -> None:
    path = make_video(tmp_path / "a.mkv", num_frames=5, times_ms=[0, 40, 1000, 1040, 3000])
    found = decode_at(path, [39, 40, 999, 1000, 2999, 3000])
    assert [number_of(pixels) for _, pixels in found] == [0, 1, 1, 2, 3, 4]


def test_decode_at__of_a_bare_stream_goes_by_its_nominal_rate(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    path = make_video(tmp_path / "a.h264", num_frames=40, fps=25)
    assert [number_of(pixels) for _, pixels in decode_at(path, [0, 20, 41, 1000])] == [0, 0, 1, 25]


@pytest.mark.parametrize(("rotation", "white"), [(90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_decode_at__turns_upright(
    tmp_path: Path, make_video: MakeVideo, rotation: int, white: tuple[int, int]
) -> None:
    """A rotation of 90 turns the picture against the clock: what was at the upper left is then at the lower left."""
    path = make_video(tmp_path / "a.mp4", num_frames=3, width=64, height=32, rotation=rotation)
    [(_, pixels)] = decode_at(path, [0])
    assert pixels.shape == ((64, 32, 3) if rotation != 180 else (32, 64, 3))
    height, width = pixels.shape[:2]
    corner = pixels[white[0] * (height - 1), white[1] * (width - 1)]
    assert corner.min() > 250
    assert (pixels > 128).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("size", "side_px", "wanted"), [((64, 48), 24, (24, 32)), ((34, 66), 17, (33, 17)), ((64, 48), 480, (48, 64))]
)
def test_decode_at__brings_the_shorter_side_to_side_px_and_never_enlarges(
    tmp_path: Path, make_video: MakeVideo, size: tuple[int, int], side_px: int, wanted: tuple[int, int]
) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=2, width=size[0], height=size[1])
    [(_, pixels)] = decode_at(path, [0], side_px=side_px)
    assert pixels.shape == (*wanted, 3)
    assert pixels.dtype == np.uint8


def test_decode_at__takes_the_default_of_two_video_streams(tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, side in zip(streams, (32, 64), strict=True):
            stream.width = stream.height = side
            stream.disposition = Disposition.default if side == 64 else 0
        for stream in streams:
            pixels = np.zeros((stream.height, stream.width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    assert decode_at(path, [0])[0][1].shape == (64, 64, 3)


def test_frames_at__shares_the_pixels_of_times_that_show_one_frame(tmp_path: Path, make_video: MakeVideo) -> None:
    first, second, third = frames_at(make_video(tmp_path / "a.mp4"), [500, 510, 600])
    assert first.pixels is second.pixels
    assert first.pixels is not third.pixels


def test_frames_at__says_which_frames_stand_in_for_damaged_ones(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=40, gop=10, b_frames=0)
    plan = read_plan(path)
    damage_packets(path, first=10, last=19)
    found = list(frames_at(path, [500, 1500, 2500], plan=plan))
    assert [frame.is_repeated for frame in found] == [False, True, False]
    assert [number_of(frame.pixels) for frame in found] == [5, 9, 25]


def test_frames_at__in_one_pass_or_each_alone_gives_the_same(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=60, gop=5)
    times_ms = list(range(0, 6000, 333))
    plan = read_plan(path)
    in_order = list(frames_at(path, times_ms, plan=_untrusted(plan)))
    by_plan = list(frames_at(path, times_ms, plan=plan))
    for a, b in zip(in_order, by_plan, strict=True):
        assert a.time_ms == b.time_ms
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_decode_uniform__spreads_over_the_whole_file(
    tmp_path: Path, make_video: MakeVideo, number_of: NumberOf
) -> None:
    frames = decode_uniform(make_video(tmp_path / "a.mp4", num_frames=40), 4, 24)
    assert frames.shape == (4, 24, 32, 3)
    assert [number_of(pixels) for pixels in frames] == [5, 15, 25, 35]


def test_decode_uniform__of_one_frame_repeats_it(tmp_path: Path, make_video: MakeVideo, number_of: NumberOf) -> None:
    frames = decode_uniform(make_video(tmp_path / "a.mp4", num_frames=1), 8)
    assert [number_of(pixels) for pixels in frames] == [0] * 8


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a video at all\n" * 99])
def test_decode_at__refuses_what_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with raises(InputRejected, code="not-a-video"):
        decode_at(path, [0])


def test_decode_at__refuses_a_missing_file(tmp_path: Path) -> None:
    with raises(InputRejected, code="not-a-video"):
        decode_at(tmp_path / "a.mp4", [0])


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx264", ".ts"), ("libx265", ".mkv")])
def test_frames_at__leaving_out_what_nothing_refers_to_changes_no_frame(
    tmp_path: Path, make_video: MakeVideo, codec: str, suffix: str
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} to make the file with")
    path = make_video(tmp_path / f"a{suffix}", num_frames=48, gop=24, b_frames=3, codec=codec)
    plan = read_plan(path)
    assert plan.codec in SKIPPABLE
    in_order = {f.wanted_ms: f for f in frames_at(path, range(0, 4800, 100), plan=_untrusted(plan))}
    for times_ms in ([300], [1700, 4000], [100, 200, 900, 3500], list(range(0, 4800, 700))):
        for frame in frames_at(path, times_ms, plan=plan):
            assert frame.time_ms == in_order[frame.wanted_ms].time_ms
            np.testing.assert_array_equal(frame.pixels, in_order[frame.wanted_ms].pixels)


def test_frames_at__sends_the_decoder_fewer_frames_where_it_may_skip(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", num_frames=40, gop=250, b_frames=3)
    counts = []
    for skippable in (SKIPPABLE, frozenset[str]()):
        decoded: list[object] = []
        monkeypatch.setattr(frame_walk, "SKIPPABLE", skippable)
        monkeypatch.setattr(
            frame_walk, "_decode_packet", lambda *args, decoded=decoded: decoded.extend(f := _decode(*args)) or f
        )
        list(frames_at(path, [3800]))
        counts.append(len(decoded))
    assert counts[0] < 0.6 * counts[1]


def test_frames_at__refuses_a_decoder_that_is_none(tmp_path: Path, make_video: MakeVideo) -> None:
    with raises(ConfigError, code="unknown-choice", naming=("frames.decoder", "'opencv'")):
        list(frames_at(make_video(tmp_path / "a.mp4"), [0], decoder="opencv"))


def test_frames_at__by_decord_gives_the_same_frames_and_says_so(tmp_path: Path, make_video: MakeVideo) -> None:
    pytest.importorskip("decord")
    path = make_video(tmp_path / "a.mp4", num_frames=40, gop=7, pixel_format="yuv420p")
    times_ms = [0, 99, 100, 1500, 1510, 3999, 9000]
    by_pyav = list(frames_at(path, times_ms, decoder="auto"))
    by_decord = list(frames_at(path, times_ms, decoder="decord"))
    assert [f.decoder for f in by_pyav] == ["pyav"] * 7
    assert [f.decoder for f in by_decord] == ["decord"] * 7
    for a, b in zip(by_pyav, by_decord, strict=True):
        assert a.time_ms == b.time_ms
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_frames_at__by_decord_refuses_what_it_may_get_wrong(tmp_path: Path, make_video: MakeVideo) -> None:
    pytest.importorskip("decord")
    with raises(InputRejected, code="unsure-frames", naming="yuv444p") as caught:
        list(frames_at(make_video(tmp_path / "a.mp4"), [0], decoder="decord"))
    assert "auto" in caught.value.remedy


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("where", ["header", "decoder"])
def test_frames_at__what_the_limit_of_pixels_refuses_reaches_no_other_decoder(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, decoder: str, where: str
) -> None:
    """By the header, or where it says nothing or something else, by FFmpeg's own limit."""
    decord = pytest.importorskip("decord")
    path = make_video(tmp_path / "a.mp4", num_frames=20, pixel_format="yuv420p")
    monkeypatch.setattr(containers, "MAX_PIXELS", 64 * 48 - 1)
    if where == "decoder":
        monkeypatch.setattr(containers, "check_size", lambda stream: None)
    opened: list[object] = []
    monkeypatch.setattr(decord, "VideoReader", lambda *asked, **_: opened.append(asked))
    kind, code = (TooManyPixels, "too-many-pixels") if where == "header" else (InputRejected, "undecodable")
    with raises(kind, code=code):
        list(frames_at(path, [500, 1500], decoder=decoder))
    assert not opened


def test_frames_at__auto_never_asks_decord(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    decord = pytest.importorskip("decord")
    path = make_video(tmp_path / "a.mp4", num_frames=20, pixel_format="yuv420p")

    def fail(*_: object) -> Iterator[FrameAt]:
        raise InputRejected("not one frame can be decoded", code="undecodable")
        yield

    opened: list[object] = []
    monkeypatch.setattr(decord, "VideoReader", lambda *asked, **_: opened.append(asked))
    monkeypatch.setattr(frames, "_frames_by_pyav", fail)
    for decoder in ("auto", "pyav", "decord"):
        with raises(InputRejected, code="undecodable"):
            list(frames_at(path, [500], decoder=decoder))
    assert not opened


REFERENCES = [
    ("av1_video.mkv", 10, 0), ("h265_video.mp4", 5, 0), ("nasa_13013.mp4", 0, 0), ("nasa_13013.mp4", 15, 0),
    ("nasa_13013.mp4", 0, 3), ("nasa_13013.mp4", 35, 3),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "number", "stream"), REFERENCES)
def test_decode_at__equals_the_reference_of_torchcodec(
    tmp_path: Path, realdata: Path, name: str, number: int, stream: int
) -> None:
    path = realdata / "A_video_formats" / name
    if (name, stream) == ("nasa_13013.mp4", 0):  # Not the stream that FFmpeg calls the best: alone in a file it is.
        path = _stream_alone(path, tmp_path / name, index=stream)
    plan = read_plan(path)
    [(_, pixels)] = decode_at(path, [plan.ms_of(plan.pts[number]) + 1])
    reference = realdata / "E_decode_equivalence" / f"{name}.stream{stream}.frame{number:06d}.pt"
    np.testing.assert_array_equal(pixels, _tensor_of(reference).reshape(pixels.shape))


@pytest.mark.realdata
@pytest.mark.slow
def test_frames_at__by_decord_equals_pyav_on_every_real_file_that_it_takes(realdata: Path) -> None:
    pytest.importorskip("decord")
    taken = []
    for path in sorted((realdata / "A_video_formats").iterdir()):
        if path.suffix == ".csv":
            continue
        try:
            plan = read_plan(path)
            times_ms = bin_centres(0, plan.duration_ms, 8)
            by_pyav = frames_at(path, times_ms, plan=plan, decoder="pyav")
            by_decord = list(frames_at(path, times_ms, plan=plan, decoder="decord"))
        except InputRejected:
            continue
        for a, b in zip(by_pyav, by_decord, strict=True):
            assert (a.time_ms, a.pixels.shape) == (b.time_ms, b.pixels.shape), path.name
            np.testing.assert_array_equal(a.pixels, b.pixels, err_msg=path.name)
        taken.append(path.name)
    assert len(taken) >= 20
    assert "nasa_13013.mp4" in taken


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["issue-134-rotate.mp4", "video_1.mp4", "video_90.mov"])
def test_decode_at__is_upright_as_decord_is(realdata: Path, name: str) -> None:
    decord = pytest.importorskip("decord")
    path = realdata / "A_video_formats" / name
    [(_, pixels)] = decode_at(path, [0])
    np.testing.assert_array_equal(pixels, decord.VideoReader(str(path), num_threads=1)[0].asnumpy())


@pytest.mark.realdata
@pytest.mark.slow
def test_frames_at__by_plan_equals_all_in_order_on_every_real_file(realdata: Path) -> None:
    num_compared = 0
    for path in sorted((realdata / "A_video_formats").iterdir()):
        if path.suffix == ".csv":
            continue
        try:
            plan = read_plan(path)
            times_ms = bin_centres(0, plan.duration_ms, 5)
            in_order = list(frames_at(path, times_ms, side_px=64, plan=_untrusted(plan)))
        except InputRejected:
            continue
        alone = [frame for time_ms in times_ms[::2] for frame in frames_at(path, [time_ms], side_px=64, plan=plan)]
        together = list(frames_at(path, times_ms, side_px=64, plan=plan))
        for wanted, found in [*zip(in_order[::2], alone, strict=True), *zip(in_order, together, strict=True)]:
            assert found.time_ms == wanted.time_ms, path.name
            np.testing.assert_array_equal(found.pixels, wanted.pixels, err_msg=path.name)
        num_compared += 1
    assert num_compared >= 35


_decode = frame_walk._decode_packet


def _untrusted(plan: PacketPlan) -> PacketPlan:
    """`plan` so that every frame is decoded from the beginning."""
    return dataclasses.replace(plan, is_trusted=False)


def _stream_alone(source: Path, path: Path, *, index: int) -> Path:
    """Stream `index` of `source`, copied packet by packet into a file of its own."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams[index])
        for packet in before.demux(before.streams[index]):
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    return path


def _tensor_of(path: Path) -> np.ndarray:
    """The bytes of a uint8 tensor that torch.save wrote."""
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/data/0")]
        return np.frombuffer(archive.read(name), np.uint8)
