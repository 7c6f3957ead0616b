"""Why a hit was found: the texts of its clips that share words with the query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.spelling import segments_in
from vidseek_retrieval.lexical.word_parts import UNSPACED, parts_of_run, plain, terms_in, words_in

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


TIMED = ("speech", "ocr")
"""Fields whose texts have spans of their own; those of `captions` are the clip's."""


def spoken_span(evidence: Sequence[Evidence], start_ms: int, end_ms: int) -> tuple[int, int] | None:
    """Return the span of a moment that was found for what is said or stands on the screen: from its first word to its last.

    Texts count that have as many different words of the query as the best one, and lie in the moment by more than half.

    Args:
        evidence: Of the moment, the best first.
        start_ms: Start of the moment in milliseconds.
        end_ms: End of the moment in milliseconds, exclusive.

    Returns:
        None if the best text has no span of its own, or lies elsewhere.
    """
    if not evidence or evidence[0].field not in TIMED:
        return None
    best = [
        each for each in evidence if each.field in TIMED and len(each.matches) >= len(evidence[0].matches)
        and _lies_in(each, start_ms, end_ms)
    ]
    return (min(each.start_ms for each in best), max(each.end_ms for each in best)) if best else None


def _lies_in(text: Evidence, start_ms: int, end_ms: int) -> bool:
    shared = min(end_ms, text.end_ms) - max(start_ms, text.start_ms)
    return 2 * shared > min(end_ms - start_ms, text.end_ms - text.start_ms)


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
            matched = dict(_matches(text, words, encoder))
            if matched:
                each = Evidence(field, text, int(start_ms), int(end_ms), tuple(matched))
                found[each] = len(set().union(*matched.values()))
    ordered = sorted(found, key=lambda each: (-found[each], each.start_ms, each.end_ms, each.field))
    return tuple(ordered[:MAX_TEXTS])


def _matches(text: str, words: Set[int], encoder: WordEncoder) -> Iterator[tuple[str, Set[int]]]:
    """Yield what matched in a text as it is written, with its numbers: terms where all of them did, else words of them."""
    for term in terms_in(text):
        numbers = words & encoder.numbers(term[0])
        if not numbers:
            continue
        parts = [(part[0], words & encoder.numbers(part[0])) for part in words_in(term[0])]
        of_parts = set().union(*(found for _, found in parts))
        if len(parts) > 1 and (numbers - of_parts or all(found for _, found in parts)):
            yield term[0], numbers
            continue
        for part, found in parts:
            if found:
                yield from ((piece, found) for piece in _pieces(part, found, encoder))


def _pieces(word: str, numbers: Set[int], encoder: WordEncoder) -> list[str]:
    """Return what matched of a word: of a run without spaces its parts that did, joined; of other words all."""
    spelled = plain(word)
    if len(spelled) != len(word) or not (runs := list(UNSPACED.finditer(spelled))):
        return [word]
    is_matched = [False] * len(word)
    for run in runs:
        for at, part in enumerate(parts_of_run(run[0]), start=run.start()):
            if numbers & encoder.numbers(part):
                is_matched[at : at + len(part)] = [True] * len(part)
    shown = "".join(letter if there else " " for letter, there in zip(word, is_matched, strict=True)).split()
    return shown or [word]
