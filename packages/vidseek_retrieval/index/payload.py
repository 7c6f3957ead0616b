"""The payload of a point: its fields, and which of them have an index, so that filters may name them."""

from __future__ import annotations

from collections.abc import Mapping

from vidseek_retrieval.vectors.registry import FieldKind, filter_fields

PAYLOAD_INDEXES: Mapping[str, FieldKind] = {
    "video_id": "keyword",
    "channel": "keyword",
    "category": "keyword",
    "published_at": "datetime",
    "duration_ms": "integer",
    "start_ms": "integer",
    "duplicate_of": "keyword",
}
"""The fields of every clip that have an index, so that a filter on them is fast."""

_OTHERS = ("end_ms", "index", "title", "uri", "thumbnail_url", "encoder_version")


def payload_indexes() -> dict[str, FieldKind]:
    """All fields that have an index, those of registered vectors too, with its kind."""
    return {**PAYLOAD_INDEXES, **filter_fields()}


def payload_fields() -> tuple[str, ...]:
    """All fields that a payload may have; those without a value are left out."""
    return (*payload_indexes(), *_OTHERS)
