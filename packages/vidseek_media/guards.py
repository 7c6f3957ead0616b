"""Text, dates and numbers from outside (manifests, captions, sites, language models, headers), checked on entry.

`text_of`, `moment_of` and `number_of` refuse what no table, path or index takes: the row is rejected, the others go on.
`mended_text`, `moment_or_empty` and `number_or_none` are for what must not be lost for a broken detail: they drop that.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

from vidseek_media.errors import InputRejected

FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Whole years that pandas and Qdrant both hold. Year 1 and year 9999 are other programs' word for "no date"."""

MAX_NUMBER = 2.0**53
"""Larger whole numbers are no longer exact."""

_BROKEN = re.compile("[\x00\ud800-\udfff]")
"""The null byte, and halves of characters that JSON can spell and UTF-8 cannot."""

_MOMENT = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)(?:[Tt ].*)?", re.ASCII)
"""ISO 8601 as it is meant: Python takes any sign between day and time, and milliseconds since 1970 for a day of 1712."""

_CONTROLS = re.compile("[\x01-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


def text_of(value: object, what: str) -> str:
    """Return `value` with white space made plain and control characters left out.

    Args:
        value: From outside; only a str is text.
        what: What it is, for the message: "the title".

    Raises:
        InputRejected: it is no text, or holds a null byte or half of a character.
    """
    if not isinstance(value, str):
        raise InputRejected(f"{what} is a {type(value).__name__}, wanted text", code="value-not-text")
    if value.isprintable():  # as nearly all are: no control character, nothing broken, no white space but blanks
        return " ".join(value.split()) if " " in value else value
    if found := _BROKEN.search(value):
        raise InputRejected(
            f"{what} holds U+{ord(found[0]):04X} at {found.start()}, which is no text", code="value-not-text",
        )
    return " ".join(_CONTROLS.sub("", value).split())


def is_broken(text: str) -> bool:
    """Return whether `text` holds what neither a path nor a table takes: a null byte, or half of a character."""
    return not text.isprintable() and _BROKEN.search(text) is not None


def mended_text(value: object) -> str:
    """Return `value` as `text_of` does, without what is broken in it; empty where it is no text."""
    return " ".join(_CONTROLS.sub("", _BROKEN.sub("", value)).split()) if isinstance(value, str) else ""


def moment_of(value: object, what: str) -> str:
    """Return a moment as RFC 3339 in UTC, to the second or finer.

    Args:
        value: An ISO 8601 text (without a zone it is taken as UTC; a day is its first second), a date or datetime, or
            seconds since 1970.
        what: What it is, for the message.

    Raises:
        InputRejected: it is none of these, a leap second, or outside the years 1678 to 2261 (milliseconds, say).
    """
    try:
        moment = _datetime_of(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InputRejected(
            f"{what} is {str(value)[:40]!r}, wanted one like 2026-03-01T12:00:00Z", code="not-a-time",
        ) from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise InputRejected(
            f"{what} is {str(value)[:40]!r}, wanted one of the years {FIRST_YEAR} to {LAST_YEAR}", code="not-a-time",
        )
    return moment.isoformat().replace("+00:00", "Z")


def moment_or_empty(value: object) -> str:
    """Return `value` as `moment_of` does; empty where that refuses it."""
    try:
        return moment_of(value, "it")
    except InputRejected:
        return ""


def number_of(value: object, what: str, *, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float:
    """Return a finite number of `[low, high]`.

    Args:
        value: An int or float, or a text that spells one; a bool is no number.
        what: What it is, for the message.
        low: The least that is taken.
        high: The most that is taken.

    Raises:
        InputRejected: it is no number, infinite, not a number, or out of the range.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputRejected(f"{what} is {str(value)[:40]!r}, wanted a number", code="not-a-number") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise InputRejected(f"{what} is {str(value)[:40]!r}, wanted {low:g} to {high:g}", code="not-a-number")
    return number


def number_or_none(value: object, *, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> float | None:
    """Return `value` as `number_of` does; None where that refuses it."""
    try:
        return number_of(value, "it", low=low, high=high)
    except InputRejected:
        return None


def _datetime_of(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, str):
        raise TypeError
    if not _MOMENT.fullmatch(text := value.strip()):
        raise ValueError
    return datetime.fromisoformat(text.upper())
