"""Cuts videos into clips: one for each timed caption, windows of equal length, and shots."""

from __future__ import annotations

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.cutting.shots import find_all_cuts, shot_spans
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.ids import clip_ids_of, to_ms
from vidseek_media.records import Clip, Refusal, Rejection, Span, Video
from vidseek_media.settings import CutSettings, ShotSettings
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.source import Source
from vidseek_media.tables import CLIPS, REJECTED, SIDECAR, read_columns, read_table, write_table


@dataclass(frozen=True)
class ShotSearch:
    """Where the mode `shots`, which decodes the videos, finds them."""

    source: Path | Source
    memory: Path
    """Folder that keeps the cuts of each video."""


class ClipColumns(NamedTuple):
    """The columns of CLIPS, in its order."""

    clip_ids: list[str]
    video_ids: list[str]
    indices: list[int]
    starts_ms: list[int]
    ends_ms: list[int]
    cuts: list[list[str]]


@dataclass(frozen=True)
class CutReport:
    """Counts of a run. Rejections are videos without a clip or without shots, and captions outside of their video."""

    num_in: int
    """Videos."""
    num_out: int
    """Clips."""
    num_rejected: int


def cut_archive(
    ingest_dir: Path,
    *,
    out: Path,
    settings: CutSettings,
    search: ShotSearch | None = None,
) -> CutReport:
    """Cut the videos of an archive; write `clips.parquet` (by video and index) and `rejected.parquet`.

    Args:
        ingest_dir: Output of the stage `ingest`.
        out: The folder to write.
        settings: Modes and lengths.
        search: For the mode `shots`; None without this mode.

    Raises:
        ConfigError: the mode is `shots`, and `search` is missing, or what it needs is not installed.
        ArtifactError: a table is missing or broken.
    """
    videos, sidecar = read_videos(ingest_dir), read_table(ingest_dir / "sidecar.parquet", SIDECAR)
    cuts, lost = _cuts_of(videos, settings.shots, search) if "shots" in settings.modes else ({}, {})
    clips, rejections = cut_videos(videos, sidecar, settings=settings, cuts_ms=cuts)
    rejections = [each for each in rejections if each.id not in lost]  # The shot search has the better reason.
    rejections += [Rejection.of(video_id, "cut", why) for video_id, why in sorted(lost.items())]
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    write_table(out / "clips.parquet", _table_of(clips), CLIPS)
    return CutReport(num_in=len(videos), num_out=len(clips), num_rejected=len(rejections))


def _table_of(clips: Sequence[Clip]) -> pa.Table:
    """Return clips as a table of the schema CLIPS: column by column, since there are many."""
    columns = {name: [getattr(clip, name) for clip in clips] for name in CLIPS.names if name != "clip_id"}
    ids = clip_ids_of(columns["video_id"], columns["start_ms"], columns["end_ms"])
    return pa.table({"clip_id": ids.tolist(), **columns}, schema=CLIPS)


def cut_videos(
    videos: Iterable[Video],
    sidecar: pd.DataFrame,
    *,
    settings: CutSettings,
    cuts_ms: Mapping[str, Sequence[int]] | None = None,
) -> tuple[list[Clip], list[Rejection]]:
    """Cut videos into clips; return the clips, ordered by video and index, and rejections.

    A span that two modes produce is one clip that lists both. A file whose name marks it as one clip of a video
    (`Video.clip_of`) is one window and one shot of any length.

    Args:
        videos: The ingested videos.
        sidecar: Rows of the schema SIDECAR.
        settings: Lengths, and modes: `captions` (a clip for each timed caption; an untimed caption gives a clip of its whole
            video if that is at most one window long), `windows` (`window_spans`) and `shots` (`shot_spans`).
        cuts_ms: Times of shot boundaries in milliseconds, by video_id; a video that is missing gets no shots.
    """
    length_ms, stride_ms = to_ms(settings.window_length_seconds), to_ms(settings.window_stride_seconds)
    captions = captions_by_video(sidecar)
    clips: list[Clip] = []
    rejections: list[Rejection] = []
    for video in videos:
        made: dict[Span, set[str]] = defaultdict(set)
        if "captions" in settings.modes:
            for wanted in captions.get(video.video_id, []):
                span = caption_span(wanted, video.duration_ms, length_ms)
                if span is not None:
                    made[span].add("captions")
                elif wanted is not None:
                    rejections.append(_outside(video, wanted))
        if "windows" in settings.modes:
            for span in _windows_of(video, length_ms=length_ms, stride_ms=stride_ms):
                made[span].add("windows")
        if "shots" in settings.modes and (cuts := (cuts_ms or {}).get(video.video_id)) is not None:
            for span in _shots_of(video, cuts, settings.shots):
                made[span].add("shots")
        if not made:
            reason = f"{video.uris[0]}: no caption gives it a clip, and no other mode cuts it"
            rejections.append(Rejection(video.video_id, "cut", reason, code="no-clip-cut"))
        clips += [
            Clip(video.video_id, index, *span, tuple(sorted(made[span]))) for index, span in enumerate(sorted(made))
        ]
    return clips, rejections


