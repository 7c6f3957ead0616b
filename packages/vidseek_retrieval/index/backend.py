"""What an index home can do, whichever it is: collections built once and then only read, and aliases that move."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.names import hex_digits, plain_name, shown
from vidseek_retrieval.index.values import SparseVector as SparseVector
from vidseek_retrieval.index.values import Value as Value
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import RankedClip
from vidseek_retrieval.settings import IndexSettings, Vector
from vidseek_retrieval.vectors.registry import vector_names

COLLECTION_NAME = re.compile(r"clips-[0-9a-f]{16}-[0-9a-f]{12}")
"""`clips-<encoder_version>-<build>`"""
BUILD_DIGITS = 12
VERSION_DIGITS = 16
MOST_DIMENSIONS = 16_384
MOST_POINTS = 2**32 - 1
"""What spans.npy numbers them by."""
LANGUAGE = re.compile(r"[a-z]{2,20}")

VIDEO_VECTOR: Final = "video"
"""The vector that every clip has; `vectors` has a file for each one."""
CAPTION_VECTOR: Final = "caption"
WORDS_VECTOR: Final = "words"
Dense = str
"""The name of a dense vector."""


PUBLISH_REMEDY = "Run `dvc repro`; where it finds nothing to do, `dvc repro --force --single-item publish`"
"""For an index that is not there: DVC sees its receipt alone, and does not miss the folder."""
USE_REMEDY = "`vidseek index list` says what is there, and `vidseek index use COLLECTION` makes one of them live"
"""For collections that no alias names: they may be all there is, so nothing is removed."""


class CollectionRemoved(ArtifactError):
    """A collection that was open is not there any more: it was removed since."""

    code = "collection-removed"


class TimeRange(NamedTuple):
    """A part of a video, in which clips begin; both ends are of it."""

    video_id: str
    first_ms: int
    last_ms: int


FEW_POINTS = 100_000
FEW = 10
"""Clips of a search that are the best to be had: those that recall is measured of."""
FEWER_AGAIN = 2.0
"""`oversampling` of the clips after those, at most."""


@dataclass(frozen=True)
class CollectionMetadata:
    """What is known of a finished collection without opening it."""

    name: str
    """`clips-<encoder_version>-<build>`"""
    encoder_version: str
    build: str
    """A hash of all that was put in, and of the settings: equal content has an equal name."""
    dimension: int
    num_points: int
    settings: IndexSettings
    created_at: str
    """RFC 3339."""
    num_captions: int = 0
    """Points that have the vector `caption`."""
    num_words: int = 0
    """Points that have the vector `words`."""
    calibration: Mapping[str, Any] | None = None
    """How scores become confidences, as `Calibration.to_json` has it; None where nothing was fitted."""
    longest_ms: int = 0
    """Of a clip; 0 in collections of earlier builds."""
    score_spread: Mapping[str, float] = field(default_factory=dict)
    """The standard deviation of a text's scores over the clips, by dense vector; empty in collections of earlier builds."""
    content: str = ""
    """A hash of the clips and of what is known and written of them, without any vector: equal where two models were
    published over the same archive. Empty in collections of earlier builds."""
    num_others: Mapping[str, int] = field(default_factory=dict)
    """Points that have each vector beside `video`, `caption` and `words`."""
    imported: bool = field(default=False, compare=False)
    """Whether its points came in one file from elsewhere. The name of such a collection is a claim: a publish of that
    name compares every point before it takes the collection for its own."""

    def num_with(self, vector: Vector) -> int:
        """How many points have such a vector."""
        counts = {VIDEO_VECTOR: self.num_points, CAPTION_VECTOR: self.num_captions, WORDS_VECTOR: self.num_words}
        return counts[vector] if vector in counts else self.num_others.get(vector, 0)

    def has(self, vector: Vector) -> bool:
        """Whether some point has such a vector."""
        return vector == VIDEO_VECTOR or (vector in self.settings.vectors and self.num_with(vector) > 0)

    @property
    def dense_vectors(self) -> tuple[Dense, ...]:
        """The dense vectors that some point has."""
        return tuple(name for name in vector_names("dense") if self.has(name))

    @property
    def sparse_vectors(self) -> tuple[Vector, ...]:
        """The sparse vectors that some point has."""
        return tuple(name for name in vector_names("sparse") if self.has(name))

    @property
    def search_ef(self) -> int:
        """Candidates while the graph is searched: with as many as among `FEW_POINTS`, a larger graph is searched worse.

        Of 10^5 clips of int8 64 candidates found 0.9988 of the ten nearest, of 10^6 0.972, and 256 found 0.993.
        """
        return round(self.settings.hnsw_ef * max(1.0, self.num_points / FEW_POINTS) ** 0.6)

    def oversampling(self, limit: int) -> float:
        """Candidates that are scored again for each of `limit` clips: all of them for the first `FEW`, fewer beyond.

        Of 10^6 clips, with 2 in the place of 4, a hundred come in three quarters of the time: the same first ten, and 0.99
        of the hundred.
        """
        most = self.settings.oversampling
        return (most * min(limit, FEW) + min(most, FEWER_AGAIN) * max(0, limit - FEW)) / limit

    def to_json(self) -> dict[str, Any]:
        """As collection.json has it."""
        return {**asdict(self), "settings": self.settings.model_dump()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CollectionMetadata:
        """The reverse of `to_json`: every field of its type and in its range, the name made of encoder_version and build.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        names = [name for name in cls.__dataclass_fields__ if name != "settings" and name in content]
        known = {name: content[name] for name in names}
        settings = content["settings"]
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings is {shown(settings)}, wanted a table")
        _check_settings(settings)
        try:
            metadata = cls(**known, settings=IndexSettings.of(settings))
        except ConfigError as error:
            raise ValueError(error.message) from error
        _check_facts(metadata)
        return metadata


@dataclass(frozen=True)
class Alias:
    """Where an alias points, and where it pointed before."""

    collection: str
    previous: tuple[str, ...] = ()
    """Newest first; kept for a rollback."""


@dataclass(frozen=True, slots=True, init=False)
class Point:
    """One clip, as it goes into a collection.

    Args:
        clip_id: Of the clip.
        vector: Its vector `video`.
        payload: The fields of its hit, and those that filters name.
        vectors: Its vectors by name.
        named: The same one by one: `caption=...`; None takes one away.
    """

    clip_id: str
    payload: Mapping[str, Any]
    vectors: Mapping[str, Value]
    """By name: dense of shape (dimension,) and unit length, or sparse."""

    def __init__(
        self, clip_id: str, vector: NDArray[np.float32] | None = None, payload: Mapping[str, Any] | None = None,
        *, vectors: Mapping[str, Value] | None = None, **named: Value | None,
    ) -> None:
        changes: dict[str, Value | None] = {**({} if vector is None else {VIDEO_VECTOR: vector}), **named}
        values = {name: value for name, value in {**(vectors or {}), **changes}.items() if value is not None}
        for name, value in (("clip_id", clip_id), ("payload", payload or {}), ("vectors", values)):
            object.__setattr__(self, name, value)

    @property
    def vector(self) -> NDArray[np.float32]:
        """The vector `video`: shape (dimension,), unit."""
        return self.vectors[VIDEO_VECTOR]  # type: ignore[return-value]

    @property
    def caption(self) -> NDArray[np.float32] | None:
        """The vector `caption`: shape (dimension,), unit."""
        return self.vectors.get(CAPTION_VECTOR)  # type: ignore[return-value]

    @property
    def words(self) -> SparseVector | None:
        """The vector `words`."""
        return self.vectors.get(WORDS_VECTOR)  # type: ignore[return-value]


class Collection(Protocol):
    """A finished collection, open for reading. Safe to share between threads."""

    @property
    def metadata(self) -> CollectionMetadata:
        """What collection.json says."""

    @property
    def allows_exact(self) -> bool:
        """Whether `search` compares with every clip where it is asked to; a server may forbid it."""

    def search(
        self,
        vector: NDArray[np.float32],
        *,
        limit: int,
        exact: bool = False,
        score_threshold: float = -math.inf,
        using: Dense = "video",
        conditions: Sequence[Condition] = (),
        time_ranges: Sequence[TimeRange] = (),
    ) -> list[RankedClip]:
        """The nearest clips by the vector `using`, best first; approximate unless `exact`.

        Only clips that have such a vector, score `score_threshold` so much, fit all `conditions`, and, where there are
        `time_ranges`, begin in one of these.
        """

    def search_words(
        self, words: SparseVector, *, limit: int, using: Vector = WORDS_VECTOR, conditions: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        """The clips whose sparse vector `using` has some of `words`, best first, by BM25; fitting all `conditions`."""

    def payloads(self, clip_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The payloads of these points, by id; those that are not there are left out."""

    def count(self, vector: Vector | None = None) -> int:
        """How many points there are (with such a vector), counted."""

    def sample(self, num: int, *, seed: int) -> list[str]:
        """The clip ids of up to `num` points, the same ones for the same seed."""

    def points(self, clip_ids: Sequence[str]) -> list[Point]:
        """The points with these ids, in this order; those that are not there are left out."""

    def scroll(self, *, batch: int = 1000) -> Iterator[Point]:
        """All points, in order of clip id, `batch` in memory at once."""

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """The values of a payload field of words, and how many points have each: the most frequent first.

        Only of points that fit all `conditions`.
        """

    def bounds(self, field: str) -> tuple[Any, Any] | None:
        """The least and the greatest value of a payload field of numbers or times; None where no point has one."""

    def close(self) -> None:
        """Give back memory and files."""


class IndexBackend(Protocol):
    """A place where collections live: a folder with Qdrant Edge shards, or a Qdrant server."""

    def aliases(self) -> dict[str, Alias]:
        """All aliases; empty where nothing was published."""

    def live(self, alias: str) -> str | None:
        """The collection that `alias` points to, for a search; up to a second old where another process moved it."""

    def lost_aliases(self) -> list[str]:
        """What the home's own notes say of aliases that the table lacks or has otherwise; empty where they agree."""

    def collections(self) -> list[CollectionMetadata]:
        """The finished collections that can be read, oldest first."""

    def stored(self) -> list[str]:
        """The names of the finished collections, sorted; also of those whose metadata cannot be read."""

    def open(self, name: str) -> Collection:
        """Open a finished collection.

        Raises:
            ArtifactError: it is not there, or broken.
        """

    def building(self) -> AbstractContextManager[None]:
        """The builder's lock: whoever writes holds it.

        Raises:
            ServiceError: another one holds it.
        """

    def build(self, metadata: CollectionMetadata, points: Iterable[Point]) -> None:
        """Make a collection, searchable and immutable. It is finished or it is not there.

        Raises:
            ServiceError: the home does not take it.
        """

    def check(self, name: str) -> list[str]:
        """What is wrong with the stored files of a collection; empty if nothing is."""

    def move_alias(self, alias: str, to: Alias) -> None:
        """Point `alias` elsewhere, in one step."""

    def drop_alias(self, alias: str) -> None:
        """Let `alias` point nowhere; nothing where it does not point anywhere."""

    def drop(self, name: str) -> None:
        """Remove a collection."""

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Remove what a killed build left, but for collections that are `needed`, and say what it was."""


def require_facts(metadata: CollectionMetadata) -> CollectionMetadata:
    """`metadata`, where they can be those of a collection: a home asks before it makes anything of their name.

    Raises:
        ArtifactError: they cannot.
    """
    try:
        return CollectionMetadata.from_json(metadata.to_json())
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(
            f"there can be no such collection: {error}", code="bad-collection", remedy="Make what it was built from again"
        ) from error


def alias_name(value: object) -> str:
    """The name of an alias, where it is one.

    Raises:
        ValueError: it is anything but a plain name.
    """
    return plain_name(value, what="an alias")


def name_of_collection(value: object) -> str:
    """The name of a collection, where it is one.

    Raises:
        ValueError: it is anything but `clips-<encoder_version>-<build>`.
    """
    if not isinstance(value, str) or not COLLECTION_NAME.fullmatch(value):
        raise ValueError(f"the name of a collection is {shown(value)}, wanted clips-<encoder_version>-<build>")
    return value


def collection_name(encoder_version: str, build: str) -> str:
    """`clips-<encoder_version>-<build>`"""
    return f"clips-{encoder_version}-{build}"


def canonical_json(content: object) -> str:
    """JSON that is equal for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Types and ranges of what JSON gave for `IndexSettings`; what is not there has its default."""
    rules: Mapping[str, Callable[[Any], bool]] = {
        "m": _whole_number(0, 1024), "ef_construct": _whole_number(1, 10**6), "hnsw_ef": _whole_number(1, 10**6),
        "vectors": lambda value: isinstance(value, list | tuple) and all(each in vector_names() for each in value),
        "language": lambda value: isinstance(value, str) and LANGUAGE.fullmatch(value) is not None,
        "quantization": lambda value: value in ("none", "int8"),
        "oversampling": lambda value: _is_number(value) and 1 <= value <= 10**6,
        "on_disk": lambda value: isinstance(value, bool),
    }
    _check_each("settings.", settings, rules)


def _check_facts(metadata: CollectionMetadata) -> None:
    points = _whole_number(0, metadata.num_points if isinstance(metadata.num_points, int) else 0)
    hex_digits(metadata.encoder_version, VERSION_DIGITS, what="encoder_version")
    hex_digits(metadata.build, BUILD_DIGITS, what="build")
    if metadata.name != collection_name(metadata.encoder_version, metadata.build):
        wanted = collection_name(metadata.encoder_version, metadata.build)
        raise ValueError(f"the name of the collection is {shown(metadata.name)}, encoder_version and build make {wanted}")
    rules: Mapping[str, Callable[[Any], bool]] = {
        "dimension": _whole_number(1, MOST_DIMENSIONS), "num_points": _whole_number(0, MOST_POINTS),
        "num_captions": points, "num_words": points, "longest_ms": _whole_number(0, 2**53),
        "created_at": _is_moment,
        "calibration": lambda value: value is None or isinstance(value, Mapping),
        "content": lambda value: isinstance(value, str) and re.fullmatch(r"(?:[0-9a-f]{16})?", value) is not None,
        "imported": lambda value: isinstance(value, bool),
        "score_spread": _is_spread,
        "num_others": lambda value: isinstance(value, Mapping) and all(
            name in vector_names() and points(num) for name, num in value.items()
        ),
    }
    _check_each("", {name: getattr(metadata, name) for name in rules}, rules)


def _is_spread(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        name in vector_names("dense") and _is_number(spread) and 0 <= spread <= 1 for name, spread in value.items()
    )


def _check_each(prefix: str, values: Mapping[str, Any], rules: Mapping[str, Callable[[Any], bool]]) -> None:
    for name, value in values.items():
        if name not in rules:
            raise ValueError(f"{prefix}{shown(name)} is no key that is known here: of another version of vidseek?")
        try:
            fits = rules[name](value)
        except TypeError:  # what cannot be looked up is none of what is known
            fits = False
        if not fits:
            raise ValueError(f"{prefix}{name} is {shown(value)}, which it cannot be")


def _whole_number(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_moment(value: object) -> bool:
    """A time of ISO 8601 that can be told in seconds, as lists of models do."""
    try:
        return isinstance(value, str) and len(value) <= 40 and math.isfinite(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError):
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
