"""Weighs the evidence for a pair of videos: one number, the logarithm of the odds that they show the same.

The weights were fitted once, on made copies and on different videos (`bench.searching.near_prior`); the odds are those where
copies are as many as pairs that are none.
"""

from __future__ import annotations

import math

from vidseek_retrieval.dedup.comparing.alignment import Evidence
from vidseek_retrieval.dedup.judging.prior import BIAS, WEIGHTS
from vidseek_retrieval.dedup.judging.terms import weighed


def log_odds(evidence: Evidence) -> float:
    """Return the logarithm of the odds that the two show the same."""
    return weighed(evidence, WEIGHTS, BIAS)


def probability(odds: float) -> float:
    """Return the probability that belongs to a logarithm of odds: what people see as the likeness of two videos."""
    return 1 / (1 + math.exp(-odds))
