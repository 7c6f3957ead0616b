"""Finds near-duplicates in a published archive: threshold, matches, proposed decisions, and a page to review them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidseek_media.errors import GateFailed
from vidseek_media.files.pages import write_page
from vidseek_media.frame_store.stored_clips import read_frames
from vidseek_media.sources.ingest import read_videos
from vidseek_retrieval.dedup.alignment import MIN_FRAMES, MIN_LENGTH_MS, TOLERANCE_MS, Alignment, Pair, align
from vidseek_retrieval.dedup.made_copies import CHANCE, MOMENTS, Sample, Scored, Threshold, choose_threshold, score_copies
from vidseek_retrieval.dedup.picture_likeness import VideoFingerprint, read_fingerprints
from vidseek_retrieval.dedup.video_matches import MAX_CANDIDATES, Duplicate, candidates, decide, find_matches
from vidseek_retrieval.index.backend import Collection

NUM_SAMPLES = 200
"""Clips that copies are made of."""
NUM_DIFFERENT = 2000
"""Pairs of videos that are put together by chance, at most."""
NOWHERE = Alignment(1.0, 0.0, 0.0, 0.0)
"""How two videos fit that fit nowhere."""


@dataclass(frozen=True)
class DedupReport:
    """The near-duplicates that were found; nothing is decided by it."""

    collection: str
    num_videos: int
    num_candidates: int
    """Pairs of videos that have clips near each other."""
    threshold: Threshold
    duplicates: tuple[Duplicate, ...]
    uris: Mapping[str, str]
    """Of the videos in `duplicates`."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, for `--json`."""
        return asdict(self)


def find_duplicates(
    collection: Collection, frames: Path, ingest_dir: Path, *, precision: float, seed: int = 0
) -> DedupReport:
    """Look for near-duplicates among the videos of `collection`.

    Args:
        collection: The published clips.
        frames: The folder of the frame shards.
        ingest_dir: With videos.parquet.
        precision: Of 100 pairs that are called equal, how many shall be, on made copies.
        seed: For the sample that copies are made of.

    Raises:
        ArtifactError: frames or videos are missing or broken.
        GateFailed: the archive is too small to choose a threshold on.
    """
    videos = {video.video_id: video for video in read_videos(ingest_dir)}
    near = candidates(collection)
    fingerprints = read_fingerprints(frames, videos)
    videos = {video_id: video for video_id, video in videos.items() if video_id in fingerprints}
    if len(videos) < 2:
        raise GateFailed(
            f"{len(videos)} videos have frames: there is nothing to compare", code="too-few-videos",
            remedy="Run `dvc repro`",
        )
    alignments = align(near, fingerprints)
    chosen_on, measured_on = _samples(frames, fingerprints, alignments, np.random.default_rng(seed))
    threshold = choose_threshold(chosen_on, measured_on, list(alignments.values()), target=precision)
    found = decide(find_matches(alignments, fingerprints, videos, limits=threshold.limits), videos)
    named = {video_id for row in found for video_id in (row.video_id, row.duplicate_of)}
    return DedupReport(
        collection.metadata.name, len(videos), len(near), threshold, tuple(found),
        {video_id: videos[video_id].uris[0] for video_id in sorted(named)},
    )


def write_duplicates_page(path: Path, report: DedupReport, frames: Path) -> None:
    """Write a self-contained HTML page that shows both sides of each duplicate.

    Args:
        path: The file to write.
        report: The duplicates that were found.
        frames: Folder with the frame shards.

    Raises:
        OSError: the disk cannot hold it.
    """
    pictures = _pictures(frames, report.duplicates)
    write_page(path, "vidseek_retrieval", "duplicates.html", report=report, pictures=pictures)


def _samples(
    frames: Path,
    fingerprints: Mapping[str, VideoFingerprint],
    alignments: Mapping[Pair, Alignment],
    draws: np.random.Generator,
) -> tuple[Sample, Sample]:
    """Return two halves of the videos: one to choose a threshold on, one to measure it on."""
    ids = [sorted(fingerprints)[place] for place in draws.permutation(len(fingerprints))]
    halves = set(ids[::2]), set(ids[1::2])
    copies = _copies(frames, halves, draws)
    chosen_on, measured_on = (
        Sample(made, _chance(fingerprints, alignments, of=of, wanted=half, draws=draws)
               + _moments({each: fingerprints[each] for each in half}, draws))
        # A pair of both halves is one to choose on: few videos make few pairs.
        for half, made, of in zip(halves, copies, (any, all), strict=True)
    )
    return chosen_on, measured_on


