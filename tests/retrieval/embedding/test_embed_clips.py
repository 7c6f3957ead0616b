from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media.conftest import write_video
from tests.raising import raises
from tests.tiny_bundle import COLOURS, clip_of, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.frame_store.members import encode_jpeg
from vidseek_media.frame_store.shards import write_frames as write_frames_of
from vidseek_media.ids import clip_id_of, shard_key_of, video_id_of
from vidseek_media.records import ClipFrames
from vidseek_media.settings import FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_retrieval.embedding import embed_clips as embedding
from vidseek_retrieval.embedding import embedding_parts as parts
from vidseek_retrieval.embedding.embed_clips import EmbedReport, embed_archive
from vidseek_retrieval.embedding.embedding_parts import read_parts


def write_shard(
    path: Path, clips: dict[str, list[np.ndarray]], *, clip_ms: int = 1000, frame_ms: int = 1
) -> list[str]:
    """One shard as the design has it: for each video its clips' frames. Gives the clip ids in order.

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
                    "num_repeated": 0,
                }
                members = {".json": json.dumps(about).encode()}
                members |= {f".{place:02d}.jpg": encode_jpeg(frame, quality=95) for place, frame in enumerate(frames)}
                for suffix, content in members.items():
                    entry = tarfile.TarInfo(shard_key_of(video_id, index) + suffix)
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return clip_ids


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


def test_embed__a_part_for_each_shard(tmp_path: Path, encoder: Encoder) -> None:
    clip_ids = write_frames(tmp_path / "frames")
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed", batch=2)
    assert (report.num_clips, report.num_parts, report.num_written, report.num_kept) == (9, 2, 2, 0)
    assert [name[:2] for name in parts_of(tmp_path / "embed")] == ["a-", "b-"]
    embeddings = read_parts(tmp_path / "embed" / "parts")
    assert embeddings.clip_ids == clip_ids and embeddings.encoder_version == encoder.spec.encoder_version
    wanted = [colour_vector(COLOURS[name]) for name in ["red"] * 5 + ["blue"] * 3 + ["green"]]
    np.testing.assert_allclose(embeddings.vectors, wanted, atol=0.02)  # JPEG moves a colour a little
    summary = json.loads((tmp_path / "embed" / "embeddings.json").read_text())
    assert summary["num_clips"] == 9 and sorted(summary["parts"]) == list(parts_of(tmp_path / "embed"))


def test_embed__again_writes_nothing(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "embed" / "parts").iterdir()}
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert (report.num_written, report.num_kept, report.num_removed) == (0, 2, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "embed" / "parts").iterdir()} == times


def test_embed__a_changed_shard_rewrites_its_part_alone(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    before = parts_of(tmp_path / "embed")
    write_shard(tmp_path / "frames" / "shards" / "b.tar", {"b" * 32: [clip_of(COLOURS["white"])]})
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert (report.num_written, report.num_kept, report.num_removed) == (1, 1, 1)
    after = parts_of(tmp_path / "embed")
    assert len(set(before) & set(after)) == 1 and len(after) == 2
    (tmp_path / "frames" / "shards" / "b.tar").unlink()
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_removed == 1
    assert len(parts_of(tmp_path / "embed")) == 1


def test_embed__another_encoder_rewrites_all(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    write_tiny_bundle(tmp_path / "other", encoder_version="f" * 16)
    report = embed_archive(tmp_path / "frames", Encoder.load(tmp_path / "other", threads=1), out=tmp_path / "embed")
    assert (report.num_written, report.num_removed) == (2, 2)
    assert read_parts(tmp_path / "embed" / "parts").encoder_version == "f" * 16


def test_embed__killed_then_started_again_is_bit_equal(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "whole", batch=2)
    # Killed while it writes the second part: what lies beside is not yet renamed.
    script = f"""
        import os, signal
        from pathlib import Path
        from vidseek_encoder.encoder import Encoder
        from vidseek_retrieval.embedding import embed_clips as embed
        from vidseek_retrieval.embedding import embedding_parts as parts
        write, made = parts.pq.write_table, []
        def stop(table, path, **settings):
            write(table, path, **settings)
            made.append(path)
            if len(made) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        parts.pq.write_table = stop
        root = Path({str(tmp_path)!r})
        embed.embed_archive(root / "frames", Encoder.load(root / "bundle", threads=1), out=root / "cut", batch=2)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cut" / "parts").glob("*.parquet"))) == 1
    assert not (tmp_path / "cut" / "embeddings.json").exists()
    report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "cut", batch=2)
    assert (report.num_written, report.num_kept) == (1, 1)
    assert parts_of(tmp_path / "cut") == parts_of(tmp_path / "whole")


