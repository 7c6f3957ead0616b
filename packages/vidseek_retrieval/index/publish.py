"""Publish embeddings: build a collection beside the live one, verify it, and move the alias to it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.files.json_files import write_json
from vidseek_media.terminal.progress import counted
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.prompt_tags import Prompts, TagCount
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.index.aliases import (
    alias_problems,
    move_to,
    named_by,
    remove_unneeded,
    require_alias_table,
    require_published,
)
from vidseek_retrieval.index.backend import Alias, IndexBackend, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.collection_points import build_of, read_points, with_auto_tags
from vidseek_retrieval.index.difference.content import Content, TableContent, Whole
from vidseek_retrieval.index.difference.record import Difference, Record
from vidseek_retrieval.index.open_backend import Index, as_backend
from vidseek_retrieval.index.trial_search import trial_problems
from vidseek_retrieval.index.verification import (
    Check,
    Nearest,
    Verification,
    are_same,
    difference_problems,
    verify_collection,
)
from vidseek_retrieval.settings import PublishSettings

log = logging.getLogger("vidseek.publish")


@dataclass(frozen=True)
class Published:
    """How a collection went live."""

    collection: str
    metadata: CollectionMetadata
    verification: Verification
    built: bool
    """False if it existed already."""
    moved: bool
    """False if it was live already."""
    num_written: int
    """Points that were written: all of them if it was built at once."""
    num_deleted: int
    """Points of the collection that it was made from that it has not."""
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
    num_written: int
    """Points that were written: all of them if the collection was built at once."""
    num_deleted: int
    """Points that were taken out of the copy that it was made from."""
    num_changed: int
    """Points that publishes wrote or took out since the collection was last built at once."""
    previous: tuple[str, ...]
    """Collections that a rollback can return to, newest first."""
    removed: tuple[str, ...]
    """Collections that no alias needed any more, and remains of killed builds."""
    auto_tags: tuple[TagCount, ...] = ()
    """The tags of prompts, with the clips that have them."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of the receipt."""
        return asdict(self)


def publish(
    embed_dir: Path,
    cut_dir: Path,
    ingest_dir: Path,
    caption_dir: Path | None = None,
    segment_dirs: Mapping[str, Sequence[Path]] | None = None,
    *,
    index: Index,
    alias: str = "clips",
    settings: PublishSettings | None = None,
    calibration: Calibration | None = None,
    duplicates: Sequence[Duplicate] = (),
    fields_dir: Path | None = None,
    prompts: Prompts | None = None,
    receipt: Path | None = None,
) -> PublishReport:
    """Make a collection, verify it, and move the alias to it. A failure leaves the live collection as it was.

    A collection is made from a stored one of the same encoder and settings by writing and removing the points that differ,
    or else built at once. If the same content is published again, nothing is made: the collection is verified, and the alias
    moves if needed.

    Args:
        embed_dir: The folder of `parts/` and embeddings.json, written by `embed_archive`.
        cut_dir: The folder of clips.parquet.
        ingest_dir: The folder of videos.parquet.
        caption_dir: The folder of captions.parquet; None for points without the vectors `caption` and `words`.
        segment_dirs: By field of evidence (`speech`, `ocr`), the folders of the stages that wrote its segments.
        index: The folder of the embedded index, or an index backend.
        alias: The name that searches use; an experiment has its own.
        settings: The cut whose clips are published, limits, and how the collection is built; None for the defaults.
        calibration: Stored with the collection, for the confidence of hits; None for no confidence.
        duplicates: Decisions; searches fold duplicates into their originals. Those of unknown videos are ignored.
        fields_dir: The folder of fields.parquet, with the fields that the user declared; None for none.
        prompts: Give clips tags, beside those of people; None for none.
        receipt: Where the report is written as JSON; None for nowhere.

    Raises:
        ArtifactError: a table is missing or broken, or they do not belong together.
        ConfigError: the alias has no name.
        GateFailed: a vector is not of unit length, there is no clip, or the new collection does not verify.
        ServiceError: another publish runs, or the disk is full or not writable.
    """
    if not alias:
        raise ConfigError("alias is '', wanted a name", code="setting-out-of-range")
    settings = settings or PublishSettings()
    points = read_points(
        embed_dir, cut_dir, ingest_dir, caption_dir, segment_dirs, cut=settings.cut, settings=settings.index,
        duplicates=duplicates, fields_dir=fields_dir,
    )
    if prompts is not None:
        points = with_auto_tags(points, prompts)
    if calibration is not None and calibration.encoder_version != points.encoder_version:
        raise ArtifactError(
            f"the calibration is of encoder_version {calibration.encoder_version}, the clips are of "
            f"{points.encoder_version}", code="other-encoder", remedy="Run `dvc repro calibrate`",
        )
    live = go_live(as_backend(index), TableContent(points, calibration), alias=alias, settings=settings)
    metadata = live.metadata
    report = PublishReport(
        alias=alias,
        collection=metadata.name,
        num_points=metadata.num_points,
        num_captions=metadata.num_captions,
        num_words=metadata.num_words,
        num_without_vector=points.clips.num_without_vector,
        verification=live.verification,
        built=live.built,
        moved=live.moved,
        num_written=live.num_written,
        num_deleted=live.num_deleted,
        num_changed=metadata.num_changed,
        previous=live.previous,
        removed=live.removed,
        auto_tags=points.auto_tags.counts if points.auto_tags else (),
    )
    if receipt is not None:
        _write_receipt(receipt, report)
    return report


