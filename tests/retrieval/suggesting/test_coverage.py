from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.retrieval.archive import unit_rows
from vidseek_retrieval.suggesting.coverage import Pick, Vectors, choose_farthest, whitened


def choose(
    clips: Vectors, taught: Vectors | None = None, *, num: int = 99, may: NDArray[np.bool_] | None = None,
    alike: Callable[[int], NDArray[np.bool_]] | None = None,
) -> list[Pick]:
    return choose_farthest(
        clips, clips[:0] if taught is None else taught, num=num,
        may_be_chosen=np.ones(len(clips), bool) if may is None else may,
        alike=alike or (lambda row: np.zeros(len(clips), bool)),
    )


def blobs(*sizes: int) -> Vectors:
    """Clips in as many places as sizes, each near to the others of its place."""
    centres = np.eye(len(sizes), 16, dtype=np.float32)
    rows = np.repeat(centres, sizes, axis=0) + 0.01 * unit_rows(sum(sizes), 16)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_whitened__all_directions_count_alike_and_flat_ones_do_not() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32) * [1.0, 0.5, 0.2, 0.001] + 7
    found = whitened(rows.astype(np.float32))
    assert found.shape == (200, 3)
    assert np.allclose(np.cov(found.T, bias=True), np.eye(3), atol=1e-3)
    assert whitened(np.ones((5, 4), np.float32)).shape == (5, 0)


def test_choose__takes_one_of_each_place_first() -> None:
    picks = choose(blobs(4, 12, 8), num=3)
    assert {int(np.searchsorted([4, 16], pick.row, side="right")) for pick in picks} == {0, 1, 2}
    assert picks[0].distance == 0 and picks[0].num_nearest == 24


def test_choose__what_is_taught_is_not_chosen_again() -> None:
    clips = blobs(4, 12, 8)
    first, second, *_ = choose(clips, clips[4:6])
    assert not {first.row, second.row} & set(range(4, 16)) and first.distance > 0.5
    assert (first.row < 4) != (second.row < 4)


def test_choose__never_takes_what_may_not_be_chosen_or_is_alike() -> None:
    clips, is_first = blobs(5, 5), np.arange(10) < 5
    picks = choose(clips, may=is_first)
    assert picks and all(pick.row < 5 for pick in picks)
    assert len(choose(clips, alike=lambda row: is_first if row < 5 else ~is_first)) == 2


def test_choose__of_nothing_and_of_equal_clips_ends() -> None:
    assert choose(unit_rows(0, 4)) == []
    same = np.repeat(unit_rows(1, 4), 5, axis=0)
    assert len(choose(same)) == 1 and choose(same, same[:1]) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14), st.integers(0, 4), st.integers(1, 6))
def test_choose__is_the_farthest_each_time(seed: int, num_clips: int, num_taught: int, num: int) -> None:
    """Against all distances measured in every round; a longer list begins with the shorter one."""
    both = unit_rows(num_clips + num_taught, 5, seed=seed)
    vectors = whitened(both).astype(np.float64)
    picks = choose(both[:num_clips], both[num_clips:], num=num)
    centres = list(range(num_clips, num_clips + num_taught))
    for pick in picks:
        if centres:
            distances = np.linalg.norm(vectors[:num_clips, None] - vectors[centres], axis=2).min(axis=1)
            assert distances[pick.row] >= distances.max() - 1e-4
        centres.append(pick.row)
    assert picks == choose(both[:num_clips], both[num_clips:], num=99)[: len(picks)]
    assert all(a.distance >= b.distance - 1e-4 for a, b in itertools.pairwise(picks[num_taught == 0 :]))
