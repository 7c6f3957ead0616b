"""The points of a collection, from the tables that the stages left, and the facts that name it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.json_files import read_json
from vidseek_media.tables import CLIPS, VIDEOS, read_table
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.calibration import Calibration
from vidseek_retrieval.duplicates import Duplicate, duplicate_of
from vidseek_retrieval.index import (
    CAPTION_VECTOR,
    VIDEO_VECTOR,
    WORDS_VECTOR,
    CollectionFacts,
    Point,
    Words,
    canonical_json,
    collection_name,
)
from vidseek_retrieval.parts import PARTS_FOLDER, SUMMARY_FILE, Embeddings, read_parts
from vidseek_retrieval.settings import IndexSettings
from vidseek_retrieval.spread import MAX_CLIPS, evenly, score_spread
from vidseek_retrieval.texts import ClipText, clip_texts, read_texts, text_id_of, text_matrix
from vidseek_retrieval.words import WordEncoder

BUILD_FORMAT = 6
"""Counted up when equal content would make another collection, so that it is built again."""


@dataclass(frozen=True)
class Points:
    """The points of a collection, made anew each time they are asked for: an archive's words need not fit in memory."""

    rows: _Rows
    embeddings: Embeddings
    texts: _TextVectors

    @property
    def encoder_version(self) -> str:
        """Of the vectors."""
        return self.embeddings.encoder_version

    def __iter__(self) -> Iterator[Point]:
        for place, payload in zip(self.rows.places, self.rows.payloads, strict=True):
            clip_id = self.embeddings.clip_ids[place]
            yield Point(
                clip_id, self.embeddings.vectors[place], payload,
                caption=self.texts.caption(clip_id), words=self.texts.words(clip_id),
            )


    def score_spread(self) -> dict[str, float]:
        """The spread of a text's scores over the clips, by dense vector: see `vidseek_retrieval.spread`."""
        places, texts = evenly(self.rows.places, MAX_CLIPS), text_matrix(self.texts.vectors)
        spreads = {VIDEO_VECTOR: score_spread(self.embeddings.vectors[places], texts)}
        captions = [self.texts.caption(self.embeddings.clip_ids[place]) for place in places]
        written = [caption for caption in captions if caption is not None]
        return spreads | ({CAPTION_VECTOR: score_spread(np.stack(written), texts)} if written else {})


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
    """The clips of the cut mode `cut` that have a vector. The arguments are those of `publish`.

    Raises:
        ArtifactError: a table is missing or broken, or they do not belong together.
        GateFailed: no clip is there.
    """
    embeddings = _read_embeddings(embed_dir)
    rows = _published_rows(embeddings, cut_dir=cut_dir, ingest_dir=ingest_dir, cut=cut, duplicates=duplicates)
    texts = {}
    if caption_dir is not None and {CAPTION_VECTOR, WORDS_VECTOR} & set(settings.vectors):
        texts = clip_texts(ingest_dir, cut_dir, caption_dir, cut=cut)
    return Points(rows, embeddings, _TextVectors.load(texts, embed_dir, embeddings.encoder_version, settings))


def facts_of(points: Points, settings: IndexSettings, calibration: Calibration | None) -> CollectionFacts:
    """The facts of a collection of `points`: its name holds a hash of all that is in it."""
    encoder_version, dimension = points.encoder_version, points.embeddings.vectors.shape[1]
    kept = calibration.to_json() if calibration else None
    digest = hashlib.sha256(canonical_json([BUILD_FORMAT, encoder_version, settings.model_dump(), kept]).encode())
    content = hashlib.sha256()
    num_captions = num_words = longest_ms = 0
    for point in points:
        known = {name: value for name, value in point.payload.items() if name != "encoder_version"}
        content.update(canonical_json([point.clip_id, known, points.texts.written(point.clip_id)]).encode())
        digest.update(canonical_json(point.words).encode())
        digest.update(point.vector.astype("<f4").tobytes())
        if point.caption is not None:
            digest.update(point.caption.astype("<f4").tobytes())
        num_captions += point.caption is not None
        num_words += point.words is not None
        longest_ms = max(longest_ms, point.payload["end_ms"] - point.payload["start_ms"])
    digest.update(content.digest())
    build = digest.hexdigest()[:12]
    return CollectionFacts(
        name=collection_name(encoder_version, build),
        encoder_version=encoder_version,
        build=build,
        dimension=dimension,
        num_points=len(points.rows.places),
        settings=settings,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        num_captions=num_captions,
        num_words=num_words,
        calibration=kept,
        longest_ms=longest_ms,
        score_spread=points.score_spread(),
        content=content.hexdigest()[:16],
    )


