from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.archive import unit_rows
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.search.moments import (
    NUM_CLIPS,
    Moment,
    RankedClip,
    Ranking,
    cut_off,
    first_moments,
    merge_moments,
    rank_order,
    rankings,
)

VIDEO = "a" * 32


def clip(start: float, end: float, score: float, *, video_id: str = VIDEO) -> RankedClip:
    """A clip by its seconds."""
    start_ms, end_ms = int(start * 1000), int(end * 1000)
    return RankedClip(str(clip_id_of(video_id, start_ms, end_ms)), video_id, start_ms, end_ms, score)


def spans(moments: list[Moment]) -> list[tuple[float, float]]:
    return [(moment.start_ms / 1000, moment.end_ms / 1000) for moment in moments]


def test_merge__neighbours_within_the_margin_widen_the_span() -> None:
    (moment,) = merge_moments([clip(1, 4, 0.9), clip(2, 5, 0.89), clip(0, 3, 0.88)], margin=0.02)
    assert (moment.start_ms, moment.end_ms, moment.score, moment.best_ms) == (0, 5000, 0.9, 2500)
    assert moment.best_clip_id == clip(1, 4, 0).clip_id
    assert moment.clip_ids == tuple(clip(start, start + 3, 0).clip_id for start in (1, 2, 0))


def test_merge__touching_is_enough_and_a_gap_is_not() -> None:
    assert spans(merge_moments([clip(0, 3, 0.9), clip(3, 6, 0.9)], margin=0)) == [(0, 6)]
    assert len(merge_moments([clip(0, 3, 0.9), clip(3.001, 6, 0.9)], margin=0)) == 2


def test_merge__weaker_neighbour_is_absorbed_and_widens_nothing() -> None:
    (moment,) = merge_moments([clip(1, 4, 0.9), clip(2, 5, 0.7)], margin=0.02)
    assert (moment.start_ms, moment.end_ms) == (1000, 4000)
    assert moment.clip_ids == (clip(1, 4, 0).clip_id,)


def test_merge__weaker_one_that_lies_mostly_outside_is_its_own_moment() -> None:
    assert spans(merge_moments([clip(1, 4, 0.9), clip(3, 6, 0.7)], margin=0.02)) == [(1, 4), (3, 6)]
    # Exactly half inside is not more than half.
    assert len(merge_moments([clip(0, 4, 0.9), clip(2, 6, 0.7)], margin=0.02)) == 2


def test_merge__margin_counts_from_the_best_and_not_from_the_last() -> None:
    # Each is within 0.02 of its neighbour, but only the first two are within 0.02 of the best.
    ranked = [clip(0, 3, 0.9), clip(2, 5, 0.885), clip(4, 7, 0.87)]
    assert spans(merge_moments(ranked, margin=0.02)) == [(0, 5), (4, 7)]


def test_merge__exactly_the_margin_joins() -> None:
    assert spans(merge_moments([clip(0, 3, 0.9), clip(2, 5, 0.8)], margin=0.1)) == [(0, 5)]


def test_merge__a_bridge_makes_one_of_two() -> None:
    ranked = [clip(0, 3, 0.9), clip(4, 7, 0.895), clip(2, 5, 0.89)]
    (moment,) = merge_moments(ranked, margin=0.02)
    assert spans([moment]) == [(0, 7)]
    assert moment.clip_ids == tuple(each.clip_id for each in ranked)  # best first


def test_merge__videos_are_apart() -> None:
    other = "b" * 32
    moments = merge_moments([clip(0, 3, 0.8), clip(0, 3, 0.9, video_id=other)], margin=1)
    assert [moment.video_id for moment in moments] == [other, VIDEO]


def test_merge__order_of_the_input_does_not_matter() -> None:
    draws = random.Random(0)
    ranked = [clip(start, start + 3, round(draws.random(), 1)) for start in range(60)]
    expected = merge_moments(ranked, margin=0.1)
    for _ in range(20):
        draws.shuffle(ranked)
        assert merge_moments(ranked, margin=0.1) == expected
    scores = [moment.score for moment in expected]
    assert scores == sorted(scores, reverse=True)


def test_merge__ties_go_by_clip_id() -> None:
    ranked = [clip(10 * place, 10 * place + 3, 0.5) for place in range(8)]
    moments = merge_moments(ranked, margin=0)
    assert [moment.best_clip_id for moment in moments] == sorted(each.clip_id for each in ranked)


def test_merge__nothing() -> None:
    assert merge_moments([], margin=0.1) == []


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.05])
def test_merge__finds_scenes_of_other_lengths_than_the_window(margin: float) -> None:
    # A video of scenes of 2.4 to 5 s under windows of 3 s each second, where a window scores by how much of it shows
    # the scene that is asked for: the first moment should overlap that scene by half of their union.
    draws = random.Random(7)
    found = asked = 0
    for _ in range(20):
        edges = [0.0]
        while edges[-1] < 60:
            edges.append(edges[-1] + draws.uniform(2.4, 5))
        for start, end in itertools.pairwise(edges[:-1]):  # the last one has no windows over its end
            ranked = []
            for second in range(58):
                share = max(0.0, min(end, second + 3) - max(start, second)) / 3
                ranked.append(clip(second, second + 3, round(0.1 + 0.6 * share + draws.gauss(0, 0.01), 6)))
            first = merge_moments(ranked, margin=margin)[0]
            overlap = min(end, first.end_ms / 1000) - max(start, first.start_ms / 1000)
            union = max(end, first.end_ms / 1000) - min(start, first.start_ms / 1000)
            found += overlap / union >= 0.5
            asked += 1
    assert asked > 200 and found / asked >= 0.98


