"""Cuts texts at the words that a search found, so that they can be highlighted."""

from __future__ import annotations

import re
from collections.abc import Iterable


def split_at_matches(text: str, matches: Iterable[str]) -> list[tuple[str, bool]]:
    """Cut a text into parts, each with whether it is one of the matched words; together they are the text.

    Args:
        text: Any text; it is not escaped here.
        matches: Words as they stand in the text.

    Examples:
        >>> split_at_matches("our revenue grew", ["revenue"])
        [('our ', False), ('revenue', True), (' grew', False)]
    """
    words = sorted({re.escape(word) for word in matches if word}, key=len, reverse=True)
    if not words:
        return [(text, False)] if text else []
    parts = re.split(rf"(?<!\w)({'|'.join(words)})(?!\w)", text)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]
