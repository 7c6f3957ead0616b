"""Filters of a search: conditions on payload fields, checked before a backend receives them.

A backend answers a filter on an unknown field with an empty list; here an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any

from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import DeclaredFields, FieldType
from vidseek_retrieval.index.payload import payload_indexes

_COMPARED = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
BOUNDS = tuple(_COMPARED)
_TIME_REMEDY = 'Say {"gte": "2024-05-01", "lt": "2024-06-01"}'


@dataclass(frozen=True)
class Condition:
    """One field of a clip must be one of some values, or none of some, or lie within bounds."""

    field: str
    any_of: tuple[str | int, ...] = ()
    bounds: tuple[tuple[str, int | float | datetime], ...] = ()
    """Of `gt`, `gte`, `lt`, `lte`, each with its value."""
    none_of: tuple[str | int, ...] = ()


def parse_filters(filters: Mapping[str, object], declared: DeclaredFields | None = None) -> tuple[Condition, ...]:
    """Parse the filters of a search into conditions that must all hold, ordered by field.

    Args:
        filters: For each field a value, a list of values of which one must match, or bounds (`gt`, `gte`, `lt`, `lte`).
            Times are RFC 3339; without a zone they are UTC.
        declared: The fields that the user declared, of the collection that is searched. Their values are parsed as cells of
            a table are; None for none.

    Raises:
        InputRejected: a field does not exist (the message lists those that do), or a value does not fit its field.

    Examples:
        >>> [condition] = parse_filters({"duration_ms": {"lt": 60000}})
        >>> condition.field, condition.bounds
        ('duration_ms', (('lt', 60000),))
        >>> parse_filters({"channel": ["news", "sport"]})[0].any_of
        ('news', 'sport')
        >>> parse_filters({"take": "7"}, {"take": FieldType("integer")})[0].any_of
        (7,)
    """
    return tuple(_condition(field, wanted, declared or {}) for field, wanted in sorted(filters.items()))


def meets(payload: Mapping[str, Any], conditions: Iterable[Condition]) -> bool:
    """Return whether a payload meets all conditions, as the backends decide it: of a list, one value must.

    Args:
        payload: The payload of a clip.
        conditions: From `parse_filters`.

    Examples:
        >>> wanted = parse_filters({"tags": ["rain"]}, {"tags": FieldType("keyword", many=True)})
        >>> meets({"tags": ["night", "rain"]}, wanted), meets({}, wanted)
        (True, False)
    """
    return all(_holds(payload.get(each.field), each) for each in conditions)


def _holds(value: Any, condition: Condition) -> bool:
    values = [] if value is None else value if isinstance(value, list) else [value]
    if any(each in condition.none_of for each in values):
        return False
    if condition.any_of and not any(each in condition.any_of for each in values):
        return False
    return not condition.bounds or any(_lies_within(each, condition.bounds) for each in values)


def _lies_within(value: Any, bounds: Sequence[tuple[str, int | float | datetime]]) -> bool:
    return all(
        _COMPARED[name](datetime.fromisoformat(value) if isinstance(bound, datetime) else value, bound)
        for name, bound in bounds
    )


def _condition(field: str, wanted: object, declared: DeclaredFields) -> Condition:
    indexes = payload_indexes(declared)
    if field not in indexes:
        has_no_index = f"the field {field} is a text, which is not filtered by"
        raise InputRejected(
            has_no_index if field in declared else f"there is no field {field!r} to filter by",
            code="unknown-filter", remedy=f"The fields are {', '.join(sorted(indexes))}"
        )
    kind = indexes[field]
    if isinstance(wanted, Mapping):
        return Condition(field, bounds=_bounds(field, wanted, kind, declared.get(field)))
    values = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not values:
        raise InputRejected(
            f"the filter {field} lists no value", code="bad-filter", remedy="Name one, or leave the filter out",
        )
    if kind == "datetime" or (kind == "float" and len(values) > 1):
        raise InputRejected(
            f"the filter {field} is {wanted!r}, wanted bounds",
            code="bad-filter", remedy=_TIME_REMEDY if kind == "datetime" else 'Say {"gte": 0.5, "lte": 1.5}',
        )
    found = [_value(field, value, kind, declared.get(field)) for value in values]
    if kind == "float":
        return Condition(field, bounds=(("gte", float(found[0])), ("lte", float(found[0]))))
    return Condition(field, any_of=tuple(found))  # type: ignore[arg-type]


def _bounds(
    field: str, wanted: Mapping[str, object], kind: str, own: FieldType | None
) -> tuple[tuple[str, int | float | datetime], ...]:
    if kind == "keyword":
        raise InputRejected(f"the filter {field} has bounds, wanted a value or a list: it is a word", code="bad-filter")
    unknown = sorted(set(wanted) - set(BOUNDS))
    if unknown or not wanted:
        raise InputRejected(
            f"the filter {field} has the bounds {unknown or 'none'}, wanted some of {', '.join(BOUNDS)}", code="bad-filter",
        )
    return tuple((name, _bound(field, value, kind, own)) for name, value in sorted(wanted.items()))


def _value(field: str, value: object, kind: str, own: FieldType | None) -> str | int | float:
    if own is not None:
        try:
            return own.parse(value)
        except InputRejected as error:
            raise InputRejected(f"the filter {field} has the value {error.message}", code="bad-filter") from error
    wanted, shown = {"keyword": (str, "text"), "float": ((int, float), "a number")}.get(kind, (int, "a whole number"))
    if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
        raise InputRejected(f"the filter {field} has the value {value!r}, wanted {shown}", code="bad-filter")
    return value  # type: ignore[return-value]


def _bound(field: str, value: object, kind: str, own: FieldType | None) -> int | float | datetime:
    if kind != "datetime":
        number = _value(field, value, kind, own)
        assert not isinstance(number, str)
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