def rank_exact(
    queries: np.ndarray, vectors: np.ndarray, clips: list[RankedClip], *, limit: int = NUM_CLIPS, margin: float = 0.0
) -> list[list[RankedClip]]:
    """The exact ranking for each query, in the order in which a published collection is searched."""
    return [cut_off(ranking, limit=limit, margin=margin) for ranking in rankings(queries, vectors, clips)]


def test_rank_exact__order_scores_and_ties() -> None:
    clips = [clip(place, place + 3, 0) for place in range(4)]
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 1]], dtype=np.float32)
    (ranking,) = rank_exact(np.array([[0, 1]], dtype=np.float32), vectors, clips)
    tied = sorted([clips[1].clip_id, clips[3].clip_id])
    assert [each.clip_id for each in ranking] == [*tied, clips[2].clip_id, clips[0].clip_id]
    assert [each.score for each in ranking] == [1.0, 1.0, 0.8, 0.0]


def test_rank_exact__last_bits_break_no_tie_and_rows_may_come_in_any_order() -> None:
    queries, vectors = unit_rows(3, 16, seed=1), unit_rows(200, 16, seed=2)
    vectors[100:] = vectors[:100]  # everything twice
    clips = [clip(place, place + 3, 0) for place in range(200)]
    rankings = rank_exact(queries, vectors, clips, limit=50)
    shuffled = np.random.default_rng(0).permutation(200)
    assert rank_exact(queries, vectors[shuffled], [clips[row] for row in shuffled], limit=50) == rankings
    assert [len(ranking) for ranking in rankings] == [50, 50, 50]


def test_rank_exact__goes_on_to_the_margin_below_the_last() -> None:
    queries, vectors = unit_rows(3, 16, seed=1), unit_rows(200, 16, seed=2)
    clips = [clip(place, place + 3, 0) for place in range(200)]
    for whole, part in zip(
        rank_exact(queries, vectors, clips), rank_exact(queries, vectors, clips, limit=50, margin=0.05), strict=True
    ):
        assert part == whole[: len(part)] and len(part) > 50
        assert whole[len(part)].score < whole[49].score - 0.05 <= part[-1].score


def test_first_moments__a_clip_behind_the_first_thousand_widens_and_begins_none() -> None:
    (top, *others) = [clip(100 * place, 100 * place + 3, 0.9) for place in range(NUM_CLIPS)]
    behind = [clip(2, 5, 0.89), clip(50, 53, 0.89)]
    ranking = sorted([top, *others, *behind], key=rank_order)
    moments = first_moments(ranking, margin=0.02)
    assert len(moments) == NUM_CLIPS
    assert (0, 5) in spans(moments) and (50, 53) not in spans(moments)
    assert first_moments(ranking[:NUM_CLIPS], margin=0.02) == merge_moments(ranking[:NUM_CLIPS], margin=0.02)


def test_rank_exact__rows_must_match() -> None:
    with raises(ValueError, naming=("1 clips", "2 vectors")):
        rank_exact(unit_rows(1, 4), unit_rows(2, 4), [clip(0, 3, 0)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_first_moments__the_first_few_are_those_of_the_whole_ranking(seed: int) -> None:
    """Long and short videos under overlapping windows, scores that tie, and margins that join much or nothing."""
    draws = random.Random(seed)
    clips = [
        clip(start, start + draws.choice([2, 3, 9]), round(draws.random() ** 2, digits), video_id=letter * 32)
        for digits in [draws.choice([1, 2, 6])] for letter in "abcd" for start in range(draws.choice([3, 40, 700]))
    ]
    ranking = sorted(clips, key=rank_order)
    for margin in (0.0, 0.01, 0.1, 2.0):
        whole = first_moments(ranking, margin=margin)
        for num in (1, 3, 30, 5000):
            assert first_moments(iter(ranking), margin=margin, num=num) == whole[:num]


def test_first_moments__reads_no_more_than_it_needs() -> None:
    ranking = [clip(10 * place, 10 * place + 3, 1 - place / 2000) for place in range(NUM_CLIPS)]
    read = iter(ranking)
    assert len(first_moments(read, margin=0.01, num=5)) == 5
    assert next(read) == ranking[26]  # the fifth has 0.998, and what widens it 0.988: one of 0.9875 was read


def test_rankings__are_sorted_as_far_as_they_are_read() -> None:
    num = 5000
    clips = [clip(place, place + 3, 0) for place in range(num)]
    scores = np.random.default_rng(0).integers(0, 1000, num).astype(np.float32) / 1000  # five of each
    scores += np.random.default_rng(1).uniform(-4e-7, 4e-7, num).astype(np.float32)  # last bits, which break no tie
    ordered = sorted(clips, key=lambda each: each.clip_id)
    whole = Ranking(ordered, scores)
    ranking = list(whole)
    assert list(whole) == ranking, "a second reader gets the same"
    rounded = np.round(scores.astype(np.float64), 6).tolist()
    wanted = sorted((each._replace(score=score) for each, score in zip(ordered, rounded, strict=True)), key=rank_order)
    assert ranking == wanted
    assert list(Ranking([], np.empty(0, np.float32))) == []
