"""Reads the frames of clips that `frames.parquet` lists, each from its place in a shard, whatever else lies there."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.frame_store.members import decode_jpeg, frames_digest_of, parse_members, scan_members
from vidseek_media.names import shard_file
from vidseek_media.records import ClipFrames
from vidseek_media.tables import FRAMES, read_columns

TABLE = "frames.parquet"
SHARDS = "shards"
MOST_CLIP_BYTES = 2**30
"""Of the members of one clip."""
CLIP_COLUMNS = ["clip_id", "video_id", "shard", "frames_digest", "offset", "num_bytes"]
"""In the order of the fields of `StoredClip`."""


class StoredClip(NamedTuple):
    """A row of `frames.parquet`: which frames a clip has, and where they lie."""

    clip_id: str
    video_id: str
    shard: str
    """File name inside the frames folder."""
    frames_digest: str
    """`frames_digest_of` its JPEGs; empty in a table of an earlier version."""
    offset: int = -1
    """Of its first member in the shard; negative in a table of an earlier version."""
    num_bytes: int = 0


def stored_clips(
    folder: Path, *, clip_ids: Collection[str] | None = None, video_ids: Collection[str] | None = None
) -> list[StoredClip]:
    """Return the clips that have frames, in order of video and index.

    Args:
        folder: Output of the stage `frames`.
        clip_ids: Only these clips; None means all. Ids without frames are left out.
        video_ids: Only clips of these videos; None means all.

    Raises:
        ArtifactError: no run has finished there, or its table is broken.
    """
    return _clips_among(_read_rows(folder), clip_ids=clip_ids, video_ids=video_ids)


class StoredTable:
    """Finds clips that have frames without reading their table for each question: about 0.1 KB of memory for each clip.

    The table is read on first use, and again when another run has written it. Safe to be used by several threads.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare; nothing is read.

        Args:
            folder: Output of the stage `frames`.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, ...], pa.Table] | None = None

    def find(self, clip_ids: Collection[str]) -> list[StoredClip]:
        """Return what `stored_clips` returns for clips.

        Args:
            clip_ids: Ids without frames are left out.

        Raises:
            ArtifactError: as `stored_clips`.
        """
        return _clips_among(self._rows(), clip_ids=clip_ids)

    def _rows(self) -> pa.Table:
        with self._lock:
            try:
                facts = (self._folder / TABLE).stat()
            except OSError:
                return _read_rows(self._folder)  # it says what is wrong
            written = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            if self._read is None or self._read[0] != written:
                rows = _read_rows(self._folder)
                for place, name in enumerate(rows.column_names):
                    if name in ("video_id", "shard"):  # the clips of one video repeat them
                        rows = rows.set_column(place, name, rows[name].dictionary_encode())
                self._read = written, rows
            return self._read[1]


def _read_rows(folder: Path) -> pa.Table:
    """Return `CLIP_COLUMNS` of the table."""
    path = folder / TABLE
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no frame shards", code="no-shards", remedy="Run `dvc repro frames`")
    table = read_columns(path, FRAMES, columns=CLIP_COLUMNS)
    with foreign(ArtifactError, str(path), code="broken-rows", remedy="Run `dvc repro frames`", errors=ValueError):
        for shard in pc.unique(table["shard"]).to_pylist():
            shard_file(shard)
    return table


def _clips_among(
    table: pa.Table, *, clip_ids: Collection[str] | None = None, video_ids: Collection[str] | None = None
) -> list[StoredClip]:
    for name, among in (("clip_id", clip_ids), ("video_id", video_ids)):
        if among is not None:
            table = table.filter(pc.is_in(table[name], value_set=pa.array(list(among), pa.string())))
    absent = {"offset": -1, "num_bytes": 0, "frames_digest": ""}
    columns = [pc.fill_null(table[name], absent[name]) if name in absent else table[name] for name in CLIP_COLUMNS]
    return list(map(StoredClip._make, zip(*(column.to_pylist() for column in columns), strict=True)))


def read_frames(
    folder: Path, clips: Iterable[StoredClip] | None = None, *, video_ids: Collection[str] | None = None
) -> Iterator[ClipFrames]:
    """Yield clips with decoded frames, in order of video and index. Sizes may differ between videos.

    Args:
        folder: Output of the stage `frames`.
        clips: Clips from `stored_clips`, which are read in their order; None reads all.
        video_ids: Only clips of these videos; None means all.

    Raises:
        ArtifactError: no run has finished there; a shard is missing or broken; or a clip's frames are not those that the
            table names.
    """
    listed = list(clips) if clips is not None else stored_clips(folder, video_ids=video_ids)
    for about, jpegs, path in _read(folder, listed):
        yield _decoded(about, jpegs, path)


