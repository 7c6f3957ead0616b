"""Finds the words of an archive that a word of a query may stand for: misspelt, begun, or run together with others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.lexical.joint_words import WordKey
from vidseek_retrieval.lexical.word_index import Rarities
from vidseek_retrieval.lexical.word_odds import QueryWord
from vidseek_retrieval.lexical.word_parts import (
    MIN_LETTERS,
    end_parts,
    is_thousands,
    joined,
    neighbours_joined,
    plain,
    run_parts,
    terms_in,
    words_in,
)

MAX_LOOKED_AT = 50
"""Clips whose words are compared with one word of a query."""
MAX_SPELLINGS = 8
"""Words that one word of a query may stand for."""
MIN_RUN_LETTERS = 4
"""Shorter words are not looked for inside of others: `the` stands in Thessaloniki."""
MAX_ENDING = 4
"""Letters behind the beginning that two forms of one word share."""
_DIGITS = re.compile(r"\d+")


def is_one_edit(one: str, other: str) -> bool:
    """Return whether two words differ by one letter more, less, or other, or by two neighbours that changed places."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    first = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rest, others = one[first:], other[first:]
    return rest[1:] == others[1:] or rest[1:] == others or rest == others[1:] or (
        rest[2:] == others[2:] and rest[:2] == others[1::-1]
    )


def may_stand_for(there: str, word: str, *, run_together: bool = False) -> bool:
    """Return whether `there`, a word of the archive, may be what `word` of a query means.

    Args:
        there: A word as it stands in a text, in plain spelling.
        word: A word of a query, in plain spelling.
        run_together: Whether `there` may be several words without spaces.
    """
    if _DIGITS.findall(there) != _DIGITS.findall(word):  # another number is another thing
        return run_together and not _DIGITS.search(word) and _is_inside(word, there)
    if run_together and _is_inside(word, there):
        return True
    return len(word) >= MIN_LETTERS and (there.startswith(word) or is_one_edit(there, word))


def _is_inside(word: str, there: str) -> bool:
    return len(word) >= MIN_RUN_LETTERS and word in there


def is_form(there: str, word: str) -> bool:
    """Return whether two words may be forms of one: two thirds of the longer one are their common beginning.

    Examples:
        >>> is_form("announced", "announcing"), is_form("negotiators", "negotiation"), is_form("interview", "internet")
        (True, True, False)
    """
    shared = next((at for at, (a, b) in enumerate(zip(there, word, strict=False)) if a != b), min(len(there), len(word)))
    longer = max(len(there), len(word))
    return shared >= MIN_LETTERS and 3 * shared >= 2 * longer - 1 and longer - shared <= MAX_ENDING


