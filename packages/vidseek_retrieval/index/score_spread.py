"""How widely a collection's scores spread: the unit in which `search.merge_margin_sd` is measured.

Encoders differ in scale: what 0.02 of a cosine is to one, 0.002 is to another. A margin in standard deviations of the
scores means the same to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.search.moments import SCORE_DIGITS
from vidseek_retrieval.settings import MERGE_MARGIN_SD

Item = TypeVar("Item")

MIN_TEXTS = 8
"""Texts whose scores say how queries score; of fewer the clips are asked themselves."""
MAX_QUERIES = 256
MAX_CLIPS = 4096


def score_spread(clips: NDArray[np.float32], texts: NDArray[np.float32]) -> float:
    """The standard deviation of one query's scores over the clips, as the root of its mean square over queries.

    Up to `MAX_QUERIES` texts and `MAX_CLIPS` clips are taken, evenly over their rows. Where there are fewer than
    `MIN_TEXTS` texts the clips are the queries, each without itself.

    Args:
        clips: Shape (n, dimension), unit rows, in an order that does not depend on how they were read (by clip_id).
        texts: Shape (m, dimension), unit rows, as queries of text are: captions.

    Returns:
        0 where there are fewer than two clips.
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


def margin_of(spread: float, *, margin_sd: float = MERGE_MARGIN_SD) -> float:
    """The margin as a difference of scores, as `merge_moments` takes it.

    Args:
        spread: As `score_spread` has it.
        margin_sd: In standard deviations, at least 0.
    """
    return round(margin_sd * spread, SCORE_DIGITS)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Up to `most` of the items, at equal distances, in their order."""
    if len(items) <= most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most)]