def read_jpegs(folder: Path, clips: Iterable[StoredClip]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield clip_id and JPEG files of clips, in their order.

    Args:
        folder: Output of the stage `frames`.
        clips: Clips from `stored_clips`.

    Raises:
        ArtifactError: as `read_frames`.
    """
    for about, jpegs in read_stored(folder, clips):
        yield about["clip_id"], jpegs


def read_stored(folder: Path, clips: Iterable[StoredClip]) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Yield the content of the .json of clips, and their JPEG files, in their order.

    Args:
        folder: Output of the stage `frames`.
        clips: Clips from `stored_clips`.

    Raises:
        ArtifactError: as `read_frames`.
    """
    for about, jpegs, _ in _read(folder, list(clips)):
        yield about, jpegs


def read_placed(
    folder: Path, clips: Iterable[StoredClip]
) -> Iterator[tuple[StoredClip, bytes, dict[str, Any], list[bytes]]]:
    """Yield clips with the bytes of their members, the content of their .json and their JPEGs, in their order.

    Args:
        folder: Output of the stage `frames`.
        clips: Clips whose offsets are known.

    Raises:
        ArtifactError: a shard cannot be read, or other bytes than those of a clip are at its place.
    """
    open_name = ""
    with ExitStack() as stack:
        for clip in clips:
            path = folder / clip.shard
            if clip.shard != open_name:
                stack.pop_all().close()
                file, open_name = stack.enter_context(_opened(path)), clip.shard
            yield clip, *_members_of(clip, file, path)


def _members_of(clip: StoredClip, file: BinaryIO, path: Path) -> tuple[bytes, dict[str, Any], list[bytes]]:
    file.seek(clip.offset)
    content = file.read(min(max(clip.num_bytes, 0), MOST_CLIP_BYTES))
    about, jpegs = parse_members(content, path)
    digest = frames_digest_of(jpegs)
    if about["clip_id"] != clip.clip_id or (clip.frames_digest and digest != clip.frames_digest):
        raise ArtifactError(
            f"{path} has clip {about['clip_id']} with frames {digest} at byte {clip.offset}, the table says "
            f"{clip.clip_id} with {clip.frames_digest}",
            code="broken-shard", remedy=f"Remove {path.name}, then run `dvc repro frames`: its videos are decoded again",
        )
    return content, about, jpegs


def _read(folder: Path, clips: list[StoredClip]) -> Iterator[tuple[dict[str, Any], list[bytes], Path]]:
    for clip, _, about, jpegs in read_placed(folder, _with_places(folder, clips)):
        yield about, jpegs, folder / clip.shard


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}", code="broken-shard", remedy="Run `dvc repro frames`",
        ) from error


def _with_places(folder: Path, clips: list[StoredClip]) -> list[StoredClip]:
    """Find the clips of a table of an earlier version, which does not say where in a shard they lie."""
    unplaced = defaultdict(set)
    for clip in clips:
        if clip.offset < 0:
            unplaced[clip.shard].add(clip.clip_id)
    if not unplaced:
        return clips
    places = {
        about["clip_id"]: (offset, num_bytes)
        for shard in unplaced for about, offset, num_bytes in scan_members(folder / shard)
    }
    if lost := next((each for shard in unplaced.values() for each in sorted(shard) if each not in places), None):
        raise ArtifactError(
            f"{folder / TABLE} lists clip {lost}, which its shard does not hold", code="tables-disagree",
            remedy="Run `dvc repro frames`",
        )
    return [
        clip if clip.offset >= 0 else clip._replace(offset=places[clip.clip_id][0], num_bytes=places[clip.clip_id][1])
        for clip in clips
    ]


def _decoded(about: dict[str, Any], jpegs: list[bytes], path: Path) -> ClipFrames:
    try:
        return ClipFrames(
            clip_id=uuid.UUID(about["clip_id"]), key=about["key"], times_ms=tuple(about["times_ms"]),
            frames=np.stack([decode_jpeg(jpeg) for jpeg in jpegs]), num_repeated=about["num_repeated"],
            digest=frames_digest_of(jpegs),
        )
    except (ValueError, KeyError, OSError) as error:
        raise ArtifactError(
            f"{path}: clip {about.get('key')}: {error}", code="broken-shard", remedy="Run `dvc repro frames`",
        ) from error
