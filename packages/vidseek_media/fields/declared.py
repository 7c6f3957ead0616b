"""The types of fields that a user declares, and the one place where a value of a field is parsed.

    fields: {camera: keyword, take: integer, shot_at: datetime, tags: [keyword]}

A field is taken from the column of its name; a column's name is compared as `field_name_of` writes it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vidseek_media.errors import InputRejected
from vidseek_media.guards import MAX_NUMBER, moment_of, number_of, text_of

FieldKind = Literal["keyword", "integer", "float", "boolean", "datetime", "text"]
"""`text` is stored and shown, and has no index; a filter on it is refused."""
KINDS: tuple[FieldKind, ...] = get_args(FieldKind)
FieldValue = str | int | float
"""Of one value: a boolean is the text true or false, a time RFC 3339 in UTC."""

TAGS = "tags"
"""The field that people and prompts set too. Its type is always a list of keywords."""
AUTO_TAGS = "auto_tags"
"""Those of a clip's tags that a prompt alone gave it. A publish declares the field; no column fills it."""

MAX_FIELDS = 32
MAX_NAME = 64
MAX_KEYWORD = 256
"""Characters of a keyword."""
MAX_TEXT = 4096
"""Characters of a text."""
MAX_VALUES = 64
"""Values of one cell."""

RESERVED = frozenset({
    "file", "caption", "start", "end", "split", "gallery", "contrast", "axis", "image", "video", "path", "filename",
    "title", "channel", "category", "published_at", "video_id", "clip_id", "clip_ids", "best_clip_id", "best_ms",
    "duration_ms", "start_ms", "end_ms", "index", "uri", "thumbnail_url", "media_url", "encoder_version", "duplicate_of",
    "score", "confidence", "evidence", "reranked", "fields", "visual", "captions", "words", "speech", "ocr",
    "build_added", "build_removed", "build_digest",
})
"""Columns with a meaning of their own, and fields that hits and payloads have already."""

_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
_NO_WORD = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class FieldType:
    """The type of a field."""

    kind: FieldKind
    many: bool = False
    """Whether a clip has a list of values."""

    @classmethod
    def of(cls, declared: object) -> FieldType:
        """Return the type that a declaration names: a kind, or a list of one kind.

        Args:
            declared: From params.yaml or collection.json; not trusted.

        Raises:
            ValueError: it is no such thing.

        Examples:
            >>> FieldType.of("integer"), FieldType.of(["keyword"]).many
            (FieldType(kind='integer', many=False), True)
        """
        many = isinstance(declared, list | tuple) and len(declared) == 1
        kind = declared[0] if many else declared  # type: ignore[index]
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"wanted one of {', '.join(KINDS)}, or a list of one, such as [keyword]")
        return cls(kind, many)  # type: ignore[arg-type]

    @property
    def declaration(self) -> str | list[str]:
        """The declaration, as `of` takes it."""
        return [self.kind] if self.many else self.kind

    def parse(self, value: object) -> FieldValue:
        """Return one value of the field.

        Args:
            value: A cell or its text, or a value of a filter.

        Raises:
            InputRejected: it does not fit the type. The message begins with the value.

        Examples:
            >>> FieldType("integer").parse("7"), FieldType("boolean").parse("Yes")
            (7, 'true')
            >>> FieldType("datetime").parse("2026-03-01 12:00")
            '2026-03-01T12:00:00Z'
        """
        try:
            return _PARSERS[self.kind](value)
        except InputRejected:
            raise InputRejected(f"{_shown(value)}, wanted {_WANTED[self.kind]}", code="bad-field-value") from None

    def values_of(self, cell: str) -> tuple[FieldValue, ...]:
        """Return the values of a cell of a table; () for an empty one.

        A list is written with semicolons, or else commas, or as JSON. Equal values count once.

        Raises:
            InputRejected: a value does not fit the type, or there are more than `MAX_VALUES`.

        Examples:
            >>> FieldType("keyword", many=True).values_of("night; rain")
            ('night', 'rain')
            >>> FieldType("keyword", many=True).values_of('["Smith, John"]')
            ('Smith, John',)
        """
        if not cell.strip():
            return ()
        parts = _split(cell) if self.many else [cell]
        values = tuple(dict.fromkeys(self.parse(part) for part in parts))
        if len(values) > MAX_VALUES:
            raise InputRejected(f"{len(values)} values, wanted at most {MAX_VALUES}", code="bad-field-value")
        return values

    def fits(self, value: object) -> bool:
        """Return whether a value of a payload is one that `payload_of` may have made. The value is not trusted."""
        if not self.many:
            return not isinstance(value, list) and self._fits_one(value)
        return isinstance(value, list) and len(value) > 0 and all(map(self._fits_one, value))

    def payload_of(self, values: tuple[FieldValue, ...]) -> FieldValue | list[FieldValue]:
        """Return the value of a payload for values of the field, of which there is at least one."""
        return list(values) if self.many else values[0]

    def _fits_one(self, value: object) -> bool:
        try:
            return not isinstance(value, bool) and self.parse(value) == value
        except InputRejected:
            return False


