"""Turns a source into a table of videos: list, hash and probe new files, merge equal files, match captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from vidseek_media.decoding.probe import Probe, probe
from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.fields.declared import DeclaredFields
from vidseek_media.fields.statements import UndeclaredColumn, collect_fields, names_field, with_tags, write_fields
from vidseek_media.fields.tags import read_tags, tag_statements
from vidseek_media.forgotten import Forgotten
from vidseek_media.ids import video_id_of
from vidseek_media.records import Refusal, Rejection, Video
from vidseek_media.sources.away import earlier_transcripts, known_below, require_there
from vidseek_media.sources.ledger import Ledger
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import FileUnreadable
from vidseek_media.sources.source import FORGOTTEN, VIDEO_SUFFIXES, Annotations, Source
from vidseek_media.tables import REJECTED, SIDECAR, TRANSCRIPTS, VIDEOS, read_columns, write_table
from vidseek_media.terminal.progress import counted
from vidseek_media.text.sidecars import (
    ABOUT_VIDEO,
    ClipNaming,
    Sidecar,
    SidecarCaption,
    match_captions,
    read_captions,
    reject_row,
    without_caption,
)
from vidseek_media.text.transcripts import Cue, read_transcripts
from vidseek_media.text.written_captions import FILE as WRITTEN_FILE
from vidseek_media.text.written_captions import WRITER, WrittenCaption

CHANGED = Refusal("changed while it was being read; run again when it is complete", retryable=True, code="file-changed")


@dataclass(frozen=True)
class FieldsOut:
    """What `ingest` needs to write the fields of an archive."""

    declared: DeclaredFields
    out: Path
    """The folder to write."""
    decisions: Path | None = None
    """The folder with the tags that people set; None for none."""


@dataclass(frozen=True)
class IngestReport:
    """num_in = num_files kept + num_rejected, and rows likewise."""

    num_in: int
    """Video files that were listed."""
    num_out: int
    """Videos; equal files are one."""
    num_merged: int
    """Files that equal another one."""
    num_rejected: int
    num_probed: int
    """Videos that the ledger did not know."""
    num_captions_in: int
    """Rows of the files of captions."""
    num_captions_out: int
    num_captions_rejected: int
    num_transcripts: int
    """Videos whose transcript was read."""
    num_away: int
    """Files that cannot be read now and stay as they were."""
    num_written: int = 0
    """Captions that people wrote in this archive; they are not among the rows above."""
    num_values: int = 0
    """Values of fields of one's own."""
    num_values_rejected: int = 0
    undeclared: tuple[UndeclaredColumn, ...] = ()
    """Columns that no field is declared for."""


