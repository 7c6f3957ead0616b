"""Groups of videos that must stay on one side of a split: near-duplicates, and clips of one longer video."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.tables import GROUPS, read_table


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
        table = read_table(path, GROUPS)
        known = dict(zip(table["video_id"], table["group"], strict=True))
    return np.array([known.get(str(video_id), str(video_id)) for video_id in video_ids], np.str_)
