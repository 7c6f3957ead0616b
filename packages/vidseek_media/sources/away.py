"""What is away for a while stays in the archive: a disk that is not mounted, a folder of a server that does not answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.sources.ledger import Ledger
from vidseek_media.tables import TRANSCRIPTS, VIDEOS, read_table
from vidseek_media.text.transcripts import Cue

LEAST_GONE = 10
"""Fewer videos than these may always go."""


def known_below(unlisted: Mapping[str, Path], book: Ledger) -> dict[str, Path]:
    """Return the files that were used before, by uri, and that are or lie below what is away.

    Args:
        unlisted: Absolute paths by uri of folders that cannot be listed, and of files that are not there.
        book: Knows the files of earlier runs.
    """
    found = {uri: path for uri, path in unlisted.items() if book.last_id_of(path)}
    for uri, folder in unlisted.items():
        if uri in found:
            continue
        below = f"{folder}/"
        for path in [path for path in book.files if path.startswith(below) and book.last_id_of(Path(path))]:
            found[(PurePosixPath(uri) / path.removeprefix(below)).as_posix()] = Path(path)
    return found


def require_there(name: str, now: Collection[str], *, out: Path, forgotten: Collection[str], most: float) -> None:
    """Check that not too many videos of the run before are gone from a source that brings nothing new.

    Args:
        name: Of the source, for the message.
        now: Ids of the videos that are there.
        out: Folder of the tables that the run before wrote.
        forgotten: Ids that may be missing.
        most: Share of the videos that may be gone, from 0 to 1.

    Raises:
        ConfigError: more are gone. Part of a source that is away looks the same.
    """
    try:
        before = set(read_table(out / "videos.parquet", VIDEOS)["video_id"]) - set(forgotten)
    except ArtifactError:
        return  # there was no run before
    gone = before - set(now)
    if len(gone) >= LEAST_GONE and len(gone) > most * len(before) and set(now) <= before:
        raise ConfigError(
            f"{len(gone)} of the {len(before)} videos of {name} are gone and none is new; nothing was changed",
            code="source-away",
            remedy="See that all of its folders are mounted. If the videos were removed on purpose, set "
            "ingest.max_gone_share to 1.0 for one run",
        )


def earlier_transcripts(out: Path, video_ids: Collection[str]) -> dict[str, list[Cue]]:
    """Return the transcripts that the run before read of videos that are away, by video_id.

    Args:
        out: Folder of the tables that the run before wrote.
        video_ids: Ids of the videos.
    """
    if not video_ids:
        return {}
    try:
        table = read_table(out / "transcripts.parquet", TRANSCRIPTS)
    except ArtifactError:
        return {}
    found: dict[str, list[Cue]] = {}
    for row in table[table["video_id"].isin(list(video_ids))].itertuples():
        found.setdefault(row.video_id, []).append(Cue(row.start_ms, row.end_ms, tuple(row.lines)))
    return found
