from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.forking import run_code
from tests.raising import raises
from tests.tiny_bundle import COLOURS, clip_of, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.folders import sole_writer
from vidseek_media.frame_store.known_frames import row_of, scan_placed
from vidseek_media.frame_store.members import encode_jpeg
from vidseek_media.frame_store.stored_clips import stored_clips
from vidseek_media.ids import clip_id_of, shard_key_of
from vidseek_media.records import ClipFrames
from vidseek_media.tables import FRAMES, write_table
from vidseek_retrieval.embedding import embed_clips as embedding
from vidseek_retrieval.embedding import embedding_parts as parts
from vidseek_retrieval.embedding.embed_clips import embed_archive
from vidseek_retrieval.embedding.embedding_parts import read_parts


def write_shard(
    path: Path, clips: dict[str, list[np.ndarray]], *, clip_ms: int = 1000, frame_ms: int = 1
) -> list[str]:
    """One shard as the stage frames writes it, and the table: for each video its clips' frames. Gives the clip ids in order.

    A clip begins each `clip_ms` and lasts 3 s, its frames are `frame_ms` apart.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clip_ids = []
    with tarfile.open(path, "w") as tar:
        for video_id, all_frames in clips.items():
            for index, frames in enumerate(all_frames):
                clip_ids.append(str(clip_id_of(video_id, clip_ms * index, clip_ms * index + 3000)))
                about = {
                    "clip_id": clip_ids[-1],
                    "key": shard_key_of(video_id, index),
                    "video_id": video_id,
                    "start_ms": clip_ms * index,
                    "end_ms": clip_ms * index + 3000,
                    "times_ms": [clip_ms * index + frame_ms * place for place in range(len(frames))],
                    "num_repeated": 0, "decoder": "pyav", "quality_flags": [], "hashes": [],
                }
                members = {".json": json.dumps(about).encode()}
                members |= {f".{place:02d}.jpg": encode_jpeg(frame, quality=95) for place, frame in enumerate(frames)}
                for suffix, content in members.items():
                    entry = tarfile.TarInfo(shard_key_of(video_id, index) + suffix)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    list_frames(path.parent.parent)
    return clip_ids


def list_frames(folder: Path) -> None:
    """Write `frames.parquet`: all that lies in the shards."""
    write_table(folder / "frames.parquet", [
        row_of(about, placed, f"shards/{shard.name}", len(about["times_ms"]))
        for shard in sorted((folder / "shards").iterdir()) for about, placed in scan_placed(shard)
    ], FRAMES)


def write_frames(folder: Path) -> list[str]:
    red = [clip_of(COLOURS["red"]) for _ in range(5)]
    blue = [clip_of(COLOURS["blue"], height=20, width=30) for _ in range(3)]  # a video of another size
    first = write_shard(folder / "shards" / "a.tar", {"a" * 32: red, "ab" * 16: blue})
    return first + write_shard(folder / "shards" / "b.tar", {"b" * 32: [clip_of(COLOURS["green"])]})


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    write_tiny_bundle(tmp_path / "bundle")
    return Encoder.load(tmp_path / "bundle", threads=1, towers=["video"])


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "parts").iterdir())}


def vectors_of(out: Path) -> dict[str, bytes]:
    """The vector of each clip, to the bit."""
    found = read_parts(out / "parts")
    return {clip_id: vector.tobytes() for clip_id, vector in zip(found.clip_ids, found.vectors, strict=True)}


def test_embed__a_row_for_each_clip(tmp_path: Path, encoder: Encoder) -> None:
    clip_ids = write_frames(tmp_path / "frames")
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=2)
    assert (report.num_clips, report.num_embedded) == (9, 3)  # clips of one colour have equal frames
    embeddings = read_parts(tmp_path / "embed" / "parts")
    assert embeddings.clip_ids == sorted(clip_ids) and embeddings.encoder_version == encoder.spec.encoder_version
    colours = dict(zip(clip_ids, ["red"] * 5 + ["blue"] * 3 + ["green"], strict=True))
    wanted = [colour_vector(COLOURS[colours[clip_id]]) for clip_id in embeddings.clip_ids]
    np.testing.assert_allclose(embeddings.vectors, wanted, atol=0.02)  # JPEG moves a colour a little
    listed = {clip.clip_id: clip.frames_digest for clip in stored_clips(tmp_path / "frames")}
    assert dict(zip(embeddings.clip_ids, embeddings.digests, strict=True)) == listed
    summary = json.loads((tmp_path / "embed" / "embeddings.json").read_text())
    assert summary["num_clips"] == 9 and sorted(summary["parts"]) == list(parts_of(tmp_path / "embed"))


def test_embed__again_writes_nothing(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "embed" / "parts").iterdir()}
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_embedded == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "embed" / "parts").iterdir()} == times


def test_embed__another_encoder_embeds_all_again(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    write_tiny_bundle(tmp_path / "other", encoder_version="f" * 16)
    report = embed_archive(tmp_path / "frames", Encoder.load(tmp_path / "other", threads=1), out=tmp_path / "embed")
    assert report.num_embedded == 3 and report.num_parts == len(parts_of(tmp_path / "embed"))
    assert read_parts(tmp_path / "embed" / "parts").encoder_version == "f" * 16


# --- what a change costs ---


def noisy(seed: int, num: int) -> list[np.ndarray]:
    """Clips of a video that are all different."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8) for _ in range(num)]


