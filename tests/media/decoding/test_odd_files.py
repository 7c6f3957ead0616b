"""Files that no camera meant to write, through ingest, cut and frames: each is kept or has its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.stored_shards import read_shard
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.tables import REJECTED, read_table

MakeVideo = Callable[..., Path]

ENCRYPTED = {
    "encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="flt", layout="mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_without_frames(path: Path, options: dict[str, str]) -> None:
    """A container with a video stream and nothing in it."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


def write_gif_head(path: Path, side: int) -> None:
    """A GIF that says it is `side` pixels square, and holds one picture of a pixel."""
    size = side.to_bytes(2, "little")
    path.write_bytes(b"GIF89a" + size + size + b"\x80\0\0" + bytes(6) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;")


@pytest.fixture
def source(tmp_path: Path, make_video: MakeVideo) -> Path:
    folder = tmp_path / "source"
    good = make_video(tmp_path / "good.mp4", num_frames=20)
    content = good.read_bytes()
    folder.mkdir()
    for name, part in {
        "empty.mp4": b"", "truncated.mp4": content[: len(content) // 2], "one byte.mkv": b"\x1a",
        "text.mp4": b"not a video\n" * 50, "head.mp4": content[:32],
        "zeros.webm": bytes(5000), "mp4 by content.avi": content, "mp4 by content.webm": content + b"\0",
    }.items():
        (folder / name).write_bytes(part)
    write_sound(folder / "sound.mp4")
    write_without_frames(folder / "no frames.mp4", {"movflags": "empty_moov"})
    write_without_frames(folder / "nothing.mp4", {})
    write_gif_head(folder / "huge.gif", 65535)
    make_video(folder / "encrypted.mp4", num_frames=30, options=ENCRYPTED)
    make_video(folder / "one frame.mp4", num_frames=1)
    make_video(folder / "one frame.mkv", num_frames=1)
    make_video(folder / "8k.mp4", num_frames=2, width=7680, height=4320)
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "picture.mp4", format="PNG")
    return folder


def test_odd_files__are_kept_with_frames_or_rejected_with_their_reason(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = ingest(source, out=out / "ingest", ledger=out / "ledger.json", timeout_seconds=60, workers=1)
    rejected = read_table(out / "ingest" / "rejected.parquet", REJECTED).set_index("id")["reason"].to_dict()
    kept = {uri: video for video in read_videos(out / "ingest") for uri in video.uris}
    assert report.num_in == len(list(source.iterdir())) == len(kept) + len(rejected)
    assert set(kept) == {
        "mp4 by content.avi", "mp4 by content.webm", "one frame.mp4", "one frame.mkv", "8k.mp4", "picture.mp4",
    }
    assert (kept["8k.mp4"].width, kept["8k.mp4"].height) == (7680, 4320)
    for name, reason in {
        "empty.mp4": "is empty (0 bytes)", "encrypted.mp4": "is encrypted", "no frames.mp4": "holds no frames",
        "nothing.mp4": "is a container of nothing", "sound.mp4": "only audio", "truncated.mp4": "cannot be opened",
        "one byte.mkv": "cannot be opened", "text.mp4": "cannot be opened", "head.mp4": "cannot be opened",
        "zeros.webm": "cannot be opened", "huge.gif": "too many pixels",
    }.items():
        assert reason in rejected.pop(name)
    assert not rejected

    windows = CutSettings(modes=("windows",), window_length_seconds=1.0, window_stride_seconds=1.0)
    cut_archive(out / "ingest", out=out / "cut", settings=windows)
    done = write_frames(
        source, out / "ingest", out / "cut", out=out / "frames",
        settings=FrameSettings(num_frames=2, side_px=32, quality=90, shard_mib=1, workers=1, timeout_seconds=60),
    )
    assert done.num_rejected == 0 and done.num_out == done.num_in >= len(kept)
    [shard] = (out / "frames" / "shards").iterdir()
    assert all(min(clip.frames.shape[1:3]) == 32 for clip in read_shard(shard))
