"""A finished Qdrant Edge shard, open for reading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, foreign
from vidseek_retrieval.index.backend import Point, TimeRange
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.edge.shard import REBUILD_REMEDY, SHARD_FOLDER, sparse_vector
from vidseek_retrieval.index.edge.spans import SPANS_FILE, Spans
from vidseek_retrieval.index.qdrant.records import draw_ids, point_of, points_in_order, threshold_of
from vidseek_retrieval.index.values import WORDS_VECTOR, Dense, SparseVector
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order
from vidseek_retrieval.settings import Vector


class EdgeCollection:
    """A finished Edge shard, open for reading."""

    def __init__(self, metadata: CollectionMetadata, shard: Any, spans: Spans) -> None:
        self._facts = metadata
        self._shard = shard
        self._spans = spans

    @classmethod
    def open(cls, folder: Path, metadata: CollectionMetadata) -> EdgeCollection:
        """Open a collection. Any number of processes may open it at once.

        Args:
            folder: The collection's folder.
            metadata: Its metadata.

        Raises:
            ArtifactError: the shard or its spans are missing or broken.
        """
        said = f"the collection {metadata.name} in {folder.parent} cannot be opened"
        with foreign(ArtifactError, said, code="collection-broken", remedy=REBUILD_REMEDY, errors=Exception):
            spans = Spans.read(folder / SPANS_FILE, metadata.num_points)
            return cls(metadata, qdrant.EdgeShard.load(str(folder / SHARD_FOLDER)), spans)

    @property
    def metadata(self) -> CollectionMetadata:
        """The content of collection.json."""
        return self._facts

    @property
    def allows_exact(self) -> bool:
        """Always."""
        return True

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
        """Implement `Collection.search`."""
        if not self._facts.has(using):
            return []
        params = qdrant.SearchParams(
            hnsw_ef=self._facts.search_ef, exact=exact,
            quantization=qdrant.QuantizationSearchParams(
                ignore=exact, rescore=True, oversampling=self._facts.oversampling(limit)
            ) if self._facts.settings.quantization != "none" else None,
        )
        # Edge filters by ids in less time than by videos and starts, above all where there are many stretches.
        fitting = _filter(conditions, self._spans.within(time_ranges) if time_ranges else None)
        return self._query(qdrant.Query.Nearest(vector.tolist(), using=using), limit, params, fitting, score_threshold)

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """Implement `Collection.search_words`."""
        if not self._facts.has(using) or not words.indices:
            return []
        query = qdrant.Query.Nearest(sparse_vector(words), using=using)
        return sorted(self._query(query, limit, None, _filter(conditions)), key=rank_order)

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Implement `Collection.payloads`."""
        with self._broken_is_ours():
            records = self._shard.retrieve(list(clip_ids), with_payload=True, with_vector=False)
        return {str(record.id): record.payload or {} for record in records}

    def count(self, vector: Vector | None = None) -> int:
        """Implement `Collection.count`."""
        if vector is not None and not self._facts.has(vector):
            return 0
        having = qdrant.Filter(must=[qdrant.HasVectorCondition(vector)]) if vector else None
        with self._broken_is_ours():
            return int(self._shard.count(qdrant.CountRequest(exact=True, filter=having)))

    def sample(self, num: int, *, seed: int) -> list[str]:
        """Implement `Collection.sample`."""
        def first_from(offset: str | None) -> str | None:
            with self._broken_is_ours():
                records, _ = self._shard.scroll(qdrant.ScrollRequest(offset=offset, limit=1, with_payload=False))
            return str(records[0].id) if records else None

        return draw_ids(num, seed=seed, first_from=first_from)

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """Implement `Collection.points`."""
        with self._broken_is_ours():
            records = self._shard.retrieve(list(clip_ids), with_payload=True, with_vector=True)
        return points_in_order(records, clip_ids)

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """Implement `Collection.scroll`."""
        offset = None
        while True:
            request = qdrant.ScrollRequest(offset=offset, limit=batch, with_payload=True, with_vector=True)
            with self._broken_is_ours():
                records, offset = self._shard.scroll(request)
            yield from map(point_of, records)
            if offset is None:
                return

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Implement `Collection.facet`."""
        with self._broken_is_ours():
            request = qdrant.FacetRequest(field, limit=limit, exact=True, filter=_filter(conditions))
            hits = self._shard.facet(request).hits
        return {str(hit.value): hit.count for hit in hits}

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """Implement `Collection.bounds`."""
        ends = []
        for direction in (qdrant.Direction.Asc, qdrant.Direction.Desc):
            request = qdrant.ScrollRequest(limit=1, with_payload=True, order_by=qdrant.OrderBy(field, direction=direction))
            with self._broken_is_ours():
                records, _ = self._shard.scroll(request)
            ends += [record.payload[field] for record in records]
        return (ends[0], ends[1]) if ends else None

    def close(self) -> None:
        """Give back memory and files."""
        with self._broken_is_ours():
            self._shard.close()

    def _query(
        self, query: Any, limit: int, params: Any, fitting: Any, score_threshold: float = -math.inf
    ) -> list[RankedClip]:
        request = qdrant.QueryRequest(
            query=query, limit=limit, with_payload=False, filter=fitting, params=params,
            score_threshold=threshold_of(score_threshold),
        )
        with self._broken_is_ours():
            found = self._shard.query(request)
            spans = self._spans.of(b"".join([point.id.bytes for point in found]))
        columns = [
            [name.decode() for name in spans["clip_id"].tolist()],
            [name.decode() for name in spans["video_id"].tolist()],
            spans["start_ms"].tolist(),
            spans["end_ms"].tolist(),
            [round(point.score, SCORE_DIGITS) for point in found],
            [name.decode() for name in spans["duplicate_of"].tolist()],
        ]
        return list(map(RankedClip._make, zip(*columns, strict=True)))

    def _broken_is_ours(self) -> AbstractContextManager[None]:
        said = f"the collection {self._facts.name} does not answer"
        return foreign(ArtifactError, said, code="collection-broken", remedy=REBUILD_REMEDY, errors=Exception)


def _filter(conditions: Sequence[Condition], clip_ids: Iterable[str] | None = None) -> Any:
    """Return the filter for all `conditions`, and, if `clip_ids` are given, for these clips."""
    must = [_edge_condition(each) for each in conditions if not each.none_of]
    if clip_ids is not None:
        must.append(qdrant.HasIdCondition(set(clip_ids)))
    must_not = [_edge_condition(each) for each in conditions if each.none_of]
    return qdrant.Filter(must=must, must_not=must_not) if must or must_not else None


def _edge_condition(condition: Condition) -> Any:
    if values := condition.any_of or condition.none_of:
        return qdrant.FieldCondition(condition.field, match=qdrant.MatchAny(list(values)))  # type: ignore[arg-type]
    times: dict[str, Any] = {name: value.isoformat() for name, value in condition.bounds if isinstance(value, datetime)}
    if times:
        return qdrant.FieldCondition(condition.field, range=qdrant.RangeDateTime(**times))
    bounds: dict[str, Any] = {name: float(value) for name, value in condition.bounds}  # type: ignore[arg-type]
    return qdrant.FieldCondition(condition.field, range=qdrant.RangeFloat(**bounds))
