"""A view of a collection without the videos that were forgotten after it was built.

A finished collection is never written again, and an alias may be rolled back to an older one. So every reader leaves out
forgotten videos, with both backends, from the moment of the decision. The next publish builds a collection without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.backend import Collection, Point, TimeRange
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.values import WORDS_VECTOR, Dense, SparseVector
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import RankedClip
from vidseek_retrieval.settings import Vector

Denylist = Callable[[], frozenset[str]]
"""Gives the video_ids that are not to be shown, as they are now. Must be cheap: every search asks."""


class FilteredCollection:
    """`collection`, as if the clips of hidden videos were not in it; `count`, `sample`, `bounds`, `metadata` are of all."""

    def __init__(self, collection: Collection, hidden: Denylist) -> None:
        self._collection = collection
        self._hidden = hidden

    @property
    def metadata(self) -> CollectionMetadata:
        """The metadata of the collection."""
        return self._collection.metadata

    @property
    def allows_exact(self) -> bool:
        """Whether the collection supports exact searches."""
        return self._collection.allows_exact

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        exact: bool = False,
        score_threshold: float = -math.inf,
        using: Dense = "video",
        conditions: Sequence[Condition] = (),
        time_ranges: Sequence[TimeRange] = (),
    ) -> list[RankedClip]:
        """Implement `Collection.search`, without denied videos."""
        return self._collection.search(
            vector, limit=limit, exact=exact, score_threshold=score_threshold, using=using,
            conditions=(*conditions, *self._conditions()), time_ranges=time_ranges,
        )

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """Implement `Collection.search_words`, without denied videos."""
        return self._collection.search_words(
            words, limit=limit, using=using, conditions=(*conditions, *self._conditions())
        )

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Implement `Collection.payloads`, without denied videos."""
        hidden = self._hidden()
        found = self._collection.payloads(clip_ids)
        return {clip_id: payload for clip_id, payload in found.items() if payload.get("video_id") not in hidden}

    def count(self, vector: Vector | None = None) -> int:
        """Implement `Collection.count`."""
        return self._collection.count(vector)

    def sample(self, num: int, *, seed: int) -> list[str]:
        """Implement `Collection.sample`."""
        return self._collection.sample(num, seed=seed)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """Implement `Collection.points`, without denied videos."""
        hidden = self._hidden()
        return [p for p in self._collection.points(clip_ids) if p.payload.get("video_id") not in hidden]

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """Implement `Collection.scroll`, without denied videos."""
        hidden = self._hidden()
        return (p for p in self._collection.scroll(batch=batch) if p.payload.get("video_id") not in hidden)

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Implement `Collection.facet`, without denied videos."""
        return self._collection.facet(field, limit=limit, conditions=(*conditions, *self._conditions()))

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """Implement `Collection.bounds`."""
        return self._collection.bounds(field)

    def close(self) -> None:
        """Give back memory and files."""
        self._collection.close()

    def _conditions(self) -> tuple[Condition, ...]:
        hidden = self._hidden()
        return (Condition("video_id", none_of=tuple(sorted(hidden))),) if hidden else ()
