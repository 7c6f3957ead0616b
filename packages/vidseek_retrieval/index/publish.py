"""Embeddings to a collection beside the live one, proven, and only then made live; and back again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.files.folders import whole_file
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.index.backend import (
    PUBLISH_REMEDY,
    USE_REMEDY,
    Alias,
    CollectionMetadata,
    IndexBackend,
    Point,
    SparseVector,
    Value,
)
from vidseek_retrieval.index.collection_points import facts_of, read_points
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.open_backend import Index, home_of
from vidseek_retrieval.index.trial_search import trial_problems
from vidseek_retrieval.index.verification import Verification, verify_collection
from vidseek_retrieval.settings import KEEP_PREVIOUS, MIN_RECALL, IndexSettings

_ROUNDING = 1e-4
"""Of a value of a unit vector: a home makes vectors unit again as it takes them."""


@dataclass(frozen=True)
class Published:
    """How a collection went live."""

    collection: str
    verification: Verification
    built: bool
    moved: bool
    previous: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class PublishReport:
    """What a publish did."""

    alias: str
    collection: str
    num_points: int
    num_captions: int
    """Points with the vector `caption`."""
    num_words: int
    """Points with the vector `words`."""
    num_without_vector: int
    """Clips of the wanted cut that have no embedding, since their frames were rejected."""
    verification: Verification
    built: bool
    """False where this content was in the index already."""
    moved: bool
    """False where this content was live already."""
    previous: tuple[str, ...]
    """What a rollback can go back to, newest first."""
    removed: tuple[str, ...]
    """Collections that no alias needs any more, and what killed builds left."""

    def to_json(self) -> dict[str, Any]:
        """As the receipt has it."""
        return asdict(self)


@dataclass(frozen=True)
class CollectionStatus:
    """A finished collection, and who needs it."""

    metadata: CollectionMetadata
    live_as: tuple[str, ...]
    """The aliases that point to it."""
    kept_for: tuple[str, ...]
    """The aliases that may be rolled back to it."""


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
    """Build, verify, move the alias, in this order; whatever fails leaves the live collection as it was.

    The same content published again builds nothing: it is verified, and the alias moves if it was elsewhere.

    Args:
        embed_dir: `parts/` and embeddings.json, as `embed_archive` wrote them.
        cut_dir: With clips.parquet.
        ingest_dir: With videos.parquet.
        caption_dir: With captions.parquet; without it points have neither `caption` nor `words`.
        index: The folder of the index, or another home.
        alias: The name that searches ask for; an experiment has its own.
        cut: Clips of this cut mode are published.
        keep_previous: Collections kept for a rollback of this alias.
        min_recall: The least recall at 10 of approximate against exact searches.
        settings: Of the engine.
        calibration: Kept with the collection, for the confidence of its hits.
        duplicates: What was decided: searches fold these into their originals. Those of unknown videos count nothing.
        receipt: Where to write the report as JSON.

    Raises:
        ArtifactError: a table is missing or broken, or they do not belong together.
        ConfigError: an argument is out of range.
        GateFailed: a vector is no unit vector, no clip is there to publish, or the new collection does not verify.
        ServiceError: another publish runs, or the disk does not take it.
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
    """Build the collection of `metadata` where it is not there yet, verify it, and only then move `alias` to it.

    Raises:
        GateFailed: it does not verify; what was live stays.
        ServiceError: another publish runs, or the home does not take it.
    """
    with backend.building():
        aliases, wrong = backend.aliases(), alias_problems(backend)
        removed = backend.remove_unfinished(needed=_named_by(aliases) - {metadata.name})
        there = {each.name: each for each in backend.collections()}.get(metadata.name)
        if not there and metadata.name in backend.stored():  # its metadata cannot be read: it is built again
            backend.drop(metadata.name)
            removed.append(metadata.name)
        # Its files are not what they were, or it came from elsewhere and is not what its name says.
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
        moved = _move(backend, alias, metadata.name, keep_previous=keep_previous)
        removed += [] if wrong else _prune(backend)  # nothing is cleared away by a table that was not right
        previous = backend.aliases()[alias].previous
    return Published(metadata.name, verification, not found, moved, previous, tuple(removed))


