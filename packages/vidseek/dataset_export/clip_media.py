"""Cuts the clips of a data set out of their videos, exact to the frame, in confined workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from vidseek.archive import Archive
from vidseek.dataset_export.records import DatasetClip
from vidseek.edit.archive_sources import WRITE_SECONDS, file_of
from vidseek.edit.events import Moment
from vidseek_media.editing.moment_file import write_moment_file
from vidseek_media.errors import InputRejected, VidseekError

FORMAT = "mp4"
Cut = tuple[DatasetClip, Path | VidseekError]
"""A clip, and its file or why there is none."""


def cut_clips(archive: Archive, clips: Sequence[DatasetClip], spool: Path, *, workers: int) -> Iterator[Cut]:
    """Yield the clips in their order, each with its media file; few files are there at once where they are moved away.

    Args:
        archive: The archive.
        clips: The clips.
        spool: A folder for the files.
        workers: Processes, at least 1.

    Raises:
        ConfigError: the archive names no source, or no process can be started.
    """
    from vidseek_media.decoding.worker_batch import run_each

    files: dict[str, Path | InputRejected] = {}
    for clip in clips:
        if clip.video_id not in files:
            files[clip.video_id] = _file_of(archive, clip)
    jobs = (
        (path, spool.absolute() / f"{clip.key}.{FORMAT}", FORMAT, clip.start_ms, clip.end_ms, 1)
        for clip in clips if isinstance(path := files[clip.video_id], Path)
    )
    done: dict[Path, VidseekError | None] = {}
    with closing(run_each(write_moment_file, jobs, workers=workers, timeout_seconds=WRITE_SECONDS)) as outcomes:
        for clip in clips:
            fault = files[clip.video_id]
            if isinstance(fault, InputRejected):
                yield clip, fault
                continue
            out = spool.absolute() / f"{clip.key}.{FORMAT}"
            while out not in done:
                outcome = next(outcomes)
                done[outcome.item[1]] = outcome.error
            error = done.pop(out)
            if error is not None:
                with suppress(FileNotFoundError):
                    out.unlink()
            yield clip, error or out


def _file_of(archive: Archive, clip: DatasetClip) -> Path | InputRejected:
    try:
        return file_of(archive, Moment(clip.video_id, clip.uri, clip.start_ms, clip.end_ms), frozenset())
    except InputRejected as error:
        return error