def ingest(
    source: Path | Source,
    *,
    out: Path,
    ledger: Path,
    timeout_seconds: float,
    workers: int,
    captions: Path | None = None,
    clip_pattern: str | None = None,
    forgotten: Forgotten | None = None,
    max_gone_share: float = 1.0,
    fields: FieldsOut | None = None,
    written: Sequence[WrittenCaption] = (),
) -> IngestReport:
    """Write `videos.parquet`, `sidecar.parquet`, `transcripts.parquet` and `rejected.parquet` of a source.

    Tables have equal bytes if nothing changed. A file that was used before and cannot be read now, since its disk is away,
    stays as it was.

    Args:
        source: A folder, or a source from `open_source`.
        out: The folder to write.
        ledger: JSON file outside the pipeline (without suffix: the folder of `ingest.json`) that remembers size, time, id
            and
            probe of every file, so that another run only reads new and changed files.
        timeout_seconds: Time limit for probing one file in seconds; as much again is added for each GB.
        workers: Number of processes that probe.
        captions: A file of captions beside those that the source has; None for no other.
        clip_pattern: Regular expression with the groups `stem` and `index` for file names without suffix. A matching file is
            clip `index` of the video `stem`; a caption of a missing file with such a name belongs to that clip of the video.
        forgotten: Videos to leave out; each is a rejection.
        max_gone_share: Share of the videos of the run before that may be gone where none is new, from 0 to 1.
        fields: The declared fields and the folder that their values are written to; None for none.
        written: Captions that people wrote in this archive; those of videos that are not there wait.

    Raises:
        ConfigError: `source` is missing or holds no video file, too many of its videos are gone, or its files of captions
            are wrong.
        InputRejected: every file was rejected; `rejected.parquet` has the reasons.
        ServiceError: a remote source does not answer.
    """
    naming, forgotten = ClipNaming.of(clip_pattern), forgotten or Forgotten()
    source = source_of(source)
    listing = source.list_videos(forgotten=forgotten.addresses)
    rejected, sidecar = dict(listing.rejected), listing.sidecar.joined(read_captions(captions) if captions else Sidecar())
    if not listing.paths and not rejected and not sidecar.rejections:
        raise ConfigError(
            f"{source.name} holds no video file",
            code="source-empty", remedy=f"Files that count end in {' '.join(sorted(VIDEO_SUFFIXES))}"
        )
    book = Ledger.load(ledger)
    away_now = known_below(listing.unlisted, book)
    paths = {**listing.paths, **away_now}
    rejected = {uri: reason for uri, reason in rejected.items() if uri not in away_now}
    ids, away = _identify(paths, book, rejected)
    require_there(source.name, ids.values(), out=out, forgotten=forgotten.video_ids, most=max_gone_share)
    rejected |= {uri: FORGOTTEN for uri, video_id in ids.items() if video_id in forgotten.video_ids}
    num_probed = _probe_new(paths, ids, book, timeout_seconds=timeout_seconds, workers=workers, rejected=rejected)
    book.forget_missing(paths.values())
    book.save()

    kept = {uri: video_id for uri, video_id in ids.items() if uri not in rejected}
    matched, refused = match_captions(sidecar.captions, kept, rejected, naming)
    said = collect_fields(matched, fields.declared if fields else {})
    matched, empty = _with_captions(matched, said.declared)
    refused += empty
    read, unreadable = read_transcripts(paths, {uri: each for uri, each in kept.items() if uri not in away})
    transcripts = {**earlier_transcripts(out, {kept[uri] for uri in away & set(kept)}), **read}
    videos = _merge(kept, book.probes, matched, listing.annotations, naming)
    files = [Rejection.of(uri, "ingest", why) for uri, why in sorted(rejected.items())]
    lines = [*sidecar.rejections, *listing.rejections, *refused, *unreadable]
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in [*files, *lines]], REJECTED)
    if not videos:
        raise _nothing_left(source.name, files or lines, out)
    people = _by_people(written, matched, set(kept.values()))
    write_table(out / "sidecar.parquet", _sidecar_rows([*matched, *people]), SIDECAR)
    write_table(out / "transcripts.parquet", _transcript_rows(transcripts), TRANSCRIPTS)
    write_table(out / "videos.parquet", [{**vars(v), "uris": list(v.uris)} for v in videos], VIDEOS)
    if fields is not None:
        decided = read_tags(fields.decisions) if fields.decisions else []
        there = set(kept.values())
        write_fields(fields.out, with_tags(said, tag_statements(each for each in decided if each.video_id in there)))
    num_captions = sum(bool(row.text or row.annotations) for _, row in matched)  # other rows state fields alone
    num_refused = len(sidecar.rejections) + len(refused)
    return IngestReport(
        num_in=len(kept) + len(files), num_out=len(videos), num_merged=len(kept) - len(videos), num_rejected=len(files),
        num_probed=num_probed, num_captions_in=num_captions + num_refused, num_captions_out=num_captions,
        num_captions_rejected=num_refused, num_transcripts=len(transcripts),
        num_away=len(away), num_written=len(people), num_values=len(said.statements),
        num_values_rejected=len(said.rejections), undeclared=said.undeclared,
    )


