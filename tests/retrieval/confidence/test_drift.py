"""PSI and the kernel test against arithmetic that can be read, and against draws of a distribution that is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_retrieval.confidence.drift import ACT, MAX_P, WATCH, by_chance, level_of, mmd, num_needed, psi


def test_psi__of_shares_that_can_be_reckoned() -> None:
    reference = np.arange(1000.0)
    assert psi(reference, reference) == pytest.approx(0.0, abs=1e-9)
    # All in the first decile: shares of 100.5/1005 each against 1000.5/1005 and nine of 0.5/1005.
    wanted, first, rest = 100.5 / 1005, 1000.5 / 1005, 0.5 / 1005
    reckoned = (first - wanted) * np.log(first / wanted) + 9 * (rest - wanted) * np.log(rest / wanted)
    assert psi(reference, np.full(1000, 50.0)) == pytest.approx(reckoned)


def test_psi__symmetric_in_shares_and_blind_to_units() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=500), random.normal(0.5, size=400)
    assert psi(one, other) == pytest.approx(psi(1000 * one + 7, 1000 * other + 7))
    assert psi(one, random.normal(0.2, size=400)) < ACT and psi(one, random.normal(1.0, size=400)) > ACT


def test_psi__where_all_values_are_one_or_few() -> None:
    same = np.full(200, 0.3)
    assert psi(same, same) == pytest.approx(0.0, abs=1e-9)
    assert psi(same, np.full(200, 0.2)) > ACT  # under the only edge, where the reference has nothing
    random = np.random.default_rng(0)
    coarse = random.choice([0.1, 0.2, 0.9], 300, p=[0.5, 0.3, 0.2])
    assert psi(coarse, random.choice([0.1, 0.2, 0.9], 300, p=[0.5, 0.3, 0.2])) < WATCH


@pytest.mark.parametrize(("num_reference", "num_observed"), [(1000, 1000), (1000, 159), (300, 251), (140, 5609)])
def test_level__one_distribution_stays_steady_in_95_of_100_draws(num_reference: int, num_observed: int) -> None:
    random = np.random.default_rng(7)
    assert num_observed >= (num_needed(num_reference) or 0)
    levels = [
        level_of(psi(random.gamma(2.0, size=num_reference), random.gamma(2.0, size=num_observed)),
                 num_reference=num_reference, num_observed=num_observed)
        for _ in range(100)
    ]
    assert levels.count("steady") >= 95 and levels.count("act") <= 1  # once in 10,000 draws


def test_level__a_shifted_one_is_found_in_95_of_100_draws() -> None:
    random = np.random.default_rng(7)
    levels = [
        level_of(psi(random.normal(size=500), random.normal(0.8, size=200)), num_reference=500, num_observed=200)
        for _ in range(100)
    ]
    assert levels.count("act") >= 95


def test_by_chance__is_exceeded_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    values = np.array([psi(random.normal(size=400), random.normal(size=200)) for _ in range(4000)])
    assert 0.035 <= np.mean(values > by_chance(400, 200, quantile=1.645)) <= 0.065  # once in twenty
    assert np.sum(values > by_chance(400, 200)) <= 4  # once in 10,000: more than 4 of 4000 are a fault


def test_num_needed__is_where_chance_stays_under_act() -> None:
    for num_reference in (150, 200, 500, 100_000):
        needed = num_needed(num_reference)
        assert needed is not None
        assert by_chance(num_reference, needed) <= ACT < by_chance(num_reference, needed - 1)
    assert num_needed(100) is None and num_needed(0) is None


def test_mmd__one_distribution_and_two() -> None:
    random = np.random.default_rng(3)
    p_values = [mmd(random.normal(size=(60, 4)), random.normal(size=(50, 4)), seed=each).p_value for each in range(100)]
    assert sum(p > 0.05 for p in p_values) >= 88 and min(p_values) > MAX_P / 5
    assert mmd(random.normal(size=(200, 4)), random.normal(0.5, size=(200, 4))).p_value <= MAX_P
    # Equal along every axis, and yet another distribution: no PSI of single numbers sees it.
    one, other = random.normal(size=(2, 400, 2))
    other[:, 1] = other[:, 0] * random.choice([1.0, 0.95], 400)
    assert all(psi(one[:, axis], other[:, axis]) < ACT for axis in (0, 1))
    assert mmd(one, other).p_value <= MAX_P


def test_mmd__value_by_its_formula() -> None:
    one, other = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
    kernel = np.exp(-np.square(np.subtract.outer([0, 2, 1, 5], [0, 2, 1, 5])) / (2 * np.median([4, 1, 25, 1, 9, 16])))
    weights = np.array([0.5, 0.5, -0.5, -0.5])
    assert mmd(one, other).value == pytest.approx(weights @ kernel @ weights)
    assert mmd(one, other, seed=4) == mmd(one, other, seed=4)


def test_mmd__of_very_many_rows_draws_some() -> None:
    random = np.random.default_rng(0)
    assert mmd(random.normal(size=(20_000, 3)), random.normal(1.0, size=(20_000, 3))).p_value == pytest.approx(0.001)
    assert mmd(np.zeros((30, 2)), np.zeros((30, 2))).p_value == 1.0


@pytest.mark.parametrize(("reference", "observed", "code", "fact"), [
    (np.array([]), np.ones(3), "bad-shape", "(0,)"), (np.ones(3), np.array([]), "bad-shape", "(0,)"),
    (np.ones(3), np.array([1.0, np.nan]), "values-not-finite", "1 of 2"),
    (np.ones(3), np.full(2, np.inf), "values-not-finite", "2 of 2"), (np.ones((3, 1)), np.ones(3), "bad-shape", "(3, 1)"),
])
def test_psi__refuses_what_is_no_number(reference: np.ndarray, observed: np.ndarray, code: str, fact: str) -> None:
    with raises(InputRejected, code=code, naming=fact):
        psi(reference, observed)


def test_mmd__refuses_rows_of_two_widths_and_what_is_no_number() -> None:
    with raises(InputRejected, code="bad-shape", naming=("of 2", "of 3")):
        mmd(np.ones((4, 2)), np.ones((4, 3)))
    with raises(InputRejected, code="values-not-finite"):
        mmd(np.ones((4, 2)), np.full((4, 2), np.nan))
