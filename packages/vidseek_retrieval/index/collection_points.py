"""Creates the points of a collection, and its metadata, from the output of the stages."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.files.json_files import read_json
from vidseek_media.tables import CLIPS, VIDEOS, read_table
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.dedup.video_matches import Duplicate, duplicate_of
from vidseek_retrieval.embedding.embed_texts import text_matrix
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, SUMMARY_FILE, Embeddings, read_parts
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.clip_tables import ClipTables
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, canonical_json, collection_name
from vidseek_retrieval.index.score_spread import MAX_CLIPS, evenly, score_spread
from vidseek_retrieval.index.values import CAPTION_VECTOR, VIDEO_VECTOR, WORDS_VECTOR, SparseVector, Value
from vidseek_retrieval.settings import IndexSettings
from vidseek_retrieval.vectors.registry import index_vector, index_vectors, vector_names

BUILD_FORMAT = 6
"""Counted up when equal content would make another collection, so that it is built again."""


@dataclass(frozen=True)
class Points:
    """The points of a collection, made anew each time they are asked for: an archive's words need not fit in memory."""

    rows: _Rows
    tables: ClipTables
    values: Mapping[str, Callable[[str], Value | None]]
    """What gives the value of each vector of the collection by clip_id, as the vector's file says."""

    @property
    def encoder_version(self) -> str:
        """Of the vectors."""
        return self.tables.embeddings.encoder_version

    @property
    def dimension(self) -> int:
        """Of the dense vectors."""
        return int(self.tables.embeddings.vectors.shape[1])

    def __iter__(self) -> Iterator[Point]:
        for clip_id, payload in zip(self.rows.clip_ids, self.rows.payloads, strict=True):
            found = {name: value for name, of in self.values.items() if (value := of(clip_id)) is not None}
            yield Point(clip_id, payload=payload, vectors=found)

    def written(self, clip_id: str) -> list[str]:
        """Return the texts of a clip that vectors of the collection are made from."""
        if not any(index_vector(name).of_text for name in self.values):
            return []
        text = self.tables.texts.get(clip_id)
        return [text.spoken, text.words] if text else []

    def score_spread(self) -> dict[str, float]:
        """Return the spread of text queries' scores over the clips, by dense vector
        (`vidseek_retrieval.index.score_spread`).
        """
        clip_ids, texts = evenly(self.rows.clip_ids, MAX_CLIPS), text_matrix(self.tables.text_vectors)
        spreads = {}
        for name in vector_names("dense"):
            of = self.values.get(name)
            found = [value for each in clip_ids if of and (value := of(each)) is not None]
            if found:
                spreads[name] = score_spread(np.stack(found), texts)  # type: ignore[arg-type]
        return spreads


def read_points(
    embed_dir: Path,
    cut_dir: Path,
    ingest_dir: Path,
    caption_dir: Path | None,
    *,
    cut: str,
    settings: IndexSettings,
    duplicates: Sequence[Duplicate],
) -> Points:
    """Read the embedded clips of one cut mode as points.

    Args:
        embed_dir: Output of the stage `embed`.
        cut_dir: Output of the stage `cut`.
        ingest_dir: Output of the stage `ingest`.
        caption_dir: Output of the stage `caption`; None publishes no texts.
        cut: The cut mode, for example `windows`.
        settings: Vectors and options of the index.
        duplicates: Accepted duplicates; those of unknown videos are ignored.

    Raises:
        ArtifactError: a table is missing or broken, or tables do not fit together.
        GateFailed: there are no clips.
    """
    tables = ClipTables(
        _read_embeddings(embed_dir), embed_dir, cut_dir, ingest_dir, caption_dir, cut=cut, language=settings.language
    )
    rows = _published_rows(tables, duplicates=duplicates, fields=_fields(tables, settings))
    wanted = [each for each in index_vectors() if each.name in settings.vectors]
    return Points(rows, tables, {each.name: each.values(tables) for each in wanted})


def facts_of(points: Points, settings: IndexSettings, calibration: Calibration | None) -> CollectionMetadata:
    """Return the metadata of a collection. Its name contains a hash of its content.

    Args:
        points: The points of the collection.
        settings: Vectors and options of the index.
        calibration: Calibration of confidences that is stored with it; None for none.
    """
    encoder_version = points.encoder_version
    kept = calibration.to_json() if calibration else None
    digest = hashlib.sha256(canonical_json([BUILD_FORMAT, encoder_version, settings.model_dump(), kept]).encode())
    content = hashlib.sha256()
    counts: Counter[str] = Counter()
    longest_ms = 0
    for point in points:
        known = {name: value for name, value in point.payload.items() if name != "encoder_version"}
        content.update(canonical_json([point.clip_id, known, points.written(point.clip_id)]).encode())
        for name, value in _in_order(point):
            if name not in _UNNAMED:
                digest.update(name.encode())
            digest.update(canonical_json(value).encode() if _is_sparse(value) else value.astype("<f4").tobytes())
        counts.update(point.vectors.keys())
        longest_ms = max(longest_ms, point.payload["end_ms"] - point.payload["start_ms"])
    digest.update(content.digest())
    build = digest.hexdigest()[:12]
    return CollectionMetadata(
        name=collection_name(encoder_version, build),
        encoder_version=encoder_version,
        build=build,
        dimension=points.dimension,
        num_points=len(points.rows.clip_ids),
        settings=settings,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        num_captions=counts[CAPTION_VECTOR],
        num_words=counts[WORDS_VECTOR],
        num_others={name: num for name, num in sorted(counts.items()) if name not in _UNNAMED},
        calibration=kept,
        longest_ms=longest_ms,
        score_spread=points.score_spread(),
        content=content.hexdigest()[:16],
    )


