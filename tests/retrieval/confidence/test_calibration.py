from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_retrieval.confidence.calibration import Calibration, Context, OldCalibration
from vidseek_retrieval.confidence.calibration_fit import Judged, _grouped_limit, fit, num_spared, prior_weights
from vidseek_retrieval.confidence.reliability import (
    calibration_error,
    error_figures,
    kept_and_turned_away,
    reliability,
)
from vidseek_retrieval.search.moments import Moment

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


def test_confidences__by_hand() -> None:
    moments = ranking(0.9, 0.7, 0.2)
    context = Context.of(moments)
    assert (context.scores, context.first) == ((0.9, 0.7, 0.2), 0.9)
    calibration = Calibration(VERSION, 10.0, (1.0, 2.0, 3.0), -2.9, 0.0, 1)
    none = np.exp(-2.9 + 0.9)
    total = 1 + np.exp(-2) + np.exp(-7) + none
    np.testing.assert_allclose(calibration.confidences(moments, context), [1, np.exp(-2), np.exp(-7)] / total, atol=1e-4)
    unlike = replace(context, ood_distance=0.5, oov_rate=1.0)
    assert calibration.confidences(moments[:1], unlike)[0] == pytest.approx(1 / (total + none * (np.exp(4) - 1)), abs=1e-4)
    assert Context.of(ranking(*[0.5] * 30, *[0.0] * 500)).scores == (0.5,) * 30  # the tail counts nothing


@given(
    scores=st.lists(st.floats(-1, 1), min_size=1, max_size=40), slope=st.floats(0, 200), bias=st.floats(-20, 20),
)
def test_confidences__are_shares_that_fall_with_the_score(scores: list[float], slope: float, bias: float) -> None:
    moments = ranking(*sorted(scores, reverse=True))
    found = Calibration(VERSION, slope, (1.0, 0.0, 0.0), bias, 0.0, 1).confidences(moments, Context.of(moments))
    assert sum(found[:30]) <= 1 + 1e-4 * len(found) and found == sorted(found, reverse=True)
    assert all(0 <= value <= 1 for value in found)


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


@pytest.mark.slow
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
    calibration = Calibration(VERSION, 30.0, (1.0, 2.0, 3.0), -1.0, 0.25, 100, 0.8)
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    assert calibration.confidences([], Context((0.5,))) == []
    former = {**calibration.to_json(), "weights": {"first": 1.0, "strange": 2.0, "novel": 3.0}}
    assert Calibration.from_json(former) == calibration  # an earlier version's names
    for wrong in ({}, {"format": 2, "weights": 3}, {**calibration.to_json(), "bias": "high"}):
        with raises(ArtifactError, code="calibration-broken"):
            Calibration.from_json(wrong)


def test_calibration__of_an_earlier_version_is_refused_with_the_command_that_makes_it_anew() -> None:
    named = dict.fromkeys(("score", "below_first", "over_level", "lead", "strange", "novel"), 1.0)
    older = {"encoder_version": VERSION, "weights": named, "bias": 0.0, "min_confidence": 0.1, "num_queries": 9}
    with raises(OldCalibration, code="calibration-old-format") as caught:
        Calibration.from_json(older)
    assert "dvc repro calibrate publish" in caught.value.remedy


def mixed(draws: np.random.Generator, num: int, *, slope: float = 20.0, none: float = -1.0) -> list[Judged]:
    """Queries with ten moments, one of them or none right by the law; and as many without an answer."""
    made = []
    for number in range(num):
        moments = ranking(*np.sort(draws.uniform(0.3, 0.7, size=10))[::-1].tolist())
        context = Context.of(moments)
        logits = np.append(slope * (np.array(context.scores) - context.first), none)
        chosen = draws.choice(11, p=np.exp(logits) / np.exp(logits).sum())
        right = tuple(place == chosen for place in range(5))
        made.append(Judged(moments[:5], context, right, "present", group=f"{number % 30}"))
        made.append(Judged(moments[:5], context, (False,) * 5, "left_out", group=f"{number % 30}"))
    return made


def test_fit__at_a_prior_of_almost_one_finds_the_law_of_queries_with_an_answer() -> None:
    draws = np.random.default_rng(0)
    calibration = fit(mixed(draws, 2000), encoder_version=VERSION, prior=0.9999)
    assert calibration is not None
    assert calibration.slope == pytest.approx(20, rel=0.1)
    law = Calibration(VERSION, 20.0, (0.0, 0.0, 0.0), -1.0, 0.0, 1)
    for each in mixed(draws, 50):  # of first hits and of all others
        np.testing.assert_allclose(
            calibration.confidences(each.moments, each.context), law.confidences(each.moments, each.context), atol=0.04
        )


