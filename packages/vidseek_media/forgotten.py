"""Videos that a person removed from the archive: a table of decisions that ingest and searches read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vidseek_media.errors import ArtifactError
from vidseek_media.names import shown
from vidseek_media.urls import bare_url

TABLE = "forgotten.parquet"


@dataclass(frozen=True)
class ForgottenVideo:
    """A row of the table."""

    video_id: str
    uris: tuple[str, ...]
    """As its source named it, so that it can be found again."""
    addresses: tuple[str, ...]
    """Where it was downloaded from; nothing is downloaded from there any more."""
    title: str
    forgotten_at: str
    """RFC 3339."""

    def __post_init__(self) -> None:
        texts = (self.video_id, self.title, self.forgotten_at, *self.uris, *self.addresses)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"a forgotten video holds {shown(texts)}, wanted texts")


@dataclass(frozen=True)
class Forgotten:
    """All that was forgotten."""

    videos: tuple[ForgottenVideo, ...] = ()

    @cached_property
    def video_ids(self) -> frozenset[str]:
        """Of the bytes that are kept out, wherever they lie."""
        return frozenset(video.video_id for video in self.videos)

    @cached_property
    def addresses(self) -> frozenset[str]:
        """From where nothing is downloaded."""
        return frozenset(bare_url(address) for video in self.videos for address in video.addresses)


class ForgottenIds:
    """Gives the video_ids that are forgotten now: the table is looked at each time, and read when it has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[tuple[int, int, int] | None, frozenset[str]] = (None, frozenset())

    def __call__(self) -> frozenset[str]:
        """Return the ids of forgotten videos; the table is read again when it changes.

        Raises:
            ArtifactError: the table is broken.
        """
        try:
            stat = (self._folder / TABLE).stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            return frozenset()
        if self._read[0] != state:
            self._read = (state, read_forgotten(self._folder).video_ids)
        return self._read[1]


def read_forgotten(folder: Path) -> Forgotten:
    """Read the table in the folder of decisions; a missing one is empty.

    Raises:
        ArtifactError: it is broken.
    """
    path = folder / TABLE
    if not path.exists():
        return Forgotten()
    from vidseek_media.tables import FORGOTTEN, read_table  # pandas: the service starts without it

    rows = read_table(path, FORGOTTEN).to_dict("records")
    try:
        bare = [{name: tuple(map(bare_url, row[name])) for name in ("uris", "addresses")} for row in rows]
        return Forgotten(tuple(ForgottenVideo(**{**row, **urls}) for row, urls in zip(rows, bare, strict=True)))
    except (TypeError, AttributeError) as error:  # null, where a row has uris and addresses
        raise ArtifactError(
            f"{path} holds a row that is no forgotten video: {error}", code="broken-rows", remedy="Mend that row",
        ) from error


def write_forgotten(folder: Path, videos: Iterable[ForgottenVideo]) -> None:
    """Write the table whole or not at all, with one row for each video (the last one given).

    Args:
        folder: Folder of decisions.
        videos: The forgotten videos.

    Raises:
        OSError: the disk cannot hold it.
    """
    from vidseek_media.tables import FORGOTTEN, write_table

    last = {video.video_id: video for video in videos}
    rows = [dataclasses.asdict(last[video_id]) for video_id in sorted(last)]
    rows = [{**row, "uris": list(row["uris"]), "addresses": list(row["addresses"])} for row in rows]
    write_table(folder / TABLE, rows, FORGOTTEN, sync=True)
