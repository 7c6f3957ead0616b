"""The fields of a point's payload, and which of them are indexed, so that filters can use them."""

from __future__ import annotations

from collections.abc import Mapping

from vidseek_media.fields.declared import DeclaredFields
from vidseek_media.fields.declared import FieldKind as DeclaredKind
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

_INDEX_OF: Mapping[DeclaredKind, FieldKind] = {
    "keyword": "keyword", "boolean": "keyword", "integer": "integer", "float": "float", "datetime": "datetime",
}
"""The index of a declared field by its kind. A boolean is the word true or false: the binding of Edge takes no other for a
match. A text has none."""


def payload_indexes(declared: DeclaredFields | None = None) -> dict[str, FieldKind]:
    """Return all indexed fields with the kind of their index, including those of registered vectors.

    Args:
        declared: The fields that the user declared; None for none.
    """
    own = {name: _INDEX_OF[each.kind] for name, each in (declared or {}).items() if each.kind in _INDEX_OF}
    return {**PAYLOAD_INDEXES, **filter_fields(), **own}


def payload_fields() -> tuple[str, ...]:
    """Return all fields that a payload may have beside declared ones; fields without a value are left out of payloads."""
    return (*payload_indexes(), *_OTHERS, *evidence_vectors())