TAG_LIST = FieldType("keyword", many=True)
"""The type of `tags` and `auto_tags`."""

DeclaredFields = Mapping[str, FieldType]
"""The types of the fields by name."""


def declared_values(payload: Mapping[str, Any], declared: DeclaredFields) -> dict[str, Any]:
    """Return the declared fields that a payload has a value of, in the order of the declarations."""
    return {name: payload[name] for name in declared if name in payload}


def field_name_of(column: str) -> str:
    """Return the name of the field that a column is of: in lower case, with `_` for what is no letter, digit or `_`.

    Examples:
        >>> field_name_of(" Shot At "), field_name_of("camera.name"), field_name_of("Größe")
        ('shot_at', 'camera_name', 'größe')
    """
    return _NO_WORD.sub("_", unicodedata.normalize("NFC", column).strip().lower()).strip("_")


def require_field_name(name: str) -> str:
    """Return the name of a field, checked.

    Args:
        name: As params.yaml or collection.json has it; not trusted.

    Raises:
        ValueError: it is reserved, too long, or has other characters than lower-case letters, digits and `_`.
    """
    plain = field_name_of(name)
    if name != plain or not name or name[0].isdigit() or len(name) > MAX_NAME:
        hint = f"; {plain} takes the column {name!r} too" if plain and not plain[0].isdigit() and plain != name else ""
        raise ValueError(
            f"the name of a field is {name[:MAX_NAME]!r}: wanted up to {MAX_NAME} lower-case letters, digits and _, "
            f"a letter first{hint}"
        )
    if name in RESERVED:
        raise ValueError(f"a field is called {name}, which has a meaning already: give the column another name")
    return name


def fields_of(declared: Mapping[str, object]) -> dict[str, FieldType]:
    """Return the fields that a mapping declares.

    Args:
        declared: From params.yaml or collection.json; not trusted.

    Raises:
        ValueError: a name or a type is wrong, or there are more than `MAX_FIELDS`.
    """
    num = len(set(declared) - {TAGS, AUTO_TAGS})
    if num > MAX_FIELDS:
        raise ValueError(f"{num} fields are declared, wanted at most {MAX_FIELDS}: each costs an index")
    found: dict[str, FieldType] = {}
    for name, kind in declared.items():
        require_field_name(name)
        try:
            found[name] = FieldType.of(kind)
        except ValueError as error:
            raise ValueError(f"the field {name} is {_shown(kind)}: {error}") from None
    for name in (TAGS, AUTO_TAGS):
        if found.get(name, TAG_LIST) != TAG_LIST:
            raise ValueError(f"the field {name} is {found[name].declaration!r}, wanted [keyword]: people set tags too")
    return found


def _keyword_of(value: object) -> str:
    return _bounded_text(value, MAX_KEYWORD)


def _long_text_of(value: object) -> str:
    return _bounded_text(value, MAX_TEXT)


def _bounded_text(value: object, most: int) -> str:
    plain = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    text = unicodedata.normalize("NFC", text_of(plain, "it"))
    if not 0 < len(text) <= most:
        raise InputRejected("too long", code="bad-field-value")
    return text


def _integer_of(value: object) -> int:
    """Numbers that other programs wrote as 3.0, for want of empty cells in whole columns, are whole."""
    number = number_of(value, "it")
    text = value.strip() if isinstance(value, str) else ""
    if not number.is_integer() or (isinstance(value, str) and not _WHOLE.fullmatch(text)):
        raise InputRejected("not whole", code="bad-field-value")
    whole = int(text.partition(".")[0]) if text else int(number)
    if abs(whole) > MAX_NUMBER:
        raise InputRejected("too large", code="bad-field-value")
    return whole


def _float_of(value: object) -> float:
    return number_of(value.strip() if isinstance(value, str) else value, "it", low=-1e300, high=1e300) + 0.0  # no -0.0


def _boolean_of(value: object) -> str:
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise InputRejected("neither", code="bad-field-value")
    return "true" if text in _TRUE else "false"


def _datetime_of(value: object) -> str:
    return moment_of(value if isinstance(value, str) else str(value), "it")


_PARSERS: Mapping[FieldKind, Callable[[object], FieldValue]] = {
    "keyword": _keyword_of, "integer": _integer_of, "float": _float_of, "boolean": _boolean_of, "datetime": _datetime_of,
    "text": _long_text_of,
}
_WANTED: Mapping[FieldKind, str] = {
    "keyword": f"a text of up to {MAX_KEYWORD} characters", "integer": "a whole number of up to 2^53",
    "float": "a number", "boolean": "true or false", "datetime": "a time such as 2026-03-01T12:00:00Z",
    "text": f"a text of up to {MAX_TEXT} characters",
}


def _split(cell: str) -> list[object]:
    if cell.lstrip().startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list):
            return [each for each in found if each is not None and each != ""]
    return [part for part in cell.split(";" if ";" in cell else ",") if part.strip()]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
