"""The clips that are published, as columns: an archive of 10^6 clips is looked at without a loop over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.cutting.cut import rows_of_cut
from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.tables import CLIPS, VIDEOS, read_columns
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.index.clip_tables import ClipTables

SPAN_ROW = np.dtype([("clip_id", "S36"), ("start_ms", "<i8"), ("end_ms", "<i8"), ("index", "<i8")])
_SHOWN = 5


@dataclass(frozen=True)
class PublishedClips:
    """The clips of one cut mode that have a vector, in order of video, start and end."""

    spans: NDArray[np.void]
    """Rows of `SPAN_ROW`."""
    places: NDArray[np.int64]
    """The row of each clip in the embeddings."""
    begins: NDArray[np.int64]
    """The first row of each video, and the number of rows."""
    videos: tuple[str, ...]
    """The videos in order, as many as `begins` has less one."""
    num_without_vector: int
    """Clips of the cut mode without an embedding."""

    @property
    def clip_ids(self) -> NDArray[np.bytes_]:
        """The clip ids, row for row."""
        ids: NDArray[np.bytes_] = self.spans["clip_id"]
        return ids

    @property
    def longest_ms(self) -> int:
        """Length of the longest clip."""
        return int((self.spans["end_ms"] - self.spans["start_ms"]).max())

    @cached_property
    def by_id(self) -> NDArray[np.int64]:
        """The rows in order of clip id."""
        high, low = halves_of_ids(self.clip_ids)
        return np.lexsort((low, high))

    def by_video(self) -> Iterator[tuple[str, int, int]]:
        """Yield each video with its first row and the one after its last."""
        bounds = self.begins.tolist()
        return zip(self.videos, bounds[:-1], bounds[1:], strict=True)


def published_clips(tables: ClipTables) -> PublishedClips:
    """Return the embedded clips of the tables' cut mode.

    Args:
        tables: Output of the stages.

    Raises:
        ArtifactError: a table is missing or broken, or an embedded clip is not in the table of clips.
        GateFailed: there is none.
    """
    path = tables.cut_dir / "clips.parquet"
    clips = read_columns(path, CLIPS).combine_chunks()
    embedded = pa.array(tables.embeddings.clip_ids, pa.string())
    unknown = embedded.filter(pc.invert(pc.is_in(embedded, value_set=_one(clips["clip_id"]))))
    if len(unknown):
        raise ArtifactError(
            f"{len(unknown)} embedded clips are not in {path}: {', '.join(sorted(unknown.to_pylist())[:_SHOWN])}",
            code="tables-disagree", remedy="Run `dvc repro`, so that clips and embeddings are of one run",
        )
    wanted = rows_of_cut(clips, tables.cut)
    _require_videos(wanted, tables)
    places = pc.index_in(wanted["clip_id"], value_set=embedded).combine_chunks()
    having = wanted.filter(pc.is_valid(places))
    if not having.num_rows:
        raise GateFailed(
            f"there is nothing to publish: {wanted.num_rows} of {clips.num_rows} clips are of the cut {tables.cut!r}, "
            f"none of them has one of the {len(embedded)} embeddings", code="nothing-to-publish",
            remedy=f"Put {tables.cut!r} into cut.modes, and look at the rejected.parquet of ingest, cut and frames",
        )
    return _in_order(having, np.asarray(places.drop_null(), np.int64), num_without_vector=wanted.num_rows - having.num_rows)


def video_payloads(ingest_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the fields that all points of a video have, by video.

    Args:
        ingest_dir: Output of the stage `ingest`.

    Raises:
        ArtifactError: the table of videos is missing or broken.
    """
    videos = read_columns(ingest_dir / "videos.parquet", VIDEOS)
    texts = {name: videos[name] for name in ("video_id", "title", "channel", "category", "published_at", "thumbnail")}
    columns = {**texts, "uri": pc.list_element(videos["uris"], 0), "duration_ms": videos["duration_ms"]}
    rows = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return {row[0]: _video_payload(dict(zip(columns, row, strict=True))) for row in rows}


def halves_of_ids(clip_ids: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the upper and lower 64 bits of UUIDs in canonical notation.

    Args:
        clip_ids: Shape (n,), 36 characters each.
    """
    letters = np.frombuffer(np.ascontiguousarray(clip_ids).tobytes(), np.uint8).reshape(-1, 36)
    digits = letters[:, [place for place in range(36) if place not in (8, 13, 18, 23)]]
    values = np.where(digits >= ord("a"), digits - (ord("a") - 10), digits - ord("0")).astype(np.uint8)
    octets = np.ascontiguousarray(values[:, 0::2] << 4 | values[:, 1::2])
    halves = octets.view(">u8").astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _require_videos(wanted: pa.Table, tables: ClipTables) -> None:
    path = tables.ingest_dir / "videos.parquet"
    known = read_columns(path, VIDEOS, columns=["video_id"])["video_id"]
    of_clips = pc.unique(wanted["video_id"])
    lacking = sorted(of_clips.filter(pc.invert(pc.is_in(of_clips, value_set=_one(known)))).to_pylist())
    if lacking:
        raise ArtifactError(
            f"{len(lacking)} videos of the clips are not in {path}: {lacking[0]}",
            code="tables-disagree", remedy="Run `dvc repro`, so that videos and clips are of one run",
        )


def _in_order(clips: pa.Table, places: NDArray[np.int64], *, num_without_vector: int) -> PublishedClips:
    videos = np.asarray(clips["video_id"].to_numpy(), "S32")
    spans = np.empty(clips.num_rows, SPAN_ROW)
    for name in SPAN_ROW.names or ():
        spans[name] = clips[name].to_numpy()
    order = np.lexsort((spans["end_ms"], spans["start_ms"], videos))
    videos = videos[order]
    begins = np.flatnonzero(np.append(True, videos[1:] != videos[:-1]))
    return PublishedClips(
        spans[order], places[order], np.append(begins, len(videos)), tuple(map(bytes.decode, videos[begins].tolist())),
        num_without_vector,
    )


def _video_payload(video: dict[str, Any]) -> dict[str, Any]:
    uri = bare_url(video["uri"])  # a table of an earlier version may have it whole
    payload = {
        "video_id": video["video_id"],
        "title": video["title"] or PurePosixPath(uri).stem,
        "uri": uri,
        "channel": video["channel"],
        "category": video["category"],
        "published_at": video["published_at"],
        "duration_ms": video["duration_ms"],
        # A picture beside the video has no address; the service makes its own.
        "thumbnail_url": bare_address(video["thumbnail"]),
    }
    return {name: value for name, value in payload.items() if value is not None and value != ""}
