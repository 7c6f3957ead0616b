"""Reads the points of one build of a collection on a Qdrant server.

All requests for points go through here, so that none can forget which build it is about.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qdrant_client import QdrantClient, models

from vidseek_retrieval.index.backend import PUBLISH_REMEDY, CollectionRemoved
from vidseek_retrieval.index.qdrant.builds import ADDED, BUILD_FIELDS, CLIP, DIGEST, FIRST, REMOVED, outside, shows
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.requests import ServerRefused, request

IDS = 1000
"""Points that one request names."""


class Where(NamedTuple):
    """Which points of the build are asked for: all of `must`, none of `must_not`, and one of `should` if there are any."""

    must: Sequence[models.Condition] = ()
    must_not: Sequence[models.Condition] = ()
    should: Sequence[models.Condition] = ()


ALL = Where()


@dataclass(frozen=True)
class BuildReader:
    """The points of one build, whose ids are clip_ids and whose payloads are without the fields of builds.

    Args:
        client: Of the server.
        stored_as: The collection on the server, with the prefix.
        name: Of our collection.
        number: Of the build; None where the collection on the server has one build.
        limits: Of the server.
        is_kept: Tells whether the build was dropped meanwhile, so that some of its points may be gone.
    """

    client: QdrantClient
    stored_as: str
    name: str
    number: int | None = None
    limits: Limits = field(default_factory=Limits)
    is_kept: Callable[[], bool] = lambda: True

    def query(
        self, query: list[float] | models.SparseVector, where: Where, params: models.SearchParams | None, *,
        fields: Sequence[str], **named: Any,
    ) -> list[models.ScoredPoint]:
        """Return the points nearest to a vector, best first.

        Args:
            query: The vector. How rare the words of a sparse one are is counted over the build.
            where: Which points.
            params: Of the search.
            fields: Of the payload.
            named: Other arguments of the client's `query_points`.
        """
        if self.number is not None and isinstance(query, models.SparseVector):
            params = models.SearchParams(idf=models.IdfCorpusParams(corpus=models.Filter(must_not=outside(self.number))))
        found = self._ask(
            self.client.query_points, query=query, query_filter=self._filter(where), search_params=params,
            with_payload=[*fields, *self._clip_field], **named,
        ).points
        return [each.model_copy(update=_shown(each)) for each in found] if self._clip_field else list(found)

    def count(self, where: Where) -> int:
        """Return the exact number of points."""
        return int(self._ask(self.client.count, count_filter=self._filter(where), exact=True).count)

    def facet(self, key: str, where: Where, *, limit: int, exact: bool) -> list[models.FacetValueHit]:
        """Return the values of a field and how many points have each, the most frequent first."""
        found = self._ask(self.client.facet, key, facet_filter=self._filter(where), limit=limit, exact=exact)
        return list(found.hits)

    def first(self, **named: Any) -> models.Record | None:
        """Return the first point of a scroll with these arguments; None if there is none."""
        records, _ = self._scroll(1, ALL, **named)
        return self._shown(records)[0] if records else None

    def first_id(self, offset: str | None) -> str | None:
        """Return the clip of the first point whose id is not below `offset`; None if there is none."""
        found = self.first(offset=offset, with_payload=self._clip_field or False)
        return None if found is None else str(found.id)

    def pages(self, batch: int, where: Where = ALL, **named: Any) -> Iterator[list[models.Record]]:
        """Yield all points in the server's order, with at most `batch` of them in memory."""
        for records in self._pages(batch, where, **named):
            yield self._shown(records)

    def in_order(self, batch: int) -> Iterator[models.Record]:
        """Yield all points with their vectors in order of clip id, with at most twice `batch` of them in memory."""
        moved = self._moved()
        stayed = (
            each
            for records in self._pages(batch, ALL, with_payload=True, with_vectors=True)
            for each in self._shown([record for record in records if CLIP not in (record.payload or {})])
        )
        ids = [moved[clip_id] for clip_id in sorted(moved)]
        others = (
            each
            for some in _chunks(ids, min(batch, IDS))
            for each in sorted(self._shown(self._retrieve(some, with_payload=True, with_vectors=True)), key=_clip_of)
        )
        return heapq.merge(stayed, others, key=_clip_of)

    def retrieve(self, clip_ids: Sequence[str], *, with_vectors: bool = False) -> list[models.Record]:
        """Return points with their payloads, in any order; missing ones are left out."""
        return self._shown(self._points_of(clip_ids, with_payload=True, with_vectors=with_vectors))

    def point_ids(self, clip_ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the points of clips, by clip id; missing ones are left out."""
        return {_clip_of(each): str(each.id) for each in self._points_of(clip_ids, with_payload=[ADDED, REMOVED, CLIP])}

    def digests(self, video_ids: Sequence[str]) -> dict[str, str]:
        """Return what is noted of the content of each point of some videos, by clip id."""
        found = {}
        for ids in self.limits.split(video_ids, most=IDS):
            of_videos = models.FieldCondition(key="video_id", match=models.MatchAny(any=list(ids)))
            for records in self._pages(10 * IDS, Where(must=[of_videos]), with_payload=[CLIP, DIGEST]):
                found.update({_clip_of(each): str((each.payload or {}).get(DIGEST, "")) for each in records})
        return found

    @property
    def num_conditions(self) -> int:
        """How many conditions each filter has beside those that are asked for."""
        return 0 if self.number is None else len(outside(self.number))

    @property
    def _clip_field(self) -> list[str]:
        """What must be read to know the clip of a point: in the first build, ids are clip_ids."""
        return [CLIP] if self.number else []

    def _points_of(
        self, clip_ids: Sequence[str], *, with_payload: bool | list[str], with_vectors: bool = False
    ) -> list[models.Record]:
        records = self._retrieve(clip_ids, with_payload=with_payload, with_vectors=with_vectors)
        if self.number is None:
            return records
        found = [
            each for each in records if CLIP not in (each.payload or {}) and shows(self.number, each.payload or {})
        ]
        missing = sorted(set(clip_ids) - {str(each.id) for each in found})
        for ids in self.limits.split(missing if self.number else [], most=IDS):
            of_clips = models.FieldCondition(key=CLIP, match=models.MatchAny(any=list(ids)))
            pages = self._pages(IDS, Where(must=[of_clips]), with_payload=with_payload, with_vectors=with_vectors)
            found += [each for page in pages for each in page]
        return found

    def _shown(self, records: list[models.Record]) -> list[models.Record]:
        return records if self.number is None else [each.model_copy(update=_shown(each)) for each in records]

    def _moved(self) -> dict[str, str]:
        """Return the points whose id is not their clip's, by clip id."""
        if not self.number:
            return {}
        later = models.FieldCondition(key=ADDED, range=models.Range(gt=FIRST))
        return {
            _clip_of(each): str(each.id)
            for records in self._pages(10 * IDS, Where(must=[later]), with_payload=[CLIP])
            for each in records if CLIP in (each.payload or {})
        }

    def _retrieve(self, ids: Sequence[str], **named: Any) -> list[models.Record]:
        return [each for some in _chunks(list(ids), IDS) for each in self._ask(self.client.retrieve, some, **named)]

    def _pages(self, batch: int, where: Where, **named: Any) -> Iterator[list[models.Record]]:
        offset: Any = None
        while True:
            records, offset = self._scroll(batch, where, offset=offset, **named)
            yield records
            if offset is None:
                return

    def _scroll(self, batch: int, where: Where, **named: Any) -> tuple[list[models.Record], Any]:
        found: tuple[list[models.Record], Any] = self._ask(
            self.client.scroll, limit=self.limits.page(batch), scroll_filter=self._filter(where), **named
        )
        return found

    def _filter(self, where: Where) -> models.Filter | None:
        others = [] if self.number is None else outside(self.number)
        must, must_not, should = list(where.must), [*where.must_not, *others], list(where.should)
        if not must and not must_not and not should:
            return None
        return models.Filter(must=must, must_not=must_not, should=should or None)

    def _ask(self, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Ask the server about the collection.

        Raises:
            CollectionRemoved: it is not there any more.
        """
        try:
            answer = request(ask, self.stored_as, *args, **named)
        except ServerRefused as error:
            if error.status != 404:
                raise
            raise self._removed() from error
        if self.number is not None and not self.is_kept():
            raise self._removed()
        return answer

    def _removed(self) -> CollectionRemoved:
        return CollectionRemoved(f"the collection {self.name} is not on the server any more", remedy=PUBLISH_REMEDY)


def _clip_of(record: models.Record | models.ScoredPoint) -> str:
    return str((record.payload or {}).get(CLIP, record.id))


def _shown(record: models.Record | models.ScoredPoint) -> Mapping[str, Any]:
    payload = {name: value for name, value in (record.payload or {}).items() if name not in BUILD_FIELDS}
    return {"id": _clip_of(record), "payload": payload}


def _chunks(ids: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
