"""Near-duplicate videos: candidates from the index, checked over frames aligned in time, grouped, one of each kept."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from vidseek_media.records import Video
from vidseek_media.tables import read_table, write_table
from vidseek_retrieval.index import Collection
from vidseek_retrieval.likeness import VideoLooks, is_flat, likeness

NUM_NEIGHBOURS = 30
"""Clips that are looked at around each clip; those of other videos are candidates."""
MAX_CANDIDATES = 60
"""Of a pair of videos, the nearest."""
TOLERANCE_MS = 600
"""How far from where it should be a frame may lie: clips begin at whole strides, copies anywhere."""
MIN_FRAMES = 4
"""Frames in a row that agree and are not flat, at least."""
MIN_LENGTH_MS = 1500
EXTEND = 0.05
"""How far below the threshold frames still belong to a span whose best ones are above it."""
WHOLE = 0.8
"""The share of both videos that is the same, for them to be one."""
SPEEDS = (0.5, 2.0)
_OFFSET_STEP_MS = 500
_SPEED_STEP = 0.05
_HYPOTHESES = 6

DUPLICATES = pa.schema([
    ("video_id", pa.string()), ("start_ms", pa.int64()), ("end_ms", pa.int64()), ("duplicate_of", pa.string()),
    ("of_start_ms", pa.int64()), ("of_end_ms", pa.int64()), ("kind", pa.string()), ("score", pa.float64()),
])
"""`[start_ms, end_ms)` of `video_id` shows what `[of_start_ms, of_end_ms)` of `duplicate_of` does. `kind`: whole, part."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Alignment:
    """How the times of one video become those of another: `time * speed + offset_ms`."""

    speed: float
    offset_ms: float
    strength: float
    """The likeness that a run of frames reaches there."""


@dataclass(frozen=True)
class Match:
    """A span of one video that shows what a span of another does."""

    one: str
    other: str
    one_ms: tuple[int, int]
    other_ms: tuple[int, int]
    score: float
    """The mean likeness of its frames."""
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
    """For each pair of videos (the lesser id first) the middles of clips of the two that are near in the index, in ms."""
    found: dict[Pair, list[tuple[float, int, int]]] = defaultdict(list)
    points = tqdm(collection.scroll(), total=collection.facts.num_points, desc="near", unit="clip", disable=None)
    for point in points:
        video_id = str(point.payload["video_id"])
        middle = (point.payload["start_ms"] + point.payload["end_ms"]) // 2
        for clip in collection.search(point.vector, limit=NUM_NEIGHBOURS):
            if clip.video_id != video_id:
                other = (clip.start_ms + clip.end_ms) // 2
                pair, middles = ((video_id, clip.video_id), (middle, other))
                if clip.video_id < video_id:
                    pair, middles = ((clip.video_id, video_id), (other, middle))
                found[pair].append((-clip.score, *middles))
    return {
        pair: list(dict.fromkeys((one, other) for _, one, other in sorted(near)))[:MAX_CANDIDATES]
        for pair, near in sorted(found.items())
    }


def align(
    near: Mapping[Pair, Sequence[tuple[int, int]]], looks: Mapping[str, VideoLooks]
) -> dict[Pair, Alignment]:
    """How each pair of videos fits best, by their frames; pairs that fit nowhere are left out."""
    found = {}
    for (one, other), middles in tqdm(near.items(), desc="check", unit="pair", disable=None):
        if one in looks and other in looks:
            mine, theirs = looks[one], looks[other]
            alike = likeness_of(mine, theirs)
            tried = [
                Alignment(speed, offset_ms, strength(
                    aligned(alike, mine.times_ms, theirs.times_ms, speed=speed, offset_ms=offset_ms), mine.times_ms
                ))
                for speed, offset_ms in _hypotheses(middles)
            ]
            best = max(tried, key=lambda alignment: alignment.strength, default=None)
            if best is not None and best.strength > 0:
                found[one, other] = best
    return found


def find_matches(
    alignments: Mapping[Pair, Alignment], looks: Mapping[str, VideoLooks], videos: Mapping[str, Video], *, threshold: float
) -> list[Match]:
    """The spans that pairs of videos share where they fit best: those whose strength is at least `threshold`."""
    matches = []
    for (one, other), alignment in alignments.items():
        if alignment.strength >= threshold:
            match = _longest_run(videos[one], videos[other], looks, alignment, threshold)
            if match is not None:
                matches.append(match)
    return matches


