from __future__ import annotations

import random
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.tiny import Row
from vidseek_media.splitting.video_groups import groups_of
from vidseek_training.dataset.negatives import RightOnes, _joined, hardest, with_hard, word_overlap
from vidseek_training.dataset.pair_set import PairSet

ROWS = [
    Row(1, 0, "train", "dark", "red"), Row(1, 0, "train", "dark", "red", text="a red video"),
    Row(1, 1, "train", "dark", "blue", contrast="a red video", axis="colour"),
    Row(2, 2, "train", "dark", "cyan", text="a red video"),
]


def pair_set(rows: list[Row]) -> PairSet:
    table = pd.DataFrame([
        {"clip_id": row.clip_id, "video_id": row.video_id, "caption": row.caption, "contrast": row.contrast} for row in rows
    ])
    nothing = np.empty((len(rows), 0), np.int64)
    return PairSet(table, np.empty((len(rows), 0), np.uint8), nothing, nothing)


def test_right_ones__captions_of_one_clip_and_equal_captions_are_not_wrong() -> None:
    same = RightOnes(pair_set(ROWS), same_video=False, overlap=1.0).of(np.arange(4), np.array([2]))
    assert same.astype(int).tolist() == [
        [1, 1, 0, 1, 1],  # the clip's other caption is no negative, wherever it stands: as a caption or as a contrast
        [1, 1, 0, 1, 1],
        [0, 0, 1, 0, 0],  # its own contrast stays one
        [0, 1, 0, 1, 1],
    ]


def test_right_ones__a_contrast_that_is_another_caption_of_the_clip_though_that_was_not_drawn() -> None:
    rows = [
        Row(1, 0, "train", "dark", "red", contrast="a blue video", axis="colour"), Row(2, 0, "train", "dark", "white"),
        Row(2, 0, "train", "dark", "white", text="a blue video"),
    ]
    same = RightOnes(pair_set(rows), same_video=False, overlap=1.0).of(np.array([0, 1]), np.array([0]))
    assert same.astype(int).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_right_ones__clips_of_one_video_by_choice() -> None:
    same = RightOnes(pair_set(ROWS), same_video=True, overlap=1.0).of(np.arange(4), np.array([2]))
    assert same[:3, :3].all() and not same[3, 0] and not same[3, 2]
    # What is said of any clip of the video is right of all of them.
    assert same[:, 3:].all()


def test_right_ones__clips_of_near_duplicates_and_not_those_of_the_same_video() -> None:
    rows = [Row(video, place, "train", shade, colour) for video, place, shade, colour in (
        (1, 0, "dark", "red"), (1, 1, "dark", "blue"), (2, 0, "dark", "cyan"), (3, 0, "dark", "white"),
    )]
    pairs = pair_set(rows)
    pairs.table["group"] = ["a", "a", "a", "b"]
    same = RightOnes(pairs, same_video=False, overlap=1.0).of(np.arange(4), np.array([], int))
    assert same.astype(int).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


def test_right_ones__captions_that_nearly_agree_by_choice() -> None:
    # "a dark red video" and "a red video" share 3 of 4 words, "a dark blue video" shares 3 of 5 with the first.
    rows = [Row(1, 0, "train", "dark", "red"), Row(2, 0, "train", "dark", "blue"),
            Row(3, 0, "train", "dark", "cyan", text="a red video")]
    for overlap, wanted in ((0.75, [1, 0, 1]), (0.6, [1, 1, 1]), (0.8, [1, 0, 0])):
        same = RightOnes(pair_set(rows), same_video=False, overlap=overlap).of(np.arange(3), np.array([], int))
        assert same[0].astype(int).tolist() == wanted
        assert same.diagonal().all() and (same == same.T).all()


_TEXTS = (
    "a red video", "A  red video", "a blue video", "a video", "a video of more words than fit a",
    "a video of more words than fit b",
)


@st.composite
def _pairs(draw: st.DrawFn) -> PairSet:
    """A few clips of few videos in fewer groups, with captions and contrasts that often agree, tokenised and cut short."""
    rows = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), *[st.integers(0, len(_TEXTS) - 1)] * 2),
                         min_size=1, max_size=9))
    group = draw(st.lists(st.sampled_from("ab"), min_size=4, max_size=4))
    table = pd.DataFrame([
        {"clip_id": f"{video}-{clip}", "video_id": str(video), "caption": _TEXTS[text], "contrast": _TEXTS[other],
         "group": group[video]} for video, clip, text, other in rows
    ])
    ids, contrast_ids = (np.array([_tokens(text) for text in table[name]], np.int64) for name in ("caption", "contrast"))
    return PairSet(table, np.empty((len(rows), 0), np.uint8), ids, contrast_ids)


def _tokens(text: str) -> list[int]:
    """Six of them, by a tokenizer that minds case: the model reads no more."""
    return [*(zlib.crc32(word.encode()) for word in text.split()), 0, 0, 0, 0, 0, 0][:6]