def test_embed__killed_at_random_points_is_bit_equal(tmp_path: Path, encoder: Encoder) -> None:
    """A short form; `make kills` does it fifty times."""
    num_kills = int(os.environ.get("VIDSEEK_KILLS", "3"))
    shards = tmp_path / "frames" / "shards"
    for number in range(8):
        clips = [clip_of(COLOURS[name]) for name in list(COLOURS)[: number % 4 + 1]]
        write_shard(shards / f"{number}.tar", {f"{number}" * 32: clips})
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "whole", batch=2)
    script = f"""
        import time
        from pathlib import Path
        from vidseek_encoder.encoder import Encoder
        from vidseek_retrieval.embedding import embed_clips as embed
        root, run = Path({str(tmp_path)!r}), Encoder.embed_frames
        def slow(self, clips):
            time.sleep(0.05)
            return run(self, clips)
        Encoder.embed_frames = slow
        encoder = Encoder.load(root / "bundle", threads=1, towers=["video"])
        print("loaded", flush=True)
        embed.embed_archive(root / "frames", encoder, out=root / "cut", batch=2)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    wait = random.Random(0)
    for _ in range(num_kills):
        command = [sys.executable, "-c", textwrap.dedent(script)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None and child.stdout.readline() == b"loaded\n"
            time.sleep(wait.uniform(0, 0.8))
            child.kill()
        # What is there is whole: no reader of a part ever meets half of one.
        for part in (tmp_path / "cut" / "parts").glob("*.parquet"):
            assert part.read_bytes() == (tmp_path / "whole" / "parts" / part.name).read_bytes()
        if (tmp_path / "cut" / "embeddings.json").exists():
            shutil.rmtree(tmp_path / "cut")  # it was done before we killed it: once more from the start
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "cut", batch=2)
    assert parts_of(tmp_path / "cut") == parts_of(tmp_path / "whole")
    assert (tmp_path / "cut" / "embeddings.json").read_bytes() == (tmp_path / "whole" / "embeddings.json").read_bytes()


def test_embed__a_changed_or_deleted_video_rewrites_its_part_alone(tmp_path: Path, encoder: Encoder) -> None:
    """From video files on, through the stages before."""
    source = tmp_path / "videos"
    source.mkdir()
    for number in range(6):
        write_video(source / f"{number}.mp4", num_frames=20 + number)

    def run() -> tuple[EmbedReport, dict[str, bytes], set[str]]:
        ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
        cut_archive(
            tmp_path / "ingest", out=tmp_path / "cut", modes=("windows",), window_length_seconds=3.0,
            window_stride_seconds=3.0,
        )
        write_frames_of(
            source, tmp_path / "ingest", tmp_path / "cut", out=tmp_path / "frames",
            settings=FrameSettings(num_frames=2, side_px=16, workers=1, timeout_seconds=60),
        )
        report = embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
        videos = {path.stem for path in source.iterdir()}
        return report, parts_of(tmp_path / "embed"), videos

    first, before, _ = run()
    prefixes = {video_id_of(path)[0] for path in source.iterdir()}
    assert first.num_parts == len(prefixes) > 1
    again, same, _ = run()
    assert (again.num_written, again.num_removed) == (0, 0) and same == before
    was = video_id_of(source / "2.mp4")[0]
    write_video(source / "2.mp4", num_frames=30)
    touched = {was, video_id_of(source / "2.mp4")[0]}
    _, changed, _ = run()
    assert {name[0] for name in set(before) ^ set(changed)} == touched
    gone = video_id_of(source / "5.mp4")[0]
    (source / "5.mp4").unlink()
    _, fewer, videos = run()
    assert {name[0] for name in set(changed) ^ set(fewer)} == {gone}
    assert len(read_parts(tmp_path / "embed" / "parts").clip_ids) == len(videos)


def test_embed__memory_is_bounded_by_the_queues(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write_shard(tmp_path / "frames" / "shards" / f"{number}.tar", {f"{number}" * 32: [clip_of(COLOURS["red"])] * 4})
    read, embedded, most = [0], [0], [0]
    read_shard, run = embedding.read_shard, Encoder.embed_frames

    def count_read(path: Path) -> Iterator[ClipFrames]:
        for clip in read_shard(path):
            read[0] += 1
            yield clip

    def count_embedded(self: Encoder, clips: list[np.ndarray]) -> np.ndarray:
        time.sleep(0.02)  # the reader gets as far ahead as it may
        most[0] = max(most[0], read[0] - embedded[0])
        embedded[0] += len(clips)
        return run(self, clips)

    monkeypatch.setattr(embedding, "read_shard", count_read)
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
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_written == 2


def test_embed__truncated_part_is_made_again(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    before = parts_of(tmp_path / "embed")
    name, content = next(iter(before.items()))
    (tmp_path / "embed" / "parts" / name).write_bytes(content[:200])
    assert embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed").num_written == 1
    assert parts_of(tmp_path / "embed") == before


def test_embed__broken_shard_is_named_and_leaves_no_part(tmp_path: Path, encoder: Encoder) -> None:
    write_frames(tmp_path / "frames")
    shard = tmp_path / "frames" / "shards" / "b.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with raises(ArtifactError, code="broken-shard", naming="b.tar"):
        embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert [name[:2] for name in parts_of(tmp_path / "embed")] == ["a-"]


def test_embed__no_shards(tmp_path: Path, encoder: Encoder) -> None:
    with raises(ArtifactError, code="no-shards", remedy="dvc repro frames"):
        embed_archive(tmp_path / "none", encoder, out=tmp_path / "embed")


def test_embed__batch_out_of_range(tmp_path: Path, encoder: Encoder) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="batch is 0"):
        embed_archive(tmp_path, encoder, out=tmp_path / "embed", batch=0)
