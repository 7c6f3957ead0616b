from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.pictures import moving_frames
from vidseek_media.errors import ConfigError, GateFailed
from vidseek_retrieval.dedup.alignment import Alignment
from vidseek_retrieval.dedup.made_copies import CHANGES, Sample, Scored, choose_threshold, score_copies


def test_score_copies__each_change_is_recognised() -> None:
    scores: dict[str, list[float]] = {name: [] for name in CHANGES}
    for seed in range(6):
        for each in score_copies(np.stack(moving_frames(seed, num=10)), np.arange(10, dtype=np.int64) * 500):
            scores[each.kind].append(each.found.score)
    assert all(len(found) == 6 for found in scores.values())
    for name, found in scores.items():
        assert np.median(found) > (0.6 if name in ("logo", "other frames") else 0.9), name


def test_score_copies__black_shows_nothing() -> None:
    assert score_copies(np.zeros((8, 30, 40, 3), np.uint8), np.arange(8, dtype=np.int64) * 500) == []


def pairs(kind: str, scores: Iterable[float], *, still: bool = False) -> list[Scored]:
    """Pairs of such scores; those that move reach them by strength and motion alike."""
    return [Scored(Alignment(1.0, 0.0, float(each), None if still else float(each)), kind) for each in scores]


def sample(*, num: int = 100, copies: tuple[float, float] = (0.8, 1.0), chance: float = 0.9) -> Sample:
    """Copies score from 0.8 to 1, different videos from 0 to 0.9."""
    return Sample(pairs("scaled", np.linspace(*copies, num)), pairs("chance", np.linspace(0, chance, num)))


def found(scores: Iterable[float], *, still: bool = False) -> list[Alignment]:
    return [each.found for each in pairs("", scores, still=still)]


def test_choose__the_least_that_is_precise_enough() -> None:
    loose = choose_threshold(sample(), sample(num=99), [], target=0.9)
    strict = choose_threshold(sample(), sample(num=99), [], target=0.99)
    # At t the precision is right / (right + wrong), right = (1 - t) / 0.2 and wrong = (0.9 - t) / 0.9.
    assert loose.limits.moving == pytest.approx(0.817, abs=0.02) and strict.limits.moving > loose.limits.moving
    assert loose.precision == pytest.approx(0.9, abs=0.05) and loose.recall > strict.recall
    assert loose.recall_by_change == {"scaled": loose.recall} and len(loose.curve) == 50
    recalls = [recall for _, _, recall in loose.curve]
    assert recalls == sorted(recalls, reverse=True)


def test_choose__figures_are_of_the_other_sample() -> None:
    weak = sample(copies=(0.0, 0.2), chance=1.0)
    threshold = choose_threshold(sample(), weak, [], target=0.95)
    assert threshold.limits == choose_threshold(sample(), sample(), [], target=0.95).limits
    assert threshold.recall == 0.0 and threshold.precision == 0.0


def test_choose__other_moments_of_a_video_ask_for_more() -> None:
    plain = sample(copies=(0.5, 1.0), chance=0.4)
    camera = Sample(plain.copies, [*plain.different, *pairs("moments", np.linspace(0, 0.8, 50))])
    assert choose_threshold(plain, plain, [], target=0.95).limits.moving <= 0.51
    assert choose_threshold(camera, plain, [], target=0.95).limits.moving > 0.65


def test_choose__many_pairs_and_few_duplicates_ask_for_more() -> None:
    called = found([*np.linspace(0, 0.85, 1000), 0.97, 0.98])
    assert choose_threshold(sample(), sample(), called, target=0.95).limits.moving > 0.89  # 1,000 by chance would err below
    assert choose_threshold(sample(), sample(), [], target=0.95).limits.moving < 0.89


def test_choose__still_pictures_by_those_that_motion_tells_apart() -> None:
    apart = [Alignment(1.0, 0.0, float(each), 0.0) for each in np.linspace(0, 0.8, 200)]
    still = found([*np.linspace(0.1, 0.7, 50), *np.linspace(0.95, 1.0, 10)], still=True)
    limits = choose_threshold(sample(), sample(), [*apart, *still], target=0.95).limits
    assert 0.7 < limits.still <= 0.95  # of 60 still pairs less than one may be called so that is none
    assert limits.still >= 0.82  # what nine of ten copies reach
    assert choose_threshold(sample(), sample(), still, target=0.95).limits.still == 1.0  # nothing says what is alike


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, float("nan")])
def test_choose__target_out_of_range(target: float) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="precision"):
        choose_threshold(sample(), sample(), [], target=target)


def test_choose__too_little_or_never_precise() -> None:
    with raises(GateFailed, code="too-few-pairs"):
        choose_threshold(sample(num=4), sample(), [], target=0.9)
    same = Sample(pairs("scaled", [0.9] * 50), pairs("chance", [0.9] * 50))
    with raises(GateFailed, code="no-threshold"):
        choose_threshold(same, same, [], target=0.9)
