"""Why a hit was found: the texts of its clips that share words with the query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vidseek_media.records import share_half
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.spelling import segments_in
from vidseek_retrieval.lexical.word_parts import LINE_END, UNSPACED, parts_of_run, plain, terms_in, words_in

MAX_TEXTS = 5
"""Texts of one hit that are shown, those with the most different words first."""
LONG_TEXT_MS = 60_000
"""A text that is there for longer, such as a logo, does not say where in it a moment is."""


@dataclass(frozen=True, slots=True)
class TextSegment:
    """A text of a video."""

    field: str
    """captions, speech or ocr."""
    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Evidence(TextSegment):
    """A text that shares words with the query."""

    matches: tuple[str, ...]
    """The words of `text` that matched, as they are written there, each once, in order."""


TIMED = ("speech", "ocr")
"""Fields whose texts have spans of their own; those of `captions` are the clip's."""


def spoken_texts(evidence: Sequence[Evidence], start_ms: int, end_ms: int) -> list[Evidence]:
    """Return the texts that a moment was found for, if it was for what is said or stands on the screen; else none.

    These are the texts that have as many different words of the query as the best one, and lie in the moment by at least
    half. Where the best one is a caption that was made of what is said, they are what it was made of.

    Args:
        evidence: Of the moment, the best first.
        start_ms: Start of the moment in milliseconds.
        end_ms: End of the moment in milliseconds, exclusive.
    """
    if not evidence:
        return []
    best = evidence[0]
    timed = [
        each for each in evidence
        if each.field in TIMED and share_half((start_ms, end_ms), (each.start_ms, each.end_ms))
    ]
    if best.field in TIMED:
        return [each for each in timed if len(each.matches) >= len(best.matches)]
    quoted = f" {best.text} ".replace(LINE_END, " ")
    return [each for each in timed if each.field == "speech" and f" {each.text} " in quoted]


def caption_lines(evidence: Sequence[Evidence]) -> set[str]:
    """Return the lines of captions with words of the query, of a moment for which no text is better; titles are none.

    Args:
        evidence: Of the moment, the best first.
    """
    return {
        line for each in evidence if each.field == "captions" and len(each.matches) >= len(evidence[0].matches)
        for line in each.text.split(LINE_END)[1:] if any(match in line for match in each.matches)
    }


def spoken_span(evidence: Sequence[Evidence], start_ms: int, end_ms: int) -> tuple[int, int] | None:
    """Return the span of a moment that was found for what is said or stands on the screen: from its first word to its last.

    A text that is there for longer than `LONG_TEXT_MS` is cut to the moment.

    Args:
        evidence: Of the moment, the best first.
        start_ms: Start of the moment in milliseconds.
        end_ms: End of the moment in milliseconds, exclusive.

    Returns:
        None if the best text has no span of its own, or lies elsewhere.
    """
    spans = [
        (max(each.start_ms, start_ms), min(each.end_ms, end_ms)) if is_long(each) else (each.start_ms, each.end_ms)
        for each in spoken_texts(evidence, start_ms, end_ms)
    ]
    return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None


def is_long(text: Evidence) -> bool:
    """Return whether a text is there for longer than `LONG_TEXT_MS`."""
    return text.end_ms - text.start_ms > LONG_TEXT_MS


def evidence_of(
    payloads: Sequence[Mapping[str, Any]], meant: Mapping[str, frozenset[int]], encoder: WordEncoder
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
            matched = dict(_matches_of(text, words, encoder))
            if matched:
                each = Evidence(field, text, int(start_ms), int(end_ms), tuple(matched))
                found[each] = len(set().union(*matched.values()))
    return tuple(sorted(found, key=lambda each: (-found[each], each.start_ms, each.end_ms, each.field)))


@lru_cache(maxsize=4096)  # clips overlap
def _matches_of(text: str, words: frozenset[int], encoder: WordEncoder) -> tuple[tuple[str, Set[int]], ...]:
    return tuple(_matches(text, words, encoder))


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