class Spelling:
    """The words of one field of a collection, looked up by what a query spells.

    Args:
        collection: The collection.
        using: Name of the sparse vector.
        field: Payload field that has its texts.
        encoder: Numbers words, as it did for the index.
        rarities: Shared by all searches.
        run_together: Whether the texts may lack spaces between words.
    """

    def __init__(
        self, collection: Collection, using: str, field: str, encoder: WordEncoder, rarities: Rarities, *,
        run_together: bool = False,
    ) -> None:
        self._collection = collection
        self._using = using
        self._field = field
        self._encoder = encoder
        self._rarities = rarities
        self._run_together = run_together

    def query_words(self, text: str) -> dict[WordKey, QueryWord]:
        """Return the words of a query, each with its likely spellings in the archive.

        A word that stands in the archive as it is keeps its spelling. Where words run together, it is looked for inside of
        others too. Two words stand for what they make together (`co operation`), and one for two (`obrien`).

        Args:
            text: The text of the query.
        """
        together = self._written_together(text)
        own = {match[0]: self._encoder.query(match[0]).indices for term in terms_in(text) for match in _parts_of(term[0])}
        asked = {index for indices in [*own.values(), *together.values()] for index in indices}
        standing = self._rarities.of(self._collection, self._using, sorted(asked))
        found: dict[WordKey, QueryWord] = {}
        for word, indices in own.items():
            if not indices:
                continue
            if len(indices) > 1:  # a script without spaces: several words in one run
                found.update({(index,): QueryWord((index,)) for index in indices})
                continue
            there = tuple(index for index in (*indices, *together.get(plain(word), ())) if index in standing)
            spelled = self._spellings(plain(word)) if self._run_together or not there else []
            if len(spelled) > 1:
                found |= {(*indices, place): QueryWord((*there, *each)) for place, each in enumerate(spelled)}
            else:
                found[indices] = QueryWord(tuple(dict.fromkeys([*there, *(spelled[0] if spelled else ())])))
        return found

    def _written_together(self, text: str) -> dict[str, tuple[int, ...]]:
        """Return by word of a query, in plain spelling, what it makes together with its neighbours."""
        found: dict[str, tuple[int, ...]] = {}
        pairs = [((one, other), whole) for one, other, whole in neighbours_joined(text)
                 if len(whole) >= MIN_LETTERS or _DIGITS.search(whole)]
        terms = [(tuple(match[0] for match in words_in(plain(term[0]))), joined(term[0])) for term in terms_in(text)]
        for words, whole in [*pairs, *((words, whole) for words, whole in terms if len(words) > 1)]:
            for word in words:
                found[word] = (*found.get(word, ()), *self._encoder.query(whole).indices)
        return found

    def _spellings(self, word: str) -> list[list[int]]:
        """Return what a word may stand for: lists of words, any of a list is meant; two lists where it is made of two.

        Beginnings, edits and parts come first; other forms of the word count where there are none of these.
        """
        parts = set(end_parts(word)) | (run_parts(word) if self._run_together else set())
        if not parts:
            return []
        query = SparseVector(tuple(sorted(parts)), (1.0,) * len(parts))
        near = self._collection.search_words(query, limit=MAX_LOOKED_AT, using=self._using)
        payloads = self._collection.payloads([clip.clip_id for clip in near])
        texts = dict.fromkeys(text for clip in near for text in texts_in(payloads.get(clip.clip_id, {}), self._field))
        words = dict.fromkeys(each for text in texts for each in _words_of(text))
        fitting = [each for each in words if may_stand_for(each, word, run_together=self._run_together)]
        if not fitting and (two := self._made_of(word, texts)):
            return [list(self._encoder.query(each).indices) for each in two]
        fitting = fitting or [each for each in words if is_form(each, word)]
        return [[index for each in fitting[:MAX_SPELLINGS] for index in self._encoder.query(each).indices]]

    @staticmethod
    def _made_of(word: str, texts: Iterable[str]) -> tuple[str, str] | None:
        """Return two words that follow each other in a text and make `word`, but for one edit."""
        pairs = [each for text in texts for each in neighbours_joined(text) if abs(len(each[2]) - len(word)) <= 1]
        alike = [pair for pair in pairs if pair[2] == word] or [pair for pair in pairs if is_one_edit(pair[2], word)]
        return alike[0][:2] if alike else None


def _parts_of(term: str) -> Iterable[re.Match[str]]:
    """Return the words of a term; a number with thousands is one word."""
    return terms_in(term) if is_thousands(term) else words_in(term)


@lru_cache(maxsize=8192)  # clips overlap, and so do searches
def _words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text in plain spelling, each once, with its terms as one word each."""
    found: dict[str, None] = {}
    for term in terms_in(plain(text)):
        if not is_thousands(term[0]):
            found.update(dict.fromkeys(match[0] for match in words_in(term[0])))
        found[joined(term[0])] = None
    return tuple(found)


def texts_in(payload: Mapping[str, Any], field: str) -> Sequence[str]:
    """Return the texts of a payload's field of segments."""
    return [str(segment[2]) for segment in segments_in(payload, field)]


def segments_in(payload: Mapping[str, Any], field: str) -> Iterable[Sequence[Any]]:
    """Return the segments of a payload's field: start_ms, end_ms and text of each. A payload of an earlier version has none.
    """
    value = payload.get(field)
    return value if isinstance(value, list) else []