def _cuts_of(
    videos: Sequence[Video], settings: ShotSettings, search: ShotSearch | None
) -> tuple[dict[str, list[int]], dict[str, Refusal]]:
    """Cuts by video_id, and why others have none; a file that is one clip already is not looked into."""
    if search is None:
        raise ConfigError(
            "cut.modes lists shots, and there is no `search`", code="setting-missing", remedy="Say where the videos are",
        )
    source = source_of(search.source)
    paths = {v.video_id: source.path_of(v.uris[0]) for v in videos if not v.clip_of}
    cuts, lost = find_all_cuts(paths, settings=settings, memory=search.memory)
    return cuts | {v.video_id: [] for v in videos if v.clip_of}, lost


def _windows_of(video: Video, *, length_ms: int, stride_ms: int) -> Iterable[Span]:
    if video.clip_of:
        return [(0, video.duration_ms)]
    return window_spans(video.duration_ms, length_ms=length_ms, stride_ms=stride_ms)


def _shots_of(video: Video, cuts_ms: Sequence[int], shots: ShotSettings) -> Iterable[Span]:
    if video.clip_of:
        return [(0, video.duration_ms)]
    return shot_spans(
        cuts_ms, video.duration_ms, min_ms=to_ms(shots.min_seconds), max_ms=max(to_ms(shots.max_seconds), 1)
    )


def window_spans(duration_ms: int, *, length_ms: int, stride_ms: int) -> Iterator[Span]:
    """Yield the windows of a video as spans `(start_ms, end_ms)`, in order of time.

    The rest of the video after the last full window is one more span if it is at least half a window long. A video shorter
    than a window is one span.

    Args:
        duration_ms: Length of the video in milliseconds, above 0.
        length_ms: Length of a window in milliseconds, above 0.
        stride_ms: Time from the start of one window to the start of the next, in milliseconds, above 0.

    Examples:
        >>> list(window_spans(8000, length_ms=3000, stride_ms=3000))
        [(0, 3000), (3000, 6000), (6000, 8000)]
    """
    if duration_ms < length_ms:
        yield (0, duration_ms)
        return
    start_ms = 0
    while start_ms + length_ms <= duration_ms:
        yield (start_ms, start_ms + length_ms)
        start_ms += stride_ms
    reached_ms = start_ms - stride_ms + length_ms
    if reached_ms < duration_ms and 2 * (duration_ms - start_ms) >= length_ms:
        yield (start_ms, duration_ms)


def caption_span(wanted: Span | None, duration_ms: int, length_ms: int) -> Span | None:
    """Return the span of the clip that a caption makes, cut at the end of the video; None if it makes none.

    A caption makes no clip if at least half of its span lies outside of the video, or if it has no span and the video is
    longer
    than a window.

    Args:
        wanted: Span of the caption in milliseconds; None for an untimed caption.
        duration_ms: Length of the video in milliseconds.
        length_ms: Length of a window in milliseconds.
    """
    if wanted is None:
        return (0, duration_ms) if duration_ms <= length_ms else None
    start_ms, end_ms = wanted[0], min(wanted[1], duration_ms)
    return (start_ms, end_ms) if 2 * (end_ms - start_ms) > wanted[1] - wanted[0] else None


def captions_by_video(sidecar: pd.DataFrame) -> dict[str, list[Span | None]]:
    """Return the spans of captions by video_id, in order of the table; None for a caption without times.

    Captions that name a clip by its index are left out.
    """
    sidecar = sidecar[sidecar["clip_index"].isna()]
    spans: dict[str, list[Span | None]] = defaultdict(list)
    timed = sidecar["start_ms"].notna() & sidecar["end_ms"].notna()
    columns = (column.tolist() for column in (sidecar["video_id"], sidecar["start_ms"], sidecar["end_ms"], timed))
    for video_id, start_ms, end_ms, is_timed in zip(*columns, strict=True):
        spans[video_id].append((int(start_ms), int(end_ms)) if is_timed else None)
    return spans


