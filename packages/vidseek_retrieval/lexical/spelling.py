"""Finds the words of an archive that a word of a query may stand for: misspelt, begun, or run together with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.lexical.word_odds import QueryWord
from vidseek_retrieval.lexical.word_parts import MIN_LETTERS, end_parts, plain, run_parts, words_in

MAX_LOOKED_AT = 50
"""Clips whose words are compared with one word of a query."""
MAX_SPELLINGS = 8
"""Words that one word of a query may stand for."""
MIN_RUN_LETTERS = 3
"""Shorter words are not looked for inside of others."""


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
    if run_together and len(word) >= MIN_RUN_LETTERS and word in there:
        return True
    if len(word) < MIN_LETTERS:
        return False
    return there.startswith(word) or is_one_edit(there, word)


class Spelling:
    """The words of one field of a collection, looked up by what a query spells.

    Args:
        collection: The collection.
        using: Name of the sparse vector.
        field: Payload field that has its texts.
        encoder: Numbers words, as it did for the index.
        run_together: Whether the texts may lack spaces between words.
    """

    def __init__(
        self, collection: Collection, using: str, field: str, encoder: WordEncoder, *, run_together: bool = False
    ) -> None:
        self._collection = collection
        self._using = using
        self._field = field
        self._encoder = encoder
        self._run_together = run_together

    def query_words(self, text: str, standing: Mapping[int, float]) -> list[QueryWord]:
        """Return the words of a query, each with its likely spellings in the archive.

        A word that stands in the archive as it is keeps its spelling. Where words run together, it is looked for inside of
        others too.

        Args:
            text: The text of the query.
            standing: Words of the query that stand in the archive.
        """
        found: dict[tuple[int, ...], QueryWord] = {}
        for match in words_in(text):
            indices = self._encoder.query(match[0]).indices
            if not indices:
                continue
            is_there = all(index in standing for index in indices)
            if len(indices) > 1:  # a script without spaces: several words in one run
                found.update({(index,): QueryWord((index,)) for index in indices})
            elif is_there and not self._run_together:
                found[indices] = QueryWord(indices)
            else:
                others = self._spellings(plain(match[0]))
                found[indices] = QueryWord(tuple(dict.fromkeys([*(indices if is_there else ()), *others])))
        return list(found.values())

    def _spellings(self, word: str) -> list[int]:
        parts = set(end_parts(word)) | (run_parts(word) if self._run_together else set())
        if not parts:
            return []
        query = SparseVector(tuple(sorted(parts)), (1.0,) * len(parts))
        near = self._collection.search_words(query, limit=MAX_LOOKED_AT, using=self._using)
        payloads = self._collection.payloads([clip.clip_id for clip in near])
        texts = dict.fromkeys(text for clip in near for text in texts_in(payloads.get(clip.clip_id, {}), self._field))
        words = dict.fromkeys(match[0] for text in texts for match in words_in(plain(text)))
        fitting = [each for each in words if may_stand_for(each, word, run_together=self._run_together)]
        return [index for each in fitting[:MAX_SPELLINGS] for index in self._encoder.query(each).indices]


def texts_in(payload: Mapping[str, Any], field: str) -> Sequence[str]:
    """Return the texts of a payload's field of segments."""
    return [str(segment[2]) for segment in segments_in(payload, field)]


def segments_in(payload: Mapping[str, Any], field: str) -> Iterable[Sequence[Any]]:
    """Return the segments of a payload's field: start_ms, end_ms and text of each. A payload of an earlier version has none.
    """
    value = payload.get(field)
    return value if isinstance(value, list) else []
