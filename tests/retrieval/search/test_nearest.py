"""Moments from a few clips are those from all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vidseek_retrieval.index.backend import Point, TimeRange
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import NUM_CLIPS, RankedClip, first_moments, fold_duplicates, merge_moments, rank_order
from vidseek_retrieval.search.nearest import MOST_AROUND, STEPS, Nearest, without

QUERY = np.zeros(4, np.float32)


class Ranking:
    """A collection that ranks what it is made with; a search for `limit` clips misses those that `missed` says."""

    def __init__(
        self, clips: Sequence[RankedClip], missed: dict[int, set[str]] | None = None, *, longest_ms: int = 3000
    ) -> None:
        self._clips = sorted(clips, key=rank_order)
        self._missed = missed or {}
        self.metadata = SimpleNamespace(longest_ms=longest_ms)
        self.asked: list[int] = []
        self.num_around = 0

    def search(
        self, vector: Any, *, limit: int, exact: bool = False, score_threshold: float = -1.0, using: str = "video",
        conditions: Sequence[Condition] = (), time_ranges: Sequence[TimeRange] = (),
    ) -> list[RankedClip]:
        self.asked.append(limit)
        missed = () if exact else self._missed.get(limit, ())
        within = [clip for clip in self._clips if not time_ranges or any(
            clip.video_id == video_id and first_ms <= clip.start_ms <= last_ms for video_id, first_ms, last_ms in time_ranges
        )]
        self.num_around += len(within) if exact else 0
        return [clip for clip in within if clip.clip_id not in missed and clip.score >= score_threshold][:limit]


def clips_of(seed: int, num: int, *, digits: int = 6, duplicates: bool = False) -> list[RankedClip]:
    """Overlapping windows of 40 videos with scores that neighbours share in part."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(num):
        video, window = number % 40, number // 40
        score = round(float(draws.normal(0.2 + 0.1 * np.sin(window / 5 + video), 0.02)), digits)
        of = f"v{video - 1}" if duplicates and video % 4 == 1 else ""
        found.append(RankedClip(f"c{number:05}", f"v{video}", 1000 * window, 1000 * window + 3000, score, of))
    return found


def nearest(collection: Any, *, margin: float = 0.02, examples: Sequence[Point] = ()) -> Nearest:
    return Nearest(collection, QUERY, margin, examples=examples)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("digits", [2, 6])  # at 2 most clips have a score that others have too
@pytest.mark.parametrize("duplicates", [False, True])
def test_moments__are_those_of_the_whole_ranking(margin: float, digits: int, duplicates: bool) -> None:
    clips = clips_of(1, 2000, digits=digits, duplicates=duplicates)
    whole = fold_duplicates(first_moments(sorted(clips, key=rank_order), margin=margin))
    for num in (1, 11, 31, 101, NUM_CLIPS):
        found = nearest(Ranking(clips), margin=margin).moments(num)
        assert found == whole[:num]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_moments__of_clips_of_any_length__are_those_of_the_whole_ranking(seed: int) -> None:
    draws = np.random.default_rng(seed)
    clips = []
    for number in range(1500):
        start_ms, length_ms = 500 * int(draws.integers(0, 120)), 500 * int(draws.integers(1, 13))
        score = round(float(draws.normal(0.2, 0.05)), 3 + seed % 4)
        clips.append(RankedClip(f"c{number:05}", f"v{draws.integers(25)}", start_ms, start_ms + length_ms, score))
    for margin in (0.01, 0.05, 0.1):
        whole = first_moments(sorted(clips, key=rank_order), margin=margin)
        for num in (1, 11, 31, 101, 301):
            assert nearest(Ranking(clips, longest_ms=6000), margin=margin).moments(num) == whole[:num]


def test_moments__a_first_page_takes_one_short_search_and_looks_around_its_moments_alone() -> None:
    clips = clips_of(2, 2000)
    ranking = Ranking(clips)
    found = nearest(ranking).moments(11)
    assert len(found) == 11
    assert [limit for limit in ranking.asked if limit != MOST_AROUND] == [STEPS[0]]
    videos = {moment.video_id for moment in found}
    assert 0 < ranking.num_around < sum(clip.video_id in videos for clip in clips) / 2


def test_moments__that_no_other_clip_can_widen_take_no_second_search() -> None:
    ranking = Ranking(clips_of(2, 2000))
    nearest(ranking, margin=0.0).moments(11)
    assert ranking.asked == [STEPS[0]]


