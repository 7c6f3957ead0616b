"""A finished collection on a Qdrant server, for reading, within what the server's strict mode allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from vidseek_retrieval.index.backend import Point, TimeRange
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.qdrant.build_reader import BuildReader, Where
from vidseek_retrieval.index.qdrant.records import draw_ids, point_of, points_in_order, threshold_of
from vidseek_retrieval.index.values import WORDS_VECTOR, Dense, SparseVector
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order
from vidseek_retrieval.settings import Vector

MOST_TIME_RANGES = 32
"""In one search: each clip of their videos is held against each of them."""
EF_FOR_EXACT = 1024
"""Candidates in the place of an exact search, where strict mode allows none; filtered to a few clips Qdrant looks at all."""
_SPAN_FIELDS = ["video_id", "start_ms", "end_ms", "duplicate_of"]


class QdrantCollection:
    """A finished collection on a server, for reading.

    Args:
        points: Of the build.
        metadata: Of the collection.
    """

    def __init__(self, points: BuildReader, metadata: CollectionMetadata) -> None:
        self._points = points
        self._facts = metadata
        self._limits = points.limits

    @property
    def metadata(self) -> CollectionMetadata:
        """What its metadata says."""
        return self._facts

    @property
    def allows_exact(self) -> bool:
        """Whether `search` compares with every clip where it is asked to."""
        return self._limits.allows_exact

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
        """Implement `Collection.search`; many time ranges take several requests."""
        if not self._facts.has(using):
            return []
        must, must_not = self._conditions(conditions)
        num_others = len(must) + len(must_not) + self._points.num_conditions
        most = self._limits.time_ranges(num_others, most=MOST_TIME_RANGES)
        parts = [
            self._query(
                vector.tolist(), using, limit, self._params(limit, exact=exact),
                Where(must, must_not, [_within(each) for each in time_ranges[start : start + most]]), score_threshold,
            )
            for start in range(0, max(1, len(time_ranges)), most)
        ]
        return parts[0] if len(parts) == 1 else sorted({clip for part in parts for clip in part}, key=rank_order)[:limit]

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """Implement `Collection.search_words`."""
        if not self._facts.has(using) or not words.indices:
            return []
        found = self._query(sparse_vector(words), using, limit, None, Where(*self._conditions(conditions)))
        # The in-memory mode gives clips that share no word as well, with a score of 0.
        return sorted((clip for clip in found if clip.score > 0), key=rank_order)

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Implement `Collection.payloads`."""
        return {str(record.id): record.payload or {} for record in self._points.retrieve(clip_ids)}

    def count(self, vector: Vector | None = None) -> int:
        """Implement `Collection.count`; where strict mode forbids exact counts, page by page."""
        if vector is not None and not self._facts.has(vector):
            return 0
        having = Where(must=[models.HasVectorCondition(has_vector=vector)] if vector else ())
        if self.allows_exact:
            return self._points.count(having)
        return sum(len(records) for records in self._points.pages(10_000, having, with_payload=False))

    def sample(self, num: int, *, seed: int) -> list[str]:
        """Implement `Collection.sample`."""
        return draw_ids(num, seed=seed, first_from=self._points.first_id)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """Implement `Collection.points`."""
        return points_in_order(self._points.retrieve(clip_ids, with_vectors=True), clip_ids)

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """Implement `Collection.scroll`, with about `batch` points in memory."""
        return map(point_of, self._points.in_order(batch))

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Implement `Collection.facet`."""
        hits = self._points.facet(
            field, Where(*self._conditions(conditions)), limit=self._limits.page(limit), exact=self.allows_exact
        )
        return {str(hit.value): hit.count for hit in hits}

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """Implement `Collection.bounds`."""
        ends = []
        for direction in (models.Direction.ASC, models.Direction.DESC):
            order = models.OrderBy(key=field, direction=direction)
            record = self._points.first(order_by=order, with_payload=True)
            ends += [] if record is None else [(record.payload or {})[field]]
        return (ends[0], ends[1]) if ends else None

    def close(self) -> None:
        """Nothing is held: the client is the backend's."""

    def _params(self, limit: int, *, exact: bool) -> models.SearchParams:
        metadata, limits = self._facts, self._limits
        wanted = max(metadata.search_ef, EF_FOR_EXACT if exact and not self.allows_exact else 0)
        return models.SearchParams(
            hnsw_ef=limits.ef(wanted), exact=exact and self.allows_exact,
            quantization=models.QuantizationSearchParams(
                ignore=exact, rescore=True, oversampling=limits.oversampling(metadata.oversampling(limit))
            ) if metadata.settings.quantization != "none" else None,
        )

    def _query(
        self, query: list[float] | models.SparseVector, using: str, limit: int, params: models.SearchParams | None,
        where: Where, score_threshold: float = -math.inf,
    ) -> list[RankedClip]:
        page = self._limits.page(limit)
        found: dict[str, RankedClip] = {}
        for start in range(0, limit, page):
            points = self._points.query(
                query, where, params, fields=_SPAN_FIELDS, using=using, limit=min(page, limit - start),
                score_threshold=threshold_of(score_threshold), **({"offset": start} if start else {}),
            )
            for clip in map(_ranked, points):
                found.setdefault(clip.clip_id, clip)
            if len(points) < page:
                break
        return list(found.values()) if page >= limit else sorted(found.values(), key=rank_order)

    def _conditions(self, conditions: Sequence[Condition]) -> tuple[list[models.Condition], list[models.Condition]]:
        """Return the filter conditions that must hold, and those that must not."""
        must = [self._field_condition(each) for each in conditions if not each.none_of]
        must_not: list[models.Condition] = [
            _one_of(each.field, values) for each in conditions for values in self._limits.split(each.none_of)
        ]
        return must, must_not

    def _field_condition(self, condition: Condition) -> models.Condition:
        if condition.any_of:
            parts: list[models.Condition] = [
                _one_of(condition.field, values) for values in self._limits.split(condition.any_of)
            ]
            return parts[0] if len(parts) == 1 else models.Filter(should=parts)
        bounds: dict[str, Any] = dict(condition.bounds)
        if any(isinstance(value, datetime) for value in bounds.values()):
            return models.FieldCondition(key=condition.field, range=models.DatetimeRange(**bounds))
        return models.FieldCondition(key=condition.field, range=models.Range(**bounds))


def sparse_vector(words: SparseVector) -> models.SparseVector:
    """`words` as the client takes them."""
    return models.SparseVector(indices=list(words.indices), values=list(words.values))


def _ranked(point: models.ScoredPoint) -> RankedClip:
    payload = point.payload or {}
    return RankedClip(
        str(point.id), str(payload["video_id"]), int(payload["start_ms"]), int(payload["end_ms"]),
        round(point.score, SCORE_DIGITS), str(payload.get("duplicate_of", "")),
    )


def _one_of(field: str, values: Sequence[str | int]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))  # type: ignore[arg-type]


def _within(time_range: TimeRange) -> models.Filter:
    begins = models.Range(gte=time_range.first_ms, lte=time_range.last_ms)
    return models.Filter(must=[
        models.FieldCondition(key="video_id", match=models.MatchValue(value=time_range.video_id)),
        models.FieldCondition(key="start_ms", range=begins),
    ])
