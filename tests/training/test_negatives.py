from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.training.tiny import Row
from vidseek_training.data import PairSet
from vidseek_training.negatives import hardest, right_ones, with_hard, word_overlap

ROWS = [
    Row(1, 0, "train", "dark", "red"), Row(1, 0, "train", "dark", "red", text="a red film"),
    Row(1, 1, "train", "dark", "blue", contrast="a red film", axis="colour"),
    Row(2, 2, "train", "dark", "cyan", text="a red film"),
]


def pair_set(rows: list[Row]) -> PairSet:
    table = pd.DataFrame([
        {"clip_id": row.clip_id, "video_id": row.video_id, "caption": row.caption, "contrast": row.contrast} for row in rows
    ])
    nothing = np.empty((len(rows), 0), np.int64)
    return PairSet(table, np.empty((len(rows), 0), np.uint8), nothing, nothing)


def test_right_ones__captions_of_one_clip_and_equal_captions_are_not_wrong() -> None:
    same = right_ones(pair_set(ROWS), np.arange(4), np.array([2]), same_video=False, overlap=1.0)
    assert same.astype(int).tolist() == [
        [1, 1, 0, 0, 0],  # the clip's other caption is no negative
        [1, 1, 0, 1, 1],  # nor is the same text elsewhere, as a caption or as a contrast
        [0, 0, 1, 0, 0],  # its own contrast stays one
        [0, 1, 0, 1, 1],
    ]


def test_right_ones__clips_of_one_video_by_choice() -> None:
    same = right_ones(pair_set(ROWS), np.arange(4), np.array([2]), same_video=True, overlap=1.0)
    assert same[:3, :3].all() and not same[0, 3] and not same[2, 4]


def test_right_ones__captions_that_nearly_agree_by_choice() -> None:
    # "a dark red film" and "a red film" share 3 of 4 words, "a dark blue film" shares 3 of 5 with the first.
    for overlap, wanted in ((0.75, [1, 1, 0, 1]), (0.6, [1, 1, 1, 1]), (0.8, [1, 1, 0, 0])):
        same = right_ones(pair_set(ROWS), np.arange(4), np.array([2]), same_video=False, overlap=overlap)
        assert same[0, :4].astype(int).tolist() == wanted
        assert same.diagonal().all() and (same[:, :4] == same[:, :4].T).all()


def test_word_overlap__is_jaccard_s() -> None:
    found = word_overlap(["a b c", "", "A"], ["c b", "a", "x"])
    assert found == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 1, 0]]))


def test_hardest__the_best_wrong_clips_best_first() -> None:
    rows = [Row(n, 0, "train", "dark", colour) for n, colour in enumerate(("red", "green", "blue", "white"))]
    rows[3] = Row(0, 0, "train", "dark", "white")  # another caption of the first clip
    texts = np.eye(4, dtype=np.float32)
    videos = np.array([[9, 0, 0, 0], [5, 9, 1, 0], [7, 2, 9, 0], [9, 0, 0, 9]], np.float32)  # row: clip, column: caption
    found = hardest(texts, videos, pair_set(rows), depth=3, same_video=False, overlap=1.0)
    assert found.tolist() == [[2, 1, -1], [2, 0, 3], [1, 0, 3], [1, 2, -1]]


def test_with_hard__replaces_the_last_rows_and_repeats_none() -> None:
    neighbours = np.array([[1, 5], [0, 2], [6, -1], [-1, -1], [0, 1], [0, 1], [0, 1]])
    found = with_hard(np.array([0, 1, 2, 3]), neighbours, 0.5, np.random.default_rng(0))
    # Of 0's neighbours 1 is there already; 1's are both there, so the row in that place stays.
    assert found.tolist() == [0, 1, 2, 5]
    assert len(set(with_hard(np.arange(6), neighbours, 0.5, np.random.default_rng(1)).tolist())) == 6
    assert with_hard(np.array([3, 0]), neighbours, 0.0, np.random.default_rng(0)).tolist() == [3, 0]
