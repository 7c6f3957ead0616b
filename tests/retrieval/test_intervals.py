from __future__ import annotations

import numpy as np
import pytest

from vidseek_retrieval.intervals import interval


def test_interval__values_of_one_group_are_one_observation() -> None:
    values = np.repeat([0.0, 1.0], 50)
    apart = interval(values, np.arange(100).astype(object))
    together = interval(values, np.repeat(["a", "b"], 50).astype(object))
    assert (apart.num_groups, together.num_groups) == (100, 2) and apart.mean == together.mean == 0.5
    assert (together.low, together.high) == (0.0, 1.0) and 0.35 < apart.low < 0.45


def test_interval__holds_the_mean_as_often_as_it_says() -> None:
    draws, held = np.random.default_rng(0), 0
    for number in range(200):
        groups = np.repeat(np.arange(40), 10)
        values = draws.normal(size=40)[groups] + draws.normal(size=400)
        found = interval(values, groups.astype(object), resamples=400, seed=number)
        held += found.low <= 0 <= found.high
    assert held / 200 == pytest.approx(0.95, abs=0.05)
