"""Filters of a search: conditions on payload fields, checked before a backend receives them.

A backend answers a filter on an unknown field with an empty list; here an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vidseek_media.errors import InputRejected
from vidseek_retrieval.index.payload import payload_indexes

BOUNDS = ("gt", "gte", "lt", "lte")


@dataclass(frozen=True)
class Condition:
    """One field of a clip must be one of some values, or none of some, or lie within bounds."""

    field: str
    any_of: tuple[str | int, ...] = ()
    bounds: tuple[tuple[str, int | datetime], ...] = ()
    """Of `gt`, `gte`, `lt`, `lte`, each with its value."""
    none_of: tuple[str | int, ...] = ()


def parse_filters(filters: Mapping[str, object]) -> tuple[Condition, ...]:
    """Parse the filters of a search into conditions that must all hold, ordered by field.

    Args:
        filters: For each field a value, a list of values of which one must match, or bounds (`gt`, `gte`, `lt`, `lte`).
            Times are RFC 3339; without a zone they are UTC.

    Raises:
        InputRejected: a field does not exist (the message lists those that do), or a value does not fit its field.

    Examples:
        >>> [condition] = parse_filters({"duration_ms": {"lt": 60000}})
        >>> condition.field, condition.bounds
        ('duration_ms', (('lt', 60000),))
        >>> parse_filters({"channel": ["news", "sport"]})[0].any_of
        ('news', 'sport')
    """
    return tuple(_condition(field, wanted) for field, wanted in sorted(filters.items()))


def _condition(field: str, wanted: object) -> Condition:
    if field not in payload_indexes():
        raise InputRejected(
            f"there is no field {field!r} to filter by",
            code="unknown-filter", remedy=f"The fields are {', '.join(sorted(payload_indexes()))}"
        )
    if isinstance(wanted, Mapping):
        return Condition(field, bounds=_bounds(field, wanted))
    values = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not values:
        raise InputRejected(
            f"the filter {field} lists no value", code="bad-filter", remedy="Name one, or leave the filter out",
        )
    if payload_indexes()[field] == "datetime":
        raise InputRejected(
            f"the filter {field} is {wanted!r}, wanted bounds",
            code="bad-filter", remedy='Say {"gte": "2024-05-01", "lt": "2024-06-01"}'
        )
    return Condition(field, any_of=tuple(_value(field, value) for value in values))


def _bounds(field: str, wanted: Mapping[str, object]) -> tuple[tuple[str, int | datetime], ...]:
    if payload_indexes()[field] == "keyword":
        raise InputRejected(f"the filter {field} has bounds, wanted a value or a list: it is a word", code="bad-filter")
    unknown = sorted(set(wanted) - set(BOUNDS))
    if unknown or not wanted:
        raise InputRejected(
            f"the filter {field} has the bounds {unknown or 'none'}, wanted some of {', '.join(BOUNDS)}", code="bad-filter",
        )
    return tuple((name, _bound(field, value)) for name, value in sorted(wanted.items()))


def _value(field: str, value: object) -> str | int:
    wanted = str if payload_indexes()[field] == "keyword" else int
    if not isinstance(value, wanted) or isinstance(value, bool):
        shown = "text" if wanted is str else "a whole number"
        raise InputRejected(f"the filter {field} has the value {value!r}, wanted {shown}", code="bad-filter")
    return value


def _bound(field: str, value: object) -> int | datetime:
    if payload_indexes()[field] == "integer":
        number = _value(field, value)
        assert isinstance(number, int)
        return number
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None:
        raise InputRejected(
            f"the filter {field} has the bound {value!r}, wanted a time as 2024-05-01T10:00:00Z", code="bad-filter",
        )
    return time if time.tzinfo else time.replace(tzinfo=UTC)