@dataclass(frozen=True)
class _Rows:
    places: list[int]
    """Into the embeddings."""
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
    embeddings: Embeddings, *, cut_dir: Path, ingest_dir: Path, cut: str, duplicates: Sequence[Duplicate]
) -> _Rows:
    clips = read_table(cut_dir / "clips.parquet", CLIPS)
    videos = read_table(ingest_dir / "videos.parquet", VIDEOS).set_index("video_id", drop=False)
    place_of = {clip_id: place for place, clip_id in enumerate(embeddings.clip_ids)}
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
    places, payloads = [], []
    for clip in wanted.itertuples():
        if clip.clip_id in place_of:
            places.append(place_of[clip.clip_id])
            span = {"start_ms": int(clip.start_ms), "end_ms": int(clip.end_ms), "index": int(clip.index)}
            same = {"duplicate_of": duplicate_of(decided[clip.video_id], span["start_ms"], span["end_ms"])}
            payloads.append({
                **of_video[clip.video_id], **span, "encoder_version": embeddings.encoder_version,
                **(same if same["duplicate_of"] in of_video else {}),
            })
    if not places:
        raise GateFailed(
            f"there is nothing to publish: {len(wanted)} of {len(clips)} clips are of the cut {cut!r}, "
            f"none of them has one of the {len(place_of)} embeddings", code="nothing-to-publish",
            remedy=f"Put {cut!r} into cut.modes, and look at the rejected.parquet of ingest, cut and frames",
        )
    return _Rows(places, payloads, num_without_vector=len(wanted) - len(places))


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


@dataclass(frozen=True)
class _TextVectors:
    """The vectors of what was written about clips."""

    texts: Mapping[str, ClipText]
    """By clip_id."""
    captions: Mapping[str, NDArray[np.float32]]
    """By text_id; empty where the collection has no vector `caption`."""
    vectors: Mapping[str, NDArray[np.float32]]
    """All that were embedded, by text_id."""
    encoder: WordEncoder | None

    @staticmethod
    def load(
        texts: Mapping[str, ClipText], embed_dir: Path, encoder_version: str, settings: IndexSettings
    ) -> _TextVectors:
        has_captions = bool(texts) and CAPTION_VECTOR in settings.vectors
        vectors = read_texts(embed_dir, encoder_version=encoder_version)
        captions = vectors if has_captions else {}
        lacking = {text_id_of(each.spoken) for each in texts.values() if each.spoken} - set(captions)
        if has_captions and lacking:
            raise ArtifactError(
                f"{len(lacking)} texts of the clips have no vector in {embed_dir}",
                code="texts-without-vectors", remedy="Run `dvc repro embed`"
            )
        has_words = WORDS_VECTOR in settings.vectors
        return _TextVectors(texts, captions, vectors, WordEncoder(settings.language) if has_words else None)

    def caption(self, clip_id: str) -> NDArray[np.float32] | None:
        text = self.texts.get(clip_id)
        return self.captions.get(text_id_of(text.spoken)) if text else None

    def written(self, clip_id: str) -> list[str]:
        text = self.texts.get(clip_id)
        return [text.spoken, text.words] if text else []

    def words(self, clip_id: str) -> Words | None:
        text = self.texts.get(clip_id)
        words = self.encoder.document(text.words) if self.encoder and text else None
        return words if words and words.indices else None
