from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_bundle import COLOURS, clip_of, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.ids import clip_id_of, shard_key_of
from vidseek_media.members import encode_jpeg
from vidseek_retrieval.embed import embed_archive
from vidseek_retrieval.parts import read_parts


def write_shard(path: Path, clips: dict[str, list[np.ndarray]]) -> list[str]:
    """One shard as the design has it: for each video its clips' frames. Gives the clip ids in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clip_ids = []
    with tarfile.open(path, "w") as tar:
        for video_id, all_frames in clips.items():
            for index, frames in enumerate(all_frames):
                clip_ids.append(str(clip_id_of(video_id, 1000 * index, 1000 * index + 3000)))
                about = {
                    "clip_id": clip_ids[-1],
                    "key": shard_key_of(video_id, index),
                    "video_id": video_id,
                    "start_ms": 1000 * index,
                    "end_ms": 1000 * index + 3000,
                    "times_ms": [1000 * index + place for place in range(len(frames))],
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
        from vidseek_retrieval import embed, parts
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
    with pytest.raises(ArtifactError, match=r"b\.tar"):
        embed_archive(tmp_path / "frames", encoder, out=tmp_path / "embed")
    assert [name[:2] for name in parts_of(tmp_path / "embed")] == ["a-"]


def test_embed__no_shards(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ArtifactError, match="dvc repro frames"):
        embed_archive(tmp_path / "none", encoder, out=tmp_path / "embed")


def test_embed__batch_out_of_range(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="batch is 0"):
        embed_archive(tmp_path, encoder, out=tmp_path / "embed", batch=0)
