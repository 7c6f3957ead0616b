from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from vidseek_training.evaluation.metrics import (
    alignment,
    average_precision,
    ndcg_at,
    paired_gain,
    ranks_of_owned,
    recall_at,
    recall_gain,
    recall_interval,
    summarise,
    uniformity,
)


def own_ranks(scores: np.ndarray) -> np.ndarray:
    return ranks_of_owned(scores, np.arange(len(scores)))


def test_ranks_of__counts_what_scores_better() -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.5], [0.6, 0.7, 0.1]], np.float32)
    assert own_ranks(scores).tolist() == [1, 3, 3]


def test_ranks_of__a_tie_is_counted_before_the_right_one() -> None:
    scores = np.array([[0.5, 0.5, 0.5], [0.0, 0.2, 0.2], [0.0, 0.0, 0.1]], np.float32)
    assert own_ranks(scores).tolist() == [3, 2, 1]


def test_ranks_of__not_a_number_is_no_hit() -> None:
    assert own_ranks(np.full((3, 3), np.nan, np.float32)).tolist() == [3, 3, 3]


def test_ranks_of_owned__several_queries_may_have_one_candidate() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.4, 0.4]], np.float32)
    assert ranks_of_owned(scores, np.array([0, 0, 1])).tolist() == [1, 2, 2]


def test_average_precision__by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.1, 0.0], [np.nan, 0.1, 0.2, 0.3]], np.float32)
    relevant = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1]], bool)
    # Places 1 and 3; a tie that counts as lost; first, and last for what is no number.
    assert average_precision(scores, relevant) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, (1 + 2 / 4) / 2])


def test_ndcg_at__by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.5, 0.4, 0.3]], np.float32)
    relevant = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], bool)
    best = 1 + 1 / math.log2(3)
    assert ndcg_at(scores, relevant, 10) == pytest.approx([(1 + 1 / 2) / best, 1 / math.log2(5)])
    assert ndcg_at(scores, relevant, 2) == pytest.approx([1 / best, 0.0])
    # A query with more right candidates than places can still reach 1.
    assert ndcg_at(scores[:1], np.ones((1, 4), bool), 2) == pytest.approx([1.0])


def test_paired_gain__of_medians_is_paired_too() -> None:
    before = np.random.default_rng(1).integers(5, 60, 90).astype(float)
    after, groups = before - 4, np.arange(90) // 3
    gain = paired_gain(before, after, groups, resamples=200, seed=4, median=True)
    assert (gain.value, gain.low, gain.high, gain.num_groups) == (-4.0, -4.0, -4.0, 30)
    unpaired = paired_gain(before, after[::-1].copy(), groups, resamples=200, seed=4, median=True)
    assert unpaired.low < -4 < unpaired.high


def test_recall_at__and_summarise_by_hand() -> None:
    ranks = np.array([1, 1, 3, 7, 20])
    assert [recall_at(ranks, k) for k in (1, 5, 10)] == [0.4, 0.6, 0.8]
    assert summarise(ranks) == {
        "r1": 0.4, "r5": 0.6, "r10": 0.8, "mdr": 3.0, "mnr": 6.4, "mrr": round((2 + 1 / 3 + 1 / 7 + 1 / 20) / 5, 4),
    }
    assert recall_at(np.array([], np.int64), 1) == 0.0
    assert summarise(np.array([], np.int64)) == {}


def test_recall_gain__is_paired_by_query() -> None:
    # Both models are right half of the time, and wrong on the same queries: no doubt that nothing was gained.
    ranks, groups = np.array([1, 9] * 50), np.arange(100)
    same = recall_gain(ranks, ranks, 1, groups, resamples=200, seed=0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    # Right on the other queries: the same recalls, but in doubt.
    other = recall_gain(ranks, ranks[::-1], 1, groups, resamples=200, seed=0)
    assert other.value == 0.0 and other.low < -0.05 and other.high > 0.05
    # Where a video has one query of each kind, nothing differs from video to video.
    paired = recall_gain(ranks, ranks[::-1], 1, groups // 2, resamples=200, seed=0)
    assert (paired.low, paired.high) == (0.0, 0.0)


def test_recall_gain__counts_queries_that_came_in() -> None:
    base, adapted = np.array([2, 6, 11, 1]), np.array([1, 5, 12, 3])
    assert recall_gain(base, adapted, 1, [1, 2, 3, 4], resamples=10, seed=0).value == 0.0
    assert recall_gain(base, adapted, 5, [1, 2, 3, 4], resamples=10, seed=0).value == 0.25
    assert recall_interval(adapted, 5, [1, 2, 3, 4], resamples=10, seed=0).value == 0.75


def test_recall_interval__stays_a_share() -> None:
    ranks = np.array([1] * 29 + [9])
    found = recall_interval(ranks, 1, np.arange(30), resamples=500, seed=0)
    assert 0 <= found.low < found.value < found.high == 1


def test_alignment_and_uniformity__by_hand() -> None:
    east, north = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    assert alignment(east, east) == 0.0
    assert alignment(np.concatenate([east, east]), np.concatenate([east, north])) == pytest.approx(1.0)
    assert uniformity(np.concatenate([east, east])) == pytest.approx(0.0)
    assert uniformity(np.concatenate([east, north])) == pytest.approx(-4.0)  # log exp(-2 * 2)
    assert uniformity(east) == 0.0


@pytest.mark.parametrize("count", [2, 511, 512, 513, 1100])
def test_uniformity__in_blocks_is_that_of_all_pairs(count: int) -> None:
    vectors = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(count, 1)
    wanted = np.log(np.exp(-2 * ((vectors[first] - vectors[second]) ** 2).sum(1)).mean())
    assert uniformity(vectors) == pytest.approx(float(wanted), abs=1e-5)


def test_uniformity__of_8_000_vectors_takes_little_memory() -> None:
    vectors = np.random.default_rng(0).normal(size=(8_000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tracemalloc.start()
    uniformity(vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