def write_noisy(folder: Path, videos: dict[int, int]) -> None:
    """Shards of videos of `videos[number]` clips, and no others."""
    shutil.rmtree(folder / "shards", ignore_errors=True)
    for number, num in videos.items():
        write_shard(folder / "shards" / f"{number}.tar", {f"{number:032x}": noisy(number, num)})


def test_embed__computes_what_is_missing_and_nothing_else(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    run = Encoder.embed_frames

    def counting(self: Encoder, clips: list[np.ndarray], **options: bool) -> np.ndarray:
        embedded.append(len(clips))
        return run(self, clips, **options)

    monkeypatch.setattr(Encoder, "embed_frames", counting)
    monkeypatch.setattr(embedding, "PIECE_ROWS", 4)

    def embed(videos: dict[int, int]) -> tuple[int, dict[str, bytes]]:
        embedded.clear()
        write_noisy(tmp_path / "frames", videos)
        report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=3)
        assert report.num_embedded == sum(embedded) and report.num_clips == sum(videos.values())
        return sum(embedded), vectors_of(tmp_path / "embed")

    num, first = embed({1: 5, 2: 3, 3: 6})
    assert num == 14
    num, added = embed({1: 5, 2: 3, 3: 6, 4: 2})
    assert num == 2 and first.items() < added.items()
    num, changed = embed({1: 5, 2: 3, 3: 6, 5: 4})
    assert num == 4 and first.items() < changed.items()
    num, removed = embed({1: 5, 2: 3, 3: 6})
    assert (num, removed) == (0, first)
    for video, shard in enumerate(sorted((tmp_path / "frames" / "shards").iterdir())):
        shard.rename(shard.with_name(f"moved-{video}.tar"))  # as compaction and another order do
    list_frames(tmp_path / "frames")
    embedded.clear()
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=1)
    assert (embedded, vectors_of(tmp_path / "embed")) == ([], first)
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "fresh", batch=2)
    assert vectors_of(tmp_path / "fresh") == first


def test_embed__a_clip_of_the_same_frames_takes_their_vector(tmp_path: Path, encoder: Encoder) -> None:
    write_shard(tmp_path / "frames" / "shards" / "0.tar", {"0" * 32: noisy(1, 2)})
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    write_shard(tmp_path / "frames" / "shards" / "1.tar", {"1" * 32: noisy(1, 3)})
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert (report.num_clips, report.num_embedded) == (5, 1)
    assert len(set(vectors_of(tmp_path / "embed").values())) == 3


def test_embed__many_small_parts_become_few_by_copying(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidseek_media.frame_store.compaction.MOST_SMALL", 2)
    for num_videos, num_parts in ((1, 1), (2, 2), (3, 1), (4, 2)):
        write_noisy(tmp_path / "frames", dict.fromkeys(range(num_videos), 2))
        report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
        assert (report.num_embedded, report.num_parts) == (2, num_parts)
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "fresh")
    assert vectors_of(tmp_path / "embed") == vectors_of(tmp_path / "fresh")


def test_embed__an_archive_of_the_version_before_is_embedded_again(tmp_path: Path, encoder: Encoder) -> None:
    """Its vectors may differ in the last bits: they were computed in batches of any composition."""
    clip_ids = write_frames(tmp_path / "frames")
    vectors = np.tile(colour_vector(COLOURS["white"]), (len(clip_ids), 1))
    parts.write_part(
        tmp_path / "embed" / "parts" / "a-0123.parquet", clip_ids=clip_ids, vectors=vectors, variant="fp32",
        encoder_version=encoder.spec.encoder_version,
    )
    table = pq.read_table(tmp_path / "embed" / "parts" / "a-0123.parquet").drop_columns(["digest"])
    pq.write_table(table, tmp_path / "embed" / "parts" / "a-0123.parquet")
    assert set(read_parts(tmp_path / "embed" / "parts").digests) == {""}  # it is searched as it is
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_embedded == 3
    assert "a-0123.parquet" not in parts_of(tmp_path / "embed")


def test_embed__two_at_once_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    with (
        sole_writer(tmp_path / "embed"),
        raises(ArtifactError, code="folder-busy", naming=tmp_path / "embed", remedy="Wait"),
    ):
        embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")


# --- kills ---

NUM_KILLS = int(os.environ.get("VIDSEEK_KILLS", "1000"))
"""More than there are changes: a kill at each."""
KILLED = """
import os
from pathlib import Path
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.embedding import embed_clips as embed

def run(root, place):
    step = [0]
    embed.PIECE_ROWS = 2
    for name in ("replace", "unlink"):  # each change of the folder is one of these
        def counted(path, *given, _at=getattr(Path, name), **named):
            step[0] += 1
            if step[0] == place:
                os.kill(os.getpid(), 9)
            return _at(path, *given, **named)
        setattr(Path, name, counted)
    embed.embed_archive(root / "frames", Encoder.load(root / "bundle", threads=1), out=root / "cut", batch=2)
    print(step[0])
"""