def _is_made_of(backend: IndexBackend, metadata: CollectionMetadata, points: Iterable[Point]) -> bool:
    """Whether the collection that is there holds what `metadata` and `points` say, vectors but for rounding."""
    if metadata.imported:
        return True  # a file says the same as an earlier one did: neither is better than the other
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


def list_collections(index: Index) -> list[CollectionStatus]:
    """The finished collections in the folder `index`, oldest first."""
    backend = home_of(index)
    aliases = backend.aliases()
    return [
        CollectionStatus(
            metadata,
            live_as=tuple(sorted(name for name, alias in aliases.items() if alias.collection == metadata.name)),
            kept_for=tuple(sorted(name for name, alias in aliases.items() if metadata.name in alias.previous)),
        )
        for metadata in backend.collections()
    ]


def rollback(index: Index, *, alias: str = "clips") -> str:
    """Point an alias to the collection that it pointed to before, and return the name of that collection.

    The collection that was live becomes the oldest of the previous ones. With one previous collection, a second rollback
    therefore returns to it.

    Args:
        index: The folder of the index, or another backend.
        alias: The alias to move.

    Raises:
        ArtifactError: nothing was published, the table of aliases is broken or names a missing collection, there is no
            earlier collection, or it does not open.
        ServiceError: a publish is running.

    Example:
        >>> folders = {name: Path(f"data/{name}") for name in ("embed", "cut", "ingest")}
        >>> report = publish(folders["embed"], folders["cut"], folders["ingest"], index=Path("index"), cut="shots")
        >>> report.num_points, len(report.previous)
        (2, 1)
        >>> rollback(Path("index")) == report.previous[0]
        True
    """
    backend = home_of(index)
    require_published(backend, alias)
    with backend.building():
        current = require_published(backend, alias)
        require_alias_table(backend, alias=alias)
        if not current.previous:
            raise ArtifactError(
                f"{alias!r} has no earlier collection", code="no-earlier-collection", remedy="Publish what you want live",
            )
        back, *earlier = current.previous
        backend.open(back).close()
        backend.move_alias(alias, Alias(back, (*earlier, current.collection)))
        return back


def use_collection(index: Index, name: str, *, alias: str = "clips", min_recall: float = MIN_RECALL) -> Verification:
    """Verify a collection that is there, and only then point `alias` to it; nothing is removed.

    Earlier collections of the alias that are not there any more are no longer named by it.

    Raises:
        ArtifactError: it is not there, or does not verify.
        ServiceError: a publish runs.
    """
    backend = home_of(index)
    backend.open(name).close()  # before the lock, which makes the folder
    with backend.building():
        verification = verify_collection(backend, name, min_recall=min_recall)
        if not verification.passed:
            raise ArtifactError(
                f"{name} does not verify ({'; '.join(verification.problems)}); what is live stays",
                code="collection-not-verified",
                remedy="Use another one, or publish",
            )
        current = backend.aliases().get(alias)
        earlier = (current.collection, *current.previous) if current else ()
        there = set(backend.stored())
        backend.move_alias(alias, Alias(name, tuple(each for each in earlier if each != name and each in there)))
        return verification


def alias_problems(backend: IndexBackend, *, alias: str | None = None) -> list[str]:
    """Why the table of aliases (or what it says of `alias`) cannot say which collections are needed; empty where it can.

    Raises:
        ArtifactError: it is broken.
    """
    aliases, stored = backend.aliases(), set(backend.stored())
    wrong = [f"no alias names any of the {len(stored)} collections"] if stored and not aliases else []
    wrong += [
        f"the alias {name!r} names {each}, which is not there"
        for name, of in sorted(aliases.items()) if alias in (None, name)
        for each in (of.collection, *of.previous) if each not in stored
    ]
    return wrong + backend.lost_aliases()


def require_alias_table(index: Index, *, alias: str | None = None) -> None:
    """See to it that the table of aliases (or what it says of `alias`) says which collections are needed, if there are any.

    Raises:
        ArtifactError: it is missing, empty or broken, or names what is not there.
        ServiceError: the Qdrant server does not answer.
    """
    if wrong := alias_problems(home_of(index), alias=alias):
        raise _table_not_right(wrong)