def test_moments__that_grow_are_asked_for_again() -> None:
    # A chain of windows, each within the margin of the best, and all but that one behind the end of the first search.
    chain = [RankedClip(f"chain{n:02}", "v", 1000 * n, 1000 * n + 3000, 0.9 - 0.001 * n) for n in range(20)]
    others = [RankedClip(f"other{n:03}", f"o{n}", 0, 3000, 0.8995 + 1e-6 * n) for n in range(200)]
    ranking = Ranking([*chain, *others])
    (moment,) = [each for each in nearest(ranking).moments(11) if each.video_id == "v"]
    assert ranking.asked.count(MOST_AROUND) > 2
    assert moment.clip_ids == tuple(clip.clip_id for clip in chain)


@pytest.mark.parametrize("margin", [0.02, 0.3])
def test_moments__where_the_longest_clip_is_not_known__are_the_same(margin: float) -> None:
    clips = clips_of(2, 2000)
    known, unknown = (nearest(Ranking(clips, longest_ms=longest), margin=margin).moments(31) for longest in (3000, 0))
    assert known == unknown == first_moments(sorted(clips, key=rank_order), margin=margin)[:31]


@pytest.mark.parametrize(("num_least", "first"), [(0, 40), (13, 40), (30, 100), (100, 300), (1000, 1000)])
def test_moments__of_a_ranking_whose_pages_all_take_many_begin_with_a_longer_search(num_least: int, first: int) -> None:
    clips = clips_of(2, 2000)
    ranking = Ranking(clips)
    found = replace(nearest(ranking), num_least=num_least).moments(5)
    assert ranking.asked[0] == first
    assert found == nearest(Ranking(clips)).moments(5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("duplicates", [False, True])
def test_moments__whatever_each_search_misses__a_page_begins_as_a_longer_one(seed: int, duplicates: bool) -> None:
    clips = clips_of(seed, 2000, digits=2 + seed % 3, duplicates=duplicates)
    draws = np.random.default_rng(seed)
    missed = {limit: {clip.clip_id for clip in clips if draws.random() < 0.1} for limit in STEPS}
    everything = nearest(Ranking(clips, missed)).moments(NUM_CLIPS)
    for num in range(1, 120, 7):
        assert nearest(Ranking(clips, missed)).moments(num) == everything[:num]


def test_moments__of_a_small_archive_take_one_search() -> None:
    clips = clips_of(3, 30)
    ranking = Ranking(clips)
    assert nearest(ranking).moments(NUM_CLIPS) == merge_moments(clips, margin=0.02)
    assert ranking.asked == [STEPS[0]]


def test_moments__where_a_short_search_missed_clips__the_pages_are_of_one_ranking() -> None:
    clips = clips_of(4, 2000)
    best = sorted(clips, key=rank_order)
    missed = {STEPS[0]: {best[3].clip_id, best[40].clip_id}, STEPS[1]: {best[150].clip_id}}
    firsts, *_, everything = (nearest(Ranking(clips, missed)).moments(num) for num in (11, 101, NUM_CLIPS))
    assert best[3].clip_id not in {clip_id for moment in firsts for clip_id in moment.clip_ids}
    assert firsts == everything[: len(firsts)]
    every = [clip_id for moment in everything for clip_id in moment.clip_ids]
    assert len(every) == len(set(every))


def test_moments__an_original_far_down_takes_its_duplicate_from_the_first_page() -> None:
    clips = clips_of(5, 2000)
    top = max(clips, key=lambda clip: clip.score)
    low = RankedClip("last", "original", 0, 3000, sorted(clips, key=rank_order)[600].score)
    copied = [clip._replace(duplicate_of="original") if clip.video_id == top.video_id else clip for clip in clips]
    found = nearest(Ranking([*copied, low])).moments(11)
    assert top.video_id not in {moment.video_id for moment in found}
    assert nearest(Ranking(copied)).moments(11)[0].best_clip_id == top.clip_id


def test_moments__without_the_examples_and_what_overlaps_them() -> None:
    clips = clips_of(6, 2000)
    top = max(clips, key=lambda clip: clip.score)
    payload = {"video_id": top.video_id, "start_ms": top.start_ms, "end_ms": top.end_ms}
    example = Point(top.clip_id, QUERY, payload)
    found = nearest(Ranking(clips), examples=[example]).moments(11)
    assert found == first_moments(without(sorted(clips, key=rank_order), [example]), margin=0.02)[:11]
    assert all(
        moment.video_id != top.video_id or moment.end_ms <= top.start_ms or moment.start_ms >= top.end_ms
        for moment in found
    )
