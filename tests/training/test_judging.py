from __future__ import annotations

import numpy as np
import pandas as pd

from vidseek_training.judging import Vectors, judge

E = np.eye(4, dtype=np.float32)


def table(**columns: list[str]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    empty = {"gallery": ["default"] * count, "contrast": [""] * count, "axis": [""] * count}
    return pd.DataFrame({"clip_id": [f"clip {row}" for row in range(count)], **empty, **columns})


def test_judge__ranks_within_each_gallery() -> None:
    # Rows 0 and 1 are swapped among themselves, and so are 2 and 3; no row competes with the other gallery.
    vectors = Vectors(E, E[[1, 0, 3, 2]], E)
    judgement = judge(vectors, table(gallery=["easy", "easy", "near", "near"]))
    assert judgement.text_ranks.tolist() == judgement.video_ranks.tolist() == [2, 2, 2, 2]
    alone = judge(vectors, table(gallery=["a", "b", "c", "d"]))
    assert alone.text_ranks.tolist() == [1, 1, 1, 1]


def test_judge__both_directions_are_ranked() -> None:
    # Every text says what clip 0 shows: clip 0 finds its text among ties, the others have it behind all.
    videos = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    texts = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    judgement = judge(Vectors(videos, texts, texts), table(gallery=["g"] * 3))
    assert judgement.text_ranks.tolist() == [1, 2, 3]
    assert judgement.video_ranks.tolist() == [3, 3, 3]


def test_judge__two_captions_of_one_clip_do_not_compete() -> None:
    rows = table(clip_id=["one", "one", "two"])
    judgement = judge(Vectors(E[[0, 0, 1]], E[[0, 0, 1]], E[[0, 0, 1]]), rows)
    assert judgement.text_ranks.tolist() == judgement.video_ranks.tolist() == [1, 1, 1]


def test_judge__choices_are_of_rows_with_a_contrast_and_a_tie_is_wrong() -> None:
    rows = table(contrast=["x", "x", "x", ""], axis=["turning", "turning", "up-down", ""])
    texts = E.copy()
    contrasts = np.stack([E[3], E[1], E[3], E[3]])  # false of clip 0, the same as the text of clip 1
    judgement = judge(Vectors(E, texts, contrasts), rows)
    assert judgement.choices[:3].tolist() == [1.0, 0.0, 1.0]
    assert np.isnan(judgement.choices[3])
    assert judgement.choice_shares(rows) == {"turning": 0.5, "up-down": 1.0}


def test_figures__say_both_directions_for_each_gallery_and_the_choices() -> None:
    rows = table(gallery=["a", "a", "b", "b"], contrast=["x", "", "x", ""], axis=["turning", "", "turning", ""])
    figures = judge(Vectors(E, E[[1, 0, 2, 3]], E[[3, 0, 0, 0]]), rows).figures(rows)
    assert figures["a"]["r1"] == 0.0 and figures["a"]["video_to_text_r5"] == 1.0
    assert figures["b"]["r1"] == figures["b"]["video_to_text_mrr"] == 1.0
    # Clip 0 is no nearer to its caption than to the contrast: a tie.
    assert figures["two_way"] == {"turning": 0.5}


def test_judge__nothing_to_judge_gives_nothing() -> None:
    none = np.empty((0, 4), np.float32)
    rows = table(clip_id=[])
    judgement = judge(Vectors(none, none, none), rows)
    assert len(judgement.text_ranks) == 0 and judgement.figures(rows) == {}
