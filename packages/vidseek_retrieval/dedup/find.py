"""Finds near-duplicates in an archive: compared videos, a limit, proposed decisions with their reasons, a page to review."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vidseek_media.errors import GateFailed
from vidseek_media.files.pages import write_page
from vidseek_media.frame_store.stored_clips import read_frames
from vidseek_media.records import Video
from vidseek_media.sources.ingest import read_videos
from vidseek_retrieval.dedup.comparing.alignment import Alignment
from vidseek_retrieval.dedup.comparing.candidates import Pair
from vidseek_retrieval.dedup.comparing.compared import compare
from vidseek_retrieval.dedup.comparing.fingerprint_store import read_fingerprints
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint
from vidseek_retrieval.dedup.decisions import key_of
from vidseek_retrieval.dedup.differences import differences
from vidseek_retrieval.dedup.judging.limits import Threshold, choose_threshold
from vidseek_retrieval.dedup.judging.made_copies import score_copies
from vidseek_retrieval.dedup.judging.scoring import log_odds
from vidseek_retrieval.dedup.video_matches import Duplicate, decide, find_matches
from vidseek_retrieval.index.backend import Collection

SHOWN_AT = (0.1, 0.5, 0.9)
"""Of a span: where its frames are shown beside each other."""


@dataclass(frozen=True)
class Reason:
    """Why two videos are called one."""

    speed: float
    offset_ms: int
    """`time * speed + offset_ms` of the duplicate is the time of the video that it duplicates."""
    is_mirrored: bool
    likeness: float
    """The mean similarity of the aligned frames, up to 1."""
    motion: float
    """The correlation of what moves in them, up to 1; says nothing where nothing moves."""
    differences: tuple[str, ...]
    """What a person sees to differ, the duplicate against the other."""
    moments_ms: tuple[tuple[int, int], ...]
    """Times of the two at which the same is to be seen."""


@dataclass(frozen=True)
class DedupReport:
    """The near-duplicates that were found; nothing is decided by it."""

    collection: str
    num_videos: int
    num_new: int
    """Videos that no earlier search has compared with the others."""
    num_candidates: int
    """Pairs of videos that have similar frames, and were compared frame by frame this time."""
    num_left_out: int
    """Other pairs that have: no likely copies, of which a sample was compared, since there are very many."""
    num_missed: float
    """Copies that are expected among all that were ever left out, by that sample."""
    threshold: Threshold
    duplicates: tuple[Duplicate, ...]
    reasons: Mapping[str, Reason]
    """By `key_of` the row; those that are joined through a third video have none."""
    uris: Mapping[str, str]
    """Of the videos in `duplicates`."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, for `--json`."""
        return asdict(self)


def find_duplicates(
    collection: Collection, frames: Path, ingest_dir: Path, *, precision: float, cache: Path | None = None
) -> DedupReport:
    """Look for near-duplicates among the videos of `collection`.

    Args:
        collection: The published clips.
        frames: The folder of the frame shards.
        ingest_dir: With videos.parquet.
        precision: Of 100 pairs that are called equal, how many shall be.
        cache: Folder that keeps fingerprints and compared pairs, so that the next search compares new videos only.

    Raises:
        ArtifactError: frames or videos are missing or broken.
        ConfigError: the precision is out of range.
        GateFailed: fewer than two videos have frames.
    """
    videos = {video.video_id: video for video in read_videos(ingest_dir)}
    fingerprints, digests = read_fingerprints(frames, videos, cache=cache)
    if len(fingerprints) < 2:
        raise GateFailed(
            f"{len(fingerprints)} videos have frames: there is nothing to compare", code="too-few-videos",
            remedy="Run `dvc repro`",
        )
    compared = compare(fingerprints, digests, cache=cache)
    odds = [log_odds(each.evidence) for each in compared.alignments.values()]
    weights = [each.weight for each in compared.alignments.values()]
    threshold = choose_threshold(
        odds, num_videos=len(fingerprints),
        own=score_copies(fingerprints, np.random.default_rng(0)), target=precision,
        weights=weights,
    )
    missed = sum(weight - 1 for weight, value in zip(weights, odds, strict=True) if value >= threshold.odds)
    found = decide(find_matches(compared.alignments, videos, least_odds=threshold.odds), videos)
    named = {video_id for row in found for video_id in (row.video_id, row.duplicate_of)}
    return DedupReport(
        collection.metadata.name, len(fingerprints), compared.num_new, compared.num_pairs, compared.num_left_out,
        missed, threshold, tuple(found), _reasons(found, compared.alignments, videos, fingerprints),
        {video_id: videos[video_id].uris[0] for video_id in sorted(named)},
    )


