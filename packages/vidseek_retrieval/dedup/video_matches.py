"""Finds near-duplicate videos: candidates from the index, verified on frames aligned in time, grouped; one of each group
stays.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from vidseek_media.errors import ArtifactError
from vidseek_media.records import Video
from vidseek_media.splitting.video_groups import groups_of
from vidseek_media.tables import read_table, write_table
from vidseek_retrieval.dedup.alignment import EXTEND, Alignment, Limits, Pair, likeness_of, longest_run, matched
from vidseek_retrieval.dedup.picture_likeness import VideoFingerprint
from vidseek_retrieval.index.backend import Collection, Point
from vidseek_retrieval.search.moments import RankedClip

NUM_NEIGHBOURS = 30
"""Clips that are looked at around each clip; those of other videos are candidates."""
MORE_NEIGHBOURS = 300
"""Where all of them are of its own video: one by a still camera has many clips that are alike."""
BATCH = 1000
"""Clips in memory at once while their neighbours are looked up."""
MAX_CANDIDATES = 60
"""Of a pair of videos, the nearest."""
WHOLE = 0.8
"""The share of both videos that is the same, for them to be one."""
DUPLICATES = pa.schema([
    ("video_id", pa.string()), ("start_ms", pa.int64()), ("end_ms", pa.int64()), ("duplicate_of", pa.string()),
    ("of_start_ms", pa.int64()), ("of_end_ms", pa.int64()), ("kind", pa.string()), ("score", pa.float64()),
])
"""`[start_ms, end_ms)` of `video_id` shows what `[of_start_ms, of_end_ms)` of `duplicate_of` does. `kind`: whole, part."""


@dataclass(frozen=True)
class Match:
    """A span of one video that shows the same as a span of another."""

    one: str
    other: str
    one_ms: tuple[int, int]
    other_ms: tuple[int, int]
    score: float
    """That of the alignment: strength and motion alike, or the strength alone where nothing moves."""
    is_whole: bool
    """Whether the spans are nearly all of both videos."""


@dataclass(frozen=True)
class Duplicate:
    """A row of the table of decisions."""

    video_id: str
    start_ms: int
    end_ms: int
    duplicate_of: str
    of_start_ms: int
    of_end_ms: int
    kind: str
    score: float


def candidates(collection: Collection) -> dict[Pair, list[tuple[int, int]]]:
    """Return pairs of videos with clips that are near each other in the index.

    Returns:
        For each pair (smaller id first), the centres of the two clips in ms, for each pair of near clips.
    """
    found: dict[Pair, list[tuple[float, int, int]]] = defaultdict(list)
    for point, near in _with_neighbours(collection):
        video_id = str(point.payload["video_id"])
        middle = (point.payload["start_ms"] + point.payload["end_ms"]) // 2
        for clip in near:
            other = (clip.start_ms + clip.end_ms) // 2
            pair, middles = ((video_id, clip.video_id), (middle, other))
            if clip.video_id < video_id:
                pair, middles = ((clip.video_id, video_id), (other, middle))
            found[pair].append((-clip.score, *middles))
    return {
        pair: list(dict.fromkeys((one, other) for _, one, other in sorted(near)))[:MAX_CANDIDATES]
        for pair, near in sorted(found.items())
    }


def find_matches(
    alignments: Mapping[Pair, Alignment],
    fingerprints: Mapping[str, VideoFingerprint],
    videos: Mapping[str, Video],
    *,
    limits: Limits,
) -> list[Match]:
    """Return the spans that pairs of videos share at their best alignment.

    Args:
        alignments: The best alignment of each pair.
        fingerprints: Descriptors of the frames of each video.
        videos: The videos by id.
        limits: Thresholds of similarity for a match.
    """
    matches = []
    for (one, other), alignment in alignments.items():
        if limits.call(alignment):
            match = _match(
                videos[one], videos[other], fingerprints, alignment, min(alignment.strength, limits.still) - EXTEND
            )
            if match is not None:
                matches.append(match)
    return matches


def decide(matches: Iterable[Match], videos: Mapping[str, Video]) -> list[Duplicate]:
    """Decide which video, or span of a video, duplicates which.

    Videos that match as a whole, directly or through others, form a group. Its representative is the longest; of equally
    long
    ones (within a tenth of a second) the sharpest, then the oldest, then the one with the smallest id. A span shared by two
    groups is a duplicate in the video that ranks lower by this order.

    Args:
        matches: Spans that two videos share.
        videos: The videos by id.
    """
    matches = list(matches)
    together = [(match.one, match.other) for match in matches if match.is_whole]
    group = groups_of({video_id for pair in together for video_id in pair}, together)
    representative: dict[str, str] = {}
    for members in _members(group, videos).values():
        best = min(members, key=lambda video_id: _rank(videos[video_id]))
        representative.update(dict.fromkeys(members, best))
    rows = []
    score = {frozenset((match.one, match.other)): match.score for match in matches}
    for video_id, kept in sorted(representative.items()):
        if video_id != kept:
            best_score = score.get(frozenset((video_id, kept))) or max(
                match.score for match in matches if match.is_whole and video_id in (match.one, match.other)
            )
            rows.append(Duplicate(
                video_id, 0, videos[video_id].duration_ms, kept, 0, videos[kept].duration_ms, "whole", best_score
            ))
    for match in matches:
        if representative.get(match.one, match.one) != representative.get(match.other, match.other):
            rows.append(_part(match, videos))
    return sorted(rows, key=lambda row: (row.video_id, row.start_ms, row.duplicate_of))


def write_duplicates(path: Path, rows: Sequence[Duplicate]) -> None:
    """Write the table of accepted duplicates that `publish` reads.

    Args:
        path: The file to write.
        rows: The duplicates.

    Raises:
        OSError: the disk cannot hold it.
    """
    write_table(path, [vars(row) for row in rows], DUPLICATES, sync=True)


def read_duplicates(path: Path) -> list[Duplicate]:
    """Read the table of accepted duplicates; a missing file gives none.

    Raises:
        ArtifactError: the table is broken.
    """
    if not path.exists():
        return []
    table = read_table(path, DUPLICATES)
    wrong = table.isna().any(axis=1) | ~table["kind"].isin(["whole", "part"])
    if wrong.any():
        raise ArtifactError(
            f"{path} holds {int(wrong.sum())} rows that are no duplicates, the first is row {int(wrong.argmax())}",
            code="broken-rows",
            remedy="Take those rows out, or the file back from git",
        )
    return [Duplicate(**row) for row in table.to_dict("records")]


def same_videos(rows: Iterable[Duplicate], videos: Iterable[Video], *, min_share: float) -> list[Pair]:
    """Return the pairs of videos that duplicate each other as a whole, or in a large share of one of them.

    Args:
        rows: Accepted duplicates.
        videos: The videos.
        min_share: Least share of one of the two videos, from 0 to 1.
    """
    duration_ms = {video.video_id: video.duration_ms for video in videos}
    return [
        (row.video_id, row.duplicate_of) for row in rows
        if row.video_id in duration_ms and row.duplicate_of in duration_ms and (
            row.kind == "whole"
            or row.end_ms - row.start_ms >= min_share * duration_ms[row.video_id]
            or row.of_end_ms - row.of_start_ms >= min_share * duration_ms[row.duplicate_of]
        )
    ]


def duplicate_of(rows: Sequence[Duplicate], start_ms: int, end_ms: int) -> str:
    """Return the id of the video that a clip duplicates; "" if less than half of the clip does.

    Args:
        rows: Duplicates of the clip's video.
        start_ms: Start of the clip in milliseconds.
        end_ms: End of the clip in milliseconds, exclusive.
    """
    for row in rows:
        if 2 * (min(end_ms, row.end_ms) - max(start_ms, row.start_ms)) >= end_ms - start_ms:
            return row.duplicate_of
    return ""


def _with_neighbours(collection: Collection) -> Iterator[tuple[Point, list[RankedClip]]]:
    """Yield each point with the nearest clips of other videos, on all cores: both homes search without Python's lock."""
    points = iter(tqdm(collection.scroll(), total=collection.metadata.num_points, desc="near", unit="clip", disable=None))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while batch := list(islice(points, BATCH)):
            yield from zip(batch, pool.map(lambda point: _neighbours(collection, point), batch), strict=True)


