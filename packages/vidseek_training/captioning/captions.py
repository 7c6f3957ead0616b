"""Collects captions of clips from files, transcripts, titles and a language model."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from vidseek_media.cutting.cut import caption_span, clip_of, read_clip_columns
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.records import Clip, Rejection, Span, Video
from vidseek_media.sources.ingest import read_videos
from vidseek_media.tables import CAPTIONS, REJECTED, SIDECAR, TRANSCRIPTS, read_columns, read_table, write_table
from vidseek_media.text.transcripts import Cue, said_in
from vidseek_training.settings import CaptionSettings

if TYPE_CHECKING:
    from vidseek_training.captioning.captioner import Captioner, LlmReport, Written


@dataclass(frozen=True)
class CaptionReport:
    """num_in = num_out + num_rejected, in captions."""

    num_in: int
    num_out: int
    num_whole_video: int
    """Of num_out, those that belong to no one clip: they make no pair."""
    num_rejected: int
    llm: LlmReport | None = None
    """What the language model did, where one was asked."""


def write_captions(
    ingest_dir: Path,
    cut_dir: Path,
    *,
    out: Path,
    settings: CaptionSettings,
    llm: Captioner | None = None,
) -> CaptionReport:
    """Write `captions.parquet` and `rejected.parquet`.

    Args:
        ingest_dir: Output of the stage `ingest`.
        cut_dir: Output of the stage `cut`.
        out: The folder to write.
        settings: The section `caption`. Its `sources` are tried in order; a clip takes the captions of the first source that
            has any.
            `file`: captions in files beside the videos, and those that people wrote in this archive. A timed
            caption belongs to the clip of its span, one with a clip index
            to that clip of the video. Any other belongs to the clip that is the whole video, else to the video's only clip,
            else to the video alone (clip_id null). A caption whose span or index matches no clip is rejected.
            `transcript`: the text spoken in the clip.
            `title`: category and title of the video, assigned like a caption without times.
            `llm`: captions of several levels of detail by a language model, from the clip's frames.
            A transcript longer than `max_transcript_characters` is cut between words.
        llm: The captioner for the source `llm`; None without this source.

    Raises:
        ConfigError: `llm` is missing although the sources list it.
        ArtifactError: a table is missing or broken.
        VidseekError: any error of `Captioner.caption`. Nothing is written then; paid answers are kept.
    """
    if "llm" in settings.sources and llm is None:
        raise ConfigError(
            "caption.sources lists llm, and no model was named", code="settings-disagree",
            remedy="Hand over the model to ask",
        )
    archive = _Archive.load(ingest_dir, cut_dir)
    rows: list[_Row] = []
    rejections: list[Rejection] = []
    llm_report = None
    for source in settings.sources:
        if source == "llm" and llm is not None:
            written, declined, llm_report = llm.caption(_untold(archive, rows), archive.videos)
            found, refused = _from_llm(archive, written), declined
        else:
            found, refused = _from_source(source, archive, settings.max_transcript_characters)
        rows += _news(found, rows)
        rejections += refused
    rows.sort(key=lambda row: str(row["video_id"]))
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    write_table(out / "captions.parquet", rows, CAPTIONS)
    return CaptionReport(
        num_in=len(rows) + len(rejections), num_out=len(rows),
        num_whole_video=sum(row["clip_id"] is None for row in rows), num_rejected=len(rejections), llm=llm_report,
    )


def clips_for_llm(
    ingest_dir: Path, cut_dir: Path, *, settings: CaptionSettings
) -> tuple[list[Clip], dict[str, Video]]:
    """Return the clips without a caption from the sources before `llm`, and all videos by id.

    Args:
        ingest_dir: Output of the stage `ingest`.
        cut_dir: Output of the stage `cut`.
        settings: The section `caption`.

    Raises:
        ConfigError: `llm` is not among the sources.
        ArtifactError: a table is missing or broken.
    """
    sources = settings.sources
    if "llm" not in sources:
        raise ConfigError(
            f"caption.sources lists {', '.join(sources) or 'nothing'}, so no model is asked", code="settings-disagree",
            remedy="Add llm to caption.sources in params.yaml",
        )
    archive = _Archive.load(ingest_dir, cut_dir)
    rows: list[_Row] = []
    for source in sources[: sources.index("llm")]:
        rows += _news(_from_source(source, archive, settings.max_transcript_characters)[0], rows)
    return _untold(archive, rows), archive.videos


_Row: TypeAlias = dict[str, object]
"""Of the schema CAPTIONS."""
_OF_FILES = ["video_id", "clip_index", "start_ms", "end_ms", "text", "split", "gallery", "contrast", "axis", "writer"]
"""Columns of SIDECAR, in the order in which `_from_files` takes them."""


@dataclass(frozen=True)
class _Archive:
    videos: dict[str, Video]
    clips: _Clips
    sidecar: pa.Table
    """Of SIDECAR."""
    transcripts: dict[str, list[Cue]]

    def clip_at(self, wanted: Span, video: Video) -> str | None:
        """Return the id of the clip of a video that a caption of this span makes; None if there is none."""
        span = caption_span(wanted, video.duration_ms, video.duration_ms)
        return None if span is None else self.clips.at(video.video_id, span)

    @classmethod
    def load(cls, ingest_dir: Path, cut_dir: Path) -> _Archive:
        cues: dict[str, list[Cue]] = defaultdict(list)
        for row in read_table(ingest_dir / "transcripts.parquet", TRANSCRIPTS).itertuples(index=False):
            cues[row.video_id].append(Cue(int(row.start_ms), int(row.end_ms), tuple(row.lines)))
        videos = {video.video_id: video for video in read_videos(ingest_dir)}
        return cls(videos, _Clips(cut_dir), read_columns(ingest_dir / "sidecar.parquet", SIDECAR), cues)


class _Clips:
    """The clips of videos, each made when it is asked for: most captions need no more than the id of theirs."""

    def __init__(self, cut_dir: Path) -> None:
        self._folder = cut_dir
        self._columns = read_clip_columns(cut_dir)
        self._rows: dict[str, list[int]] = defaultdict(list)
        for row, video_id in enumerate(self._columns.video_ids):
            self._rows[video_id].append(row)
        self._by_span: dict[str, dict[Span, str]] = {}

    def of(self, video_id: str) -> list[Clip]:
        """Return the clips of a video, in order."""
        columns = self._columns
        return [clip_of(tuple(column[row] for column in columns), self._folder)  # type: ignore[arg-type]
                for row in self._rows.get(video_id, ())]

    def ids_of(self, video_id: str) -> list[str]:
        """Return the ids of the clips of a video, in order."""
        return [self._columns.clip_ids[row] for row in self._rows.get(video_id, ())]

    def numbered(self, video_id: str, index: int) -> str | None:
        """Return the id of the clip of a video with this index; None if there is none."""
        columns = self._columns
        return next((columns.clip_ids[row] for row in self._rows.get(video_id, ()) if columns.indices[row] == index), None)

    def at(self, video_id: str, span: Span) -> str | None:
        """Return the id of the clip of a video with this span; None if there is none."""
        if video_id not in self._by_span:
            ids, starts, ends = self._columns.clip_ids, self._columns.starts_ms, self._columns.ends_ms
            self._by_span[video_id] = {(starts[row], ends[row]): ids[row] for row in self._rows.get(video_id, ())}
        return self._by_span[video_id].get(span)

    def untold(self, told: Set[object]) -> list[Clip]:
        """Return the clips whose id is not among these, in order of video."""
        return [
            clip_of(row, self._folder) for row in zip(*self._columns, strict=True) if row[0] not in told
        ]


def _from_source(source: str, archive: _Archive, max_characters: int) -> tuple[list[_Row], list[Rejection]]:
    if source == "file":
        return _from_files(archive)
    return (_from_transcripts(archive, max_characters) if source == "transcript" else _from_titles(archive)), []


def _news(found: Iterable[_Row], rows: Iterable[_Row]) -> list[_Row]:
    """Return the captions of `found` about clips (or whole videos) that `rows` do not cover."""
    told = {row["clip_id"] or row["video_id"] for row in rows}
    return [row for row in found if not told or (row["clip_id"] or row["video_id"]) not in told]


def _untold(archive: _Archive, rows: Iterable[_Row]) -> list[Clip]:
    told = {row["clip_id"] for row in rows}
    return archive.clips.untold(told)


def _from_llm(archive: _Archive, written: Iterable[Written]) -> list[_Row]:
    return [
        {**_caption(archive.videos[each.clip.video_id], str(each.clip.clip_id), text, each.writers[detail]),
         "cost_usd": each.cost_usd / len(each.texts), "model": each.model}
        for each in written for detail, text in each.texts.items()
    ]


def _from_files(archive: _Archive) -> tuple[list[_Row], list[Rejection]]:
    rows: list[_Row] = []
    rejections: list[Rejection] = []
    columns = (column.to_pylist() for column in archive.sidecar.select(_OF_FILES).columns)
    for video_id, index, start_ms, end_ms, text, split, gallery, contrast, axis, writer in zip(*columns, strict=True):
        video = archive.videos.get(video_id)
        if video is None:
            raise ArtifactError(
                f"a caption is of {video_id}, which is no ingested video", code="tables-disagree", remedy="Run `dvc repro`",
            )
        wanted = None if start_ms is None else (start_ms, end_ms)
        if index is not None:
            clip_id = archive.clips.numbered(video_id, index)
            if clip_id is None:
                rejections.append(_no_index(video, index, len(archive.clips.ids_of(video_id)), text))
                continue
        else:
            clip_id = archive.clip_at(wanted, video) if wanted is not None else _clip_of_whole(video, archive.clips)
        if wanted is not None and clip_id is None:
            rejections.append(_no_clip(video, wanted, text))
            continue
        rows.append(_caption(
            video, clip_id, text, writer or "file", split=split, gallery=gallery, contrast=contrast, axis=axis,
        ))
    return rows, rejections


def _from_transcripts(archive: _Archive, max_characters: int) -> list[_Row]:
    return [
        _caption(archive.videos[video_id], str(clip.clip_id), text, "transcript")
        for video_id, cues in archive.transcripts.items() if video_id in archive.videos
        for clip in archive.clips.of(video_id)
        if (text := said_in(cues, clip.start_ms, clip.end_ms, max_characters=max_characters))
    ]


def _from_titles(archive: _Archive) -> list[_Row]:
    return [
        _caption(video, _clip_of_whole(video, archive.clips),
                 f"{video.category}, {video.title}" if video.category else video.title, "title")
        for video in archive.videos.values() if video.title
    ]


def _caption(
    video: Video, clip_id: str | None, text: str, writer: str, *, split: str = "", gallery: str = "", contrast: str = "",
    axis: str = "",
) -> _Row:
    return {
        "video_id": video.video_id,
        "clip_id": clip_id,
        "text": text,
        "writer": writer,
        "cost_usd": 0.0,
        "model": "",
        "split": split,
        "gallery": gallery,
        "contrast": contrast,
        "axis": axis,
    }


def _clip_of_whole(video: Video, clips: _Clips) -> str | None:
    """Return the id of the clip that is the whole video, or its only one; None if there is neither."""
    if whole := clips.at(video.video_id, (0, video.duration_ms)):
        return whole
    own = clips.ids_of(video.video_id)
    return own[0] if len(own) == 1 else None


def _no_clip(video: Video, wanted: Span, text: str) -> Rejection:
    return Rejection(
        f"{video.video_id}:{wanted[0]}:{wanted[1]}", "caption",
        f"no clip of {video.uris[0]} has the span of its caption {text[:60]!r}: it lies outside the video, or "
        "cut.modes does not list captions",
        code="no-such-clip",
    )


def _no_index(video: Video, index: int, num_clips: int, text: str) -> Rejection:
    return Rejection(
        f"{video.video_id}:{index}", "caption",
        f"{video.uris[0]} has {num_clips} clips, counted from 0, none of them number {index}: {text[:60]!r}",
        code="no-such-clip",
    )
