"""Embeddings to a collection beside the live one, proven, and only then made live; and back again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.tables import CLIPS, VIDEOS, read_table
from vidseek_retrieval.edge import EdgeHome
from vidseek_retrieval.index import (
    PUBLISH_REMEDY,
    Alias,
    Collection,
    CollectionFacts,
    IndexHome,
    IndexSettings,
    Point,
    canonical_json,
    collection_name,
)
from vidseek_retrieval.parts import PARTS_FOLDER, SUMMARY_FILE, UNIT_TOLERANCE, Embeddings, read_parts

BUILD_FORMAT = 3
"""Counted up when equal content would make another collection, so that it is built again."""
NEIGHBOURS = 10
SAMPLE = 64
_TIE = 1e-6

Index = Path | IndexHome
"""The folder of an embedded index, or any home."""


@dataclass(frozen=True)
class Verification:
    """What was measured on a finished collection."""

    collection: str
    num_points: int
    """Counted in the collection."""
    num_sampled: int
    """Points looked at, each one's vector a query too."""
    recall_at_10: float
    """Of the approximate search against the exact one, over the sample; equal scores are ties."""
    problems: tuple[str, ...]
    """What is wrong; empty where it may go live."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True)
class PublishReport:
    """What a publish did."""

    alias: str
    collection: str
    num_points: int
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

    facts: CollectionFacts
    live_as: tuple[str, ...]
    """The aliases that point to it."""
    kept_for: tuple[str, ...]
    """The aliases that may be rolled back to it."""


def publish(
    embed_dir: Path,
    cut_dir: Path,
    ingest_dir: Path,
    *,
    index: Index,
    alias: str = "clips",
    cut: str = "windows",
    keep_previous: int = 1,
    min_recall: float = 0.99,
    settings: IndexSettings | None = None,
    receipt: Path | None = None,
) -> PublishReport:
    """Build, verify, move the alias, in this order; whatever fails leaves the live collection as it was.

    The same content published again builds nothing: it is verified, and the alias moves if it was elsewhere.

    Args:
        embed_dir: `parts/` and embeddings.json, as `embed_archive` wrote them.
        cut_dir: With clips.parquet.
        ingest_dir: With videos.parquet.
        index: The folder of the index, or another home.
        alias: The name that searches ask for; an experiment has its own.
        cut: Clips of this cut mode are published.
        keep_previous: Collections kept for a rollback of this alias.
        min_recall: The least recall at 10 of approximate against exact searches.
        settings: Of the engine.
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
            "wanted a name, at least 0, and 0 to 1"
        )
    settings = settings or IndexSettings()
    embeddings = _read_embeddings(embed_dir)
    rows = _published_rows(embeddings, cut_dir=cut_dir, ingest_dir=ingest_dir, cut=cut)
    facts = _facts_of(rows, embeddings, settings)
    home = _home(index)
    with home.building():
        removed = home.remove_unfinished()
        found = facts.name in {each.name for each in home.collections()}
        if found and home.check(facts.name):  # its files are not what they were: no reader can be worse off
            home.drop(facts.name)
        built = not found or facts.name not in {each.name for each in home.collections()}
        if built:
            home.build(facts, tqdm(_points(rows, embeddings), total=len(rows.payloads), desc="publish", disable=None))
        verification = _verify(home, facts.name, min_recall=min_recall, num_points=facts.num_points)
        if not verification.passed:
            if built:
                home.drop(facts.name)
            raise _not_verified(verification, facts.name, live=home.aliases().get(alias))
        moved = _move(home, alias, facts.name, keep_previous=keep_previous)
        removed += _prune(home)
        previous = home.aliases()[alias].previous
    report = PublishReport(
        alias=alias,
        collection=facts.name,
        num_points=facts.num_points,
        num_without_vector=rows.num_without_vector,
        verification=verification,
        built=built,
        moved=moved,
        previous=previous,
        removed=tuple(removed),
    )
    if receipt is not None:
        _write_receipt(receipt, report)
    return report


def list_collections(index: Index) -> list[CollectionStatus]:
    """The finished collections in the folder `index`, oldest first."""
    home = _home(index)
    aliases = home.aliases()
    return [
        CollectionStatus(
            facts,
            live_as=tuple(sorted(name for name, alias in aliases.items() if alias.collection == facts.name)),
            kept_for=tuple(sorted(name for name, alias in aliases.items() if facts.name in alias.previous)),
        )
        for facts in home.collections()
    ]


