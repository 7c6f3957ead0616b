"""The limits of a Qdrant server on a collection: its strict mode, which Qdrant Cloud enables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from qdrant_client import models

from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.payload import payload_indexes

Item = TypeVar("Item")

_BYTES_OF_A_FLOAT = 4


@dataclass(frozen=True)
class Limits:
    """The strict mode of one collection. None is no limit.

    Limits that vidseek keeps by itself: every field of a filter has an index, and no request names a timeout.
    """

    max_query_limit: int | None = None
    """Clips of one answer: longer rankings are asked for in pages."""
    search_max_hnsw_ef: int | None = None
    search_max_oversampling: float | None = None
    allows_exact: bool = True
    """Whether searches, counts and facets may be exact."""
    upsert_max_batchsize: int | None = None
    filter_max_conditions: int | None = None
    condition_max_size: int | None = None
    """Values of one condition: longer lists are split."""
    max_payload_index_count: int | None = None
    max_points_count: int | None = None
    max_collection_vector_size_bytes: int | None = None

    @staticmethod
    def of(info: models.CollectionInfo) -> Limits:
        """Return the limits of a collection; none if its strict mode is off."""
        strict = info.config.strict_mode_config
        if strict is None or not strict.enabled:
            return Limits()
        return Limits(
            max_query_limit=strict.max_query_limit,
            search_max_hnsw_ef=strict.search_max_hnsw_ef,
            search_max_oversampling=strict.search_max_oversampling,
            allows_exact=strict.search_allow_exact is not False,
            upsert_max_batchsize=strict.upsert_max_batchsize,
            filter_max_conditions=strict.filter_max_conditions,
            condition_max_size=strict.condition_max_size,
            max_payload_index_count=strict.max_payload_index_count,
            max_points_count=strict.max_points_count,
            max_collection_vector_size_bytes=strict.max_collection_vector_size_bytes,
        )

    def page(self, num: int) -> int:
        """Return the number of points of one answer, if `num` are wanted."""
        return _least(num, self.max_query_limit)

    def batch(self, num: int) -> int:
        """Return the number of points of one upsert, if `num` are wanted."""
        return _least(num, self.upsert_max_batchsize)

    def ef(self, wanted: int) -> int:
        """Candidates of a search."""
        return _least(wanted, self.search_max_hnsw_ef)

    def oversampling(self, wanted: float) -> float:
        """Candidates that are scored again for each one that is wanted."""
        most = self.search_max_oversampling
        return wanted if most is None else min(wanted, most)

    def split(self, values: Sequence[Item], *, most: int | None = None) -> Iterator[Sequence[Item]]:
        """Split values into lists that one condition may have.

        Args:
            values: The values.
            most: Values of one list; None for all, if the server takes them.
        """
        size = _least(max(1, len(values) if most is None else most), self.condition_max_size)
        for start in range(0, len(values), size):
            yield values[start : start + size]

    def time_ranges(self, num_conditions: int, *, most: int) -> int:
        """Return the number of time ranges of one search.

        Args:
            num_conditions: Number of other conditions in the search.
            most: Number of ranges that are wanted.

        Returns:
            From 1 to `most`.
        """
        if self.filter_max_conditions is None:
            return most
        return max(1, min(most, (self.filter_max_conditions - num_conditions) // 2))  # a video and a start each

    def allows_indexes(self, num: int) -> bool:
        """Return whether a collection may have so many payload indexes."""
        return self.max_payload_index_count is None or num <= self.max_payload_index_count

    def allows_points(self, num: int, metadata: CollectionMetadata) -> bool:
        """Return whether a collection may have so many points, each with all of its dense vectors.

        Args:
            num: Number of points.
            metadata: Of the collection.
        """
        size = num * len(metadata.dense_vectors) * metadata.dimension * _BYTES_OF_A_FLOAT
        return (self.max_points_count is None or num <= self.max_points_count) and (
            self.max_collection_vector_size_bytes is None or size <= self.max_collection_vector_size_bytes
        )

    def require_room(self, metadata: CollectionMetadata) -> None:
        """Check that a collection may be built, before anything of it is written.

        Raises:
            ServiceError: a limit is too low.
        """
        num_dense = sum(metadata.num_with(name) for name in metadata.dense_vectors)
        for name, wanted in (
            ("max_payload_index_count", len(payload_indexes(metadata.declared))),
            ("max_points_count", metadata.num_points),
            ("max_collection_vector_size_bytes", num_dense * metadata.dimension * _BYTES_OF_A_FLOAT),
        ):
            allowed = getattr(self, name)
            if allowed is not None and wanted > allowed:
                raise ServiceError(
                    f"the strict mode of the Qdrant server has {name} {allowed}, the collection {metadata.name} wants "
                    f"{wanted}",
                    code="server-limit",
                    remedy=f"Raise {name} in the server's strict mode, or publish less",
                )


def _least(wanted: int, allowed: int | None) -> int:
    return wanted if allowed is None else max(1, min(wanted, allowed))
