"""Finds phrases in the texts of a clip: in one of them, or over several that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from vidseek_retrieval.lexical.word_parts import UNSPACED, is_thousands, joined, plain, terms_in, words_in

MAX_PAUSE_MS = 1500
"""Between two texts that are one sentence."""
MAX_OVERLAP_MS = 300
"""Of two subtitles that follow each other."""
MAX_TEXTS = 200
"""Of one clip, that phrases are looked for over several of."""

Text = tuple[int, int, str]
"""Start and end in milliseconds, and what is said or stands there."""


class _Letters(NamedTuple):
    """A text without spaces and signs, and where its words begin and end."""

    letters: str
    bounds: frozenset[int]


@lru_cache(maxsize=8192)  # clips overlap, and so do searches
def _letters_of(text: str) -> _Letters:
    words = _words(text)
    return _Letters("".join(words), frozenset([0, *accumulate(map(len, words))]))


def has_phrase(text: str, phrase: str, *, run_together: bool = False) -> bool:
    """Return whether the words of `phrase` stand in `text`, one after the other, in any case and with any signs between.

    Args:
        text: The text of a segment.
        phrase: With at least one word.
        run_together: Whether the text may lack spaces.
    """
    there, wanted = _letters_of(text), "".join(_words(phrase))
    if run_together or UNSPACED.search(wanted):
        return wanted in there.letters
    at = there.letters.find(wanted)
    while at >= 0:
        if {at, at + len(wanted)} <= there.bounds:
            return True
        at = there.letters.find(wanted, at + 1)
    return False


def have_phrase(texts: Sequence[Text], phrase: str, *, run_together: bool = False) -> bool:
    """Return whether a phrase stands in one of the texts of a clip, or begins in one and goes on in those that follow it.

    Args:
        texts: Of one clip and one field, in order of time.
        phrase: With at least one word.
        run_together: As `has_phrase` has it. Such texts are lines on a screen: those that are shown at one time may follow
            each other in any order.
    """
    if any(has_phrase(text, phrase, run_together=run_together) for _, _, text in texts):
        return True
    words = [part for word in _words(phrase) for part in (list(word) if UNSPACED.search(word) else [word])]
    if len(words) < 2 or len(texts) > MAX_TEXTS:
        return False
    spelled = [(start_ms, end_ms, _letters_of(text)) for start_ms, end_ms, text in texts]
    return _Search(spelled, words, is_loose=run_together or len(words) != len(_words(phrase))).has_it(at_once=run_together)


class _Search(NamedTuple):
    """A phrase in pieces, looked for over several texts."""

    texts: Sequence[tuple[int, int, _Letters]]
    words: Sequence[str]
    is_loose: bool
    """Whether it may begin or end within a word."""

    def has_it(self, *, at_once: bool) -> bool:
        for number in range(1, len(self.words)):
            head = "".join(self.words[:number])
            for place, (_, _, text) in enumerate(self.texts):
                is_end = text.letters.endswith(head) and (self.is_loose or len(text.letters) - len(head) in text.bounds)
                if is_end and self._goes_on(place, number, {place}, at_once=at_once):
                    return True
        return False

    def _goes_on(self, last: int, number: int, used: set[int], *, at_once: bool) -> bool:
        """Whether the words from `number` on follow the text in place `last`."""
        rest = "".join(self.words[number:])
        for place, (_, _, text) in enumerate(self.texts):
            if place in used or not text.letters or not self._follows(last, place, at_once=at_once):
                continue
            if text.letters.startswith(rest) and (self.is_loose or len(rest) in text.bounds):
                return True
            lengths = list(accumulate(map(len, self.words[number:])))
            if rest.startswith(text.letters) and len(text.letters) in lengths and self._goes_on(
                place, number + lengths.index(len(text.letters)) + 1, used | {place}, at_once=at_once
            ):
                return True
        return False

    def _follows(self, last: int, place: int, *, at_once: bool) -> bool:
        (start, end, _), (next_start, next_end, _) = self.texts[last], self.texts[place]
        is_next = start < next_start and -MAX_OVERLAP_MS <= next_start - end <= MAX_PAUSE_MS
        return is_next or (at_once and next_start < end and start < next_end)


@lru_cache(maxsize=64)
def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text in plain spelling; a number with thousands is one word."""
    return tuple(
        word for term in terms_in(plain(text))
        for word in ([joined(term[0])] if is_thousands(term[0]) else [match[0] for match in words_in(term[0])])
    )
