"""Embeddings to a collection beside the live one, proven, and only then made live; and back again."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.folders import whole_file
from vidseek_media.tables import CLIPS, VIDEOS, read_table
from vidseek_retrieval.calibration import Calibration
from vidseek_retrieval.duplicates import Duplicate, duplicate_of
from vidseek_retrieval.edge import EdgeHome
from vidseek_retrieval.homes import Index, home_of
from vidseek_retrieval.index import (
    CAPTION_VECTOR,
    PUBLISH_REMEDY,
    WORDS_VECTOR,
    Alias,
    Collection,
    CollectionFacts,
    IndexHome,
    IndexSettings,
    Point,
    Vector,
    Words,
    canonical_json,
    collection_name,
)
from vidseek_retrieval.parts import PARTS_FOLDER, SUMMARY_FILE, UNIT_TOLERANCE, Embeddings, read_parts
from vidseek_retrieval.texts import ClipText, clip_texts, read_texts, text_id_of
from vidseek_retrieval.words import WordEncoder

BUILD_FORMAT = 5
"""Counted up when equal content would make another collection, so that it is built again."""
NEIGHBOURS = 10
SAMPLE = 64
_TIE = 1e-6


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
    text_recall_at_10: float | None
    """The same where the queries are the sample's captions: words lie elsewhere than clips. None where there are none."""
    problems: tuple[str, ...]
    """What is wrong; empty where it may go live."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


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

    facts: CollectionFacts
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
    keep_previous: int = 1,
    min_recall: float = 0.99,
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
            "wanted a name, at least 0, and 0 to 1"
        )
    settings = settings or IndexSettings()
    embeddings = _read_embeddings(embed_dir)
    if calibration is not None and calibration.encoder_version != embeddings.encoder_version:
        raise ArtifactError(
            f"the calibration is of encoder_version {calibration.encoder_version}, the clips are of "
            f"{embeddings.encoder_version}", remedy="Run `dvc repro calibrate`",
        )
    rows = _published_rows(embeddings, cut_dir=cut_dir, ingest_dir=ingest_dir, cut=cut, duplicates=duplicates)
    texts = {}
    if caption_dir is not None and {CAPTION_VECTOR, WORDS_VECTOR} & set(settings.vectors):
        texts = clip_texts(ingest_dir, cut_dir, caption_dir, cut=cut)
    points = _Points(rows, embeddings, _TextVectors.load(texts, embed_dir, embeddings.encoder_version, settings))
    facts = _facts_of(points, settings, calibration)
    live = go_live(
        home_of(index), facts, tqdm(points, total=facts.num_points, desc="publish", unit="point", disable=None),
        alias=alias, keep_previous=keep_previous, min_recall=min_recall,
    )
    report = PublishReport(
        alias=alias,
        collection=facts.name,
        num_points=facts.num_points,
        num_captions=facts.num_captions,
        num_words=facts.num_words,
        num_without_vector=rows.num_without_vector,
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
    home: IndexHome,
    facts: CollectionFacts,
    points: Iterable[Point],
    *,
    alias: str,
    keep_previous: int,
    min_recall: float,
) -> Published:
    """Build the collection of `facts` where it is not there yet, verify it, and only then move `alias` to it.

    Raises:
        GateFailed: it does not verify; what was live stays.
        ServiceError: another publish runs, or the home does not take it.
    """
    with home.building():
        removed = home.remove_unfinished()
        found = facts.name in {each.name for each in home.collections()}
        if found and home.check(facts.name):  # its files are not what they were: no reader can be worse off
            home.drop(facts.name)
            found = False
        if not found:
            home.build(facts, points)
        verification = _verify(home, facts.name, min_recall=min_recall, expected=facts)
        if not verification.passed:
            if not found:
                home.drop(facts.name)
            raise _not_verified(verification, facts.name, live=home.aliases().get(alias))
        moved = _move(home, alias, facts.name, keep_previous=keep_previous)
        removed += _prune(home)
        previous = home.aliases()[alias].previous
    return Published(facts.name, verification, not found, moved, previous, tuple(removed))


def list_collections(index: Index) -> list[CollectionStatus]:
    """The finished collections in the folder `index`, oldest first."""
    home = home_of(index)
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
    home = home_of(index)
    require_published(home, alias)
    with home.building():
        current = require_published(home, alias)
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
    home = home_of(index)
    if isinstance(home, EdgeHome) and not home.root.is_dir():
        return []  # taking the lock would make the folder
    with home.building():
        return home.remove_unfinished() + _prune(home)


def retract(index: Index, *, alias: str) -> list[str]:
    """Let `alias` point nowhere, and remove the collections that no other alias needs; gives their names.

    Raises:
        ServiceError: a publish runs, or the disk does not let go.
    """
    home = home_of(index)
    if alias not in home.aliases():
        return []
    with home.building():
        home.drop_alias(alias)
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
    home = home_of(index)
    name = collection or require_published(home, alias).collection
    return _verify(home, name, min_recall=min_recall, expected=None)


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
        # A picture beside the video has no address; the service makes its own.
        "thumbnail_url": video["thumbnail"] if "://" in str(video["thumbnail"]) else "",
    }
    return {name: value for name, value in payload.items() if not pd.isna(value) and value != ""}


@dataclass(frozen=True)
class _TextVectors:
    """The vectors of what was written about clips."""

    texts: Mapping[str, ClipText]
    """By clip_id."""
    captions: Mapping[str, NDArray[np.float32]]
    """By text_id."""
    encoder: WordEncoder | None

    @staticmethod
    def load(
        texts: Mapping[str, ClipText], embed_dir: Path, encoder_version: str, settings: IndexSettings
    ) -> _TextVectors:
        has_captions = bool(texts) and CAPTION_VECTOR in settings.vectors
        captions = read_texts(embed_dir, encoder_version=encoder_version) if has_captions else {}
        lacking = {text_id_of(each.spoken) for each in texts.values() if each.spoken} - set(captions)
        if has_captions and lacking:
            raise ArtifactError(
                f"{len(lacking)} texts of the clips have no vector in {embed_dir}", remedy="Run `dvc repro embed`"
            )
        has_words = WORDS_VECTOR in settings.vectors
        return _TextVectors(texts, captions, WordEncoder(settings.language) if has_words else None)

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


@dataclass(frozen=True)
class _Points:
    """The points of a collection, made anew each time they are asked for: an archive's words need not fit in memory."""

    rows: _Rows
    embeddings: Embeddings
    texts: _TextVectors

    def __iter__(self) -> Iterator[Point]:
        for place, payload in zip(self.rows.places, self.rows.payloads, strict=True):
            clip_id = self.embeddings.clip_ids[place]
            yield Point(
                clip_id, self.embeddings.vectors[place], payload,
                caption=self.texts.caption(clip_id), words=self.texts.words(clip_id),
            )


