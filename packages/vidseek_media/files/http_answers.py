"""What HTTP servers say in their answers, read the same way for every service that is paid or may be busy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from vidseek_media.guards import number_or_none


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header states, as a number or a date; None if it is missing or unreadable.

    Args:
        headers: Of the answer, by name in small letters.
    """
    said = headers.get("retry-after", "").strip()
    if (seconds := number_or_none(said)) is not None:
        return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(said)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def without_key(text: str, key: str) -> str:
    """Remove the API key from a text, since servers repeat what they received.

    Args:
        text: A message.
        key: The API key; empty for none.
    """
    return text.replace(key, "[key]") if key else text
