from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vidseek_training.evaluation.retrieval_metrics import Vectors, judge

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


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_judge__several_captions_a_clip_are_counted_as_clip4clip_counts_them() -> None:
    """Against the published procedure written out with loops: sets of captions are padded, maxima are of sets."""
    rng = np.random.default_rng(0)
    owners = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4]
    clips = unit(rng.normal(size=(5, 6)))
    texts = unit(clips[owners] + 0.9 * rng.normal(size=(11, 6)))
    rows = table(clip_id=[f"clip {owner}" for owner in owners])
    judgement = judge(Vectors(clips[owners], texts, texts), rows)
    similarity = texts @ clips.T
    text_ranks = [
        1 + sum(row[other] > row[owner] for other in range(5)) for row, owner in zip(similarity, owners, strict=True)
    ]
    assert judgement.text_ranks.tolist() == text_ranks
    best = np.array([[max(similarity[row, clip] for row in range(11) if owners[row] == one) for clip in range(5)]
                     for one in range(5)])
    clip_ranks = [1 + sum(best[other, clip] > best[clip, clip] for other in range(5)) for clip in range(5)]
    assert judgement.video_ranks.tolist() == [clip_ranks[owner] for owner in owners]
    assert len(set(text_ranks)) > 2 and len(set(clip_ranks)) > 1  # the case is not trivial
    figures = judgement.figures(rows)["default"]
    assert figures["r1"] == round(float(np.mean(np.array(text_ranks) == 1)), 4)
    assert figures["video_to_text_mnr"] == round(float(np.mean(clip_ranks)), 4)  # a clip is one query
    precisions = []
    for clip in range(5):
        order = sorted(range(11), key=lambda row: -similarity[row, clip])
        places = [place for place, row in enumerate(order, 1) if owners[row] == clip]
        precisions.append(np.mean([number / place for number, place in enumerate(places, 1)]))
    assert figures["video_to_text_map"] == round(float(np.mean(precisions)), 4)
    assert figures["map"] == figures["mrr"]


def test_judge__a_clip_with_many_captions_is_one_candidate() -> None:
    # Caption 3's own clip is second to clip 0, whose three rows are one clip.
    videos = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8]], np.float32)
    texts = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
    judgement = judge(Vectors(videos, texts, texts), table(clip_id=["a", "a", "a", "b"]))
    assert judgement.text_ranks.tolist() == [1, 1, 1, 2]


def test_gain_over__is_of_every_figure_both_ways_and_paired() -> None:
    rows = table(clip_id=["a", "a", "b", "c"])
    texts, clips = E[[0, 0, 1, 2]], E[[0, 0, 1, 2]]
    good, bad = judge(Vectors(clips, texts, texts), rows), judge(Vectors(clips, E[[1, 0, 1, 0]], texts), rows)
    gain = good.gain_over(bad, rows, "default", np.array(["v", "v", "w", "x"]), resamples=200, seed=0)
    figures = [each.figures(rows)["default"] for each in (good, bad)]
    names = {"r1", "r5", "r10", "mdr", "mnr", "mrr", "map", "ndcg10"}
    assert set(gain) == names | {f"video_to_text_{name}" for name in names}
    for name, interval in gain.items():
        assert interval["value"] == pytest.approx(figures[0][name] - figures[1][name], abs=2e-4), name
        assert interval["low"] is None and "3 groups of videos" in interval["note"]
    assert gain["r1"]["value"] == 0.5 and gain["mnr"]["value"] < 0
