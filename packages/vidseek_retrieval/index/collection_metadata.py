"""The metadata of a collection, collection.json, with its checks."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.fields.declared import DeclaredFields, fields_of
from vidseek_media.names import hex_digits, shown
from vidseek_retrieval.index.values import CAPTION_VECTOR, VIDEO_VECTOR, WORDS_VECTOR, Dense
from vidseek_retrieval.settings import IndexSettings, Vector
from vidseek_retrieval.vectors.registry import vector_names

COLLECTION_NAME = re.compile(r"clips-[0-9a-f]{16}-[0-9a-f]{12}")
"""`clips-<encoder_version>-<build>`"""

BUILD_DIGITS = 12

VERSION_DIGITS = 16

MOST_DIMENSIONS = 16_384

MOST_POINTS = 2**32 - 1
"""The largest point number in spans.npy."""

LANGUAGE = re.compile(r"[a-z]{2,20}")

FEW_POINTS = 100_000

FEW = 10
"""Clips of a search that are rescored with the full `oversampling`; recall is measured over them."""

FEWER_AGAIN = 2.0
"""The largest `oversampling` of the clips after those."""


@dataclass(frozen=True)
class CollectionMetadata:
    """What is known of a finished collection without opening it: the content of collection.json."""

    name: str
    """`clips-<encoder_version>-<build>`"""
    encoder_version: str
    build: str
    """A hash of content and settings: equal content has an equal name."""
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
    """The JSON of a `Calibration`; None if none was fitted."""
    longest_ms: int = 0
    """Length of the longest clip; 0 in collections of earlier versions."""
    score_spread: Mapping[str, float] = field(default_factory=dict)
    """The standard deviation of a text's scores over the clips, by dense vector; empty in earlier versions."""
    content: str = ""
    """A hash of the clips, their payloads and texts, without vectors: equal if two models were published over the same
    archive. Empty in collections of earlier versions."""
    num_others: Mapping[str, int] = field(default_factory=dict)
    """Points that have each of the other vectors, by name."""
    identity: str = ""
    """A hash of content and settings: 32 hex digits, equal for collections that answer alike. Empty in earlier versions."""
    num_changed: int = 0
    """Points that publishes wrote or removed since all points were built at once."""
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    """The fields that the user declared, with their types as params.yaml has them; empty in earlier versions."""
    imported: bool = field(default=False, compare=False)
    """Whether its points were imported from a file. Its name may then be wrong, so a publish under the same name compares
    every point before it uses the collection."""

    @cached_property
    def declared(self) -> DeclaredFields:
        """The fields that the user declared, by name."""
        return fields_of(self.fields)

    def num_with(self, vector: Vector) -> int:
        """Return how many points have a vector.

        Args:
            vector: Its name.
        """
        counts = {VIDEO_VECTOR: self.num_points, CAPTION_VECTOR: self.num_captions, WORDS_VECTOR: self.num_words}
        return counts[vector] if vector in counts else self.num_others.get(vector, 0)

    def has(self, vector: Vector) -> bool:
        """Return whether any point has a vector.

        Args:
            vector: Its name.
        """
        return vector == VIDEO_VECTOR or (vector in self.settings.vectors and self.num_with(vector) > 0)

    @property
    def dense_vectors(self) -> tuple[Dense, ...]:
        """The names of the dense vectors that at least one point has."""
        return tuple(name for name in vector_names("dense") if self.has(name))

    @property
    def sparse_vectors(self) -> tuple[Vector, ...]:
        """The names of the sparse vectors that at least one point has."""
        return tuple(name for name in vector_names("sparse") if self.has(name))

    @property
    def search_ef(self) -> int:
        """Candidates of a graph search; more for a collection of more than `FEW_POINTS`, to keep its recall.

        With int8, 64 candidates found 0.9988 of the ten nearest among 10^5 clips and 0.972 among 10^6; 256 found 0.993.
        """
        return round(self.settings.hnsw_ef * max(1.0, self.num_points / FEW_POINTS) ** 0.6)

    def oversampling(self, limit: int) -> float:
        """Return how many candidates are rescored for each clip of a search: fewer for the clips after the first `FEW`.

        Among 10^6 clips, 2 instead of 4 gave a hundred clips in three quarters of the time: the same first ten, and 0.99 of
        the hundred.

        Args:
            limit: Clips of the search, at least 1.
        """
        most = self.settings.oversampling
        return (most * min(limit, FEW) + min(most, FEWER_AGAIN) * max(0, limit - FEW)) / limit

    def to_json(self) -> dict[str, Any]:
        """Return the content of collection.json."""
        return {**asdict(self), "settings": self.settings.model_dump()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CollectionMetadata:
        """Read the content of collection.json and check types and ranges of all fields.

        Args:
            content: As `to_json` gives it; not trusted.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown, of another type or out of range, or the name is not
                made of encoder_version and build.
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


def require_facts(metadata: CollectionMetadata) -> CollectionMetadata:
    """Return the metadata, checked. A backend calls this before it creates anything under the name.

    Args:
        metadata: Of a collection that is to be built.

    Raises:
        ArtifactError: a field is of another type or out of range.
    """
    try:
        return CollectionMetadata.from_json(metadata.to_json())
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ArtifactError(
            f"there can be no such collection: {error}", code="bad-collection", remedy="Make what it was built from again"
        ) from error


def name_of_collection(value: object) -> str:
    """Return the name of a collection, checked.

    Args:
        value: Not trusted.

    Raises:
        ValueError: it is not `clips-<encoder_version>-<build>`.
    """
    if not isinstance(value, str) or not COLLECTION_NAME.fullmatch(value):
        raise ValueError(f"the name of a collection is {shown(value)}, wanted clips-<encoder_version>-<build>")
    return value


def collection_name(encoder_version: str, build: str) -> str:
    """Return `clips-<encoder_version>-<build>`.

    Args:
        encoder_version: 16 hex digits.
        build: 12 hex digits.
    """
    return f"clips-{encoder_version}-{build}"


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def canonical_json(content: object) -> str:
    """Return JSON that is equal for equal content.

    Args:
        content: Plain values.
    """
    return _CANONICAL.encode(content)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Check types and ranges of the given keys of `IndexSettings`; a missing key has its default."""
    rules: Mapping[str, Callable[[Any], bool]] = {
        "m": _whole_number(0, 1024), "ef_construct": _whole_number(1, 10**6), "hnsw_ef": _whole_number(1, 10**6),
        "vectors": lambda value: isinstance(value, list | tuple) and all(each in vector_names() for each in value),
        "language": lambda value: isinstance(value, str) and LANGUAGE.fullmatch(value) is not None,
        "quantization": lambda value: value in ("none", "int8"),
        "oversampling": lambda value: is_number(value) and 1 <= value <= 10**6,
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
        "identity": lambda value: isinstance(value, str) and re.fullmatch(r"(?:[0-9a-f]{32})?", value) is not None,
        "num_changed": _whole_number(0, MOST_POINTS),
        "imported": lambda value: isinstance(value, bool),
        "score_spread": _is_spread,
        "fields": lambda value: isinstance(value, Mapping) and fields_of(value) is not None,
        "num_others": lambda value: isinstance(value, Mapping) and all(
            name in vector_names() and points(num) for name, num in value.items()
        ),
    }
    _check_each("", {name: getattr(metadata, name) for name in rules}, rules)


def _is_spread(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        name in vector_names("dense") and is_number(spread) and 0 <= spread <= 1 for name, spread in value.items()
    )


def _check_each(prefix: str, values: Mapping[str, Any], rules: Mapping[str, Callable[[Any], bool]]) -> None:
    for name, value in values.items():
        if name not in rules:
            raise ValueError(f"{prefix}{shown(name)} is no key that is known here: of another version of vidseek?")
        try:
            fits = rules[name](value)
        except TypeError:  # an unhashable value is in no set of names
            fits = False
        if not fits:
            raise ValueError(f"{prefix}{name} is {shown(value)}, which it cannot be")


def _whole_number(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_moment(value: object) -> bool:
    """Return whether it is a time of ISO 8601 that can be converted to seconds."""
    try:
        return isinstance(value, str) and len(value) <= 40 and math.isfinite(datetime.fromisoformat(value).timestamp())
    except (ValueError, OverflowError):
        return False


def is_number(value: object) -> bool:
    """Return whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