def go_live(backend: IndexBackend, content: Content, *, alias: str, settings: PublishSettings) -> Published:
    """Make a collection unless it exists, verify it, and then move an alias to it.

    Args:
        backend: The index.
        content: What the collection holds.
        alias: Its name.
        settings: Limits; how the collection is built is up to `content`.

    Raises:
        GateFailed: it does not verify; the alias stays where it was.
        ServiceError: another publish runs, or the backend cannot store it.
    """
    with backend.building():
        aliases, wrong = backend.aliases(), alias_problems(backend)
        removed = backend.remove_unfinished(needed=named_by(aliases) - {content.name})
        stored = _stored(backend, content, alias, removed)
        if stored is not None:
            made = _Made(stored, _verified(backend, stored, min_recall=settings.min_recall, nearest=content.nearest), 0, 0)
        else:
            made = _grown(backend, content, alias, settings) or _built(backend, content, min_recall=settings.min_recall)
        name = made.metadata.name
        if not made.verification.passed:
            if stored is None:
                backend.drop(name)
            raise _not_verified(made.verification, name, live=backend.aliases().get(alias))
        moved = move_to(backend, alias, name, keep_previous=settings.keep_previous)
        removed += [] if wrong else remove_unneeded(backend)  # a wrong alias table must not decide what is removed
        previous = backend.aliases()[alias].previous
    return Published(
        name, made.metadata, made.verification, stored is None, moved, made.num_written, made.num_deleted, previous,
        tuple(removed),
    )


def compact(index: Index, *, alias: str = "clips", settings: PublishSettings | None = None) -> Published:
    """Build the points of the live collection at once, verify the new collection, and move the alias to it.

    Nothing is built if no publish has written into the live collection since it was built at once.

    Args:
        index: The folder of the embedded index, or an index backend.
        alias: Its name.
        settings: Limits; None for the defaults.

    Raises:
        ArtifactError: nothing was published, the alias table is broken, or the live collection is.
        GateFailed: the new one does not verify; the alias stays where it was.
        ServiceError: another publish runs, or the backend cannot store it.
    """
    backend, settings = as_backend(index), settings or PublishSettings()
    require_published(backend, alias)
    with backend.building():
        current = require_published(backend, alias)
        require_alias_table(backend, alias=alias)
        removed = backend.remove_unfinished(needed=named_by(backend.aliases()))
        live = backend.open(current.collection)
        try:
            if not live.metadata.num_changed:
                verification = _verified(backend, live.metadata, min_recall=settings.min_recall)
                return Published(
                    current.collection, live.metadata, verification, False, False, 0, 0, current.previous, tuple(removed)
                )
            record = backend.record(current.collection)
            metadata = _as_rebuilt(live.metadata, stored=backend.stored())
            backend.build(metadata, _told(live.scroll(), metadata), None if record is None else record.videos)
        finally:
            live.close()
        verification = _verified(backend, metadata, min_recall=settings.min_recall)
        if not verification.passed:
            backend.drop(metadata.name)
            raise _not_verified(verification, metadata.name, live=current)
        moved = move_to(backend, alias, metadata.name, keep_previous=settings.keep_previous)
        removed += remove_unneeded(backend)
        previous = backend.aliases()[alias].previous
    return Published(
        metadata.name, metadata, verification, True, moved, metadata.num_points, 0, previous, tuple(removed)
    )


class _Made(NamedTuple):
    metadata: CollectionMetadata
    verification: Verification
    num_written: int
    num_deleted: int


