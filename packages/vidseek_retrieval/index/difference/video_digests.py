"""Digests of videos: whether a point of a video changed is seen without making its points."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.collection_metadata import canonical_json
from vidseek_retrieval.index.collection_points import Points
from vidseek_retrieval.index.difference.record import DIGEST_BYTES, VIDEO_ROW, halves
from vidseek_retrieval.index.values import VIDEO_VECTOR, SparseVector
from vidseek_retrieval.vectors.registry import IndexVector, index_vectors


def video_digests(points: Points) -> NDArray[np.void]:
    """Return a row of `VIDEO_ROW` for each video of the points, sorted by video.

    The digest is made from what the points are made from: the tables' rows of the video, the bytes of its vectors, and
    what each other vector names as its source.

    Args:
        points: The points of a collection.
    """
    wanted = [each for each in index_vectors() if each.name in points.settings.vectors]
    sources = {each.name: _source_of(each, points) for each in wanted if each.name != VIDEO_VECTOR}
    has_texts = any(each.of_text for each in wanted)
    rows = np.empty(len(points.clips.videos), VIDEO_ROW)
    for place, (video_id, begin, end) in enumerate(points.clips.by_video()):
        content = hashlib.blake2b(digest_size=DIGEST_BYTES)
        content.update(canonical_json(points.common_source(video_id)).encode())
        content.update(points.clips.spans[begin:end].tobytes())
        content.update(points.tables.text_source(video_id) if has_texts else b"")
        whole = content.copy()
        whole.update(_bytes_of(points.tables.embeddings.vectors, points.clips.places[begin:end]))
        whole.update(points.auto_tags.source(begin, end) if points.auto_tags else b"")
        for name, source in sources.items():
            whole.update(f"\n{name}\n".encode())
            for part in source(video_id, begin, end):
                whole.update(part)
        rows[place] = (video_id.encode(), halves(whole.digest()), halves(content.digest()))
    return rows


_Source = Callable[[str, int, int], Iterator[bytes]]
"""From a video and its rows to bytes that differ if a value of one of its clips does."""


def _source_of(vector: IndexVector, points: Points) -> _Source:
    source = vector.source(points.tables)
    if source is not None:
        named: Callable[[str], bytes] = source
        return lambda video_id, begin, end: iter((named(video_id),))
    value, fields = vector.values(points.tables), vector.fields(points.tables)

    def made(video_id: str, begin: int, end: int) -> Iterator[bytes]:
        for clip_id in map(bytes.decode, points.clips.clip_ids[begin:end].tolist()):
            found = value(clip_id)
            is_dense = found is not None and not isinstance(found, SparseVector)
            yield np.ascontiguousarray(found, "<f4").tobytes() if is_dense else canonical_json(found).encode()
            yield canonical_json(_plain(fields(clip_id))).encode()

    return made


def _plain(fields: Mapping[str, object]) -> dict[str, object]:
    return dict(fields)


def _bytes_of(vectors: NDArray[np.float32], places: NDArray[np.int64]) -> memoryview:
    """Return the bytes of rows; those that lie together are not copied."""
    first, last = int(places[0]), int(places[-1])
    together = last - first == len(places) - 1 and bool((np.diff(places) == 1).all())
    rows = vectors[first : last + 1] if together else vectors[places]
    return np.ascontiguousarray(rows, "<f4").reshape(-1).view(np.uint8).data
