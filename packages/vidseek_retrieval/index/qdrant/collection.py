"""A finished collection on a Qdrant server, for reading, within what the server's strict mode allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vidseek_retrieval.index.backend import PUBLISH_REMEDY, CollectionRemoved, Point, TimeRange
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.records import draw_ids, point_of, points_in_order, threshold_of
from vidseek_retrieval.index.qdrant.requests import ServerRefused, request
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
    """A finished collection on a server, for reading."""

    def __init__(
        self, client: QdrantClient, metadata: CollectionMetadata, limits: Limits | None = None, *, stored_as: str = ""
    ) -> None:
        self._client = client
        self._facts = metadata
        self._limits = limits or Limits()
        self._name = stored_as or metadata.name

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
        """Return the clips nearest to a vector, best first.

        Args:
            vector: float32 of shape (dimension,), unit length.
            limit: Most clips returned, at least 1.
            exact: Whether to compare all vectors; else the search is approximate.
            score_threshold: Least cosine of a clip.
            using: Name of the dense vector to search by.
            conditions: Conditions on payload fields that must all hold.
            time_ranges: If given, only clips that begin in one of these ranges are returned.
        """
        if not self._facts.has(using):
            return []
        must, must_not = self._conditions(conditions)
        most = self._limits.time_ranges(len(must) + len(must_not), most=MOST_TIME_RANGES)
        parts = [
            self._query(
                vector.tolist(), using, limit, self._params(limit, exact=exact),
                _filter(must, must_not, time_ranges[start : start + most]), score_threshold,
            )
            for start in range(0, max(1, len(time_ranges)), most)
        ]
        return parts[0] if len(parts) == 1 else sorted({clip for part in parts for clip in part}, key=rank_order)[:limit]

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """Return the clips that share words with the query, best first, ranked by BM25.

        Args:
            words: Indices and weights of the query's words.
            limit: Most clips returned, at least 1.
            using: Name of the sparse vector to search by.
            conditions: Conditions on payload fields that must all hold.
        """
        if not self._facts.has(using) or not words.indices:
            return []
        found = self._query(sparse_vector(words), using, limit, None, _filter(*self._conditions(conditions)))
        # The in-memory mode gives clips that share no word as well, with a score of 0.
        return sorted((clip for clip in found if clip.score > 0), key=rank_order)

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the payloads of these points by id; missing points are left out."""
        records = self._ask(self._client.retrieve, list(clip_ids), with_payload=True)
        return {str(record.id): record.payload or {} for record in records}

    def count(self, vector: Vector | None = None) -> int:
        """Return the exact number of points, or of points that have the named vector."""
        if vector is not None and not self._facts.has(vector):
            return 0
        having = models.Filter(must=[models.HasVectorCondition(has_vector=vector)]) if vector else None
        if self.allows_exact:
            return self._ask(self._client.count, count_filter=having, exact=True).count
        return sum(len(records) for records in self._scroll(10_000, scroll_filter=having, with_payload=False))

    def sample(self, num: int, *, seed: int) -> list[str]:
        """Return a random sample of clip ids.

        Args:
            num: Most ids returned.
            seed: Seed of the draw; the same seed returns the same ids.
        """
        def first_from(offset: str | None) -> str | None:
            records, _ = self._ask(self._client.scroll, limit=1, offset=offset, with_payload=False)
            return str(records[0].id) if records else None

        return draw_ids(num, seed=seed, first_from=first_from)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """Return the points with these ids, in this order; missing points are left out."""
        records = self._ask(self._client.retrieve, list(clip_ids), with_payload=True, with_vectors=True)
        return points_in_order(records, clip_ids)

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """Yield all points in order of clip id, with at most `batch` of them in memory."""
        for records in self._scroll(batch, with_payload=True, with_vectors=True):
            yield from map(point_of, records)

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return the values of a keyword field, each with its number of points, most frequent first.

        Args:
            field: Name of the payload field.
            limit: Most values returned.
            conditions: Conditions on payload fields that must all hold.
        """
        hits = self._ask(
            self._client.facet, field, facet_filter=_filter(*self._conditions(conditions)),
            limit=self._limits.page(limit), exact=self.allows_exact,
        ).hits
        return {str(hit.value): hit.count for hit in hits}

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """Return the smallest and the largest value of a number or time field; None if no point has one."""
        ends = []
        for direction in (models.Direction.ASC, models.Direction.DESC):
            order = models.OrderBy(key=field, direction=direction)
            records, _ = self._ask(self._client.scroll, limit=1, order_by=order, with_payload=True)
            ends += [(record.payload or {})[field] for record in records]
        return (ends[0], ends[1]) if ends else None

    def close(self) -> None:
        """Nothing is held: the client is the home's."""

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
        self, query: Any, using: str, limit: int, params: models.SearchParams | None, fitting: models.Filter | None,
        score_threshold: float = -math.inf,
    ) -> list[RankedClip]:
        page = self._limits.page(limit)
        found: dict[str, RankedClip] = {}
        for start in range(0, limit, page):
            points = self._ask(
                self._client.query_points, query=query, using=using, limit=min(page, limit - start), query_filter=fitting,
                search_params=params, with_payload=_SPAN_FIELDS, score_threshold=threshold_of(score_threshold),
                **({"offset": start} if start else {}),
            ).points
            for clip in map(_ranked, points):
                found.setdefault(clip.clip_id, clip)
            if len(points) < page:
                break
        return list(found.values()) if page >= limit else sorted(found.values(), key=rank_order)

    def _scroll(self, batch: int, **named: Any) -> Iterator[list[models.Record]]:
        offset: Any = None
        while True:
            records, offset = self._ask(self._client.scroll, limit=self._limits.page(batch), offset=offset, **named)
            yield records
            if offset is None:
                return

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
        if payload_indexes()[condition.field] == "integer":
            return models.FieldCondition(key=condition.field, range=models.Range(**bounds))
        return models.FieldCondition(key=condition.field, range=models.DatetimeRange(**bounds))

    def _ask(self, ask: Any, *args: Any, **named: Any) -> Any:
        """Ask the server about this collection.

        Raises:
            CollectionRemoved: it is not there any more.
        """
        try:
            return request(ask, self._name, *args, **named)
        except ServerRefused as error:
            if error.status != 404:
                raise
            raise CollectionRemoved(
                f"the collection {self._facts.name} is not on the server any more", remedy=PUBLISH_REMEDY
            ) from error


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


def _filter(
    must: Sequence[models.Condition], must_not: Sequence[models.Condition], time_ranges: Sequence[TimeRange] = ()
) -> models.Filter | None:
    if not must and not must_not and not time_ranges:
        return None
    within: list[models.Condition] = [_within(each) for each in time_ranges]
    return models.Filter(must=list(must), must_not=list(must_not), should=within or None)


def _within(time_range: TimeRange) -> models.Filter:
    begins = models.Range(gte=time_range.first_ms, lte=time_range.last_ms)
    return models.Filter(must=[
        models.FieldCondition(key="video_id", match=models.MatchValue(value=time_range.video_id)),
        models.FieldCondition(key="start_ms", range=begins),
    ])