def _stored(backend: IndexBackend, content: Content, alias: str, removed: list[str]) -> CollectionMetadata | None:
    """Return a stored collection of this content, the live one first; None if there is none that is whole.

    Those that are damaged, or were imported and hold something else, are dropped.
    """
    there = {each.name: each for each in backend.collections()}
    if content.name not in there and content.name in backend.stored():  # its metadata cannot be read
        backend.drop(content.name)
        removed.append(content.name)
    live = backend.aliases().get(alias)
    same = [
        each for each in there.values()
        if each.name == content.name or (content.identity and each.identity == content.identity)
    ]
    for each in sorted(same, key=lambda one: (live is None or one.name != live.collection, one.name != content.name)):
        if not backend.check(each.name) and not (each.imported and not _is_made_of(backend, each.name, content.whole())):
            return each
        backend.drop(each.name)
    return None


def _grown(backend: IndexBackend, content: Content, alias: str, settings: PublishSettings) -> _Made | None:
    """Make a collection from a stored one; None if none fits, too much changed, or what came out is not right."""
    record = _base_of(backend, content, alias)
    if record is None:
        return None
    grown = content.since(record, most=settings.compact_share)
    if grown is None or grown.metadata.name in backend.stored():
        return None
    metadata, difference = grown
    try:
        record.grow(metadata, difference)
        verification = _verified(
            backend, metadata, min_recall=settings.min_recall, difference=difference, nearest=content.nearest
        )
    except ArtifactError as error:
        log.warning("%s: all points are built at once", error.message)
        return None
    if not verification.passed:
        log.warning("%s did not verify (%s): all points are built at once", metadata.name, "; ".join(verification.problems))
        backend.drop(metadata.name)
        return None
    return _Made(metadata, verification, len(difference.written), len(difference.removed))


def _base_of(backend: IndexBackend, content: Content, alias: str) -> Record | None:
    """Return the record of the live collection, or else of the newest one, that the content can be made from."""
    live = backend.aliases().get(alias)
    fitting = [each for each in reversed(backend.collections()) if content.can_grow_from(each)]
    for each in sorted(fitting, key=lambda one: live is None or one.name != live.collection):
        record = backend.record(each.name)
        if record is not None and record.can_grow:
            return record
    return None


def _built(backend: IndexBackend, content: Content, *, min_recall: float) -> _Made:
    metadata, points, videos = content.whole()
    backend.build(metadata, _told(points, metadata), videos)
    verification = _verified(backend, metadata, min_recall=min_recall, nearest=content.nearest)
    return _Made(metadata, verification, metadata.num_points, 0)


def _verified(
    backend: IndexBackend, metadata: CollectionMetadata, *, min_recall: float, difference: Difference | None = None,
    nearest: Nearest | None = None,
) -> Verification:
    checks: list[Check] = [trial_problems]
    if difference is not None:
        checks.insert(0, partial(difference_problems, difference=difference))
    return verify_collection(
        backend, metadata.name, min_recall=min_recall, expected=metadata, checks=checks, nearest=nearest
    )


def _told(points: Iterable[Point], metadata: CollectionMetadata) -> Iterable[Point]:
    """Return the points, with their progress."""
    return counted(points, "publish", unit="point", total=metadata.num_points)


def _as_rebuilt(metadata: CollectionMetadata, *, stored: Collection[str]) -> CollectionMetadata:
    """Return the metadata of a collection of the same content, under a name that is not stored."""
    for rebuilds in count(1):
        build = build_of(metadata.identity, rebuilds=rebuilds)
        name = collection_name(metadata.encoder_version, build)
        if name not in stored:
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            return replace(metadata, name=name, build=build, created_at=now, num_changed=0)
    raise AssertionError("there is always a next number")


def _is_made_of(backend: IndexBackend, name: str, content: Whole) -> bool:
    """Return whether a stored collection equals the content, up to rounding of vectors."""
    wanted = content.metadata
    if wanted.imported:
        return True  # both were imported under one name: neither is more trustworthy
    collection = backend.open(name)
    try:
        facts = collection.metadata
        same_facts = replace(
            facts, created_at=wanted.created_at, name=wanted.name, build=wanted.build, num_changed=wanted.num_changed
        ) == wanted
        return same_facts and all(
            one is not None and other is not None and are_same(one, other)
            for one, other in zip_longest(collection.scroll(), content.points)
        )
    finally:
        collection.close()


def _not_verified(verification: Verification, name: str, *, live: Alias | None) -> GateFailed:
    kept = f"{live.collection} stays live" if live else "nothing is live"
    return GateFailed(
        f"{name} did not verify ({'; '.join(verification.problems)}); {kept}", code="publish-not-verified",
        remedy="Raise hnsw_ef or ef_construct if it is the recall; else look at the disk, and publish again",
    )


def _write_receipt(path: Path, report: PublishReport) -> None:
    write_json(path, report.to_json())
