"""Creates the points of a collection, and its metadata, from the output of the stages."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.fields.declared import AUTO_TAGS, TAG_LIST, TAGS, DeclaredFields
from vidseek_media.fields.statements import StoredFields, read_fields, values_of_clip
from vidseek_media.files.json_files import read_json
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.prompt_tags import AutoTags, Prompts
from vidseek_retrieval.dedup.video_matches import Duplicate, duplicate_of
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, SUMMARY_FILE, Embeddings, read_parts
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.clip_tables import ClipTables
from vidseek_retrieval.index.collection_metadata import BUILD_DIGITS, CollectionMetadata, canonical_json, collection_name
from vidseek_retrieval.index.difference.published_clips import PublishedClips, published_clips, video_payloads
from vidseek_retrieval.index.payload import payload_fields
from vidseek_retrieval.index.score_spread import MAX_CLIPS, MAX_QUERIES, evenly, score_spread
from vidseek_retrieval.index.values import CAPTION_VECTOR, VIDEO_VECTOR, WORDS_VECTOR
from vidseek_retrieval.index.verification import exact_nearest
from vidseek_retrieval.settings import IndexSettings, Vector
from vidseek_retrieval.vectors.registry import index_vectors

BUILD_FORMAT = 8
"""Counted up when equal content would make another collection, so that it is built again."""


_ROWS_AT_ONCE = 2**14
"""Vectors that are compared with queries at once."""
_VIDEOS_AT_ONCE = 4096
"""Videos whose fields are kept parsed, while points are made in the order of their ids."""


@dataclass(frozen=True)
class Points:
    """The points of a collection, made anew each time they are asked for: an archive's words need not fit in memory."""

    tables: ClipTables
    clips: PublishedClips
    payloads: Mapping[str, Mapping[str, Any]]
    """The fields that all points of a video have, by video; of all videos of the archive."""
    duplicates: Mapping[str, Sequence[Duplicate]]
    """Decisions by video."""
    settings: IndexSettings
    fields: StoredFields = field(default_factory=StoredFields)
    """The fields that the user declared, and their values."""
    auto_tags: AutoTags | None = None
    """The tags of the clips that prompts gave, row for row of `clips`."""

    @property
    def encoder_version(self) -> str:
        """Of the vectors."""
        return self.tables.embeddings.encoder_version

    @property
    def dimension(self) -> int:
        """Of the dense vectors."""
        return int(self.tables.embeddings.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.clips.spans)

    def __iter__(self) -> Iterator[Point]:
        return self._made(self.clips.by_id, self.tables)

    def of_videos(self, video_ids: Collection[str]) -> Iterator[Point]:
        """Return the points of some videos.

        Args:
            video_ids: Of the videos.
        """
        wanted = frozenset(video_ids)
        return self._made(self._rows_of(wanted), self.tables.of_videos(wanted))

    def common_source(self, video_id: str) -> list[Any]:
        """Return what the payloads of a video's points are made from, beside their spans and what vectors add.

        Args:
            video_id: Of the video.
        """
        decided = [(vars(row), row.duplicate_of in self.payloads) for row in self.duplicates.get(video_id, ())]
        stated = self.fields.source(video_id)
        return [self.payloads[video_id], decided, *([stated] if stated else [])]

    def nearest(self, queries: NDArray[np.float32], num: int) -> list[list[tuple[str, float]]]:
        """Return the nearest clips of queries by the vector `video`, exactly: ids and scores, best first.

        Args:
            queries: float32 of shape (n, dimension), unit rows.
            num: Clips of each query, at most.
        """
        found = exact_nearest(queries, self._vector_batches(), num)
        return [[(clip_id.decode(), score) for clip_id, score in of_query] for of_query in found]

    def score_spread(self) -> dict[str, float]:
        """Return the spread of text queries' scores over the clips, by dense vector
        (`vidseek_retrieval.index.score_spread`).

        Clips are sampled evenly by id, texts are the first by id; for vectors whose values are made, all but `video`, clips
        are those of evenly sampled videos.
        """
        rows = self.clips.by_id[evenly(range(len(self)), MAX_CLIPS)]
        texts = self.tables.text_vectors.first(MAX_QUERIES)
        spreads = {VIDEO_VECTOR: score_spread(self.tables.embeddings.vectors[self.clips.places[rows]], texts)}
        num_videos = max(1, MAX_CLIPS * len(self.clips.videos) // len(self))
        videos = frozenset(evenly(self.clips.videos, num_videos))
        tables = self.tables.of_videos(videos)
        clip_ids = [each.decode() for each in self.clips.clip_ids[self._rows_of(videos)].tolist()]
        for each in index_vectors():
            if each.kind == "dense" and each.name in self.settings.vectors and each.name != VIDEO_VECTOR:
                value_of = each.values(tables)
                found = [np.asarray(value) for clip_id in clip_ids if (value := value_of(clip_id)) is not None]
                if found:
                    spreads[each.name] = score_spread(np.stack(found), texts)
        return spreads

    def _vector_batches(self) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
        for begin in range(0, len(self), _ROWS_AT_ONCE):
            batch = slice(begin, begin + _ROWS_AT_ONCE)
            rows = self.tables.embeddings.vectors[self.clips.places[batch]]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)  # as an index does
            yield self.clips.clip_ids[batch].tolist(), rows

    def _rows_of(self, video_ids: Collection[str]) -> NDArray[np.int64]:
        rows = [np.arange(begin, end) for video_id, begin, end in self.clips.by_video() if video_id in video_ids]
        return np.concatenate(rows) if rows else np.empty(0, np.int64)

    def _made(self, rows: NDArray[np.int64], tables: ClipTables) -> Iterator[Point]:
        """Yield the points of rows; `tables` have the texts of their videos."""
        wanted = [each for each in index_vectors() if each.name in self.settings.vectors]
        values = {each.name: each.values(tables) for each in wanted if each.name != VIDEO_VECTOR}
        fields = [each.fields(tables) for each in wanted if each.filter_fields or each.evidence]
        vectors, places, spans = self.tables.embeddings.vectors, self.clips.places, self.clips.spans
        of_rows = np.searchsorted(self.clips.begins, rows, side="right") - 1
        stated = lru_cache(_VIDEOS_AT_ONCE)(self.fields.of)
        for row, video in zip(rows.tolist(), of_rows.tolist(), strict=True):
            clip_id, start_ms, end_ms, index = spans[row].item()
            name = clip_id.decode()
            found = {VIDEO_VECTOR: vectors[places[row]]}
            found |= {each: value for each, of in values.items() if (value := of(name)) is not None}
            added: dict[str, Any] = {field: value for of_clip in fields for field, value in of_clip(name).items()}
            own = stated(self.clips.videos[video])
            auto = self.auto_tags.of_row(row) if self.auto_tags else []
            if own or auto:
                added |= values_of_clip(own, self.fields.declared, start_ms, end_ms, index, auto_tags=auto)
            yield Point(name, payload=self._payload(self.clips.videos[video], start_ms, end_ms, index, added), vectors=found)

    def _payload(
        self, video_id: str, start_ms: int, end_ms: int, index: int, added: Mapping[str, Any]
    ) -> dict[str, Any]:
        original = duplicate_of(self.duplicates.get(video_id, ()), start_ms, end_ms)
        return {
            **self.payloads[video_id], "start_ms": start_ms, "end_ms": end_ms, "index": index,
            "encoder_version": self.encoder_version, **added,
            **({"duplicate_of": original} if original in self.payloads else {}),
        }


