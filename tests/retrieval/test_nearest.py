"""Moments from a few clips are those from all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vidseek_retrieval.filters import Condition
from vidseek_retrieval.index import Point
from vidseek_retrieval.moments import NUM_CLIPS, RankedClip, first_moments, fold_duplicates, merge_moments, rank_order
from vidseek_retrieval.nearest import MOST_OF_VIDEOS, STEPS, Nearest, without

QUERY = np.zeros(4, np.float32)


class Ranking:
    """A collection that ranks what it is made with; a search for `limit` clips misses those that `missed` says."""

    def __init__(self, clips: Sequence[RankedClip], missed: dict[int, set[str]] | None = None) -> None:
        self._clips = sorted(clips, key=rank_order)
        self._missed = missed or {}
        self.asked: list[int] = []

    def search(
        self, vector: Any, *, limit: int, exact: bool = False, at_least: float = -1.0, using: str = "video",
        conditions: Sequence[Condition] = (),
    ) -> list[RankedClip]:
        self.asked.append(limit)
        missed = () if exact else self._missed.get(limit, ())
        return [
            clip for clip in self._clips
            if clip.clip_id not in missed and clip.score >= at_least
            and all(getattr(clip, each.field) in each.any_of for each in conditions)
        ][:limit]


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


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("digits", [2, 6])  # at 2 most clips have a score that others have too
@pytest.mark.parametrize("duplicates", [False, True])
def test_moments__are_those_of_the_whole_ranking(margin: float, digits: int, duplicates: bool) -> None:
    clips = clips_of(1, 2000, digits=digits, duplicates=duplicates)
    whole = fold_duplicates(first_moments(sorted(clips, key=rank_order), margin=margin))
    for num in (1, 11, 31, 101, NUM_CLIPS):
        found = nearest(Ranking(clips), margin=margin).moments(num)
        assert found == whole[:num]


def test_moments__a_first_page_takes_one_short_search() -> None:
    ranking = Ranking(clips_of(2, 2000))
    assert len(nearest(ranking).moments(11)) >= 11
    assert ranking.asked == [STEPS[0]]


def test_moments__that_lower_clips_could_widen_take_one_more_search_among_their_videos() -> None:
    clips = clips_of(2, 2000)
    ranking = Ranking(clips)
    found = nearest(ranking, margin=0.3).moments(11)
    assert ranking.asked[:2] == [STEPS[0], MOST_OF_VIDEOS] and STEPS[1] not in ranking.asked
    assert found == first_moments(sorted(clips, key=rank_order), margin=0.3)[:11]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("duplicates", [False, True])
def test_moments__whatever_each_search_misses__a_page_begins_as_a_longer_one(seed: int, duplicates: bool) -> None:
    clips = clips_of(seed, 2000, digits=2 + seed % 3, duplicates=duplicates)
    draws = np.random.default_rng(seed)
    missed = {limit: {clip.clip_id for clip in clips if draws.random() < 0.1} for limit in STEPS}
    everything = nearest(Ranking(clips, missed)).moments(NUM_CLIPS)
    for num in range(1, 120, 7):
        assert nearest(Ranking(clips, missed)).moments(num) == everything[:num]


def test_moments__of_a_small_archive_take_one_search() -> None:
    clips = clips_of(3, 60)
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
