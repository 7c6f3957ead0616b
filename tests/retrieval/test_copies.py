from __future__ import annotations

import numpy as np
import pytest

from tests.retrieval.pictures import film
from vidseek_media.errors import ConfigError, GateFailed
from vidseek_retrieval.copies import CHANGES, Scored, choose_threshold, score_copies


def test_score_copies__each_change_is_recognised() -> None:
    scores: dict[str, list[float]] = {name: [] for name in CHANGES}
    for seed in range(6):
        for each in score_copies(np.stack(film(seed, num=10)), np.arange(10, dtype=np.int64) * 500):
            scores[each.change].append(each.score)
    assert all(len(found) == 6 for found in scores.values())
    for name, found in scores.items():
        assert np.median(found) > (0.6 if name == "logo" else 0.9), name


def test_score_copies__black_shows_nothing() -> None:
    assert score_copies(np.zeros((8, 30, 40, 3), np.uint8), np.arange(8, dtype=np.int64) * 500) == []


def made(num: int = 200) -> tuple[list[Scored], list[float]]:
    """Copies score from 0.8 to 1, different videos from 0 to 0.9."""
    return [Scored(score, "scaled") for score in np.linspace(0.8, 1, num)], np.linspace(0, 0.9, num).tolist()


def test_choose__the_least_that_is_precise_enough() -> None:
    copies, different = made()
    loose = choose_threshold(copies, different, [], target=0.9)
    strict = choose_threshold(copies, different, [], target=0.99)
    # At t the precision is right / (right + wrong), right = (1 - t) / 0.2 and wrong = (0.9 - t) / 0.9.
    assert loose.value == pytest.approx(0.817, abs=0.02) and strict.value > loose.value
    assert loose.precision == pytest.approx(0.9, abs=0.05) and loose.recall > strict.recall
    assert loose.recall_by_change == {"scaled": loose.recall} and len(loose.curve) == 50
    assert all(low <= high for low, high in zip(loose.curve, loose.curve[1:], strict=False) if low[0] <= high[0])
    recalls = [recall for _, _, recall in loose.curve]
    assert recalls == sorted(recalls, reverse=True)


def test_choose__many_pairs_and_few_duplicates_ask_for_more() -> None:
    copies, different = made()
    rare = choose_threshold(copies, different, [*np.linspace(0, 0.85, 1000), 0.97, 0.98], target=0.95)
    assert rare.value > 0.89  # 1,000 pairs by chance would give mistakes below
    assert choose_threshold(copies, different, [], target=0.95).value < 0.89


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, float("nan")])
def test_choose__target_out_of_range(target: float) -> None:
    with pytest.raises(ConfigError, match="precision"):
        choose_threshold(*made(), [], target=target)


def test_choose__too_little_or_never_precise() -> None:
    copies, different = made(8)
    with pytest.raises(GateFailed, match="too few"):
        choose_threshold(copies, different, [], target=0.9)
    same = [0.9] * 50
    with pytest.raises(GateFailed, match="no threshold has a precision"):
        choose_threshold([Scored(score, "scaled") for score in same], same, [], target=0.9)
