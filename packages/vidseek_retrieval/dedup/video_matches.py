"""Decides which video, or span of a video, shows the same as another's; one of each group of equal videos stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from vidseek_media.errors import ArtifactError
from vidseek_media.records import Video
from vidseek_media.splitting.video_groups import groups_of
from vidseek_media.tables import read_table, write_table
from vidseek_retrieval.dedup.comparing.alignment import Alignment
from vidseek_retrieval.dedup.judging.scoring import log_odds, probability

Pair = tuple[str, str]
WHOLE = 0.8
"""The share of both videos that is the same, for them to be one."""
EDGE_MS = 1000
"""From the beginning or the end of a video: what two videos share there alone is an opening or a closing."""
MOST_OPENING = 0.5
"""The share of both videos that an opening has, at most; what is longer is a copy that was trimmed."""
STILL = 0.5
"""The energy below which nothing moves: a card, a slide or a test picture that two videos share is no copy."""
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
    """How likely it is that they show the same, at even odds."""
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


def find_matches(alignments: Mapping[Pair, Alignment], videos: Mapping[str, Video], *, least_odds: float) -> list[Match]:
    """Return the spans that pairs of videos share.

    Openings, closings and stills that two videos share, and nothing else, are left out.

    Args:
        alignments: The best alignment of each pair.
        videos: The videos by id.
        least_odds: The logarithm of odds from which a pair is called one.
    """
    matches = []
    for (one, other), alignment in alignments.items():
        odds = log_odds(alignment.evidence)
        if odds >= least_odds:
            match = match_of(videos[one], videos[other], alignment, score=round(probability(odds), 4))
            if match.is_whole or not (_is_edge(match, videos[one], videos[other]) or alignment.evidence.energy < STILL):
                matches.append(match)
    return matches


def match_of(one: Video, other: Video, alignment: Alignment, *, score: float) -> Match:
    """Return the span that two videos share, up to their beginning and end where their frames reach those.

    Args:
        one: The first video.
        other: The second video.
        alignment: How they fit.
        score: How likely it is that they show the same.
    """
    by = alignment.by
    # What both have, in times of the first.
    reach = (max(0.0, -by.offset_ms / by.speed), min(float(one.duration_ms), (other.duration_ms - by.offset_ms) / by.speed))
    start, end = (float(each) for each in alignment.one_ms)
    start = reach[0] if start - reach[0] <= alignment.near_ms[0] else start
    end = reach[1] if reach[1] - end <= alignment.near_ms[1] else end
    mine = (max(0, round(start)), min(one.duration_ms, round(end)))
    theirs = (max(0, round(start * by.speed + by.offset_ms)), min(other.duration_ms, round(end * by.speed + by.offset_ms)))
    shares = (mine[1] - mine[0]) / max(one.duration_ms, 1), (theirs[1] - theirs[0]) / max(other.duration_ms, 1)
    return Match(one.video_id, other.video_id, mine, theirs, score, is_whole=min(shares) >= WHOLE)


def _is_edge(match: Match, one: Video, other: Video) -> bool:
    """Whether two videos share nothing but how they begin, or how they end."""
    durations = one.duration_ms, other.duration_ms
    spans = match.one_ms, match.other_ms
    if any(end - start >= MOST_OPENING * duration for (start, end), duration in zip(spans, durations, strict=True)):
        return False
    return all(start <= EDGE_MS for start, _ in spans) or all(
        end >= duration - EDGE_MS for (_, end), duration in zip(spans, durations, strict=True)
    )


def decide(matches: Iterable[Match], videos: Mapping[str, Video]) -> list[Duplicate]:
    """Decide which video, or span of a video, duplicates which.

    Videos that match as a whole, directly or through others, form a group. Its representative is the longest; of equally
    long ones (within a tenth of a second) the sharpest, then the oldest, then the one with the smallest id. A span shared by
    two groups is a duplicate in the video that ranks lower by this order.

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
