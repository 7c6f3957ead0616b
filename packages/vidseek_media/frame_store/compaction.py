"""Keeps shards few and full by copying members: nothing is decoded, and no clip changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import BinaryIO

import pandas as pd
import pyarrow as pa

from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import whole_file
from vidseek_media.frame_store.stored_clips import CLIP_COLUMNS, SHARDS, StoredClip, read_placed

MOST_DEAD = 0.5
"""Share of a shard's bytes that may be of clips which are listed no more."""
MOST_SMALL = 16
"""Shards that may be less than half full: each run of one new video makes one."""
END_OF_TAR = bytes(2 * BLOCKSIZE)


def compact(rows: pa.Table, *, out: Path, most_bytes: int, unwanted: Set[str] = frozenset()) -> pa.Table:
    """Copy the clips of shards that are mostly dead, or too many and small, into new shards; old ones stay where they are.

    Args:
        rows: Schema FRAMES: the clips that are listed from now on.
        out: Output of the stage `frames`.
        most_bytes: Size from which a shard takes no more videos.
        unwanted: Shards of which nothing but the listed clips may be kept.

    Returns:
        The rows, in the same order, each with the place where its clip lies now.

    Raises:
        ArtifactError: a shard is broken.
        OSError: the disk cannot hold the copies.
    """
    chosen = choose(_bytes_of(rows, out), most_bytes=most_bytes, unwanted=unwanted)
    if not chosen:
        return rows
    places = rows.select(["key", *CLIP_COLUMNS]).to_pandas()
    moved = places[places["shard"].isin(chosen)].sort_values(["shard", "offset"], kind="stable")
    for videos in _shares(moved, most_bytes):
        shard, offsets = _copy(videos, out)
        places.loc[videos.index, "shard"] = shard
        places.loc[videos.index, "offset"] = offsets
    for name in ("shard", "offset"):
        number = rows.schema.get_field_index(name)
        rows = rows.set_column(number, rows.schema.field(name), pa.array(places[name], rows.schema.field(name).type))
    return rows


def choose(
    sizes: Mapping[str, tuple[int, int]], *, most_bytes: int, unwanted: Set[str] = frozenset()
) -> set[str]:
    """Return the shards to copy.

    Those are `unwanted`; those of which more than `MOST_DEAD` is dead; and, where more than `MOST_SMALL` are less than half
    full, the smallest, until they fill one: so that each clip is copied few times in its life.

    Args:
        sizes: Bytes of listed clips, and of the file, by shard.
        most_bytes: Size from which a shard takes no more videos.
        unwanted: Shards that are copied in any case.

    Examples:
        >>> choose({"a": (100, 100), "b": (40, 100)}, most_bytes=100)
        {'b'}
    """
    chosen = {name for name, (live, whole) in sizes.items() if name in unwanted or live < (1 - MOST_DEAD) * whole}
    small = sorted((live, name) for name, (live, _) in sizes.items() if 2 * live < most_bytes and name not in chosen)
    if len(small) > MOST_SMALL:
        filled = 0
        for live, name in small:
            filled += live
            if filled > most_bytes:
                break
            chosen.add(name)
    return chosen


@contextmanager
def new_shard(out: Path, clips: Iterable[tuple[str, str]]) -> Iterator[tuple[str, BinaryIO]]:
    """Write a shard whole or not at all: yield its name in the frames folder, and the file for its members.

    Args:
        out: Output of the stage `frames`.
        clips: Key and frames_digest of each clip that it will hold. They name the shard: equal ones have equal names.
    """
    named = hashlib.sha256()
    for key, frames_digest in clips:
        named.update(f"{key} {frames_digest}\n".encode())
    name = f"{SHARDS}/{named.hexdigest()[:16]}.tar"
    with whole_file(out / name) as beside, beside.open("wb") as tar:
        yield name, tar
        tar.write(END_OF_TAR)


def _bytes_of(rows: pa.Table, out: Path) -> dict[str, tuple[int, int]]:
    live = rows.select(["shard", "num_bytes"]).group_by("shard").aggregate([("num_bytes", "sum")]).to_pylist()
    return {
        each["shard"]: (each["num_bytes_sum"], (out / each["shard"]).stat().st_size - len(END_OF_TAR)) for each in live
    }


def _shares(rows: pd.DataFrame, most_bytes: int) -> Iterator[pd.DataFrame]:
    """Split rows by shard: whole videos, until their bytes reach `most_bytes`."""
    of_video = rows.groupby("video_id", sort=False)["num_bytes"].sum()
    before = of_video.cumsum() - of_video
    place = dict(zip(of_video.index, (before // most_bytes).tolist(), strict=True))
    for _, share in rows.groupby(rows["video_id"].map(place), sort=True):
        yield share


def _copy(rows: pd.DataFrame, out: Path) -> tuple[str, list[int]]:
    """Write one shard of the members of clips, each checked; its name, and the offset of each clip."""
    offsets = []
    keys = list(zip(rows["key"], rows["frames_digest"], strict=True))
    clips = (StoredClip(*row) for row in rows[CLIP_COLUMNS].itertuples(index=False))
    with new_shard(out, keys) as (name, tar):
        for clip, content, _, _ in read_placed(out, clips):
            if len(content) != clip.num_bytes:
                raise ArtifactError(
                    f"{out / clip.shard} ends within clip {clip.clip_id}", code="broken-shard",
                    remedy=f"Remove {clip.shard}, then run `dvc repro frames`: its videos are decoded again",
                )
            offsets.append(tar.tell())
            tar.write(content)
    return name, offsets
