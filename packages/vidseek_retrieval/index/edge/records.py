"""The digests beside an Edge shard, written with it: what a later publish compares with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.difference.record import POINT_ROW, VIDEO_ROW, Difference, StoredPoint
from vidseek_retrieval.index.edge.spans import ROW, SPANS_FILE, order_of, write_spans

VIDEOS_FILE = "videos.npy"
POINTS_FILE = "points.npy"
"""Rows of `POINT_ROW`, row for row those of spans.npy."""


@dataclass(frozen=True)
class EdgeRecord:
    """The digests of a collection, memory-mapped."""

    metadata: CollectionMetadata
    videos: NDArray[np.void]
    spans: NDArray[np.void]
    points: NDArray[np.void]
    builder: Callable[[CollectionMetadata, Difference], None]

    @classmethod
    def read(
        cls, folder: Path, metadata: CollectionMetadata, builder: Callable[[CollectionMetadata, Difference], None]
    ) -> EdgeRecord | None:
        """Return the record of a collection; None if it has none, or another version of vidseek wrote it.

        Args:
            folder: The collection's folder.
            metadata: Its metadata.
            builder: Makes a collection from this one, as `grow` says.
        """
        try:
            videos, spans, points = (
                np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (VIDEOS_FILE, SPANS_FILE, POINTS_FILE)
            )
        except (OSError, ValueError, EOFError):
            return None
        fits = (videos.dtype, spans.dtype, points.dtype) == (VIDEO_ROW, ROW, POINT_ROW)
        is_whole = fits and len(spans) == len(points) == metadata.num_points
        return cls(metadata, videos, spans, points, builder) if is_whole else None

    @property
    def can_grow(self) -> bool:
        """Always: a shard is copied."""
        return True

    def points_of(self, video_ids: Collection[str]) -> Mapping[str, StoredPoint]:
        """Return the points of videos by clip id; unknown videos are ignored."""
        names = np.array(sorted(video_ids), "S32")
        found: dict[str, StoredPoint] = {}
        begins = np.searchsorted(self.spans["video_id"], names, side="left").tolist()
        ends = np.searchsorted(self.spans["video_id"], names, side="right").tolist()
        for begin, end in zip(begins, ends, strict=True):
            rows = self.points[begin:end].tolist()
            for clip_id, (digest, vectors) in zip(self.spans["clip_id"][begin:end].tolist(), rows, strict=True):
                found[clip_id.decode()] = StoredPoint((int(digest[0]), int(digest[1])), vectors)
        return found

    def grow(self, metadata: CollectionMetadata, difference: Difference) -> None:
        """Implement `Record.grow`."""
        self.builder(metadata, difference)


def joined_rows(
    base: Path, removed: Sequence[str], spans: NDArray[np.void], points: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return the rows of a collection that grew: those of its base without what was removed or written, and the new ones.

    Args:
        base: The folder of the base.
        removed: Ids of the points that were removed.
        spans: Rows of spans.npy of the points that were written.
        points: Their rows of points.npy.
    """
    old_spans, old_points = (np.load(base / name, allow_pickle=False) for name in (SPANS_FILE, POINTS_FILE))
    gone = {*(clip_id.encode() for clip_id in removed), *spans["clip_id"].tolist()}
    highs = np.array([int(clip_id[:8] + clip_id[9:13] + clip_id[14:18], 16) for clip_id in gone], np.uint64)
    near = np.flatnonzero(np.isin(old_spans["high"], highs))
    kept = np.ones(len(old_spans), bool)
    named = zip(near.tolist(), old_spans["clip_id"][near].tolist(), strict=True)
    kept[[place for place, clip_id in named if clip_id in gone]] = False
    return np.concatenate([old_spans[kept], spans]), np.concatenate([old_points[kept], points])


def write_rows(folder: Path, spans: NDArray[np.void], points: NDArray[np.void]) -> None:
    """Write spans.npy and points.npy into the folder of a collection.

    Args:
        folder: The collection's folder.
        spans: Rows of spans.npy, in any order.
        points: Rows of points.npy, row for row those of `spans`.
    """
    order = order_of(spans)
    write_spans(folder / SPANS_FILE, spans[order])
    np.save(folder / POINTS_FILE, points[order])
