"""The terms that the evidence for a pair of videos is weighed by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.dedup.comparing.alignment import Evidence

MOVES = 1.0
"""The energy at which what moves counts half."""


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
