"""The frame shards of an archive to embeddings, a part at a time: killed and started again, it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from vidseek_encoder.bundle import file_sha256
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.records import ClipFrames
from vidseek_media.shards import list_shards, read_shard
from vidseek_retrieval.parts import PARTS_FOLDER, SUMMARY_FILE, write_part


@dataclass(frozen=True)
class EmbedReport:
    """What a run did."""

    encoder_version: str
    variant: str
    num_clips: int
    """In all parts."""
    num_parts: int
    num_written: int
    """Parts that this run made."""
    num_kept: int
    """Parts that were there already."""
    num_removed: int
    """Stale parts, of shards or encoders that are no more."""


def embed_archive(frames: Path, encoder: Encoder, *, out: Path, batch: int = 32) -> EmbedReport:
    """Write `out/parts/*.parquet`, one part for each frame shard, and `out/embeddings.json`.

    A part is named by its shard and a hash of shard content, encoder_version and variant. It is whole or absent, and
    bit-equal whenever it is made again with the same number of threads, since a batch never spans two shards.

    Args:
        frames: The folder that holds the shards, as `list_shards` wants it.
        encoder: Its video tower is used.
        out: The folder for parts and summary.
        batch: Clips in one run of the encoder, at most.

    Raises:
        ArtifactError: there is no shard, or one cannot be read.
        ConfigError: `batch` is not positive.
    """
    if batch < 1:
        raise ConfigError(f"embed batch is {batch}, wanted a whole number above 0")
    shards = list_shards(frames)
    if not shards:
        raise ArtifactError(f"no frame shards in {frames}", remedy="Run `dvc repro frames` to make them")
    wanted = {part_path(shard, encoder, out=out): shard for shard in shards}
    num_removed = _remove_stale(out / PARTS_FOLDER, keep=set(wanted))
    missing = {part: shard for part, shard in wanted.items() if not _is_whole(part)}
    with tqdm(total=len(missing), desc="embed", unit="shard", disable=None) as progress:
        for part, shard in missing.items():
            _embed_shard(shard, encoder, part=part, batch=batch, progress=progress)
            progress.update()
    num_clips = _write_summary(out, encoder, sorted(wanted))
    return EmbedReport(
        encoder_version=encoder.spec.encoder_version,
        variant=encoder.variant,
        num_clips=num_clips,
        num_parts=len(wanted),
        num_written=len(missing),
        num_kept=len(wanted) - len(missing),
        num_removed=num_removed,
    )


def part_path(shard: Path, encoder: Encoder, *, out: Path) -> Path:
    """Where the part of `shard` lies: `out/parts/<shard>-<hash>.parquet`."""
    try:
        content = file_sha256(shard)
    except OSError as error:
        raise ArtifactError(f"{shard} cannot be read: {error}", remedy="Run `dvc repro frames`") from error
    named = f"{content}:{encoder.spec.encoder_version}:{encoder.variant}"
    return out / PARTS_FOLDER / f"{shard.stem}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.parquet"


def _is_whole(part: Path) -> bool:
    """Whether a part is there and has its end: a disk may lose what a process has written."""
    try:
        pq.read_metadata(part)
    except (pa.ArrowException, OSError):
        return False
    return True


def _embed_shard(shard: Path, encoder: Encoder, *, part: Path, batch: int, progress: Any) -> None:
    clip_ids: list[str] = []
    vectors = [np.empty((0, encoder.spec.dimension), dtype=np.float32)]
    for clips in _batches(read_shard(shard), batch):
        clip_ids += [str(clip.clip_id) for clip in clips]
        vectors.append(encoder.embed_frames([clip.frames for clip in clips]))
        progress.set_postfix(shard=shard.stem, clips=len(clip_ids))
    write_part(
        part,
        clip_ids=clip_ids,
        vectors=np.concatenate(vectors),
        encoder_version=encoder.spec.encoder_version,
        variant=encoder.variant,
    )


def _batches(clips: Iterator[ClipFrames], size: int) -> Iterator[list[ClipFrames]]:
    batch: list[ClipFrames] = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _remove_stale(folder: Path, *, keep: set[Path]) -> int:
    if not folder.is_dir():
        return 0
    # What a killed run left beside begins with a dot.
    stale = [path for path in folder.iterdir() if path not in keep]
    for path in stale:
        path.unlink()
    return sum(path.suffix == ".parquet" for path in stale)


def _write_summary(out: Path, encoder: Encoder, parts: list[Path]) -> int:
    num_clips = {part.name: int(pq.read_metadata(part).num_rows) for part in parts}
    summary = {
        "encoder_version": encoder.spec.encoder_version,
        "variant": encoder.variant,
        "dimension": encoder.spec.dimension,
        "num_clips": sum(num_clips.values()),
        "parts": num_clips,
    }
    beside = out / f".{SUMMARY_FILE}.{os.getpid()}"
    beside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    beside.replace(out / SUMMARY_FILE)
    return sum(num_clips.values())
