"""Groups of videos that must stay on one side of a split: near-duplicates, and clips of one longer video."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.tables import GROUPS, read_columns


def video_groups(pairs: Path, video_ids: Iterable[str]) -> NDArray[np.str_]:
    """Return the group of each of `video_ids`: captions of videos of one group are not independent.

    Args:
        pairs: The pairs table; groups.parquet lies beside it. Without that file, or for a video that is not in it, each
            video is a group by itself.
        video_ids: One for each query.

    Returns:
        Shape (n,): the group's name, which is the id of one of its videos.

    Raises:
        ArtifactError: groups.parquet is broken.
    """
    path = pairs.parent / "groups.parquet"
    known: dict[str, str] = {}
    if path.is_file():
        table = read_columns(path, GROUPS)
        known = dict(zip(table["video_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    return np.array([known.get(video_id, video_id) for video_id in video_ids], np.str_)


def groups_of(keys: Collection[str], together: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Group keys that are joined directly or through others (union-find); a group is named by its least member.

    Args:
        keys: All keys.
        together: Pairs of keys that belong together.
    """
    leader = {key: key for key in keys}

    def find(key: str) -> str:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for a, b in together:
        low, high = sorted((find(a), find(b)))
        leader[high] = low
    return {key: find(key) for key in keys}