def read_points(
    embed_dir: Path,
    cut_dir: Path,
    ingest_dir: Path,
    caption_dir: Path | None,
    segment_dirs: Mapping[str, Sequence[Path]] | None = None,
    *,
    cut: str,
    settings: IndexSettings,
    duplicates: Sequence[Duplicate],
    fields_dir: Path | None = None,
) -> Points:
    """Read the embedded clips of one cut mode as points.

    Args:
        embed_dir: Output of the stage `embed`.
        cut_dir: Output of the stage `cut`.
        ingest_dir: Output of the stage `ingest`.
        caption_dir: Output of the stage `caption`; None publishes no texts.
        segment_dirs: By field of evidence (`speech`, `ocr`), the folders of the stages that wrote its segments.
        cut: The cut mode, for example `windows`.
        settings: Vectors and options of the index.
        duplicates: Accepted duplicates; those of unknown videos are ignored.
        fields_dir: The folder of fields.parquet, with the fields that the user declared; None for none.

    Raises:
        ArtifactError: a table is missing or broken, or tables do not fit together.
        ConfigError: a declared field has the name of one that an installed package adds.
        GateFailed: there are no clips.
    """
    tables = ClipTables(
        _read_embeddings(embed_dir), embed_dir, cut_dir, ingest_dir, caption_dir, cut=cut, language=settings.language,
        segment_dirs=segment_dirs or {},
    )
    decided: dict[str, list[Duplicate]] = defaultdict(list)
    for row in duplicates:
        decided[row.video_id].append(row)
    fields = read_fields(fields_dir) if fields_dir else StoredFields()
    _refuse_taken(fields.declared)
    return Points(tables, published_clips(tables), video_payloads(ingest_dir), decided, settings, fields)


