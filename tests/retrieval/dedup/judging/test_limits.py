from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_retrieval.dedup.judging import prior
from vidseek_retrieval.dedup.judging.limits import Threshold, choose_threshold
from vidseek_retrieval.dedup.judging.scoring import probability, terms_of


def chosen(odds: list[float], *, target: float = 0.95, num_videos: int = 100) -> Threshold:
    return choose_threshold(odds, num_videos=num_videos, own={}, target=target)


@pytest.mark.slow
@given(st.lists(st.floats(-8, 9), max_size=60), st.integers(2, 400), st.floats(0.5, 0.998))
@settings(max_examples=20, deadline=None)
def test_choose__more_precision_finds_fewer_and_says_what_others_would(odds: list[float], num: int, target: float) -> None:
    found = chosen(odds, target=target, num_videos=num)
    targets, limits, recalls, pairs = zip(
        *((each.precision, each.limit, each.recall, each.num_found) for each in found.curve), strict=True
    )
    assert list(targets) == sorted(targets) and list(limits) == sorted(limits)
    assert list(recalls) == sorted(recalls, reverse=True) and list(pairs) == sorted(pairs, reverse=True)
    assert found.odds >= 1 and found.limit == pytest.approx(probability(found.odds), abs=1e-6)
    low, high = found.precision_between
    assert low - 1e-4 <= found.precision <= high + 1e-4 and found.num_pairs == num * (num - 1) // 2
    assert found.precision >= target - 1e-3 or found.remark


def test_choose__limits_of_a_small_archive_are_those_of_the_prior_and_differ() -> None:
    """Of few videos an archive learns little: the limits move along the prior's curve all the same."""
    limits = [chosen([], target=target).odds for target in (0.9, 0.95, 0.99)]
    assert 1 <= limits[0] <= limits[1] < limits[2] < 8


@pytest.mark.slow
def test_choose__more_pairs_ask_for_more_and_copies_for_less() -> None:
    assert chosen([], num_videos=20).odds < chosen([], num_videos=200).odds < chosen([], num_videos=2000).odds
    assert chosen([7.0] * 40, num_videos=200).odds < chosen([], num_videos=200).odds


def test_choose__an_archive_of_one_camera_asks_for_more() -> None:
    start = prior.DIFFERENT[24]
    camera = chosen([start - 0.5] * 300, num_videos=100)
    assert camera.alikeness > 5 and camera.odds > chosen([], num_videos=100).odds


def test_choose__a_large_archive_says_itself_how_alike_its_videos_are() -> None:
    start = prior.DIFFERENT[24]
    seen = [start - 0.5] * 400
    assert chosen(seen, num_videos=10_000).odds < chosen([], num_videos=10_000).odds - 1
    # A sample of them says the same.
    sampled = choose_threshold(seen[:40], num_videos=10_000, own={}, target=0.95, weights=[10.0] * 40)
    known = chosen(seen, num_videos=10_000)
    assert (sampled.odds, sampled.alikeness) == (known.odds, known.alikeness)


def test_choose__own_copies_count_beside_the_prior() -> None:
    plain = choose_threshold([], num_videos=50, own={}, target=0.95)
    lost = choose_threshold([], num_videos=50, own={"cropped": [-5.0] * 20}, target=0.95)
    assert lost.recall_by_change["cropped"] < plain.recall_by_change["cropped"] - 0.3
    assert lost.recall_by_change["mirrored"] == pytest.approx(plain.recall_by_change["mirrored"], abs=0.05)
    assert lost.num_copies == plain.num_copies + 20


def test_choose__says_why_less_precision_finds_no_more() -> None:
    found = chosen([7.0] * 30, num_videos=40, target=0.6)
    assert "finds no more" in found.remark
    apart = chosen([7.0] * 3 + [-6.0] * 10, num_videos=300, target=0.95)
    assert "find the same 3 pairs" in apart.remark
    assert "no limit" in chosen([], num_videos=10**6, target=0.999999999999).remark


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, float("nan")])
def test_choose__target_out_of_range(target: float) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="precision"):
        chosen([], target=target)


def test_prior__is_whole() -> None:
    from tests.retrieval.dedup.comparing.videos import video
    from vidseek_retrieval.dedup.comparing.alignment import align

    found = align(video(1), video(1))
    assert found is not None and terms_of(found.evidence).shape == (len(prior.WEIGHTS),)
    assert np.isfinite(prior.WEIGHTS).all() and list(prior.DIFFERENT) == sorted(prior.DIFFERENT, reverse=True)
    assert prior.NUM_PAIRS > 1000 and all(num > 3 and list(of) == sorted(of) for num, of in prior.COPIES.values())


def test_choose__where_a_precision_is_out_of_reach_the_highest_is_taken() -> None:
    start = prior.DIFFERENT[24]
    odds = [start - 0.5] * 2000 + [6.0] * 5
    found = chosen(odds, target=0.999, num_videos=100)
    assert "no limit is expected to reach a precision of 0.999" in found.remark
    assert found.precision == pytest.approx(max(each.precision for each in (chosen(odds, target=0.9), found)))
    assert 0 < found.precision < 0.999 and found.recall > 0 and found.odds < 25