_UNNAMED = (WORDS_VECTOR, VIDEO_VECTOR, CAPTION_VECTOR)
"""In the order in which they are in the hash of `BUILD_FORMAT` 6, which has no names of them."""


def _in_order(point: Point) -> Iterator[tuple[str, Any]]:
    """Yield the values of a point as they go into the hash; words that it lacks are in there as None."""
    yield WORDS_VECTOR, point.words
    for name in (*_UNNAMED[1:], *sorted(set(point.vectors) - set(_UNNAMED))):
        if name in point.vectors:
            yield name, point.vectors[name]


def _is_sparse(value: Any) -> bool:
    return value is None or isinstance(value, SparseVector)


def _fields(tables: ClipTables, settings: IndexSettings) -> Callable[[str], dict[str, Any]]:
    """Return a function from a clip id to the payload fields that vectors add."""
    of_each = [each.fields(tables) for each in index_vectors() if each.name in settings.vectors and each.filter_fields]
    return lambda clip_id: {name: value for fields in of_each for name, value in fields(clip_id).items()}


@dataclass(frozen=True)
class _Rows:
    clip_ids: list[str]
    payloads: list[dict[str, Any]]
    num_without_vector: int


def _read_embeddings(embed_dir: Path) -> Embeddings:
    embeddings = read_parts(embed_dir / PARTS_FOLDER)
    path = embed_dir / SUMMARY_FILE
    remedy = "Run `dvc repro embed` to finish it"
    try:
        summary = read_json(path)
        expected = (summary["encoder_version"], summary["num_clips"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is missing or broken: {error!r}", code="embeddings-broken", remedy=remedy) from error
    if expected != (embeddings.encoder_version, len(embeddings.clip_ids)):
        raise ArtifactError(
            f"{embed_dir / PARTS_FOLDER} has {len(embeddings.clip_ids)} clips of {embeddings.encoder_version}, "
            f"{SUMMARY_FILE} says {expected[1]} of {expected[0]}", code="embeddings-broken",
            remedy=remedy,
        )
    return embeddings


def _published_rows(
    tables: ClipTables, *, duplicates: Sequence[Duplicate], fields: Callable[[str], dict[str, Any]]
) -> _Rows:
    cut_dir, ingest_dir, cut = tables.cut_dir, tables.ingest_dir, tables.cut
    clips = read_table(cut_dir / "clips.parquet", CLIPS)
    videos = read_table(ingest_dir / "videos.parquet", VIDEOS).set_index("video_id", drop=False)
    place_of = tables.places
    unknown = sorted(set(place_of) - set(clips["clip_id"]))
    if unknown:
        raise ArtifactError(
            f"{len(unknown)} embedded clips are not in {cut_dir / 'clips.parquet'}: {', '.join(unknown[:5])}",
            code="tables-disagree",
            remedy="Run `dvc repro`, so that clips and embeddings are of one run",
        )
    wanted = clips[[cut in modes for modes in clips["cut"]]].sort_values("clip_id")
    without_video = sorted(set(wanted["video_id"]) - set(videos.index))
    if without_video:
        raise ArtifactError(
            f"{len(without_video)} videos of the clips are not in {ingest_dir / 'videos.parquet'}: {without_video[0]}",
            code="tables-disagree",
            remedy="Run `dvc repro`, so that videos and clips are of one run",
        )
    of_video = {str(video["video_id"]): _video_payload(video) for video in videos.to_dict("records")}
    decided: dict[str, list[Duplicate]] = defaultdict(list)
    for row in duplicates:
        decided[row.video_id].append(row)
    clip_ids, payloads = [], []
    for clip in wanted.itertuples():
        if clip.clip_id in place_of:
            clip_ids.append(clip.clip_id)
            span = {"start_ms": int(clip.start_ms), "end_ms": int(clip.end_ms), "index": int(clip.index)}
            same = {"duplicate_of": duplicate_of(decided[clip.video_id], span["start_ms"], span["end_ms"])}
            payloads.append({
                **of_video[clip.video_id], **span, "encoder_version": tables.embeddings.encoder_version,
                **fields(clip.clip_id),
                **(same if same["duplicate_of"] in of_video else {}),
            })
    if not clip_ids:
        raise GateFailed(
            f"there is nothing to publish: {len(wanted)} of {len(clips)} clips are of the cut {cut!r}, "
            f"none of them has one of the {len(place_of)} embeddings", code="nothing-to-publish",
            remedy=f"Put {cut!r} into cut.modes, and look at the rejected.parquet of ingest, cut and frames",
        )
    return _Rows(clip_ids, payloads, num_without_vector=len(wanted) - len(clip_ids))


def _video_payload(video: dict[str, Any]) -> dict[str, Any]:
    uri = bare_url(video["uris"][0])  # a table of an earlier version may have it whole
    payload = {
        "video_id": video["video_id"],
        "title": video["title"] or PurePosixPath(uri).stem,
        "uri": uri,
        "channel": video["channel"],
        "category": video["category"],
        "published_at": video["published_at"],
        "duration_ms": int(video["duration_ms"]),
        # A picture beside the video has no address; the service makes its own.
        "thumbnail_url": bare_address(video["thumbnail"]),
    }
    return {name: value for name, value in payload.items() if not pd.isna(value) and value != ""}
