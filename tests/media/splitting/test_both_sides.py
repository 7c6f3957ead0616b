from __future__ import annotations

import numpy as np
import pandas as pd

from vidseek_media.splitting.both_sides import hashes_of_videos, joined_hashes

FRAMES = pd.DataFrame({
    "video_id": ["b", "a", "b", "c"],
    "hashes": [np.array([3, 2**64 - 1], np.uint64), np.array([], np.uint64), np.array([5], np.uint64), None],
})


def test_joined_hashes__in_the_order_asked_for_with_none_of_a_clip_that_has_none() -> None:
    values, sizes = joined_hashes(FRAMES["hashes"], [3, 2, 1, 0])
    assert values.tolist() == [5, 3, 2**64 - 1] and sizes.tolist() == [0, 1, 0, 2]
    assert (values.dtype, sizes.dtype) == (np.uint64, np.int64)


def test_hashes_of_videos__of_clips_in_any_order() -> None:
    found = hashes_of_videos(FRAMES)
    assert {video_id: own.tolist() for video_id, own in found.items()} == {"b": [3, 2**64 - 1, 5], "a": [], "c": []}
    assert hashes_of_videos(FRAMES[:0]) == {}
