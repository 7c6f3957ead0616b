"""Weighs the evidence for a pair of videos: one number, the logarithm of the odds that they show the same.

The weights were fitted once, on made copies and on different videos (`bench.searching.near_prior`); the odds are those where
copies are as many as pairs that are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.dedup.comparing.alignment import Evidence
from vidseek_retrieval.dedup.judging.prior import BIAS, WEIGHTS

MOVES = 1.0
"""The energy at which what moves counts half."""
MOVES_MUCH, LEAST_MOTION = 2.0, 0.5
"""Where so much moves, fewer than one of 500 copies has less motion in common; slides of one template, and two recordings of
one room, have: their odds are even at most.
"""


def log_odds(evidence: Evidence) -> float:
    """Return the logarithm of the odds that the two show the same."""
    return weighed(evidence, WEIGHTS, BIAS)


def probability(odds: float) -> float:
    """Return the probability that belongs to a logarithm of odds: what people see as the likeness of two videos."""
    return 1 / (1 + math.exp(-odds))


def weighed(evidence: Evidence, weights: Sequence[float] | NDArray[np.float64], bias: float) -> float:
    """Return the logarithm of the odds that two videos show the same; even at most where much moves, and not the same."""
    odds = float(terms_of(evidence) @ np.asarray(weights)) + bias
    return min(odds, 0.0) if evidence.energy >= MOVES_MUCH and evidence.motion < LEAST_MOTION else odds


def terms_of(evidence: Evidence) -> NDArray[np.float64]:
    """Return what is weighed, shape (14,): each piece of evidence, by how much moves."""
    moves = evidence.energy / (evidence.energy + MOVES)
    still = 1 - moves
    return np.array([
        evidence.likeness * moves, evidence.weakest * moves, evidence.likeness * still, evidence.weakest * still,
        evidence.motion * moves, max(evidence.likeness, 0.0) ** 4 * moves, max(evidence.likeness, 0.0) ** 4 * still,
        max(evidence.motion, 0.0) ** 3 * moves, evidence.detail, evidence.peak, evidence.length, evidence.share,
        evidence.area, moves,
    ])
