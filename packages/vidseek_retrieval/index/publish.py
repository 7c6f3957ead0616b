"""Publish embeddings: build a collection beside the live one, verify it, and move the alias to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.files.json_files import write_json
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.index.aliases import alias_problems, move_to, named_by, remove_unneeded
from vidseek_retrieval.index.backend import Alias, IndexBackend, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.collection_points import facts_of, read_points
from vidseek_retrieval.index.open_backend import Index, home_of
from vidseek_retrieval.index.trial_search import trial_problems
from vidseek_retrieval.index.values import SparseVector, Value
from vidseek_retrieval.index.verification import Verification, verify_collection
from vidseek_retrieval.settings import KEEP_PREVIOUS, MIN_RECALL, IndexSettings

_ROUNDING = 1e-4
"""Tolerance of one value of a unit vector. Backends normalise vectors again when they store them."""


@dataclass(frozen=True)
class Published:
    """How a collection went live."""

    collection: str
    verification: Verification
    built: bool
    """False if it existed already."""
    moved: bool
    """False if it was live already."""
    previous: tuple[str, ...]
    """Collections that a rollback can return to, newest first."""
    removed: tuple[str, ...]
    """Collections that were removed, and remains of killed builds."""


@dataclass(frozen=True)
class PublishReport:
    """The result of a publish."""

    alias: str
    collection: str
    num_points: int
    num_captions: int
    """Points with the vector `caption`."""
    num_words: int
    """Points with the vector `words`."""
    num_without_vector: int
    """Clips of the cut mode without an embedding, because their frames were rejected."""
    verification: Verification
    built: bool
    """False if this content was in the index already."""
    moved: bool
    """False if this content was live already."""
    previous: tuple[str, ...]
    """Collections that a rollback can return to, newest first."""
    removed: tuple[str, ...]
    """Collections that no alias needed any more, and remains of killed builds."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the receipt."""
        return asdict(self)


def publish(
    embed_dir: Path,
    cut_dir: Path,
    ingest_dir: Path,
    caption_dir: Path | None = None,
    *,
    index: Index,
    alias: str = "clips",
    cut: str = "windows",
    keep_previous: int = KEEP_PREVIOUS,
    min_recall: float = MIN_RECALL,
    settings: IndexSettings | None = None,
    calibration: Calibration | None = None,
    duplicates: Sequence[Duplicate] = (),
    receipt: Path | None = None,
) -> PublishReport:
    """Build a collection, verify it, and move the alias to it. A failure leaves the live collection as it was.

    If the same content is published again, nothing is built: the collection is verified, and the alias moves if needed.

    Args:
        embed_dir: The folder of `parts/` and embeddings.json, written by `embed_archive`.
        cut_dir: The folder of clips.parquet.
        ingest_dir: The folder of videos.parquet.
        caption_dir: The folder of captions.parquet; None for points without the vectors `caption` and `words`.
        index: The folder of the embedded index, or an index backend.
        alias: The name that searches use; an experiment has its own.
        cut: The cut mode whose clips are published.
        keep_previous: Collections to keep for a rollback of this alias, at least 0.
        min_recall: The least recall at 10 of approximate against exact searches, 0 to 1.
        settings: Of the collection; None for the defaults.
        calibration: Stored with the collection, for the confidence of hits; None for no confidence.
        duplicates: Decisions; searches fold duplicates into their originals. Those of unknown videos are ignored.
        receipt: Where the report is written as JSON; None for nowhere.

    Raises:
        ArtifactError: a table is missing or broken, or they do not belong together.
        ConfigError: an argument is out of range.
        GateFailed: a vector is not of unit length, there is no clip, or the new collection does not verify.
        ServiceError: another publish runs, or the disk is full or not writable.
    """
    if keep_previous < 0 or not 0 <= min_recall <= 1 or not alias:
        raise ConfigError(
            f"alias {alias!r}, keep_previous {keep_previous}, min_recall {min_recall}: "
            "wanted a name, at least 0, and 0 to 1", code="setting-out-of-range"
        )
    settings = settings or IndexSettings()
    points = read_points(
        embed_dir, cut_dir, ingest_dir, caption_dir, cut=cut, settings=settings, duplicates=duplicates
    )
    if calibration is not None and calibration.encoder_version != points.encoder_version:
        raise ArtifactError(
            f"the calibration is of encoder_version {calibration.encoder_version}, the clips are of "
            f"{points.encoder_version}", code="other-encoder", remedy="Run `dvc repro calibrate`",
        )
    metadata = facts_of(points, settings, calibration)
    live = go_live(
        home_of(index), metadata, tqdm(points, total=metadata.num_points, desc="publish", unit="point", disable=None),
        alias=alias, keep_previous=keep_previous, min_recall=min_recall,
    )
    report = PublishReport(
        alias=alias,
        collection=metadata.name,
        num_points=metadata.num_points,
        num_captions=metadata.num_captions,
        num_words=metadata.num_words,
        num_without_vector=points.rows.num_without_vector,
        verification=live.verification,
        built=live.built,
        moved=live.moved,
        previous=live.previous,
        removed=live.removed,
    )
    if receipt is not None:
        _write_receipt(receipt, report)
    return report