def write_duplicates_page(path: Path, report: DedupReport, frames: Path) -> None:
    """Write a self-contained HTML page that shows both sides of each duplicate at the same moments.

    Args:
        path: The file to write.
        report: The duplicates that were found.
        frames: Folder with the frame shards.

    Raises:
        OSError: the disk cannot hold it.
    """
    moments = {key_of(row): moments_of(row, report.reasons.get(key_of(row))) for row in report.duplicates}
    pictures = _pictures(frames, report.duplicates, moments)
    write_page(
        path, "vidseek_retrieval", "duplicates.html", report=report, pictures=pictures, moments=moments, key_of=key_of,
    )


def moments_of(row: Duplicate, reason: Reason | None) -> tuple[tuple[int, int], ...]:
    """Return times of both videos of a row at which the same is to be seen."""
    if reason is not None:
        return reason.moments_ms
    return (((row.start_ms + row.end_ms) // 2, (row.of_start_ms + row.of_end_ms) // 2),)


def _reasons(
    rows: Iterable[Duplicate], alignments: Mapping[Pair, Alignment], videos: Mapping[str, Video],
    fingerprints: Mapping[str, VideoFingerprint],
) -> dict[str, Reason]:
    reasons = {}
    for row in rows:
        one, other = sorted((row.video_id, row.duplicate_of))
        if (alignment := alignments.get((one, other))) is not None:
            turned = alignment if one == row.video_id else alignment.turned()
            pair = row.video_id, row.duplicate_of
            reasons[key_of(row)] = _reason(
                turned, (videos[pair[0]], videos[pair[1]]), (fingerprints[pair[0]], fingerprints[pair[1]])
            )
    return reasons


def _reason(
    alignment: Alignment, videos: tuple[Video, Video], seen: tuple[VideoFingerprint, VideoFingerprint]
) -> Reason:
    start, end = alignment.one_ms
    times = [round(start + share * (end - start)) for share in SHOWN_AT]
    return Reason(
        speed=round(alignment.by.speed, 4), offset_ms=round(alignment.by.offset_ms),
        is_mirrored=alignment.view.is_mirrored, likeness=round(alignment.evidence.likeness, 4),
        motion=round(alignment.evidence.motion, 4), differences=tuple(differences(alignment, videos, seen)),
        moments_ms=tuple((time, max(0, round(time * alignment.by.speed + alignment.by.offset_ms))) for time in times),
    )


def _pictures(
    frames: Path, rows: Sequence[Duplicate], moments: Mapping[str, Sequence[tuple[int, int]]]
) -> dict[tuple[str, int], str]:
    """For each wanted time of each video, the nearest frame as a data address."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        for mine, theirs in moments[key_of(row)]:
            wanted.setdefault(row.video_id, set()).add(mine)
            wanted.setdefault(row.duplicate_of, set()).add(theirs)
    best: dict[tuple[str, int], tuple[int, Any]] = {}
    for clip in read_frames(frames, video_ids=wanted):
        video_id = clip.key.rsplit("_", 1)[0]
        for moment in wanted[video_id]:
            for time_ms, frame in zip(clip.times_ms, clip.frames, strict=True):
                if abs(time_ms - moment) < best.get((video_id, moment), (2**62, None))[0]:
                    best[video_id, moment] = abs(time_ms - moment), frame
    return {place: _address(frame) for place, (_, frame) in best.items()}


def _address(frame: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