def read_clips(folder: Path, *, video_ids: Collection[str] | None = None) -> list[Clip]:
    """Read the clips that `cut_archive` wrote into `folder`, in order.

    Args:
        folder: Output of the stage `cut`.
        video_ids: Read the clips of these videos; None for all.

    Raises:
        ArtifactError: the table is missing or broken, or its ids are not those of its spans.
    """
    columns = read_clip_columns(folder, video_ids=video_ids)
    return [clip_of(row, folder) for row in zip(*columns, strict=True)]


def clip_of(row: tuple[str, str, int, int, int, list[str]], folder: Path) -> Clip:
    """Return the clip of a row of `read_clip_columns`.

    Args:
        row: The values in the order of CLIPS.
        folder: That it was read from, for the message.

    Raises:
        ArtifactError: it is no clip.
    """
    clip_id, video_id, index, start_ms, end_ms, cut = row
    try:
        clip = Clip(video_id, int(index), start_ms, end_ms, tuple(cut))
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(
            f"{folder / 'clips.parquet'} holds a row that is no clip: {error}", code="broken-rows", remedy="Run `dvc repro`",
        ) from error
    clip.__dict__["clip_id"] = uuid.UUID(clip_id)  # it need not be hashed once more
    return clip


def read_clip_columns(folder: Path, *, video_ids: Collection[str] | None = None) -> ClipColumns:
    """Read what `read_clips` reads as columns, for what goes through all clips of an archive.

    Args:
        folder: Output of the stage `cut`.
        video_ids: Read the clips of these videos; None for all.

    Raises:
        ArtifactError: the table is missing or broken, or its ids are not those of its spans.
    """
    return ClipColumns(*(column.to_pylist() for column in read_clip_table(folder, video_ids=video_ids).columns))


def read_clip_table(folder: Path, *, video_ids: Collection[str] | None = None) -> pa.Table:
    """Read what `read_clips` reads as a table of CLIPS.

    Args:
        folder: Output of the stage `cut`.
        video_ids: Read the clips of these videos; None for all.

    Raises:
        ArtifactError: the table is missing or broken, or its ids are not those of its spans.
    """
    path = folder / "clips.parquet"
    rows = read_columns(path, CLIPS)
    if video_ids is not None:
        rows = rows.filter(pc.is_in(rows["video_id"], value_set=pa.array(video_ids, pa.string())))
    starts, ends = (rows[name].to_numpy() for name in ("start_ms", "end_ms"))
    for wrong in np.flatnonzero(~((starts >= 0) & (starts < ends)))[:1].tolist():
        clip_of(tuple(rows.slice(wrong, 1).to_pylist()[0].values()), folder)  # raises
    ids = clip_ids_of(*(rows[name].to_pylist() for name in ("video_id", "start_ms", "end_ms")))
    if not rows["clip_id"].combine_chunks().equals(pa.array(ids, pa.string())):
        raise ArtifactError(
            f"{path} has clip ids that are not those of their spans", code="broken-rows", remedy="Run `dvc repro`",
        )
    return rows


def rows_of_cut(rows: pa.Table, cut: str) -> pa.Table:
    """Return the rows of a table of CLIPS that are of a cut mode.

    Args:
        rows: With the column `cut`.
        cut: The mode, for example `windows`.
    """
    modes = rows["cut"].combine_chunks()
    found = np.zeros(rows.num_rows, np.bool_)
    found[np.asarray(pc.list_parent_indices(modes))[np.asarray(pc.equal(pc.list_flatten(modes), cut), np.bool_)]] = True
    return rows.filter(pa.array(found))


def find_clip(folder: Path, clip_id: str) -> tuple[str, Span] | None:
    """Return the video_id and the span of a clip; None if there is no such clip.

    Args:
        folder: Output of the stage `cut`.
        clip_id: As the table has it.

    Raises:
        ArtifactError: as in `read_clip_columns`.
    """
    return clip_spans(folder).get(clip_id)


def clip_spans(folder: Path) -> dict[str, tuple[str, Span]]:
    """Return the video_id and the span of each clip by its id.

    Args:
        folder: Output of the stage `cut`.

    Raises:
        ArtifactError: as in `read_clip_columns`.
    """
    clips = read_clip_columns(folder)
    spans = zip(clips.starts_ms, clips.ends_ms, strict=True)
    return dict(zip(clips.clip_ids, zip(clips.video_ids, spans, strict=True), strict=True))


def _outside(video: Video, wanted: Span) -> Rejection:
    return Rejection(
        f"{video.video_id}:{wanted[0]}:{wanted[1]}", "cut",
        f"a caption of {video.uris[0]} lies at [{wanted[0]}, {wanted[1]}) ms, the video ends at {video.duration_ms} ms",
        "caption", code="caption-outside-video",
    )
