"""Finds which points of a stored collection changed."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.collection_points import Points, declarations_of
from vidseek_retrieval.index.difference.record import Difference, Record, point_digest, vector_bits
from vidseek_retrieval.settings import IndexSettings

SEARCH_SETTINGS = frozenset({"hnsw_ef", "oversampling"})
"""Settings of searches: nothing in a collection is built with them."""


def can_grow(base: CollectionMetadata, points: Points) -> bool:
    """Return whether a collection may hold the points as well: it is of the same encoder, built with the same settings, and
    has no declared field that the points lack or have of another type.

    Args:
        base: Metadata of the stored collection.
        points: The points.
    """
    same_space = (base.encoder_version, base.dimension) == (points.encoder_version, points.dimension)
    declared = declarations_of(points)
    same_fields = all(declared.get(name) == kind for name, kind in base.fields.items())
    return same_space and same_fields and _built_with(base.settings) == _built_with(points.settings)


def difference_since(record: Record, points: Points, videos: NDArray[np.void]) -> Difference:
    """Return how points differ from those of a stored collection.

    Only the points of videos whose digest differs are made and compared.

    Args:
        record: Of the stored collection.
        points: The points, for which `can_grow` holds.
        videos: Their digests, rows of `VIDEO_ROW` sorted by video.
    """
    removed, added, changed = _compare(record.videos, videos)
    stored = record.points_of([*removed, *changed])
    names = points.settings.vectors
    counts = Counter({name: record.metadata.num_with(name) for name in names})
    for known in stored.values():
        counts.subtract(name for place, name in enumerate(names) if known.vectors >> place & 1)
    made, written = set(), []
    for point in points.of_videos([*added, *changed]):
        counts.update(point.vectors.keys())
        made.add(point.clip_id)
        if stored.get(point.clip_id) != (point_digest(point), vector_bits(point, names)):
            written.append(point)
    gone = tuple(sorted(stored.keys() - made))
    return Difference(record.metadata, gone, written, videos, dict(counts))


def has_room_for(base: CollectionMetadata, difference: Difference) -> bool:
    """Return whether the base was built with each vector that the new collection has: a vector is not added later.

    Args:
        base: Metadata of the stored collection.
        difference: How the new one differs.
    """
    return all(base.has(name) for name, num in difference.counts.items() if num)


def _built_with(settings: IndexSettings) -> dict[str, object]:
    return settings.model_dump(exclude=set(SEARCH_SETTINGS))


def _compare(old: NDArray[np.void], new: NDArray[np.void]) -> tuple[list[str], list[str], list[str]]:
    """Return the videos that were removed, added and changed; both are sorted by video."""
    is_old = np.isin(new["video_id"], old["video_id"], assume_unique=True)
    is_kept = np.isin(old["video_id"], new["video_id"], assume_unique=True)
    differs = (old["digest"][is_kept] != new["digest"][is_old]).any(axis=1)
    return _names(old[~is_kept]), _names(new[~is_old]), _names(new[is_old][differs])


def _names(rows: NDArray[np.void]) -> list[str]:
    return [name.decode() for name in rows["video_id"].tolist()]