def _with_captions(
    matched: Iterable[tuple[str, SidecarCaption]], declared: DeclaredFields
) -> tuple[list[tuple[str, SidecarCaption]], list[Rejection]]:
    """Return the rows that say something of their video, and rejections of the others.

    A row of a file of captions has a caption, a title, or a value of a declared field; one of a manifest names a video.
    """
    kept, refused = [], []
    for video_id, row in matched:
        if row.has_caption or row.annotations or names_field(row, declared) or row.lists_videos:
            kept.append((video_id, row))
        else:
            refused.append(reject_row(row.place, without_caption(row).message, code="row-without-caption"))
    return kept, refused


def _by_people(
    written: Iterable[WrittenCaption], matched: Iterable[tuple[str, SidecarCaption]], there: set[str]
) -> list[tuple[str, SidecarCaption]]:
    """Return the captions that people wrote of videos that are there, as rows in the gallery of the video."""
    galleries: dict[str, str] = {}
    for video_id, row in matched:
        if row.gallery:
            galleries.setdefault(video_id, row.gallery)
    return [
        (each.video_id, SidecarCaption(
            line, "", each.text, each.start_ms, each.end_ms, gallery=galleries.get(each.video_id, ""), origin=WRITTEN_FILE,
            writer=WRITER,
        ))
        for line, each in enumerate(written, start=1) if each.video_id in there
    ]


def read_videos(folder: Path) -> list[Video]:
    """Read the videos that `ingest` wrote into `folder`, by video_id.

    Raises:
        ArtifactError: the table is missing or broken.
    """
    path = folder / "videos.parquet"
    rows = read_columns(path, VIDEOS)
    columns = {name: column.to_pylist() for name, column in zip(VIDEOS.names, rows.columns, strict=True)}
    try:
        columns["uris"] = list(map(tuple, columns["uris"]))
        return [Video(*row) for row in zip(*(columns[each.name] for each in dataclasses.fields(Video)), strict=True)]
    except (TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(
            f"{path} holds a row that is no video: {error}", code="broken-rows", remedy="Run `dvc repro`",
        ) from error


def _nothing_left(name: str, rejections: Sequence[Rejection], out: Path) -> InputRejected:
    """Return the error to raise if no video is left, and remove the tables of an earlier run."""
    for stale in ("sidecar.parquet", "transcripts.parquet", "videos.parquet"):
        (out / stale).unlink(missing_ok=True)
    return InputRejected(
        f"{name}: not one of {len(rejections)} video files can be used; the first, {rejections[0].id}: "
        f"{rejections[0].reason}", code="no-usable-video",
        remedy=f"{out / 'rejected.parquet'} has the reason for each",
    )


def _identify(paths: Mapping[str, Path], book: Ledger, rejected: dict[str, Refusal]) -> tuple[dict[str, str], set[str]]:
    """video_id by uri: from the ledger where size and time are as they were, else from the bytes; and uris that are away.

    Args:
        paths: Of the files, by uri.
        book: Knows what was read before, and learns what is read now. It has the ids of those that are away.
        rejected: Gets why, by uri, of what cannot be read.
    """
    ids, away = {}, set()
    for uri, path in counted(paths.items(), "hash", unit="file"):
        try:
            stat = path.stat()
            if (unchanged := book.id_of(path, stat)) is not None:
                ids[uri] = unchanged
                continue
            ids[uri] = video_id_of(path)
            after = path.stat()
        except OSError as error:
            refusal = Refusal.of(FileUnreadable.of(error))
            if (known := book.last_id_of(path)) is not None and refusal.retryable:
                ids[uri] = known
                away.add(uri)
            else:
                rejected[uri] = refusal
            continue
        if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns):
            rejected[uri] = CHANGED
            continue
        book.note(path, stat, ids[uri])
    return ids, away