def rollback(index: Index, *, alias: str = "clips") -> str:
    """Point `alias` to the collection it pointed to before, and give its name.

    What was live becomes the last of the previous ones: where there was one, a second rollback goes forward again.

    Raises:
        ArtifactError: nothing was published, there is no earlier one, or it does not open.
        ServiceError: a publish runs.
    """
    home = _home(index)
    _require_published(home, alias)
    with home.building():
        current = _require_published(home, alias)
        if not current.previous:
            raise ArtifactError(f"{alias!r} has no earlier collection", remedy="Publish what you want live")
        back, *earlier = current.previous
        home.open(back).close()
        home.move_alias(alias, Alias(back, (*earlier, current.collection)))
        return back


def prune(index: Index) -> list[str]:
    """Remove the collections that no alias points to or keeps for a rollback, and what killed builds left.

    Raises:
        ServiceError: a publish runs, or the disk does not let go.
    """
    home = _home(index)
    if isinstance(index, Path) and not index.is_dir():
        return []
    with home.building():
        return home.remove_unfinished() + _prune(home)


def verify(
    index: Index, *, alias: str = "clips", collection: str | None = None, min_recall: float = 0.99
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
    home = _home(index)
    name = collection or _require_published(home, alias).collection
    return _verify(home, name, min_recall=min_recall, num_points=None)


def _home(index: Index) -> IndexHome:
    return EdgeHome(index) if isinstance(index, Path) else index


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
        summary = json.loads(path.read_text(encoding="utf-8"))
        expected = (summary["encoder_version"], summary["num_clips"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is missing or broken: {error!r}", remedy=remedy) from error
    if expected != (embeddings.encoder_version, len(embeddings.clip_ids)):
        raise ArtifactError(
            f"{embed_dir / PARTS_FOLDER} has {len(embeddings.clip_ids)} clips of {embeddings.encoder_version}, "
            f"{SUMMARY_FILE} says {expected[1]} of {expected[0]}",
            remedy=remedy,
        )
    return embeddings


def _published_rows(embeddings: Embeddings, *, cut_dir: Path, ingest_dir: Path, cut: str) -> _Rows:
    clips = read_table(cut_dir / "clips.parquet", CLIPS)
    videos = read_table(ingest_dir / "videos.parquet", VIDEOS).set_index("video_id", drop=False)
    place_of = {clip_id: place for place, clip_id in enumerate(embeddings.clip_ids)}
    unknown = sorted(set(place_of) - set(clips["clip_id"]))
    if unknown:
        raise ArtifactError(
            f"{len(unknown)} embedded clips are not in {cut_dir / 'clips.parquet'}: {', '.join(unknown[:5])}",
            remedy="Run `dvc repro`, so that clips and embeddings are of one run",
        )
    wanted = clips[[cut in modes for modes in clips["cut"]]].sort_values("clip_id")
    without_video = sorted(set(wanted["video_id"]) - set(videos.index))
    if without_video:
        raise ArtifactError(
            f"{len(without_video)} videos of the clips are not in {ingest_dir / 'videos.parquet'}: {without_video[0]}",
            remedy="Run `dvc repro`, so that videos and clips are of one run",
        )
    of_video = {str(video["video_id"]): _video_payload(video) for video in videos.to_dict("records")}
    places, payloads = [], []
    for clip in wanted.itertuples():
        if clip.clip_id in place_of:
            places.append(place_of[clip.clip_id])
            span = {"start_ms": int(clip.start_ms), "end_ms": int(clip.end_ms), "index": int(clip.index)}
            payloads.append({**of_video[clip.video_id], **span, "encoder_version": embeddings.encoder_version})
    if not places:
        raise GateFailed(
            f"there is nothing to publish: {len(wanted)} of {len(clips)} clips are of the cut {cut!r}, "
            f"none of them has one of the {len(place_of)} embeddings",
            remedy=f"Put {cut!r} into cut.modes, and look at the rejected.parquet of ingest, cut and frames",
        )
    return _Rows(places, payloads, num_without_vector=len(wanted) - len(places))


def _video_payload(video: dict[str, Any]) -> dict[str, Any]:
    uri = video["uris"][0]
    payload = {
        "video_id": video["video_id"],
        "title": video["title"] or PurePosixPath(uri).stem,
        "uri": uri,
        "channel": video["channel"],
        "category": video["category"],
        "published_at": video["published_at"],
        "duration_ms": int(video["duration_ms"]),
        "thumbnail_url": video["thumbnail"],
    }
    return {name: value for name, value in payload.items() if not pd.isna(value) and value != ""}


def _facts_of(rows: _Rows, embeddings: Embeddings, settings: IndexSettings) -> CollectionFacts:
    digest = hashlib.sha256(canonical_json([BUILD_FORMAT, embeddings.encoder_version, asdict(settings)]).encode())
    for place, payload in zip(rows.places, rows.payloads, strict=True):
        digest.update(canonical_json([embeddings.clip_ids[place], payload]).encode())
        digest.update(embeddings.vectors[place].astype("<f4").tobytes())
    build = digest.hexdigest()[:12]
    return CollectionFacts(
        name=collection_name(embeddings.encoder_version, build),
        encoder_version=embeddings.encoder_version,
        build=build,
        dimension=embeddings.vectors.shape[1],
        num_points=len(rows.places),
        settings=settings,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def _points(rows: _Rows, embeddings: Embeddings) -> Iterator[Point]:
    for place, payload in zip(rows.places, rows.payloads, strict=True):
        yield Point(embeddings.clip_ids[place], embeddings.vectors[place], payload)


def _verify(home: IndexHome, name: str, *, min_recall: float, num_points: int | None) -> Verification:
    problems = list(home.check(name))[:5]
    if problems:
        return Verification(name, 0, 0, 0.0, tuple(problems))
    collection = home.open(name)
    try:
        facts = collection.facts
        count = collection.count()
        if count != (facts.num_points if num_points is None else num_points):
            problems.append(f"{count} points, wanted {facts.num_points}")
        sample = collection.points(collection.sample(min(SAMPLE, count), seed=0))
        problems += [problem for point in sample for problem in _point_problems(point, facts)][:5]
        recall = _recall(collection, sample)
        if recall < min_recall:
            problems.append(f"recall@10 is {recall:.4f}, wanted at least {min_recall}")
    finally:
        collection.close()
    return Verification(name, count, len(sample), recall, tuple(problems))


def _point_problems(point: Point, facts: CollectionFacts) -> Iterator[str]:
    if point.payload.get("encoder_version") != facts.encoder_version:
        yield f"{point.clip_id} is of encoder_version {point.payload.get('encoder_version')}"
    if not abs(float(np.linalg.norm(point.vector)) - 1) <= UNIT_TOLERANCE:
        yield f"the vector of {point.clip_id} is not of length 1"


def _recall(collection: Collection, queries: Sequence[Point]) -> float:
    """Mean share of the exact top 10 that the approximate search found as well."""
    shares = []
    for query in queries:
        # One more than counted: the query is in the collection, and finding itself proves little.
        exact, found = (
            [
                clip
                for clip in collection.search(query.vector, limit=NEIGHBOURS + 1, exact=exactly)
                if clip.clip_id != query.clip_id
            ][:NEIGHBOURS]
            for exactly in (True, False)
        )
        if exact:
            least = exact[-1].score - _TIE
            shares.append(min(1.0, sum(clip.score >= least for clip in found) / len(exact)))
    return float(np.mean(shares)) if shares else 1.0


def _not_verified(verification: Verification, name: str, *, live: Alias | None) -> GateFailed:
    kept = f"{live.collection} stays live" if live else "nothing is live"
    return GateFailed(
        f"{name} did not verify ({'; '.join(verification.problems)}); {kept}",
        remedy="Raise hnsw_ef or ef_construct if it is the recall; else remove its folder and publish again",
    )


def _move(home: IndexHome, alias: str, name: str, *, keep_previous: int) -> bool:
    current = home.aliases().get(alias)
    if current is not None and current.collection == name:
        return False
    earlier = (current.collection, *current.previous) if current else ()
    home.move_alias(alias, Alias(name, tuple(each for each in earlier if each != name)[:keep_previous]))
    return True


def _prune(home: IndexHome) -> list[str]:
    needed = {name for alias in home.aliases().values() for name in (alias.collection, *alias.previous)}
    unneeded = [facts.name for facts in home.collections() if facts.name not in needed]
    for name in unneeded:
        home.drop(name)
    return unneeded


def _require_published(home: IndexHome, alias: str) -> Alias:
    current = home.aliases().get(alias)
    if current is None:
        raise ArtifactError(f"nothing was published as {alias!r}", remedy=PUBLISH_REMEDY)
    return current


def _write_receipt(path: Path, report: PublishReport) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
