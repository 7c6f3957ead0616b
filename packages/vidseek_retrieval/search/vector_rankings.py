"""Rank the clips of a collection by each vector that a query can be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import InputRejected
from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.values import SparseVector, Value
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import NUM_CLIPS, RankedClip
from vidseek_retrieval.settings import Weights
from vidseek_retrieval.vectors.registry import index_vectors


class ComparedVector(NamedTuple):
    """A vector of the index, with the query's side of the comparison."""

    name: str
    weight: float
    """Above 0."""
    value: Value
    """The query's vector: dense, shape (dimension,), or sparse."""


def compared_vectors(
    opened: Collection, direction: NDArray[np.float32], text: str, weights: Weights
) -> list[ComparedVector]:
    """Return the vectors that have a weight, that the collection stores, and that the query has a value for.

    Args:
        opened: The collection to search.
        direction: The query's unit vector, shape (dimension,).
        text: The query's words; "" if it has none.
        weights: Of each vector, at least 0.
    """
    found, of = [], weights.by_name()
    for each in index_vectors():
        if of[each.name] and opened.metadata.has(each.name):
            value = each.query(direction, text, language=opened.metadata.settings.language)
            if value is not None:
                found.append(ComparedVector(each.name, of[each.name], value))
    return found


def rank_by_each(
    opened: Collection, compared: Sequence[ComparedVector], weights: Weights, conditions: Sequence[Condition]
) -> list[tuple[float, list[RankedClip]]]:
    """Return the first `NUM_CLIPS` clips by each vector, with the vector's weight.

    Args:
        opened: The collection to search.
        compared: The vectors to rank by; at least one.
        weights: Named in the error.
        conditions: Filters that every clip must meet.

    Raises:
        InputRejected: `compared` is empty.
    """
    if not compared:
        raise InputRejected(
            f"{weights} leave nothing to rank by: {opened.metadata.name} has not these vectors, or the query no words",
            code="nothing-to-rank-by",
            remedy="Give video a weight",
        )
    rankings = []
    for name, weight, value in compared:
        if isinstance(value, SparseVector):
            found = opened.search_words(value, limit=NUM_CLIPS, using=name, conditions=conditions)
        else:
            found = opened.search(value, limit=NUM_CLIPS, using=name, conditions=conditions)
        rankings.append((weight, found))
    return rankings
