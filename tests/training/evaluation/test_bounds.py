from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_training.evaluation.bounds import binomial_at_most, num_needed, share_high


@pytest.mark.parametrize(("lost", "num", "high"), [
    (0, 10, 0.3085), (1, 10, 0.4450), (6, 400, 0.0324), (5, 20, 0.4910), (10, 10, 1.0)
])
def test_share_high__is_that_of_clopper_and_pearsons_tables(lost: int, num: int, high: float) -> None:
    assert share_high([1.0] * lost + [0.0] * (num - lost)) == pytest.approx(high, abs=1e-4)


def test_num_needed__is_the_least_that_proves_it() -> None:
    for share in (0.01, 0.02, 0.05, 0.3):
        num = num_needed(share)
        assert num is not None and share_high([0.0] * num) <= share < share_high([0.0] * (num - 1))
    assert num_needed(0.02) == 183 and num_needed(1.0) == 1 and num_needed(0.0) is None and num_needed(-0.1) is None


@given(st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 1.0]), min_size=1, max_size=60))
def test_share_high__of_shares_is_above_the_mean_and_grows_with_them(values: list[float]) -> None:
    high = share_high(values)
    assert np.mean(values) <= high <= 1.0
    # Where the last share becomes whole the exact bound takes over, which is a little lower than Hoeffding's.
    is_last_share = 0 < values[0] < 1 and set(values[1:]) <= {0.0, 1.0}
    assert is_last_share or share_high([1.0, *values[1:]]) >= high - 1e-9
    # Halves are no surer than whole ones of the same mean.
    assert share_high([0.0] * len(values)) <= high + 1e-9


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_share_high__holds_as_often_as_it_says(share: float) -> None:
    """Exactly for single queries; also where a video's queries are lost together or one by one."""
    draws, num = np.random.default_rng(0), 60
    for within in (1, 4):
        lost = draws.random((2000, num, within)) < share
        together = np.repeat(draws.random((2000, num, 1)) < share, within, axis=2)
        for each in (lost, together):
            shares = each.mean(axis=2)
            known = {key: share_high(list(key)) for key in {tuple(sorted(row)) for row in shares.tolist()}}
            assert np.mean([known[tuple(sorted(row))] < share for row in shares.tolist()]) <= 0.035


def test_binomial_at_most__by_hand() -> None:
    assert binomial_at_most(1, 2, 0.5) == pytest.approx(0.75)
    assert (binomial_at_most(0, 5, 0.0), binomial_at_most(4, 5, 1.0), binomial_at_most(5, 5, 1.0)) == (1.0, 0.0, 1.0)