def _facts_of(points: _Points, settings: IndexSettings, calibration: Calibration | None) -> CollectionFacts:
    encoder_version, dimension = points.embeddings.encoder_version, points.embeddings.vectors.shape[1]
    kept = calibration.to_json() if calibration else None
    digest = hashlib.sha256(canonical_json([BUILD_FORMAT, encoder_version, asdict(settings), kept]).encode())
    content = hashlib.sha256()
    num_captions = num_words = 0
    for point in points:
        known = {name: value for name, value in point.payload.items() if name != "encoder_version"}
        content.update(canonical_json([point.clip_id, known, points.texts.written(point.clip_id)]).encode())
        digest.update(canonical_json([point.clip_id, point.payload, point.words]).encode())
        digest.update(point.vector.astype("<f4").tobytes())
        if point.caption is not None:
            digest.update(point.caption.astype("<f4").tobytes())
        num_captions += point.caption is not None
        num_words += point.words is not None
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
        content=content.hexdigest()[:16],
    )


def _verify(home: IndexHome, name: str, *, min_recall: float, expected: CollectionFacts | None) -> Verification:
    problems = list(home.check(name))[:5]
    if problems:
        return Verification(name, 0, 0, 0.0, None, tuple(problems))
    collection = home.open(name)
    try:
        facts = expected or collection.facts
        count = collection.count()
        problems += list(_count_problems(collection, facts))
        sample = collection.points(collection.sample(min(SAMPLE, count), seed=0))
        problems += [problem for point in sample for problem in _point_problems(point, facts)][:5]
        recall = _recall(collection, [(point.clip_id, point.vector) for point in sample])
        captions = [("", point.caption) for point in sample if point.caption is not None]
        text_recall = _recall(collection, captions) if captions else None
        for what, value in (("", recall), (" of captions", text_recall)):
            if value is not None and value < min_recall:
                problems.append(f"recall@10{what} is {value:.4f}, wanted at least {min_recall}")
    finally:
        collection.close()
    return Verification(name, count, len(sample), recall, text_recall, tuple(problems))


def _count_problems(collection: Collection, facts: CollectionFacts) -> Iterator[str]:
    wanted: dict[Vector | None, int] = {
        None: facts.num_points, "caption": facts.num_captions, "words": facts.num_words,
    }
    for vector, num in wanted.items():
        count = collection.count(vector)
        if count != num:
            yield f"{count} points{f' with the vector {vector}' if vector else ''}, wanted {num}"


def _point_problems(point: Point, facts: CollectionFacts) -> Iterator[str]:
    if point.payload.get("encoder_version") != facts.encoder_version:
        yield f"{point.clip_id} is of encoder_version {point.payload.get('encoder_version')}"
    if not abs(float(np.linalg.norm(point.vector)) - 1) <= UNIT_TOLERANCE:
        yield f"the vector of {point.clip_id} is not of length 1"


def _recall(collection: Collection, queries: Sequence[tuple[str, NDArray[np.float32]]]) -> float:
    """Mean share of the exact top 10 that the approximate search found as well.

    Args:
        collection: The one that is searched.
        queries: Vectors, each with the clip whose own it is, or "": that a clip finds itself proves little.
    """
    shares = []
    for own, vector in queries:
        exact, found = (
            [
                clip
                for clip in collection.search(vector, limit=NEIGHBOURS + 1, exact=exactly)
                if clip.clip_id != own
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


def require_published(home: IndexHome, alias: str) -> Alias:
    """Where `alias` points.

    Raises:
        ArtifactError: nowhere.
    """
    current = home.aliases().get(alias)
    if current is None:
        raise ArtifactError(f"nothing was published as {alias!r}", remedy=PUBLISH_REMEDY)
    return current


def _write_receipt(path: Path, report: PublishReport) -> None:
    with whole_file(path) as beside:
        beside.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