def _table_not_right(wrong: Sequence[str]) -> ArtifactError:
    return ArtifactError(
        f"{'; '.join(wrong)}. Nothing was removed or moved", code="aliases-broken", remedy=f"Remove nothing: {USE_REMEDY}",
    )


def prune(index: Index) -> list[str]:
    """Remove the collections that no alias points to or keeps for a rollback, and what killed builds left.

    Raises:
        ArtifactError: the table of aliases is missing, empty or broken, or names what is not there: nothing is removed.
        ServiceError: a publish runs, or the disk does not let go.
    """
    backend = home_of(index)
    if isinstance(backend, EdgeBackend) and not backend.root.is_dir():
        return []  # taking the lock would make the folder
    with backend.building():
        require_alias_table(backend)
        return backend.remove_unfinished(needed=_named_by(backend.aliases())) + _prune(backend)


def retract(index: Index, *, alias: str) -> list[str]:
    """Let `alias` point nowhere, and remove the collections that no other alias needs; gives their names.

    Raises:
        ServiceError: a publish runs, or the disk does not let go.
    """
    backend = home_of(index)
    if alias not in backend.aliases():
        return []
    with backend.building():
        aliases = backend.aliases()
        mine = _named_by({alias: aliases.pop(alias)})
        backend.drop_alias(alias)
        gone = sorted((mine - _named_by(aliases)) & set(backend.stored()))
        for name in gone:
            backend.drop(name)
        return gone


def verify(
    index: Index, *, alias: str = "clips", collection: str | None = None, min_recall: float = MIN_RECALL
) -> Verification:
    """Look at every file of a collection, count it, and compare approximate with exact searches.

    Args:
        index: The folder of the index, or another home.
        alias: Whose live collection to look at.
        collection: Another one, by its name.
        min_recall: The least recall at 10 that is no problem.

    Raises:
        ArtifactError: it is not there, or does not open.
    """
    backend = home_of(index)
    name = collection or require_published(backend, alias).collection
    return verify_collection(backend, name, min_recall=min_recall)


def _not_verified(verification: Verification, name: str, *, live: Alias | None) -> GateFailed:
    kept = f"{live.collection} stays live" if live else "nothing is live"
    return GateFailed(
        f"{name} did not verify ({'; '.join(verification.problems)}); {kept}", code="publish-not-verified",
        remedy="Raise hnsw_ef or ef_construct if it is the recall; else look at the disk, and publish again",
    )


def _move(backend: IndexBackend, alias: str, name: str, *, keep_previous: int) -> bool:
    current = backend.aliases().get(alias)
    if current is not None and current.collection == name:
        return False
    earlier = (current.collection, *current.previous) if current else ()
    there = set(backend.stored())
    kept = tuple(each for each in earlier if each != name and each in there)[:keep_previous]
    backend.move_alias(alias, Alias(name, kept))
    return True


def _prune(backend: IndexBackend) -> list[str]:
    unneeded = sorted(set(backend.stored()) - _named_by(backend.aliases()))
    for name in unneeded:
        backend.drop(name)
    return unneeded


def _named_by(aliases: Mapping[str, Alias]) -> set[str]:
    return {name for alias in aliases.values() for name in (alias.collection, *alias.previous)}


def require_published(backend: IndexBackend, alias: str) -> Alias:
    """Where `alias` points.

    Raises:
        ArtifactError: nowhere, or the table of aliases is broken.
    """
    current = backend.aliases().get(alias)
    if current is None and (stored := backend.stored()):
        raise ArtifactError(
            f"no alias {alias!r} names any of the {len(stored)} collections", code="not-published", remedy=USE_REMEDY,
        )
    if current is None:
        raise ArtifactError(f"nothing was published as {alias!r}", code="not-published", remedy=PUBLISH_REMEDY)
    return current


def _write_receipt(path: Path, report: PublishReport) -> None:
    with whole_file(path) as beside:
        beside.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