def with_auto_tags(points: Points, prompts: Prompts) -> Points:
    """Return points with the tags that prompts give their clips; the fields `tags` and `auto_tags` are declared then.

    Args:
        points: The points.
        prompts: The prompts.

    Raises:
        ArtifactError: the prompts were embedded by another encoder.
    """
    if prompts.encoder_version != points.encoder_version:
        raise ArtifactError(
            f"the prompts of tags are of encoder_version {prompts.encoder_version}, the clips are of "
            f"{points.encoder_version}", code="other-encoder", remedy="Run `dvc repro embed`",
        )
    return replace(
        points, fields=points.fields.also_declaring({TAGS: TAG_LIST, AUTO_TAGS: TAG_LIST}),
        auto_tags=prompts.tag(points.tables.embeddings.vectors, points.clips.places),
    )


def identity_of(points: Points, videos: NDArray[np.void], calibration: Calibration | None) -> str:
    """Return a hash of a collection's content and settings, 32 hex digits.

    Args:
        points: The points of the collection.
        videos: Their digests, rows of `VIDEO_ROW` sorted by video.
        calibration: Calibration of confidences that is stored with it; None for none.
    """
    kept = calibration.to_json() if calibration else None
    own = [declarations_of(points)] if points.fields.declared else []
    named = canonical_json(
        [BUILD_FORMAT, points.encoder_version, points.dimension, points.settings.model_dump(), kept, *own]
    )
    found = hashlib.sha256(named.encode())
    for column in ("video_id", "digest"):
        found.update(videos[column].tobytes())
    return found.hexdigest()[:32]


def declarations_of(points: Points) -> dict[str, str | list[str]]:
    """Return the declared fields with their types as JSON values, by name."""
    return {name: kind.declaration for name, kind in points.fields.declared.items()}


def build_of(identity: str, *, rebuilds: int = 0) -> str:
    """Return the build, 12 hex digits, that is in a collection's name.

    Args:
        identity: Of the collection, from `identity_of`.
        rebuilds: How many collections of the same identity are stored already.
    """
    named = f"{identity}:{rebuilds}".encode()
    return (identity if not rebuilds else hashlib.sha256(named).hexdigest())[:BUILD_DIGITS]


def count_vectors(points: Points) -> dict[Vector, int]:
    """Count the points that have each vector, by making all of them.

    Args:
        points: The points of a collection.
    """
    counts: Counter[str] = Counter()
    for point in points:
        counts.update(point.vectors.keys())
    return dict(counts)


def facts_of(
    points: Points, videos: NDArray[np.void], calibration: Calibration | None, *, counts: Mapping[Vector, int],
    num_changed: int = 0,
) -> CollectionMetadata:
    """Return the metadata of a collection. Its name contains a hash of its content.

    Args:
        points: The points of the collection.
        videos: Their digests, rows of `VIDEO_ROW` sorted by video.
        calibration: Calibration of confidences that is stored with it; None for none.
        counts: Points that have each vector.
        num_changed: Points that were written or removed since all were built at once.
    """
    identity = identity_of(points, videos, calibration)
    build = build_of(identity)
    named = (WORDS_VECTOR, VIDEO_VECTOR, CAPTION_VECTOR)
    content = videos["video_id"].tobytes() + videos["content"].tobytes()
    return CollectionMetadata(
        name=collection_name(points.encoder_version, build),
        encoder_version=points.encoder_version,
        build=build,
        dimension=points.dimension,
        num_points=len(points),
        settings=points.settings,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        num_captions=counts.get(CAPTION_VECTOR, 0),
        num_words=counts.get(WORDS_VECTOR, 0),
        num_others={name: num for name, num in sorted(counts.items()) if name not in named and num},
        calibration=calibration.to_json() if calibration else None,
        longest_ms=points.clips.longest_ms,
        score_spread=points.score_spread(),
        content=hashlib.sha256(content).hexdigest()[:16],
        identity=identity,
        num_changed=num_changed,
        fields=declarations_of(points),
    )


def _refuse_taken(declared: DeclaredFields) -> None:
    if taken := sorted(set(declared) & set(payload_fields())):
        raise ConfigError(
            f"the field {taken[0]} is declared, and clips have one of that name", code="field-name-taken",
            remedy="Give it and its column another name in `fields` of params.yaml",
        )


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