def _one_text(left: str, right: str) -> bool:
    return _tokens(left) == _tokens(right) or left.casefold().split() == right.casefold().split()


def _is_right(pairs: PairSet, row: int, text: str, *, same_video: bool) -> bool:
    """By the definition: some caption of a clip that shows what the row's shows is that text."""
    own = pairs.table.iloc[row]
    return any(
        _one_text(other.caption, text) and (
            other.clip_id == own.clip_id or (other.group == own.group and (same_video or other.video_id != own.video_id))
        ) for other in pairs.table.itertuples()
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(_pairs(), st.booleans(), st.randoms())
def test_right_ones__are_those_of_the_definition(pairs: PairSet, same_video: bool, chance: random.Random) -> None:
    rows = np.array(chance.sample(range(len(pairs)), chance.randint(1, len(pairs))))
    contrasts = np.array(chance.sample(list(rows), chance.randint(0, len(rows))), int)
    found = RightOnes(pairs, same_video=same_video, overlap=1.0).of(rows, contrasts)
    texts = [*pairs.table.caption.iloc[rows], *pairs.table.contrast.iloc[contrasts]]
    wanted = [[_is_right(pairs, row, text, same_video=same_video) for text in texts] for row in rows]
    assert found.tolist() == wanted and found.diagonal().all()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(_pairs(), st.booleans(), st.randoms())
def test_hardest__of_some_pairs_is_right_neither_way_by_all_pairs_and_misses_none_that_is_wrong(
    pairs: PairSet, same_video: bool, chance: random.Random
) -> None:
    rows = np.array(sorted(chance.sample(range(len(pairs)), chance.randint(1, len(pairs)))))
    texts, videos = np.random.default_rng(chance.randint(0, 99)).normal(size=(2, len(rows), 4)).astype(np.float32)
    right = RightOnes(pairs, same_video=same_video, overlap=1.0)
    found = hardest(texts, videos, right, rows, depth=len(rows))
    captions = list(pairs.table.caption)
    for place, row in enumerate(rows):
        wrong = {
            number for number, other in enumerate(rows)
            if not _is_right(pairs, other, captions[row], same_video=same_video)
            and not _is_right(pairs, row, captions[other], same_video=same_video)
        }
        picked = [int(each) for each in found[place] if each >= 0]
        assert sorted(picked) == sorted(wrong)  # none comes twice
        scores = [float(texts[place] @ videos[other]) for other in picked]
        assert scores == sorted(scores, reverse=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_joined__is_what_either_numbering_joins_directly_or_by_others(numbers: list[tuple[int, int]]) -> None:
    one, other = np.array(numbers, np.int64).reshape(-1, 2).T
    together = [(f"{i}", f"{j}") for i in range(len(one)) for j in range(i) if one[i] == one[j] or other[i] == other[j]]
    groups = groups_of([f"{place}" for place in range(len(one))], together)
    found = _joined(one, other)
    for i in range(len(one)):
        assert [found[i] == found[j] for j in range(i)] == [groups[f"{i}"] == groups[f"{j}"] for j in range(i)]


def test_word_overlap__is_jaccard_s() -> None:
    found = word_overlap(["a b c", "", "A"], ["c b", "a", "x"])
    assert found == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 1, 0]]))


def test_hardest__the_best_wrong_clips_best_first() -> None:
    rows = [Row(n, 0, "train", "dark", colour) for n, colour in enumerate(("red", "green", "blue", "white"))]
    rows[3] = Row(0, 0, "train", "dark", "white")  # another caption of the first clip
    texts = np.eye(4, dtype=np.float32)
    videos = np.array([[9, 0, 0, 0], [5, 9, 1, 0], [7, 2, 9, 0], [9, 0, 0, 9]], np.float32)  # row: clip, column: caption
    right = RightOnes(pair_set(rows), same_video=False, overlap=1.0)
    found = hardest(texts, videos, right, np.arange(4), depth=3)
    assert found.tolist() == [[2, 1, -1], [2, 0, 3], [1, 0, 3], [1, 2, -1]]


def test_with_hard__replaces_the_last_rows_and_repeats_none() -> None:
    neighbours = np.array([[1, 5], [0, 2], [6, -1], [-1, -1], [0, 1], [0, 1], [0, 1]])
    found = with_hard(np.array([0, 1, 2, 3]), neighbours, 0.5, np.random.default_rng(0))
    # Of 0's neighbours 1 is there already; 1's are both there, so the row in that place stays.
    assert found.tolist() == [0, 1, 2, 5]
    assert len(set(with_hard(np.arange(6), neighbours, 0.5, np.random.default_rng(1)).tolist())) == 6
    assert with_hard(np.array([3, 0]), neighbours, 0.0, np.random.default_rng(0)).tolist() == [3, 0]
