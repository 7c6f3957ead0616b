"""Segments: what is said or written in a video, with times. One table for subtitles, speech and on-screen text."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidseek_media.files.video_memory import VideoMemory
from vidseek_media.guards import mended_text
from vidseek_media.records import Rejection, share_half
from vidseek_media.tables import REJECTED, SEGMENTS, read_table, write_table

SEGMENTS_FILE = "segments.parquet"
"""Name of the table in the folder of a stage."""


@dataclass(frozen=True)
class Segment:
    """A text that is said or shown in `[start_ms, end_ms)`."""

    start_ms: int
    end_ms: int
    text: str
    """One line of plain text; not blank. Other text is reduced to this by `segment_of`."""
    language: str = ""
    """A language tag such as `en` or `pt-BR`; empty if it is unknown."""
    source: str = ""
    """What the text comes from, with the engine and its model if there is one: `file`, `embedded`, `rapidocr/PP-OCRv6`."""
    confidence: float | None = None
    """Of the engine, 0 to 1; None if there is none."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise ValueError(f"[{self.start_ms}, {self.end_ms}) is not a span of milliseconds")
        if not self.text or self.text != mended_text(self.text):
            raise ValueError(f"{self.text[:60]!r} is not one line of plain text")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence is {self.confidence}, wanted 0 to 1")


def segment_of(
    start_ms: float, end_ms: float, text: object, *, language: str = "", source: str = "", confidence: float | None = None
) -> Segment | None:
    """Return a segment of what an engine or a file says; None if nothing usable is left of it.

    White space is made plain, and control characters and halves of characters are removed. Times are rounded to whole
    milliseconds. A start before 0 becomes 0, and a confidence is cut to 0 to 1.

    Args:
        start_ms: Start in milliseconds.
        end_ms: End in milliseconds, exclusive.
        text: The text; anything but a str gives None.
        language: Language tag, or "".
        source: What the text comes from.
        confidence: Of the engine; not a number counts as None.
    """
    plain = mended_text(text)
    if not plain or not (math.isfinite(start_ms) and math.isfinite(end_ms)):
        return None
    start, end = max(0, round(start_ms)), round(end_ms)
    if start >= end:
        return None
    sure = None if confidence is None or math.isnan(confidence) else min(1.0, max(0.0, float(confidence)))
    return Segment(start, end, plain, language, source, sure)


def write_segments(folder: Path, segments: Mapping[str, Iterable[Segment]]) -> int:
    """Write the segments of all videos of a stage to `folder/segments.parquet`, in order of video_id and time.

    Args:
        folder: Output folder of the stage.
        segments: Segments by video_id, in any order; a video without segments has no rows.

    Returns:
        The number of segments written.
    """
    columns: dict[str, list[object]] = {name: [] for name in SEGMENTS.names}
    for video_id in sorted(segments):
        for segment in sorted(segments[video_id], key=_order):
            for name, value in {"video_id": video_id, **asdict(segment)}.items():
                columns[name].append(value)
    table = pa.table(columns, schema=SEGMENTS)
    write_table(folder / SEGMENTS_FILE, table, SEGMENTS)
    return int(table.num_rows)


def write_evidence(
    folder: Path, segments: Mapping[str, Iterable[Segment]], rejections: Iterable[Rejection]
) -> int:
    """Write what a stage read of all videos, and why it could not read others: `segments.parquet` and `rejected.parquet`.

    Args:
        folder: Output folder of the stage.
        segments: As `write_segments` takes them.
        rejections: In any order.

    Returns:
        The number of segments written.
    """
    refused = [asdict(each) for each in sorted(rejections, key=lambda each: each.id)]
    write_table(folder / "rejected.parquet", refused, REJECTED)
    return write_segments(folder, segments)


def read_segments(folder: Path) -> dict[str, list[Segment]]:
    """Read the segments that `write_segments` wrote, by video_id in order of time.

    Args:
        folder: Output folder of the stage.

    Raises:
        ArtifactError: the table is missing or broken.
    """
    found: dict[str, list[Segment]] = {}
    for row in read_table(folder / SEGMENTS_FILE, SEGMENTS).itertuples(index=False):
        sure = None if row.confidence is None or math.isnan(row.confidence) else float(row.confidence)
        found.setdefault(str(row.video_id), []).append(
            Segment(int(row.start_ms), int(row.end_ms), str(row.text), str(row.language), str(row.source), sure)
        )
    return found


def segments_of_span(segments: Sequence[Segment], start_ms: int, end_ms: int) -> list[Segment]:
    """Return the segments that share with a span at least half of the shorter of the two.

    Args:
        segments: In order of their start.
        start_ms: Start of the span in milliseconds.
        end_ms: End of the span in milliseconds, exclusive.
    """
    begun = segments[: bisect.bisect_left(segments, end_ms, key=lambda each: each.start_ms)]
    return [each for each in begun if share_half((start_ms, end_ms), (each.start_ms, each.end_ms))]


class SegmentCache:
    """The segments of each video, as `VideoMemory` keeps them.

    Args:
        folder: As `VideoMemory` has it.
        settings: As `VideoMemory` has it.

    Examples:
        >>> cache = SegmentCache(Path("ocr"), {"format": 1, "engine": "rapidocr"})
        >>> cache.recall("ab12") is None
        True
        >>> cache.remember("ab12", [Segment(0, 1500, "EXIT", source="rapidocr", confidence=0.9)])
        >>> [segment.text for segment in cache.recall("ab12")]
        ['EXIT']
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._memory = VideoMemory(folder, settings)

    def recall(self, video_id: str) -> list[Segment] | None:
        """Return the kept segments of a video; None if it was not read with these settings, or its file is broken."""
        return self._memory.recall(video_id, _segments_in)

    def recall_all(self, video_ids: Iterable[str]) -> dict[str, list[Segment]]:
        """Return the kept segments of videos by video_id; videos that were not read are left out."""
        return self._memory.recall_all(video_ids, _segments_in)

    def remember(self, video_id: str, segments: Iterable[Segment]) -> None:
        """Keep the segments of a video; an empty list says that it has none.

        Raises:
            OSError: the disk cannot hold it.
        """
        self._memory.remember(video_id, [asdict(each) for each in sorted(segments, key=_order)])


def _segments_in(rows: Iterable[Mapping[str, Any]]) -> list[Segment]:
    return [Segment(**each) for each in rows]


def _order(segment: Segment) -> tuple[int, int, str, str, str]:
    return segment.start_ms, segment.end_ms, segment.text, segment.language, segment.source
