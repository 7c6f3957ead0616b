"""The fields of a point's payload, and which of them are indexed, so that filters can use them."""

from __future__ import annotations

from collections.abc import Mapping

from vidseek_retrieval.vectors.registry import FieldKind, evidence_vectors, filter_fields

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
    """Return all indexed fields with the kind of their index, including those of registered vectors."""
    return {**PAYLOAD_INDEXES, **filter_fields()}


def payload_fields() -> tuple[str, ...]:
    """Return all fields that a payload may have; fields without a value are left out of payloads."""
    return (*payload_indexes(), *_OTHERS, *evidence_vectors())