@pytest.mark.slow
@pytest.mark.parametrize("prior", [0.3, 0.6, 0.9])
def test_fit__the_prior_says_how_many_queries_have_an_answer(prior: float) -> None:
    draws = np.random.default_rng(1)
    calibration = fit(mixed(draws, 1500), encoder_version=VERSION, prior=prior)
    assert calibration is not None and calibration.prior == prior
    test = mixed(draws, 1500)
    first = error_figures(calibration, test)["at_prior"]["first"]
    share = np.mean([each.right[0] for each in test if each.kind == "present"])
    assert first["right"] == pytest.approx(prior * share, abs=1e-3)
    assert abs(first["gap"]["value"]) < 0.04 and first["error_debiased"] < 0.05


def test_prior_weights__share_by_hand() -> None:
    kinds = ["present"] * 2 + ["left_out"] * 4 + ["unlike"] * 2 + ["feedback"]
    moments = ranking(0.5)
    judged = [Judged(moments, Context.of(moments), (False,), kind) for kind in kinds]
    np.testing.assert_allclose(prior_weights(judged, 0.75), [3.0] * 2 + [0.25] * 4 + [0.5] * 2 + [1.0])
    np.testing.assert_allclose(prior_weights(judged[:2], 0.75), [1.0] * 2)  # nothing to weigh against
    np.testing.assert_allclose(prior_weights(judged[2:8], 0.75), [0.75] * 4 + [1.5] * 2)


def test_fit__min_confidence_keeps_what_it_says_of_other_videos_too() -> None:
    """Hits of one video are more or less sure together: videos are drawn, not hits."""
    draws = np.random.default_rng(2)
    kept = []
    for _ in range(20):
        fitted, others = (clustered(draws, num_groups=40) for _ in range(2))
        calibration = fit(fitted, encoder_version=VERSION, prior=0.99)
        assert calibration is not None
        kept.append(kept_and_turned_away(calibration, others)["kept"])
    assert sum(share >= 0.95 for share in kept) >= 15  # with one draw of other videos each: they vary as well
    assert np.mean(kept) > 0.96


@pytest.mark.parametrize(("num_groups", "size", "correlation"), [(20, 10, 0.3), (25, 20, 0.5), (75, 4, 0.5), (20, 10, 0.0)])
def test_grouped_limit__keeps_what_it_says_as_surely_as_it_says(num_groups: int, size: int, correlation: float) -> None:
    draws, groups = np.random.default_rng(0), np.repeat(np.arange(num_groups), size)
    limits = [
        _grouped_limit(
            np.sqrt(correlation) * draws.normal(size=num_groups)[groups]
            + np.sqrt(1 - correlation) * draws.normal(size=len(groups)), groups.astype(np.str_), keep=0.95,
        ) for _ in range(400)
    ]
    # 0.05 of a normal distribution lie below -1.645; resampled groups cut too much in 0.08 to 0.16 of these cases.
    assert np.mean(np.array(limits) > -1.645) <= 0.06
    assert np.mean(limits) > -2.6


def clustered(draws: np.random.Generator, *, num_groups: int) -> list[Judged]:
    """Fifteen queries of each video, whose scores have a mean of their own."""
    made = []
    for group in range(num_groups):
        mean = draws.normal(0.6, 0.1)
        for score in draws.normal(mean, 0.05, size=15).tolist():
            moments = ranking(score)
            right = bool(draws.uniform() < 1 / (1 + np.exp(6 - 12 * score)))
            made.append(Judged(moments, Context.of(moments), (right,), "present", group=str(group)))
    return made


def test_fit__first_hits_that_words_decide_are_lifted_by_what_scores_do_not_say() -> None:
    """By their scores the first of two is hardly better; with its words it nearly always is right."""
    draws = np.random.default_rng(0)
    made = mixed(draws, 300)
    for number in range(300):
        moments = ranking(*np.sort(draws.uniform(0.5, 0.55, size=5))[::-1].tolist())
        right = (True, *[False] * 4) if number % 20 else (False,) * 5
        made.append(Judged(moments, Context.of(moments, odds=2.0), right, "worded", group=f"{number % 30}"))
    calibration = fit(made, encoder_version=VERSION)
    assert calibration is not None and calibration.worded is not None
    firsts = [calibration.confidences(each.moments[:1], each.context)[0] for each in made if each.kind == "worded"]
    assert np.mean(firsts) == pytest.approx(0.95, abs=0.02) and calibration.worded.lift > 1
    whole = [sum(calibration.confidences(each.moments, each.context)) for each in made]
    assert max(whole) <= 1.001
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    tied = ranking(0.5, 0.5, 0.4)
    sure = calibration.confidences(tied, Context.of(tied, odds=2.0))
    assert sure[0] == sure[1] > sure[2] and sum(sure) <= 1
