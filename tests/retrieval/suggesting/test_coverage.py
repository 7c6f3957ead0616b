from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.retrieval.archive import unit_rows
from vidseek_retrieval.suggesting.coverage import Pick, Vectors, choose_covering, likeness


def none_alike(clips: Vectors, row: int) -> NDArray[np.bool_]:
    return np.zeros(len(clips), bool)


def choose(clips: Vectors, taught: Vectors | None = None, *, num: int = 99, **options: object) -> list[Pick]:
    return choose_covering(
        clips, clips[:0] if taught is None else taught, np.ones(len(clips)), num=num,
        **{"may_be_chosen": np.ones(len(clips), bool), "alike": lambda row: none_alike(clips, row), **options},  # type: ignore
    )


def blobs(*sizes: int) -> Vectors:
    """Clips in as many places as sizes, each near to the others of its place."""
    centres = np.eye(len(sizes), 16, dtype=np.float32)
    rows = np.repeat(centres, sizes, axis=0) + 0.05 * unit_rows(sum(sizes), 16)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_choose__takes_one_of_each_place_the_most_common_first() -> None:
    clips = blobs(4, 12, 8)
    places = np.repeat([0, 1, 2], [4, 12, 8])
    picks = choose(clips, num=3)
    assert [int(places[pick.row]) for pick in picks] == [1, 2, 0]
    assert [pick.num_nearest >= size for pick, size in zip(picks, (12, 8, 4), strict=True)] == [True] * 3


def test_choose__what_is_taught_is_not_chosen_again() -> None:
    clips = blobs(4, 12, 8)
    first, *_ = choose(clips, clips[4:6], num=1)
    assert first.row >= 16 and first.likeness < 0.2


def test_choose__never_takes_what_may_not_be_chosen_or_is_alike() -> None:
    clips = blobs(5, 5)
    is_first = np.arange(10) < 5
    picks = choose(clips, may_be_chosen=is_first)
    assert picks and all(pick.row < 5 for pick in picks)
    picks = choose(clips, alike=lambda row: is_first if row < 5 else ~is_first)
    assert len(picks) == 2


def test_choose__of_nothing_and_of_equal_clips_ends() -> None:
    assert choose(unit_rows(0, 4)) == []
    assert len(choose(np.repeat(unit_rows(1, 4), 5, axis=0))) <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(0, 4), st.integers(1, 6))
def test_choose__is_the_greedy_choice(seed: int, num_clips: int, num_taught: int, num: int) -> None:
    """Against all gains measured in every round; a longer list begins with the shorter one; gains never grow."""
    both = unit_rows(num_clips + num_taught, 5, seed=seed)
    clips, taught = both[:num_clips], both[num_clips:]
    weights = np.random.default_rng(seed).uniform(0.1, 1, num_clips)
    pairs = likeness(clips, both, mean=both.mean(axis=0)).astype(np.float64)
    covered = pairs[:, num_clips:].max(axis=1, initial=0)
    expected: list[int] = []
    for _ in range(min(num, num_clips)):
        gains = weights @ np.maximum(pairs[:, :num_clips] - covered[:, None], 0)
        gains[expected] = -1
        if gains.max() <= 1e-6:
            break
        expected.append(int(gains.argmax()))
        covered = np.maximum(covered, pairs[:, expected[-1]])
    picks = choose_covering(
        clips, taught, weights, num=num, may_be_chosen=np.ones(num_clips, bool),
        alike=lambda row: none_alike(clips, row),
    )
    assert [pick.row for pick in picks][: len(expected)] == expected
    gains_of_picks = [pick.gain for pick in picks]
    assert all(a >= b - 1e-6 for a, b in itertools.pairwise(gains_of_picks))
    assert sum(gains_of_picks) <= 1 + 1e-6
