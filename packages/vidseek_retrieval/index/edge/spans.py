"""A table of each clip's video and span beside an Edge shard, memory-mapped by readers.

Moments are built from hundreds of clips of a search and their neighbours. Edge takes longer to read so many payloads, or to
filter by them, than for the search itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.backend import Point, TimeRange

SPANS_FILE = "spans.npy"
ROW = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("clip_id", "S36"), ("video_id", "S32"), ("start_ms", "<i8"), ("end_ms", "<i8"),
     ("duplicate_of", "S32"), ("by_id", "<u4")]
)
"""Of a point, with its id's upper and lower half. Rows lie in order of video and start; `by_id` is no part of its row: one
after the other its numbers are the rows in order of id."""
_LOW = 2**64 - 1


class Spans:
    """The spans of a collection, found by clip and by video."""

    def __init__(self, rows: NDArray[np.void]) -> None:
        """Take rows in the order of `write_spans`.

        Raises:
            ValueError: they are in another order.
        """
        self._rows = rows = np.asarray(rows)  # a memmap makes each look at it slower
        # Of its own: a search in the mapped column, whose numbers lie unaligned, would copy all of it each time.
        self._by_id = np.ascontiguousarray(rows["by_id"])
        if len(rows) and self._by_id.max() >= len(rows):
            raise ValueError("by_id names rows that are not there")
        self._highs = np.ascontiguousarray(rows["high"])[self._by_id]
        videos = np.ascontiguousarray(rows["video_id"])
        if (self._highs[1:] < self._highs[:-1]).any() or (videos[1:] < videos[:-1]).any():
            raise ValueError("its rows are out of order")
        begins = np.flatnonzero(np.append(True, videos[1:] != videos[:-1]))[: len(rows)]
        self._begins = np.append(begins, len(rows))
        self._videos = videos[begins]

    @classmethod
    def read(cls, path: Path, num_points: int) -> Spans:
        """Open a file of spans.

        Args:
            path: A file that `write_spans` wrote.
            num_points: Number of points of the shard.

        Raises:
            ValueError: the file is missing or broken, or of another number of points or version of vidseek.
        """
        try:
            rows: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is missing or broken: {error}") from error
        if rows.dtype != ROW or rows.shape != (num_points,):
            raise ValueError(
                f"{path} has {rows.shape} rows of {', '.join(rows.dtype.names or ())}, wanted {num_points} of "
                f"{', '.join(ROW.names or ())}: it is broken, or of another version of vidseek"
            )
        try:
            return cls(rows)
        except ValueError as error:
            raise ValueError(f"{path} is broken: {error}") from error

    def of(self, ids: bytes) -> NDArray[np.void]:
        """Return the rows of clips.

        Args:
            ids: The ids, 16 bytes each.

        Raises:
            LookupError: an id is not in the table.
        """
        highs, lows = np.frombuffer(ids, dtype=">u8").astype(np.uint64).reshape(-1, 2).T
        places = np.searchsorted(self._highs, highs)
        # Two ids may share their upper half.
        while True:
            rows = self._rows[self._by_id[np.minimum(places, len(self._by_id) - 1)]]
            other = (rows["high"] == highs) & (rows["low"] < lows)
            if not other.any():
                break
            places = places + other
        if (rows["high"] != highs).any() or (rows["low"] != lows).any():
            raise LookupError(f"{SPANS_FILE} lacks clips of its shard")
        return rows

    def within(self, time_ranges: Iterable[TimeRange]) -> set[str]:
        """Return the ids of the clips that begin in one of the time ranges."""
        found: set[str] = set()
        for video_id, first_ms, last_ms in time_ranges:
            number = int(np.searchsorted(self._videos, video_id.encode()))
            if number == len(self._videos) or self._videos[number] != video_id.encode():
                continue
            rows = self._rows[self._begins[number] : self._begins[number + 1]]
            first, last = np.searchsorted(rows["start_ms"], [first_ms, last_ms + 1])
            found.update(clip_id.decode() for clip_id in rows["clip_id"][first:last].tolist())
        return found


def row_of(point: Point) -> tuple[int, int, bytes, bytes, int, int, bytes, int]:
    """Return the row of a point, without its position by id."""
    number, payload = uuid.UUID(point.clip_id).int, point.payload
    return (
        number >> 64,
        number & _LOW,
        point.clip_id.encode(),
        payload["video_id"].encode(),
        payload["start_ms"],
        payload["end_ms"],
        payload.get("duplicate_of", "").encode(),
        0,
    )


def order_of(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the order that the rows of a file lie in: by video, start and id.

    Args:
        rows: Rows of `row_of`.
    """
    return np.lexsort((rows["low"], rows["high"], rows["start_ms"], rows["video_id"]))


def write_spans(path: Path, rows: NDArray[np.void]) -> None:
    """Write rows as a file that `Spans.read` opens.

    Args:
        path: The file to write.
        rows: Rows of `row_of`, in the order of `order_of`. Their column `by_id` is filled in.
    """
    rows["by_id"] = np.lexsort((rows["low"], rows["high"]))
    np.save(path, rows)