def _neighbours(collection: Collection, point: Point) -> list[RankedClip]:
    others: list[RankedClip] = []
    for limit in (NUM_NEIGHBOURS, MORE_NEIGHBOURS):
        found = collection.search(point.vector, limit=limit)
        others = [clip for clip in found if clip.video_id != point.payload["video_id"]]
        if others or len(found) < limit:
            break
    return others[:NUM_NEIGHBOURS]


def _match(
    one: Video, other: Video, fingerprints: Mapping[str, VideoFingerprint], alignment: Alignment, threshold: float
) -> Match | None:
    mine, theirs, speed, offset_ms = (
        fingerprints[one.video_id],
        fingerprints[other.video_id],
        alignment.speed,
        alignment.offset_ms,
    )
    values, _ = matched(likeness_of(mine, theirs), mine.times_ms, theirs.times_ms, speed=speed, offset_ms=offset_ms)
    run = longest_run(values, mine.times_ms, threshold)
    if run is None:
        return None
    start, end = run
    step_ms = int(np.median(np.diff(mine.times_ms))) if len(mine.times_ms) > 1 else 0
    span = max(0, int(mine.times_ms[start]) - step_ms), min(one.duration_ms, int(mine.times_ms[end]) + step_ms)
    of_start, of_end = (min(other.duration_ms, max(0, int(each * speed + offset_ms))) for each in span)
    shares = (span[1] - span[0]) / one.duration_ms, (of_end - of_start) / other.duration_ms
    return Match(
        one.video_id, other.video_id, span, (of_start, of_end), round(alignment.score, 4), is_whole=min(shares) >= WHOLE
    )


def _members(group: Mapping[str, str], videos: Mapping[str, Video]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for video_id in videos:
        if video_id in group:
            members[group[video_id]].append(video_id)
    return members


def _rank(video: Video) -> tuple[int, int, str, str]:
    """Return the least one represents: longest, sharpest, oldest (those without a date last), least id."""
    return -(video.duration_ms // 100), -video.width * video.height, video.published_at or "9999", video.video_id


def _part(match: Match, videos: Mapping[str, Video]) -> Duplicate:
    ends = (match.one, match.one_ms), (match.other, match.other_ms)
    (kept, of), (video_id, span) = sorted(ends, key=lambda end: _rank(videos[end[0]]))
    return Duplicate(video_id, span[0], span[1], kept, of[0], of[1], "part", match.score)