def _copies(frames: Path, halves: Sequence[Set[str]], draws: np.random.Generator) -> list[list[Scored]]:
    """For each half copies of clips drawn from all, in one pass."""
    kept: list[list[Any]] = [[] for _ in halves]
    seen = [0 for _ in halves]
    for clip in read_frames(frames, video_ids={video_id for half in halves for video_id in half}):
        for number, half in enumerate(halves):
            if clip.key.rsplit("_", 1)[0] in half:
                seen[number] += 1
                if len(kept[number]) < NUM_SAMPLES // 2:
                    kept[number].append(clip)
                elif (place := int(draws.integers(seen[number]))) < NUM_SAMPLES // 2:
                    kept[number][place] = clip
    return [
        [
            scored for clip in clips
            for scored in score_copies(clip.frames, np.array(clip.times_ms, dtype=np.int64) - clip.times_ms[0])
        ]
        for clips in kept
    ]


def _chance(
    fingerprints: Mapping[str, VideoFingerprint],
    alignments: Mapping[Pair, Alignment],
    *,
    of: Callable[[Iterable[bool]], bool],
    wanted: Set[str],
    draws: np.random.Generator,
) -> list[Scored]:
    """Return pairs of which any or all are wanted, put together by chance, in time too, and never where they fit best: so
    that duplicates among them do not fit. As many ways are tried as with pairs that are judged.
    """
    # In a shorter one every time is near every other.
    ids = sorted(each for each, those in fingerprints.items() if np.ptp(those.times_ms) >= 2 * TOLERANCE_MS + MIN_LENGTH_MS)
    if len(ids) < 2:
        return []
    near = {}
    for _ in range(NUM_DIFFERENT):
        one, other = sorted(ids[place] for place in draws.choice(len(ids), size=2, replace=False))
        if not of(each in wanted for each in (one, other)):
            continue
        times = (
            draws.choice(fingerprints[one].times_ms, MAX_CANDIDATES),
            draws.choice(fingerprints[other].times_ms, MAX_CANDIDATES),
        )
        fits = alignments.get((one, other))
        near[one, other] = [
            (int(mine), int(theirs)) for mine, theirs in zip(*times, strict=True)
            if fits is None or abs(theirs - mine * fits.speed - fits.offset_ms) > 2 * TOLERANCE_MS
        ]
    found = align(near, fingerprints)
    return [Scored(found.get(pair, NOWHERE), CHANCE) for pair in near]


def _moments(fingerprints: Mapping[str, VideoFingerprint], draws: np.random.Generator) -> list[Scored]:
    """Return the first half of a video against its second: what a still camera makes of two recordings."""
    halves: dict[str, VideoFingerprint] = {}
    near: dict[Pair, list[tuple[int, int]]] = {}
    for video_id, those in sorted(fingerprints.items())[: NUM_DIFFERENT // 4]:
        middle = len(those.times_ms) // 2
        parts = [
            VideoFingerprint(those.times_ms[rows], those.fingerprints[rows])
            for rows in (slice(middle), slice(middle, None))
        ]
        if middle >= MIN_FRAMES and min(np.ptp(part.times_ms) for part in parts) >= MIN_LENGTH_MS:
            one, other = f"{video_id}/0", f"{video_id}/1"
            halves |= {one: parts[0], other: parts[1]}
            times = (draws.choice(part.times_ms, MAX_CANDIDATES) for part in parts)
            near[one, other] = [(int(mine), int(theirs)) for mine, theirs in zip(*times, strict=True)]
    return [Scored(found, MOMENTS) for found in align(near, halves).values()]


def _pictures(frames: Path, rows: Iterable[Duplicate]) -> dict[tuple[str, int], str]:
    """For each end of each row, by video and wanted time, the nearest frame as a data address."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        wanted.setdefault(row.video_id, set()).add((row.start_ms + row.end_ms) // 2)
        wanted.setdefault(row.duplicate_of, set()).add((row.of_start_ms + row.of_end_ms) // 2)
    best: dict[tuple[str, int], tuple[int, Any]] = {}
    for clip in read_frames(frames, video_ids=wanted):
        video_id = clip.key.rsplit("_", 1)[0]
        for middle in wanted[video_id]:
            for time_ms, frame in zip(clip.times_ms, clip.frames, strict=True):
                if abs(time_ms - middle) < best.get((video_id, middle), (2**62, None))[0]:
                    best[video_id, middle] = abs(time_ms - middle), frame
    return {place: _address(frame) for place, (_, frame) in best.items()}


def _address(frame: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
