"""Finds the files of moments in the archive's source, and reads their times in confined workers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vidseek.actions.forget import video_named, video_unknown
from vidseek.archive import Archive
from vidseek.edit.events import Event, Handles, LeftOut, Moment, Places, events_of
from vidseek_media.editing.located_spans import LocatedSpans
from vidseek_media.editing.moment_file import FORMATS, MomentFile, write_moment_file
from vidseek_media.editing.source_times import locate_spans
from vidseek_media.errors import ConfigError, InputRejected, VidseekError, foreign
from vidseek_media.files.folders import whole_file
from vidseek_media.forgotten import read_forgotten
from vidseek_media.records import Span

READ_SECONDS = 600.0
"""For the packets of one video: all of it is read."""
WRITE_SECONDS = 6 * 3600.0
"""For one moment, which may be hours of video."""
_CLIP_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT = re.compile(r"(?P<video>.+):(?P<start>\d{1,9})-(?P<end>\d{1,9})", re.DOTALL)


def locate_events(
    archive: Archive, moments: Sequence[Moment], handles: Handles, places: Places
) -> tuple[list[Event], list[LeftOut]]:
    """Return the events of moments of an archive, and those moments whose videos cannot be read or were forgotten.

    Args:
        archive: The archive.
        moments: In the order of the timeline.
        handles: What is kept around each.
        places: Where an editor finds the files.

    Raises:
        ConfigError: the archive names no source.
    """
    forgotten = read_forgotten(archive.decisions).video_ids
    paths: dict[str, Path] = {}
    faults: dict[str, VidseekError] = {}
    for moment in moments:
        if moment.video_id in paths or moment.video_id in faults:
            continue
        try:
            paths[moment.video_id] = file_of(archive, moment, forgotten)
        except InputRejected as error:
            faults[moment.video_id] = error
    located, unread = _read_times(paths, moments)
    faults |= unread
    kept = [moment for moment in moments if moment.video_id in located]
    uris = {moment.video_id: moment.uri for moment in reversed(kept)}
    urls = {video_id: places.url_of(uri, paths[video_id]) for video_id, uri in uris.items()}
    left_out = [
        LeftOut(moment, faults[moment.video_id].message, faults[moment.video_id].code)
        for moment in moments if moment.video_id in faults
    ]
    return events_of(kept, located, urls, handles), left_out


def file_of(archive: Archive, moment: Moment, forgotten: frozenset[str]) -> Path:
    """Return the file of a moment's video.

    Args:
        archive: The archive.
        moment: The moment.
        forgotten: Ids of forgotten videos.

    Raises:
        InputRejected: the video is forgotten, or its file is missing.
        ConfigError: the archive names no source.
    """
    if moment.video_id in forgotten:
        raise InputRejected(
            f"{moment.uri} is forgotten", code="forgotten-already", remedy="`vidseek forget --undo` takes it back",
        )
    path = archive.require_source().path_of(moment.uri).absolute()
    if not path.is_file():
        raise InputRejected(
            f"{path} is not there", code="file-missing", remedy="See that ingest.source in params.yaml is reachable",
        )
    return path


def _read_times(
    paths: Mapping[str, Path], moments: Sequence[Moment]
) -> tuple[dict[str, LocatedSpans], dict[str, VidseekError]]:
    from vidseek_media.decoding.worker_batch import run_each

    located: dict[str, LocatedSpans] = {}
    faults: dict[str, VidseekError] = {}
    jobs = [
        (video_id, path, tuple((each.start_ms, each.end_ms) for each in moments if each.video_id == video_id))
        for video_id, path in paths.items()
    ]
    for outcome in run_each(_located, jobs, workers=2, timeout_seconds=READ_SECONDS):
        video_id, path, _ = outcome.item
        if outcome.value is not None:
            located[video_id] = outcome.value
        elif (error := outcome.error) is not None:
            faults[video_id] = InputRejected(f"{path.name}: {error.message}", code=error.code, remedy=error.remedy)
    return located, faults


def _located(job: tuple[str, Path, tuple[Span, ...]]) -> LocatedSpans:
    return locate_spans(job[1], job[2])


def find_moment(archive: Archive, name: str) -> Moment:
    """Return the moment that a text names.

    Args:
        archive: The archive.
        name: `VIDEO:START-END` with the video's id, its first digits or its uri, and milliseconds; or a clip_id.

    Raises:
        InputRejected: the text has another form, or the archive has no such video or clip.
        ArtifactError: nothing was ingested or cut.
    """
    from vidseek_media.sources.ingest import read_videos

    videos = {video.video_id: video for video in read_videos(archive.ingest)}
    named, span = _clip_named(archive, name) if _CLIP_ID.fullmatch(name) else _span_named(name)
    video_id = video_named(named, {each.video_id: each.uris for each in videos.values()})
    if video_id is None:
        raise video_unknown(archive, named)
    video = videos[video_id]
    return Moment(video_id, video.uris[0], *span, title=video.title)


def _span_named(name: str) -> tuple[str, Span]:
    match = _MOMENT.fullmatch(name.strip())
    if match is None or int(match["start"]) >= int(match["end"]):
        raise InputRejected(
            f"{name!r} names no moment", code="bad-moment",
            remedy="Copy the moment of a hit, such as 1f2e3d4c5b6a:12000-15500, or its best_clip_id",
        )
    return match["video"], (int(match["start"]), int(match["end"]))


def _clip_named(archive: Archive, clip_id: str) -> tuple[str, Span]:
    from vidseek_media.cutting.cut import find_clip

    if (found := find_clip(archive.cut, clip_id)) is None:
        raise InputRejected(f"there is no clip {clip_id}", code="bad-moment", remedy="Take best_clip_id of a hit")
    return found


def cut_moment(archive: Archive, moment: Moment, out: Path, *, force: bool, threads: int) -> MomentFile:
    """Write a moment as a file of its own, whole or not at all.

    Args:
        archive: The archive.
        moment: The moment.
        out: The file to write; its suffix names the format.
        force: Whether a file that is there is replaced.
        threads: Encoder threads, at least 1.

    Raises:
        InputRejected: the video is forgotten or missing, or the moment cannot be read.
        ConfigError: the file is there, cannot be written, or has a suffix that no format has.
    """
    format_name = FORMATS.get(out.suffix.lower())
    if format_name is None:
        raise ConfigError(
            f"{out} cannot be written: its suffix is {out.suffix or 'missing'}", code="unknown-export",
            remedy=f"Name a file that ends in {', '.join(FORMATS)}",
        )
    path = file_of(archive, moment, read_forgotten(archive.decisions).video_ids)
    if out.exists() and (not force or not out.is_file() or out.samefile(path)):
        raise ConfigError(f"{out} is there already", code="file-there", remedy="Name another file, or add --force")
    with foreign(
        ConfigError, f"{out} cannot be written", code="export-not-written", remedy="Name a folder that you may write to",
    ), whole_file(out) as beside:
        return _written(path, moment, beside, format_name, threads)


def _written(path: Path, moment: Moment, beside: Path, format_name: str, threads: int) -> MomentFile:
    from vidseek_media.decoding.worker_batch import run_each

    job = (path, beside.absolute(), format_name, moment.start_ms, moment.end_ms, threads)
    [outcome] = run_each(write_moment_file, [job], workers=1, timeout_seconds=WRITE_SECONDS)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.value is not None
    return outcome.value
