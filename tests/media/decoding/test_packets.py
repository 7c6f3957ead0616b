from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tests.raising import raises
from vidseek_media.decoding.packets import read_plan
from vidseek_media.errors import InputRejected

MakeVideo = Callable[..., Path]


def test_read_plan__of_a_playlist_opens_no_other_file(tmp_path: Path, make_video: MakeVideo) -> None:
    other = make_video(tmp_path / "a.ts", num_frames=5)
    path = tmp_path / "playlist.mp4"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\nfile://{other}\n#EXT-X-ENDLIST\n")
    with raises(InputRejected, code="not-a-video"):
        read_plan(path)


@pytest.mark.slow
def test_read_plan__of_hours_of_video_is_small(tmp_path: Path, make_video: MakeVideo) -> None:
    """The packets of a short video over and over: three hours at 25 frames a second, which is 270,000 packets."""
    path = _repeat_packets(make_video(tmp_path / "a.mp4", num_frames=50, fps=25, b_frames=0), tmp_path / "long.mkv", 5400)
    tracemalloc.start()
    plan = read_plan(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.pts) == 270_000
    assert plan.duration_ms == pytest.approx(3 * 3600 * 1000, abs=100)
    assert peak < 40 * 2**20
    assert sum(a.nbytes for a in (plan.pts, plan.packet_pts, plan.packet_places)) < 8 * 2**20


def _repeat_packets(source: Path, path: Path, times: int) -> Path:
    """The packets of `source` over and over, with times that go on."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        packets = [(bytes(p), p.pts, p.duration, p.is_keyframe, p.time_base) for p in before.demux(video=0) if p.size]
        length = packets[-1][1] + packets[-1][2]
        for turn in range(times):
            for content, pts, duration, is_keyframe, time_base in packets:
                packet = av.Packet(content)
                packet.pts = packet.dts = pts + turn * length
                packet.duration, packet.time_base, packet.stream = duration, time_base, stream
                packet.is_keyframe = is_keyframe
                after.mux(packet)
    return path
