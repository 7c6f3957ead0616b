"""What Qdrant's two clients say alike: a point's vectors, our points from their records, draws of ids, least scores."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from vidseek_retrieval.index.backend import Point, SparseVector, Value
from vidseek_retrieval.search.moments import SCORE_DIGITS


def vectors_of(point: Point, sparse: Callable[[SparseVector], Any]) -> dict[str, Any]:
    """The named vectors of `point` as both clients take them; `sparse` makes the client's own of words."""
    return {
        name: sparse(value) if isinstance(value, SparseVector) else value.tolist() for name, value in point.vectors.items()
    }


def point_of(record: Any) -> Point:
    """The reverse, of a client's record with payload and vectors."""
    return Point(
        str(record.id), payload=record.payload or {},
        vectors={name: _value_of(value) for name, value in record.vector.items()},
    )


def _value_of(value: Any) -> Value:
    if hasattr(value, "indices"):
        return SparseVector(tuple(value.indices), tuple(value.values))
    return np.asarray(value, dtype=np.float32)


def points_in_order(records: Iterable[Any], clip_ids: Sequence[str]) -> list[Point]:
    """The points of `records` in the order of `clip_ids`; those that are not there are left out."""
    by_id = {str(record.id): point_of(record) for record in records}
    return [by_id[clip_id] for clip_id in clip_ids if clip_id in by_id]


def draw_ids(num: int, *, seed: int, first_from: Callable[[str | None], str | None]) -> list[str]:
    """Up to `num` different ids, sorted, the same ones for the same seed.

    Args:
        num: How often is drawn; where there are few points some are drawn twice.
        seed: Of the draws.
        first_from: The least id of a point that is not less than this one, None where there is none; of None the least.
    """
    # Clip ids are hashes: the first one after a random id is a fair draw.
    draws = random.Random(seed)
    found: set[str] = set()
    for _ in range(num):
        start = str(uuid.UUID(int=draws.getrandbits(128), version=5))
        drawn = first_from(start) or first_from(None)
        if drawn:
            found.add(drawn)
    return sorted(found)


def threshold_of(score_threshold: float) -> float | None:
    """What Qdrant is told of a least score: it compares before scores are rounded, and knows no infinity."""
    return None if math.isinf(score_threshold) else score_threshold - 10**-SCORE_DIGITS
