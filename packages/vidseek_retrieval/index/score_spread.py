"""Measures how widely a collection's scores spread: the unit of `search.merge_margin_sd`.

Encoders differ in scale: a cosine difference of 0.02 for one may be 0.002 for another. A margin in standard deviations of
the scores means the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.search.moments import SCORE_DIGITS

Item = TypeVar("Item")

MIN_TEXTS = 8
"""Texts whose scores say how queries score; of fewer the clips are asked themselves."""
MAX_QUERIES = 256
MAX_CLIPS = 4096


def score_spread(clips: NDArray[np.float32], texts: NDArray[np.float32]) -> float:
    """Return the standard deviation of one query's scores over the clips, as the root mean square over queries.

    Up to `MAX_QUERIES` texts and `MAX_CLIPS` clips are taken at equal distances. With fewer than `MIN_TEXTS` texts the clips
    serve as queries, each compared with the others.

    Args:
        clips: float32 of shape (n, dimension), unit rows, sorted by clip_id.
        texts: float32 of shape (m, dimension), unit rows: captions, as examples of text queries.

    Returns:
        The spread; 0 for fewer than two clips.
    """
    if len(clips) < 2:
        return 0.0
    sample = clips[evenly(range(len(clips)), MAX_CLIPS)].astype(np.float64)
    is_self = len(texts) < MIN_TEXTS
    rows = evenly(range(len(sample if is_self else texts)), MAX_QUERIES)
    scores = (sample[rows] if is_self else texts[rows].astype(np.float64)) @ sample.T
    others = np.ones(scores.shape)
    if is_self:
        others[np.arange(len(rows)), rows] = 0.0
    mean = (scores * others).sum(axis=1, keepdims=True) / others.sum(axis=1, keepdims=True)
    return round(float(np.sqrt(((scores - mean) ** 2 * others).sum() / others.sum())), SCORE_DIGITS)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return up to `most` items at equal distances, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most)]