def killed(root: Path, place: int) -> int:
    """Embed in a process that is killed at its `place`-th change of the folder; how many changes there are."""
    done = run_code(
        f"{KILLED}\nrun(Path({str(root)!r}), {place})", folder=root, env=os.environ,
        imported=("vidseek_encoder.encoder", "vidseek_retrieval.embedding.embed_clips"),
    )
    assert done.returncode == (-signal.SIGKILL if place else 0), done.stderr
    return int(done.stdout or 0)


@pytest.mark.slow
def test_embed__killed_at_any_change_is_bit_equal(tmp_path: Path, encoder: Encoder) -> None:
    """An archive of which a video goes and another comes is killed at each change, and ends as one made at once."""
    root = tmp_path
    write_noisy(root / "frames", {1: 3, 2: 2, 3: 4})
    embed_archive(root / "frames", encoder, out=root / "before")
    before = vectors_of(root / "before")
    write_noisy(root / "frames", {1: 3, 3: 4, 4: 5})
    embed_archive(root / "frames", encoder, out=root / "whole")
    whole = vectors_of(root / "whole")
    shutil.copytree(root / "before", root / "cut")
    num_changes = killed(root, 0)
    assert num_changes > 5 and vectors_of(root / "cut") == whole
    places = random.Random(NUM_KILLS).sample(range(1, num_changes + 1), min(NUM_KILLS, num_changes))
    for place in sorted(places):
        shutil.rmtree(root / "cut")
        shutil.copytree(root / "before", root / "cut")
        killed(root, place)
        assert vectors_of(root / "cut") in (before, whole), place  # who reads sees the one state or the other
        report = embed_archive(root / "frames", encoder, out=root / "cut")
        assert vectors_of(root / "cut") == whole and report.num_embedded <= 5, place
        assert not [path for path in (root / "cut" / "parts").iterdir() if path.name.startswith(".")]


def test_embed__goes_on_with_the_pieces_that_a_killed_run_wrote(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noisy(tmp_path / "frames", {1: 7})
    monkeypatch.setattr(embedding, "PIECE_ROWS", 2)
    run, calls = Encoder.embed_frames, [0]

    def dies(self: Encoder, clips: list[np.ndarray], **options: bool) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return run(self, clips, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed_frames", dies)
        with pytest.raises(KeyboardInterrupt):
            embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=2)
    assert len(parts_of(tmp_path / "embed")) == 2 and not (tmp_path / "embed" / "embeddings.json").exists()
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_embedded == 3


def test_embed__memory_is_bounded_by_the_queues(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_noisy(tmp_path / "frames", dict.fromkeys(range(6), 4))
    read, embedded, most = [0], [0], [0]
    read_frames, run = embedding.read_frames, Encoder.embed_frames

    def count_read(*arguments: Any) -> Iterator[ClipFrames]:
        for clip in read_frames(*arguments):
            read[0] += 1
            yield clip

    def count_embedded(self: Encoder, clips: list[np.ndarray], **options: bool) -> np.ndarray:
        time.sleep(0.02)  # the reader gets as far ahead as it may
        most[0] = max(most[0], read[0] - embedded[0])
        embedded[0] += len(clips)
        return run(self, clips, **options)

    monkeypatch.setattr(embedding, "read_frames", count_read)
    monkeypatch.setattr(Encoder, "embed_frames", count_embedded)
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=2).num_clips == 24
    # Being embedded, in the queue, in the reader's hands, and being put together.
    assert 2 < most[0] <= 2 * (embedding.READ_AHEAD + 3)


def test_embed__a_full_disk_is_told_and_leaves_no_half_part(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path / "frames")

    def full(table: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(parts.pq, "write_table", full)
        with raises(OSError, naming="No space left"):
            embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert list((tmp_path / "embed" / "parts").iterdir()) == []
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_embedded == 3


def test_embed__a_truncated_part_is_made_again(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    before = vectors_of(tmp_path / "embed")
    name, content = next(iter(parts_of(tmp_path / "embed").items()))
    (tmp_path / "embed" / "parts" / name).write_bytes(content[:200])
    with raises(ArtifactError, code="not-parquet", naming=name):
        read_parts(tmp_path / "embed" / "parts")
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_embedded > 0
    assert vectors_of(tmp_path / "embed") == before


def test_embed__a_broken_shard_is_named_and_leaves_no_part(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    shard = tmp_path / "frames" / "shards" / "b.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with raises(ArtifactError, code="broken-shard", naming="b.tar"):
        embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert not list((tmp_path / "embed").glob("parts/*"))


def test_embed__no_shards(tmp_path: Path, encoder: Encoder) -> None:
    with raises(ArtifactError, code="no-shards", remedy="dvc repro frames"):
        embed_archive(tmp_path / "none", encoder, out=tmp_path / "embed")


def test_embed__batch_out_of_range(tmp_path: Path, encoder: Encoder) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="batch is 0"):
        embed_archive(tmp_path, encoder, out=tmp_path / "embed", batch=0)
