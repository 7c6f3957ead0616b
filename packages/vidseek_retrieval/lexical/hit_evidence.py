"""Why a hit was found: the texts of its clips that share words with the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.spelling import segments_in
from vidseek_retrieval.lexical.word_parts import words_in

MAX_TEXTS = 5
"""Texts of one hit, those with the most different words first."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A text that shares words with the query."""

    field: str
    """captions, speech or ocr."""
    text: str
    start_ms: int
    end_ms: int
    matches: tuple[str, ...]
    """The words of `text` that matched, as they are written there, each once, in order."""


def evidence_of(
    payloads: Sequence[Mapping[str, Any]], meant: Mapping[str, Set[int]], encoder: WordEncoder
) -> tuple[Evidence, ...]:
    """Return the texts of a hit that share words with the query: those with the most different words first, then by time.

    Args:
        payloads: Of the clips of the hit.
        meant: By field, the words of the archive that the query means there.
        encoder: Numbers words, as it did for the index.
    """
    found: dict[Evidence, int] = {}
    for field, words in meant.items():
        for segment in (each for payload in payloads for each in segments_in(payload, field)):
            start_ms, end_ms, text = segment
            matched = {match[0]: numbers for match in words_in(text)
                       if (numbers := words & set(encoder.query(match[0]).indices))}
            if matched:
                each = Evidence(field, text, int(start_ms), int(end_ms), tuple(matched))
                found[each] = len(set().union(*matched.values()))
    ordered = sorted(found, key=lambda each: (-found[each], each.start_ms, each.end_ms, each.field))
    return tuple(ordered[:MAX_TEXTS])
