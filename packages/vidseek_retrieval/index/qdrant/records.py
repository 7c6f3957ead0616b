"""Conversions that Qdrant's two clients share: vectors and points, samples of ids, score thresholds."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.values import SparseVector, Value
from vidseek_retrieval.search.moments import SCORE_DIGITS


def vectors_of(point: Point, sparse: Callable[[SparseVector], Any]) -> dict[str, Any]:
    """Return the named vectors of a point in the form of both clients.

    Args:
        point: The point.
        sparse: Converts a sparse vector into the client's own type.
    """
    return {
        name: sparse(value) if isinstance(value, SparseVector) else value.tolist() for name, value in point.vectors.items()
    }


def point_of(record: Any) -> Point:
    """Convert a client's record, with payload and vectors, into a point."""
    return Point(
        str(record.id), payload=record.payload or {},
        vectors={name: _value_of(value) for name, value in record.vector.items()},
    )


def _value_of(value: Any) -> Value:
    if hasattr(value, "indices"):
        return SparseVector(tuple(value.indices), tuple(value.values))
    return np.asarray(value, dtype=np.float32)


def points_in_order(records: Iterable[Any], clip_ids: Sequence[str]) -> list[Point]:
    """Convert records into points, in the order of `clip_ids`; missing points are left out."""
    by_id = {str(record.id): point_of(record) for record in records}
    return [by_id[clip_id] for clip_id in clip_ids if clip_id in by_id]


def draw_ids(num: int, *, seed: int, first_from: Callable[[str | None], str | None]) -> list[str]:
    """Draw up to `num` different ids, sorted; the same seed gives the same ids.

    Args:
        num: Number of draws. In a small collection an id may be drawn twice, and fewer ids are returned.
        seed: Seed of the draws.
        first_from: Returns the smallest id that is not below the given one (None: the smallest of all), or None.
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
    """Convert a score threshold for Qdrant, which compares unrounded scores and does not accept infinity."""
    return None if math.isinf(score_threshold) else score_threshold - 10**-SCORE_DIGITS
