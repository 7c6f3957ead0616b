from __future__ import annotations

import numpy as np

from tests.retrieval.dedup.comparing.videos import of_frames, video
from vidseek_retrieval.dedup.judging.made_copies import CHANGES, NOTHING, TIMES, score_copies, score_pair


def test_score_copies__each_kind_is_recognised() -> None:
    scores = score_copies({str(seed): video(seed) for seed in range(2)}, np.random.default_rng(0))
    assert scores.keys() == CHANGES.keys() | TIMES.keys()
    for name, found in scores.items():
        assert len(found) == 2 and min(found) > 0, name


def test_score_copies__too_short_videos_and_black_give_nothing() -> None:
    black = of_frames([np.zeros((90, 120, 3), np.uint8)] * 8)
    assert score_pair(black, black) == NOTHING
    short = {"a": video(1, length_ms=1000)}
    assert not any(score_copies(short, np.random.default_rng(0)).values())
