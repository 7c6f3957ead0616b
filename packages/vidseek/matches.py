"""What people are told of hits: which words matched, and whether anything is likely to fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LIKELY = 0.5
"""The chance under which hits are said to be probably wrong, all of them."""


MAX_BEFORE = 40
"""Characters of a text that are shown before its first match: about a line of a card."""


def split_at_matches(text: str, matches: Iterable[str]) -> list[tuple[str, bool]]:
    """Cut a text into parts, each with whether it is one of the matched words; together they are the text.

    Args:
        text: Any text; it is not escaped here.
        matches: Words as they stand in the text.

    Examples:
        >>> split_at_matches("our revenue grew", ["revenue"])
        [('our ', False), ('revenue', True), (' grew', False)]
    """
    words = sorted({word for word in matches if word}, key=len, reverse=True)
    if not words:
        return [(text, False)] if text else []
    parts = re.split(f"({'|'.join(map(_whole, words))})", text)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


def from_first_match(parts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Return the parts of a text from shortly before its first match, with an ellipsis for what is left out before it.

    Args:
        parts: As `split_at_matches` returns them. Without a match they stay as they are.

    Examples:
        >>> from_first_match([("good morning and welcome to the news of this evening: the ", False), ("harbour", True)])
        [('… to the news of this evening: the ', False), ('harbour', True)]
    """
    before, is_match = parts[0] if len(parts) > 1 else ("", True)
    if is_match or len(before) <= MAX_BEFORE:
        return list(parts)
    near = before[-MAX_BEFORE:]
    return [(f"… {near.partition(' ')[2] or near}", False), *parts[1:]]


def _whole(word: str) -> str:
    """Return the pattern of a word as a whole; in scripts without spaces, words stand inside of runs of letters."""
    from vidseek_retrieval.lexical.word_parts import UNSPACED

    return re.escape(word) if UNSPACED.search(word) else rf"(?<!\w){re.escape(word)}(?!\w)"


def chance_if_unlikely(hits: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the chance that one of the hits is right, where that is less than `LIKELY`; else None.

    A confidence is the probability that this moment is the one that the query means, so those of one answer add up.

    Args:
        hits: Of one answer, as the API gives them.

    Returns:
        From 0 to 1; None where the hits are likely to hold the right one, where there are none, and where they have no
        confidence.

    Examples:
        >>> chance_if_unlikely([{"confidence": 0.02}, {"confidence": 0.01}])
        0.03
        >>> chance_if_unlikely([{"confidence": 0.4}, {"confidence": 0.3}])
    """
    confidences = [hit["confidence"] for hit in hits]
    if not confidences or None in confidences:
        return None
    chance = round(sum(confidences), 4)
    return chance if chance < LIKELY else None
