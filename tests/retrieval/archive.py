"""A small archive in tables: videos whose clips have vectors that a test chooses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CLIPS, FRAMES, VIDEOS, write_table
from vidseek_retrieval.embedding.embedding_parts import write_part

VERSION = "0123456789abcdef"


def video_row(video_id: str, uri: str, **changes: object) -> dict[str, object]:
    """A row of the videos table."""
    row: dict[str, object] = dict.fromkeys(VIDEOS.names, "")
    numbers = {"duration_ms": 60_000, "fps": 25.0, "width": 64, "height": 48, "views": None}
    return {**row, **numbers, "video_id": video_id, "uris": [uri], "codec": "h264", **changes}


def clip_row(
    video_id: str, index: int, start_ms: int, end_ms: int, *, cut: tuple[str, ...] = ("windows",)
) -> dict[str, object]:
    """A row of the clips table."""
    span = {"index": index, "start_ms": start_ms, "end_ms": end_ms}
    return {"clip_id": str(clip_id_of(video_id, start_ms, end_ms)), "video_id": video_id, **span, "cut": list(cut)}


def frame_row(clip_id: object, video_id: object, **changes: object) -> dict[str, object]:
    """A row of the frames table, of a clip whose frames are nowhere."""
    row: dict[str, object] = {**dict.fromkeys(FRAMES.names), "clip_id": clip_id, "video_id": video_id}
    empty = {"key": "", "shard": "", "num_frames": 2, "num_repeated": 0, "decoder": "", "quality_flags": [], "hashes": []}
    return {**row, **empty, **changes}


def write_archive(
    root: Path,
    videos: list[dict[str, object]],
    clips: list[dict[str, object]],
    vectors: NDArray[np.float32],
    *,
    encoder_version: str = VERSION,
) -> dict[str, Path]:
    """Write the tables under `root`, one vector for each clip, and give the folders that `publish` takes."""
    write_table(root / "ingest" / "videos.parquet", videos, VIDEOS)
    write_table(root / "cut" / "clips.parquet", clips, CLIPS)
    for old in (root / "embed" / "parts").glob("*"):
        old.unlink()
    write_part(
        root / "embed" / "parts" / "0-0.parquet",
        clip_ids=[str(clip["clip_id"]) for clip in clips],
        vectors=vectors,
        encoder_version=encoder_version,
        variant="fp32",
    )
    summary = {"encoder_version": encoder_version, "num_clips": len(clips)}
    (root / "embed" / "embeddings.json").write_text(json.dumps(summary))
    return {"embed_dir": root / "embed", "cut_dir": root / "cut", "ingest_dir": root / "ingest"}


def random_archive(
    root: Path, *, num_videos: int = 4, seed: int = 0, encoder_version: str = VERSION
) -> dict[str, Path]:
    """Videos of one minute in windows of 3 s each second, with random unit vectors of 16 values."""
    videos = [video_row(f"{number:032x}", f"folder/video {number}.mp4") for number in range(num_videos)]
    clips = [
        clip_row(f"{number:032x}", index, 1000 * index, 1000 * index + 3000)
        for number in range(num_videos)
        for index in range(58)
    ]
    return write_archive(root, videos, clips, unit_rows(len(clips), 16, seed=seed), encoder_version=encoder_version)


def unit_rows(num: int, dimension: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Random unit vectors."""
    rows = np.random.default_rng(seed).normal(size=(num, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
