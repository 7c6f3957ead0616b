"""Damaged files through ingest, cut and frames: none is lost, none crashes or hangs a worker.

Short by default; `make mutations` sets VIDSEEK_MUTATIONS to 500 and takes the real files too, where they are there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from tests.stored_shards import read_shard
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import InputRejected
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import VIDEO_SUFFIXES, ingest
from vidseek_media.tables import CLIPS, FRAMES, REJECTED, VIDEOS, read_table

NUM_MUTATIONS = int(os.environ.get("VIDSEEK_MUTATIONS", "36"))
SEED = int(os.environ.get("VIDSEEK_MUTATIONS_SEED", "0"))
BATCH = 100
TIMEOUT_SECONDS = 300.0
MAX_BYTES = 2**20
"""Of a real file that is mutated."""

MAKERS: dict[str, dict[str, object]] = {
    "h264.mp4": {"gop": 5},
    "faststart.mp4": {"options": {"movflags": "faststart"}},
    "fragments.mp4": {"gop": 5, "options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {"gop": 5},
    "h264.ts": {},
    "turned.mov": {"rotation": 90},
    "hevc.mp4": {"codec": "libx265", "pixel_format": "yuv420p"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "h263.3gp": {"codec": "h263", "width": 128, "height": 96, "fps": 25},
    "plain.gif": {"codec": "gif", "pixel_format": "rgb8"},
}

Mutation = Callable[[bytearray, bytes, random.Random], bytearray]


def flip_bits(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    for _ in range(chance.choice([1, 5, 50, 500])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def flip_bits_of_the_head(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    """Where sizes, times and codecs stand, if they do not stand at the end."""
    for _ in range(chance.choice([1, 5, 20])):
        content[chance.randrange(min(len(content), 2000))] ^= 1 << chance.randrange(8)
    return content


def flip_bits_of_the_tail(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    for _ in range(chance.choice([1, 5, 20])):
        content[-1 - chance.randrange(min(len(content), 2000))] ^= 1 << chance.randrange(8)
    return content


def cut_off(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    return content[: chance.randrange(len(content))]


def lose_the_beginning(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    return content[chance.randrange(len(content)) :]


def zero_a_run(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    start = chance.randrange(len(content))
    length = chance.choice([16, 512, 4096, len(content) // 4])
    content[start : start + length] = bytes(len(content[start : start + length]))
    return content


def splice(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    """A stretch of another file in the place of one of this."""
    start, length, at = (chance.randrange(len(content)), chance.choice([64, 1024, 8192]), chance.randrange(len(other)))
    content[start : start + length] = other[at : at + length]
    return content


def swap_heads(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    """The beginning of another file, and the rest of this."""
    length = chance.choice([4, 32, 256, 2048])
    return bytearray(other[:length]) + content[length:]


def repeat_a_stretch(content: bytearray, other: bytes, chance: random.Random) -> bytearray:
    start = chance.randrange(len(content))
    stretch = content[start : start + chance.choice([32, 1024, 16384])]
    return content[:start] + stretch + content[start:]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, flip_bits_of_the_head, flip_bits_of_the_tail, cut_off, lose_the_beginning, zero_a_run, splice, swap_heads,
    repeat_a_stretch,
)


def write_mutations(sources: Sequence[Path], folder: Path, numbers: range) -> list[str]:
    """One file for each of `numbers`, each damaged in the next way, sometimes in two; the same ones every time."""
    folder.mkdir(parents=True)
    names = []
    for number in numbers:
        chance = random.Random(f"{SEED} {number}")
        source, other = chance.choice(sources), chance.choice(sources)
        content = bytearray(source.read_bytes())
        ways = [MUTATIONS[number % len(MUTATIONS)], *chance.choices(MUTATIONS, k=chance.choice([0, 0, 1]))]
        for mutate in ways:
            content = mutate(content or bytearray(1), other.read_bytes(), chance)
        name = f"{number:05d}-{'-'.join(way.__name__ for way in ways)}-{source.stem}{source.suffix}"
        (folder / name).write_bytes(content)
        names.append(name)
    return names


def check_batch(sources: Sequence[Path], tmp_path: Path, numbers: range) -> None:
    """Ingest, cut and frames over damaged files: each is somewhere, with a reason where it was refused."""
    source, work = tmp_path / "source", tmp_path / "work"
    names = set(write_mutations(sources, source, numbers))
    kept = True
    try:
        report = ingest(source, out=work / "ingest", ledger=work / "ledger.json", timeout_seconds=TIMEOUT_SECONDS, workers=1)
        assert report.num_in == len(names)
    except InputRejected:
        kept = False
    rejected = read_table(work / "ingest" / "rejected.parquet", REJECTED)
    check_reasons(rejected)
    videos = read_table(work / "ingest" / "videos.parquet", VIDEOS) if kept else pd.DataFrame({"uris": []})
    there = [uri for uris in videos["uris"] for uri in uris]
    assert sorted([*there, *rejected["id"]]) == sorted(names)
    if kept:
        check_frames(source, work)


def check_frames(source: Path, work: Path) -> None:
    windows = CutSettings(modes=("windows",), window_length_seconds=2.0, window_stride_seconds=2.0)
    cut_archive(work / "ingest", out=work / "cut", settings=windows)
    clips = set(read_table(work / "cut" / "clips.parquet", CLIPS)["clip_id"])
    try:
        write_frames(
            source, work / "ingest", work / "cut", out=work / "frames",
            settings=FrameSettings(
                num_frames=3, side_px=32, quality=80, shard_mib=1, workers=1, timeout_seconds=TIMEOUT_SECONDS
            ),
        )
        found = read_table(work / "frames" / "frames.parquet", FRAMES)
        whole = {str(each.clip_id) for shard in (work / "frames" / "shards").iterdir() for each in read_shard(shard)}
        assert whole == set(found["clip_id"])
    except InputRejected:
        whole = set()
    rejected = read_table(work / "frames" / "rejected.parquet", REJECTED)
    check_reasons(rejected)
    assert sorted([*whole, *rejected["id"]]) == sorted(clips)


def check_reasons(rejected: pd.DataFrame) -> None:
    for id, reason in zip(rejected["id"], rejected["reason"], strict=True):
        assert reason, id
        for fault in ("unexpected", "crashed the worker", "took longer"):
            assert fault not in reason, f"{id}: {reason}"


def batches() -> list[range]:
    return [range(start, min(start + BATCH, NUM_MUTATIONS)) for start in range(0, NUM_MUTATIONS, BATCH)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from tests.media.conftest import write_video

    folder = tmp_path_factory.mktemp("made")
    return [write_video(folder / name, num_frames=20, **options) for name, options in MAKERS.items()]  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("numbers", batches(), ids=str)
def test_damaged_files__are_kept_or_rejected_and_never_lost(made: list[Path], tmp_path: Path, numbers: range) -> None:
    check_batch(made, tmp_path, numbers)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("numbers", batches(), ids=str)
def test_damaged_real_files__are_kept_or_rejected_and_never_lost(realdata: Path, tmp_path: Path, numbers: range) -> None:
    small = sorted(
        path for path in (realdata / "A_video_formats").iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and path.stat().st_size <= MAX_BYTES
    )
    check_batch(small, tmp_path, numbers)