def go_live(
    backend: IndexBackend,
    metadata: CollectionMetadata,
    points: Iterable[Point],
    *,
    alias: str,
    keep_previous: int,
    min_recall: float,
) -> Published:
    """Build a collection unless it exists, verify it, and then move an alias to it.

    Args:
        backend: The index.
        metadata: Of the collection.
        points: As many as `metadata` says; read only if it is built or compared with an imported one.
        alias: Its name.
        keep_previous: Collections to keep for a rollback of this alias, at least 0.
        min_recall: The least recall at 10 of approximate against exact searches, 0 to 1.

    Raises:
        GateFailed: it does not verify; the alias stays where it was.
        ServiceError: another publish runs, or the backend cannot store it.
    """
    with backend.building():
        aliases, wrong = backend.aliases(), alias_problems(backend)
        removed = backend.remove_unfinished(needed=named_by(aliases) - {metadata.name})
        there = {each.name: each for each in backend.collections()}.get(metadata.name)
        if not there and metadata.name in backend.stored():  # its metadata cannot be read
            backend.drop(metadata.name)
            removed.append(metadata.name)
        # Its files are damaged, or it was imported and its content is not what its name says.
        if there and (backend.check(metadata.name) or (there.imported and not _is_made_of(backend, metadata, points))):
            backend.drop(metadata.name)
            there = None
        found = there is not None
        if not found:
            backend.build(metadata, points)
        verification = verify_collection(backend, metadata.name, min_recall=min_recall, expected=metadata)
        if verification.passed and (problems := trial_problems(backend, metadata)):
            verification = replace(verification, problems=tuple(problems))
        if not verification.passed:
            if not found:
                backend.drop(metadata.name)
            raise _not_verified(verification, metadata.name, live=backend.aliases().get(alias))
        moved = move_to(backend, alias, metadata.name, keep_previous=keep_previous)
        removed += [] if wrong else remove_unneeded(backend)  # a wrong alias table must not decide what is removed
        previous = backend.aliases()[alias].previous
    return Published(metadata.name, verification, not found, moved, previous, tuple(removed))


def _is_made_of(backend: IndexBackend, metadata: CollectionMetadata, points: Iterable[Point]) -> bool:
    """Return whether the stored collection equals `metadata` and `points`, up to rounding of vectors."""
    if metadata.imported:
        return True  # both were imported under one name: neither is more trustworthy
    collection = backend.open(metadata.name)
    try:
        same_facts = replace(collection.metadata, created_at=metadata.created_at) == metadata
        return same_facts and all(
            one is not None and other is not None and _are_same(one, other)
            for one, other in zip_longest(collection.scroll(), points)
        )
    finally:
        collection.close()


def _are_same(one: Point, other: Point) -> bool:
    return (
        one.clip_id == other.clip_id and dict(one.payload) == dict(other.payload)
        and one.vectors.keys() == other.vectors.keys()
        and all(_are_equal(value, other.vectors[name]) for name, value in one.vectors.items())
    )


def _are_equal(one: Value, other: Value) -> bool:
    if isinstance(one, SparseVector) or isinstance(other, SparseVector):
        return isinstance(one, SparseVector) and isinstance(other, SparseVector) and _weights(one) == _weights(other)
    return np.allclose(one, other, atol=_ROUNDING)


def _weights(words: SparseVector) -> dict[int, float]:
    return {index: round(float(value), 4) for index, value in zip(words.indices, words.values, strict=True)}


def _not_verified(verification: Verification, name: str, *, live: Alias | None) -> GateFailed:
    kept = f"{live.collection} stays live" if live else "nothing is live"
    return GateFailed(
        f"{name} did not verify ({'; '.join(verification.problems)}); {kept}", code="publish-not-verified",
        remedy="Raise hnsw_ef or ef_construct if it is the recall; else look at the disk, and publish again",
    )


def _write_receipt(path: Path, report: PublishReport) -> None:
    write_json(path, report.to_json())
