"""Captions for clips: what came with the source, given to the clip that each belongs to."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vidseek_media.cut import caption_span, read_clips
from vidseek_media.errors import ArtifactError
from vidseek_media.ingest import read_videos
from vidseek_media.records import Clip, Rejection, Span, Video
from vidseek_media.tables import CAPTIONS, REJECTED, SIDECAR, read_table, write_table


@dataclass(frozen=True)
class CaptionReport:
    """num_in = num_out + num_rejected, in captions."""

    num_in: int
    num_out: int
    num_whole_video: int
    """Of num_out, those that belong to no one clip: they make no pair."""
    num_rejected: int


def write_captions(ingest_dir: Path, cut_dir: Path, *, out: Path) -> CaptionReport:
    """Write `captions.parquet` and `rejected.parquet` into `out`.

    A timed caption belongs to the clip of its span, one that names a clip by its index to that clip of the video. One
    without either belongs to the clip that is the whole video, else to the video's only clip, else to the video alone
    (clip_id null). A caption whose span or index is no clip is rejected.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    videos = {video.video_id: video for video in read_videos(ingest_dir)}
    sidecar = read_table(ingest_dir / "sidecar.parquet", SIDECAR)
    clips: dict[str, list[Clip]] = defaultdict(list)
    for cut in read_clips(cut_dir):
        clips[cut.video_id].append(cut)
    rows: list[dict[str, object]] = []
    rejections: list[Rejection] = []
    for row in sidecar.itertuples(index=False):
        video = videos.get(row.video_id)
        if video is None:
            raise ArtifactError(f"a caption is of {row.video_id}, which is no ingested video", remedy="Run `dvc repro`")
        wanted = (int(row.start_ms), int(row.end_ms)) if pd.notna(row.start_ms) else None
        if pd.notna(row.clip_index):
            clip = next((c for c in clips[video.video_id] if c.index == int(row.clip_index)), None)
            if clip is None:
                rejections.append(_no_index(video, int(row.clip_index), len(clips[video.video_id]), row.text))
                continue
        else:
            clip = _clip_of(wanted, video, clips[video.video_id])
        if wanted is not None and clip is None:
            rejections.append(_no_clip(video, wanted, row.text))
            continue
        rows.append({
            "video_id": video.video_id, "clip_id": None if clip is None else str(clip.clip_id), "text": row.text,
            "writer": "file", "cost_usd": 0.0, "split": row.split, "gallery": row.gallery, "contrast": row.contrast,
            "axis": row.axis,
        })
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    write_table(out / "captions.parquet", rows, CAPTIONS)
    return CaptionReport(
        num_in=len(sidecar), num_out=len(rows), num_whole_video=sum(row["clip_id"] is None for row in rows),
        num_rejected=len(rejections),
    )


def _clip_of(wanted: Span | None, video: Video, clips: Sequence[Clip]) -> Clip | None:
    if wanted is None:
        whole = [clip for clip in clips if (clip.start_ms, clip.end_ms) == (0, video.duration_ms)]
        return whole[0] if whole else clips[0] if len(clips) == 1 else None
    span = caption_span(wanted, video.duration_ms, video.duration_ms)
    return next((clip for clip in clips if (clip.start_ms, clip.end_ms) == span), None)


def _no_clip(video: Video, wanted: Span, text: str) -> Rejection:
    return Rejection(
        f"{video.video_id}:{wanted[0]}:{wanted[1]}", "caption",
        f"no clip of {video.uris[0]} has the span of its caption {text[:60]!r}: it lies outside the video, or "
        "cut.modes does not list captions",
    )


def _no_index(video: Video, index: int, num_clips: int, text: str) -> Rejection:
    return Rejection(
        f"{video.video_id}:{index}", "caption",
        f"{video.uris[0]} has {num_clips} clips, counted from 0, none of them number {index}: {text[:60]!r}",
    )