def strength(values: NDArray[np.float32], times_ms: NDArray[np.int64]) -> float:
    """The highest likeness that a run of frames reaches: `MIN_FRAMES` in a row over `MIN_LENGTH_MS`, one miss forgiven.

    Args:
        values: As `aligned` gives them.
        times_ms: Of the same frames.
    """
    # A video of a second has no run of more.
    least_ms = min(MIN_LENGTH_MS, (times_ms[-1] - times_ms[0]) // 2)
    steps = np.unique(values[~np.isnan(values)])
    low, high = -1, len(steps) - 1  # steps[low] is reached by some run; -1 by none
    while low < high:
        middle = (low + high + 1) // 2
        if any(times_ms[end] - times_ms[start] >= least_ms for start, end in _runs(values, float(steps[middle]))):
            low = middle
        else:
            high = middle - 1
    return float(steps[low]) if low >= 0 else 0.0


def decide(matches: Iterable[Match], videos: Mapping[str, Video]) -> list[Duplicate]:
    """Which video, or span of one, is a duplicate of which.

    Videos that match as a whole, or are joined by a chain of such, are a group. Its representative is the longest, of
    equally long ones (to a tenth of a second) the sharpest, then the oldest, then the one of the least id. A span that two
    groups share is a duplicate in the video that would not represent the two.
    """
    matches = list(matches)
    group = _groups(matches)
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
    """Write the table of decisions that `publish` reads.

    Raises:
        OSError: the disk does not take it.
    """
    write_table(path, [vars(row) for row in rows], DUPLICATES)


def read_duplicates(path: Path) -> list[Duplicate]:
    """What was decided; nothing where there is no such file.

    Raises:
        ArtifactError: it is broken.
    """
    if not path.exists():
        return []
    return [Duplicate(**row) for row in read_table(path, DUPLICATES).to_dict("records")]


def same_videos(rows: Iterable[Duplicate], videos: Iterable[Video], *, min_share: float) -> list[Pair]:
    """The pairs of videos that were decided to show the same: as a whole, or to `min_share` of one of the two."""
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
    """The video that a clip is a duplicate of, by the rows of its own video: at least half of it must be; or "" ."""
    for row in rows:
        if 2 * (min(end_ms, row.end_ms) - max(start_ms, row.start_ms)) >= end_ms - start_ms:
            return row.duplicate_of
    return ""


def aligned(
    alike: NDArray[np.float32], times_ms: NDArray[np.int64], other_ms: NDArray[np.int64], *, speed: float = 1.0,
    offset_ms: float = 0.0,
) -> NDArray[np.float32]:
    """For each frame of one video the likeness of the frame of another that is like it most, of those where it should be.

    Args:
        alike: The likeness of all frames of the two, as `likeness_of` gives it.
        times_ms: Of the rows.
        other_ms: Of the columns.
        speed: A frame at `time` should be at `time * speed + offset_ms`, give or take `TOLERANCE_MS`, or half of what
            lies between two frames, where that is more.
        offset_ms: See there.

    Returns:
        Shape (n,); NaN where no frame is there, or one is flat.
    """
    step_ms = float(np.median(np.diff(other_ms))) if len(other_ms) > 1 else 0.0
    tolerance_ms = max(TOLERANCE_MS, 0.6 * step_ms)
    expected = times_ms * speed + offset_ms
    firsts = np.searchsorted(other_ms, expected - tolerance_ms, side="left")
    lasts = np.searchsorted(other_ms, expected + tolerance_ms, side="right")
    best = np.full(len(times_ms), -np.inf, dtype=np.float32)
    rows = np.arange(len(times_ms))
    for step in range(int((lasts - firsts).max(initial=0))):
        columns = np.minimum(firsts + step, len(other_ms) - 1)
        values = np.where(firsts + step < lasts, alike[rows, columns], np.nan)
        best = np.fmax(best, values)
    best[np.isinf(best)] = np.nan
    return best


def likeness_of(one: VideoLooks, other: VideoLooks) -> NDArray[np.float32]:
    """The likeness of each frame of `one` to each of `other`: shape (n, m); NaN where one of the two is flat."""
    alike = likeness(one.looks, other.looks)
    alike[is_flat(one.looks)] = np.nan
    alike[:, is_flat(other.looks)] = np.nan
    return alike


def _hypotheses(middles: Sequence[tuple[int, int]]) -> Iterator[tuple[float, float]]:
    """Speeds and offsets that most candidates agree on: same speed first, then others."""
    steps = Counter(round((other - one) / _OFFSET_STEP_MS) for one, other in middles)
    for step, _ in steps.most_common(_HYPOTHESES):
        yield 1.0, float(step * _OFFSET_STEP_MS)
    lines: Counter[tuple[float, int]] = Counter()
    for (one, other), (later, other_later) in combinations(middles[:30], 2):
        if abs(later - one) >= 2 * MIN_LENGTH_MS:
            speed = round((other_later - other) / (later - one) / _SPEED_STEP) * _SPEED_STEP
            if SPEEDS[0] <= speed <= SPEEDS[1] and abs(speed - 1) > _SPEED_STEP / 2:
                lines[round(speed, 4), round((other - speed * one) / _OFFSET_STEP_MS)] += 1
    for (speed, step), _ in lines.most_common(_HYPOTHESES):
        yield speed, float(step * _OFFSET_STEP_MS)


def _longest_run(
    one: Video, other: Video, looks: Mapping[str, VideoLooks], alignment: Alignment, threshold: float
) -> Match | None:
    mine, speed, offset_ms = looks[one.video_id], alignment.speed, alignment.offset_ms
    alike = likeness_of(mine, looks[other.video_id])
    values = aligned(alike, mine.times_ms, looks[other.video_id].times_ms, speed=speed, offset_ms=offset_ms)
    runs = list(_runs(values, threshold - EXTEND))
    if not runs:
        return None
    start, end = max(runs, key=lambda run: mine.times_ms[run[1]] - mine.times_ms[run[0]])
    step_ms = int(np.median(np.diff(mine.times_ms))) if len(mine.times_ms) > 1 else 0
    span = max(0, int(mine.times_ms[start]) - step_ms), min(one.duration_ms, int(mine.times_ms[end]) + step_ms)
    theirs = tuple(min(other.duration_ms, max(0, int(each * speed + offset_ms))) for each in span)
    shares = (span[1] - span[0]) / one.duration_ms, (theirs[1] - theirs[0]) / other.duration_ms
    score = float(np.nanmean(values[start : end + 1]))
    return Match(
        one.video_id, other.video_id, span, (theirs[0], theirs[1]), round(score, 4), is_whole=min(shares) >= WHOLE
    )


def _runs(values: NDArray[np.float32], threshold: float) -> Iterator[tuple[int, int]]:
    """First and last frame of the spans in which frames agree; one that does not, or is flat, breaks none by itself."""
    start = last = -1
    num = misses = 0
    for place, value in enumerate([*values.tolist(), -1.0, -1.0]):
        if np.isnan(value):
            continue
        if value >= threshold:
            start = place if start < 0 else start
            last, num, misses = place, num + 1, 0
        elif start >= 0:
            misses += 1
            if misses > 1:
                if num >= MIN_FRAMES:
                    yield start, last
                start, num, misses = -1, 0, 0


def _groups(matches: Iterable[Match]) -> dict[str, str]:
    """Union-find over whole matches: the root of each video that is in one."""
    parent: dict[str, str] = {}

    def root(video_id: str) -> str:
        parent.setdefault(video_id, video_id)
        while parent[video_id] != video_id:
            parent[video_id] = parent[parent[video_id]]
            video_id = parent[video_id]
        return video_id

    for match in matches:
        if match.is_whole:
            one, other = sorted((root(match.one), root(match.other)))
            parent[other] = one
    return {video_id: root(video_id) for video_id in list(parent)}


def _members(group: Mapping[str, str], videos: Mapping[str, Video]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for video_id in videos:
        if video_id in group:
            members[group[video_id]].append(video_id)
    return members


def _rank(video: Video) -> tuple[int, int, str, str]:
    """The least one represents: longest, sharpest, oldest (those without a date last), least id."""
    return -(video.duration_ms // 100), -video.width * video.height, video.published_at or "9999", video.video_id


def _part(match: Match, videos: Mapping[str, Video]) -> Duplicate:
    ends = (match.one, match.one_ms), (match.other, match.other_ms)
    (kept, of), (video_id, span) = sorted(ends, key=lambda end: _rank(videos[end[0]]))
    return Duplicate(video_id, span[0], span[1], kept, of[0], of[1], "part", match.score)
