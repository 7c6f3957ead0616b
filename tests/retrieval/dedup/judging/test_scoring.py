from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.dedup.comparing.alignment import Evidence
from vidseek_retrieval.dedup.judging.prior import BIAS, WEIGHTS
from vidseek_retrieval.dedup.judging.scoring import LEAST_MOTION, MOVES_MUCH, terms_of, weighed

COPY = Evidence(likeness=0.98, weakest=0.9, motion=0.95, energy=5.0, detail=3.0, peak=0.5, length=2.0, share=1.0, area=1.0)


def odds_of(evidence: Evidence) -> float:
    return weighed(evidence, WEIGHTS, BIAS)


@given(st.floats(MOVES_MUCH, 8), st.floats(-1, LEAST_MOTION, exclude_max=True), st.floats(0.5, 1))
def test_weighed__where_much_moves_and_not_the_same_odds_are_even_at_most(energy: float, motion: float, like: float) -> None:
    """Slides of one template: alike as pictures, each with words of its own."""
    assert odds_of(replace(COPY, energy=energy, motion=motion, likeness=like)) <= 0


@pytest.mark.parametrize("kept", [
    {"energy": MOVES_MUCH - 0.01, "motion": 0.0}, {"energy": MOVES_MUCH, "motion": LEAST_MOTION}, {},
    {"energy": 0.0, "motion": 0.0},
])
def test_weighed__otherwise_it_is_the_sum_of_the_terms(kept: dict[str, float]) -> None:
    evidence = replace(COPY, **kept)
    assert odds_of(evidence) == pytest.approx(float(terms_of(evidence) @ np.asarray(WEIGHTS)) + BIAS)
    assert odds_of(COPY) > 2
