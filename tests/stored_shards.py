"""The shards of the frame store by themselves: production reads the clips that the table names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidseek_media.frame_store.members import parse_members, scan_members
from vidseek_media.frame_store.stored_clips import ClipFrames, _decoded, stored_clips


def list_shards(folder: Path) -> list[Path]:
    """Return the shards that `frames.parquet` names in order of name."""
    return [folder / name for name in sorted({clip.shard for clip in stored_clips(folder)})]


def read_members(path: Path) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Yield the content of the .json of each clip of a shard, and its JPEGs."""
    for _, start, num_bytes in scan_members(path):
        with path.open("rb") as file:
            file.seek(start)
            yield parse_members(file.read(num_bytes), path)


def read_shard(path: Path) -> Iterator[ClipFrames]:
    """Yield all clips of a shard, those that no table lists too."""
    for about, jpegs in read_members(path):
        yield _decoded(about, jpegs, path)