def _probe_new(
    paths: Mapping[str, Path], ids: Mapping[str, str], book: Ledger, *, timeout_seconds: float, workers: int,
    rejected: dict[str, Refusal],
) -> int:
    """Probe each video that the ledger does not know, and spread the verdicts over the uris; the number of these videos."""
    new: dict[str, Path] = {}
    for uri, video_id in ids.items():
        if uri not in rejected and not book.knows(video_id):
            new.setdefault(video_id, paths[uri])
    id_of = {path: video_id for video_id, path in new.items()}
    lost: dict[str, Refusal] = {}
    with run_videos(
        probe, list(id_of), label="probe", workers=workers, timeout_setting="ingest.timeout_seconds",
        timeout_seconds=partial(_seconds_for, timeout_seconds=timeout_seconds),
    ) as outcomes:
        for outcome in outcomes:
            video_id = id_of[outcome.item]
            if not book.is_as_noted(outcome.item):
                lost[video_id] = CHANGED
            elif outcome.error is not None and outcome.error.retryable:
                lost[video_id] = Refusal.of(outcome.error)  # Not for the ledger: the next run tries again.
            elif outcome.error is not None:
                book.rejections[video_id] = Refusal.of(outcome.error)
            elif outcome.value is not None:
                book.probes[video_id] = outcome.value
            book.save_now_and_then()
    for uri, video_id in ids.items():
        if (known := book.rejections.get(video_id)) is not None:
            rejected.setdefault(uri, known)
        elif video_id in lost:
            rejected.setdefault(uri, lost[video_id])
    return len(id_of)


def _seconds_for(path: Path, *, timeout_seconds: float) -> float:
    """Return the time-out of a probe, which reads the whole file: a large one, on a slow disk, takes longer."""
    try:
        return round(timeout_seconds * (1 + path.stat().st_size / 1e9), 1)
    except OSError:
        return timeout_seconds


def _merge(
    kept: Mapping[str, str],
    probes: Mapping[str, Probe],
    matched: Iterable[tuple[str, SidecarCaption]],
    known: Mapping[str, Annotations],
    naming: ClipNaming,
) -> list[Video]:
    """Return one video for each id, with all its uris, and facts from the first row that states them, or from the source."""
    uris: dict[str, list[str]] = {}
    for uri in sorted(kept):
        uris.setdefault(kept[uri], []).append(uri)
    annotations: dict[str, dict[str, Any]] = {}
    for video_id, caption in matched:
        for name, value in caption.annotations.items():
            if value and name in ABOUT_VIDEO:
                annotations.setdefault(video_id, {}).setdefault(name, value)
    for uri in sorted(set(kept) & set(known)):
        for name, value in dataclasses.asdict(known[uri]).items():
            annotations.setdefault(kept[uri], {}).setdefault(name, value)
    return [
        Video(
            video_id, tuple(uris[video_id]), duration_ms=p.duration_ms, fps=p.fps, width=p.width, height=p.height,
            codec=p.codec, clip_of=(naming.clip_of(uris[video_id][0]) or ("", 0))[0], **annotations.get(video_id, {}),
        )
        for video_id, p in ((video_id, probes[video_id]) for video_id in sorted(uris))
    ]


def _sidecar_rows(matched: Iterable[tuple[str, SidecarCaption]]) -> pa.Table:
    rows = [(video_id, caption) for video_id, caption in sorted(matched, key=itemgetter(0)) if caption.text]
    said = [caption for _, caption in rows]
    columns = {name: list(map(attrgetter(name), said)) for name in SIDECAR.names if name not in ("video_id", "writer")}
    columns |= {"video_id": [video_id for video_id, _ in rows], "writer": [each.writer or None for each in said]}
    return pa.table([pa.array(columns[field.name], field.type) for field in SIDECAR], schema=SIDECAR)


def _transcript_rows(transcripts: Mapping[str, Sequence[Cue]]) -> list[dict[str, object]]:
    return [
        {"video_id": video_id, "start_ms": cue.start_ms, "end_ms": cue.end_ms, "lines": list(cue.lines)}
        for video_id in sorted(transcripts) for cue in transcripts[video_id]
    ]
