from __future__ import annotations

import numpy as np
import pytest

from vidseek_media.errors import ArtifactError
from vidseek_retrieval.calibration import (
    FEATURES,
    Calibration,
    Context,
    Judged,
    calibration_error,
    features_of,
    fit,
    kept_and_turned_away,
    num_spared,
    reliability,
)
from vidseek_retrieval.moments import Moment

VERSION = "0" * 16


def moment(score: float) -> Moment:
    return Moment("v", 0, 1, score, "c", 0, ("c",))


def ranking(*scores: float) -> tuple[Moment, ...]:
    return tuple(moment(score) for score in scores)


def judged_by(draws: np.random.Generator, num: int, *, bias: float = -6.0, weight: float = 12.0) -> list[Judged]:
    """Queries of one hit each, right with the probability sigmoid(bias + weight * score)."""
    made = []
    for score in draws.uniform(0, 1, size=num):
        moments = ranking(float(score))
        right = bool(draws.uniform() < 1 / (1 + np.exp(-(bias + weight * score))))
        made.append(Judged(moments, Context.of(moments), (right,), "present"))
    return made


def test_features__by_hand() -> None:
    moments = ranking(0.9, 0.7, 0.2)
    context = Context.of(moments)
    assert (context.first, context.level, context.lead) == (0.9, pytest.approx(0.6), pytest.approx(0.2))
    np.testing.assert_allclose(features_of(moments, context), [
        [0.9, 0.0, 0.3, 0.2, 0, 0], [0.7, -0.2, 0.1, 0.2, 0, 0], [0.2, -0.7, -0.4, 0.2, 0, 0],
    ], atol=1e-9)
    assert Context.of(moments[:1]).lead == 0.0
    assert Context.of(ranking(*[0.5] * 30, *[0.0] * 500)).level == 0.5  # the tail counts nothing


def test_fit__finds_the_law_that_made_the_labels() -> None:
    draws = np.random.default_rng(0)
    calibration = fit(judged_by(draws, 4000), encoder_version=VERSION)
    assert calibration is not None
    for score in (0.2, 0.5, 0.8):
        moments = ranking(score)
        (confidence,) = calibration.confidences(moments, Context.of(moments))
        assert confidence == pytest.approx(1 / (1 + np.exp(6 - 12 * score)), abs=0.05)
    bins = reliability(calibration, judged_by(draws, 4000))
    assert calibration_error(bins) < 0.03 and sum(each["num"] for each in bins) == 4000
    # Where another law holds it says so.
    assert calibration_error(reliability(calibration, judged_by(draws, 4000, bias=-9.0))) > 0.1


def test_fit__min_confidence_keeps_what_it_says_of_others_too() -> None:
    draws = np.random.default_rng(1)
    for keep in (0.5, 0.95):
        kept = []
        for _ in range(20):
            calibration = fit(judged_by(draws, 400), encoder_version=VERSION, keep=keep)
            assert calibration is not None
            kept.append(kept_and_turned_away(calibration, judged_by(draws, 4000))["kept"])
        assert sum(share >= keep for share in kept) >= 17  # of 20 at an assurance of 0.95: fewer, once in a thousand times
        assert np.mean(kept) < keep + 0.08


def test_num_spared__is_that_of_the_tables() -> None:
    # Orders of one-sided tolerance limits of 0.95 with an assurance of 0.95: 59, 93, 124, 153 draws.
    for k, num in enumerate((59, 93, 124, 153)):
        assert (num_spared(num - 1, 0.05, 0.95), num_spared(num, 0.05, 0.95)) == (max(0, k - 1), k)
    assert num_spared(1, 0.05) == 0
    assert num_spared(100_000, 0.05) / 100_000 == pytest.approx(0.05, abs=0.002)


def test_kept_and_turned_away__by_hand() -> None:
    calibration = Calibration(VERSION, (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.0, 0.6, 3)  # sigmoid(score): 0.6 is 0.405 and up
    high, low = ranking(0.9, 0.1), ranking(0.2, 0.1)
    judged = [
        Judged(high, Context.of(high), (True, False), "present"), Judged(low, Context.of(low), (True, False), "present"),
        Judged(low, Context.of(low), (False, False), "unlike"), Judged(high, Context.of(high), (False, False), "left_out"),
    ]
    assert kept_and_turned_away(calibration, judged) == {
        "kept": 0.5, "turned_away_left_out": 0.0, "turned_away_present": 0.5, "turned_away_unlike": 1.0,
    }


def test_fit__too_little_says_nothing() -> None:
    draws = np.random.default_rng(0)
    few = [Judged(each.moments, each.context, (False,), "left_out") for each in judged_by(draws, 50)]
    assert fit(few, encoder_version=VERSION) is None and fit([], encoder_version=VERSION) is None
    all_right = [Judged(each.moments, each.context, (True,), "present") for each in few]
    assert fit(all_right, encoder_version=VERSION) is None
    # Separable: the ridge keeps it finite.
    separable = [Judged(ranking(score), Context.of(ranking(score)), (score > 0.5,), "present")
                 for score in np.linspace(0, 1, 100).tolist()]
    calibration = fit(separable, encoder_version=VERSION)
    assert calibration is not None and np.isfinite(calibration.weights).all()


def test_calibration__json_and_back() -> None:
    calibration = Calibration(VERSION, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), -1.0, 0.25, 100)
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert calibration.confidences([], Context(0, 0, 0)) == []
    older = {**calibration.to_json(), "weights": dict(zip(FEATURES[:4], (1.0, 2.0, 3.0, 4.0), strict=True))}
    del older["familiarity"]
    assert Calibration.from_json(older).weights == (1.0, 2.0, 3.0, 4.0, 0.0, 0.0)  # of a collection that is live
    for wrong in ({}, {"weights": 3}, {**calibration.to_json(), "bias": "high"}):
        with pytest.raises(ArtifactError, match="no calibration"):
            Calibration.from_json(wrong)


def test_calibration_error__by_hand() -> None:
    bins = [{"confidence": 0.2, "right": 0.1, "num": 30}, {"confidence": 0.9, "right": 1.0, "num": 10}]
    assert calibration_error(bins) == pytest.approx(0.1) and calibration_error([]) == 0.0
