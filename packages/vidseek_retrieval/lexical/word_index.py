"""What the words of clips are asked for: how rare each is, which clips have it, and which words a clip has."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.values import SparseVector, Value
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import RankedClip

MAX_REMEMBERED = 100_000
"""Words of all collections whose rarity is remembered."""


def whole_ties(ranked: list[RankedClip], *, limit: int) -> list[RankedClip]:
    """Return a ranking without the last of its equal scores where it was cut off among them, unless all are equal.

    Which of equal clips come first is chance: it differs between two builds of one archive.

    Args:
        ranked: Clips, best first.
        limit: Clips at most that the ranking was asked for.
    """
    if len(ranked) < limit:
        return ranked
    last = ranked[-1].score
    return [clip for clip in ranked if clip.score > last] or ranked


class WordIndex(Protocol):
    """The words of one field of an archive's clips."""

    @property
    def num_clips(self) -> int:
        """Clips of the archive."""

    def idf(self, words: Iterable[int]) -> dict[int, float]:
        """Return how rare each word is: the inverse document frequency of BM25, in nats. Words of no clip are left out."""

    def ranked(self, words: Mapping[int, float], *, limit: int) -> list[RankedClip]:
        """Return the clips that have some of the words, best first by BM25.

        Args:
            words: Weight of each word.
            limit: Clips at most.
        """

    def words_of(self, clip_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Return the words of clips by clip_id."""


class Rarities:
    """Remembers how rare the words of collections are, which never change. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], float | None] = {}
        self._lock = threading.Lock()

    def of(self, collection: Collection, using: str, words: Sequence[int]) -> dict[int, float]:
        """Return the inverse document frequency of words that stand in a collection.

        The index knows it and does not say it: it is the score of a clip by this word alone, over the word's weight there.

        Args:
            collection: The collection.
            using: Name of the sparse vector.
            words: The words.
        """
        key = collection.metadata.name, using
        with self._lock:
            known = {word: self._known[*key, word] for word in words if (*key, word) in self._known}
        best = {
            word: found[0] for word in words if word not in known
            and (found := collection.search_words(SparseVector((word,), (1.0,)), limit=1, using=using))
        }
        points = {point.clip_id: point for point in collection.points(sorted({clip.clip_id for clip in best.values()}))}
        for word in words:
            if word not in known:
                known[word] = _idf(best[word].score, points[best[word].clip_id].vectors[using], word) if (
                    word in best and best[word].clip_id in points
                ) else None
        with self._lock:
            if len(self._known) > MAX_REMEMBERED:
                self._known.clear()
            self._known.update({(*key, word): value for word, value in known.items()})
        return {word: value for word, value in known.items() if value is not None}


def _idf(score: float, vector: object, word: int) -> float | None:
    assert isinstance(vector, SparseVector)
    weight = dict(zip(vector.indices, vector.values, strict=True)).get(word)
    return score / weight if weight else None


class ClipWords:
    """The words of a collection's clips in all fields: each clip is read once.

    Args:
        collection: The collection.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._known: dict[str, Mapping[str, Value]] = {}

    def of(self, clip_ids: Sequence[str], using: str) -> dict[str, frozenset[int]]:
        """Return the words of clips by clip_id.

        Args:
            clip_ids: The clips; those without words of the field are left out.
            using: Name of the field's sparse vector.
        """
        missing = [clip_id for clip_id in clip_ids if clip_id not in self._known]
        if missing:
            self._known.update({point.clip_id: point.vectors for point in self._collection.points(missing)})
        found = {clip_id: self._known[clip_id].get(using) for clip_id in clip_ids if clip_id in self._known}
        return {
            clip_id: frozenset(value.indices) for clip_id, value in found.items() if isinstance(value, SparseVector)
        }


class CollectionWords:
    """The words of a published collection: a `WordIndex`.

    Args:
        collection: The collection.
        using: Name of the sparse vector.
        rarities: Shared by all searches.
        clip_words: Shared by the fields of one query.
        conditions: Filters that ranked clips must meet.
    """

    def __init__(
        self, collection: Collection, using: str, rarities: Rarities, clip_words: ClipWords,
        conditions: Sequence[Condition] = (),
    ) -> None:
        self._collection = collection
        self._using = using
        self._rarities = rarities
        self._clip_words = clip_words
        self._conditions = conditions

    @property
    def num_clips(self) -> int:
        """Clips of the collection."""
        return self._collection.metadata.num_points

    def idf(self, words: Iterable[int]) -> dict[int, float]:
        """Return how rare each word is in the whole collection; words of no clip are left out."""
        return self._rarities.of(self._collection, self._using, list(words))

    def ranked(self, words: Mapping[int, float], *, limit: int) -> list[RankedClip]:
        """Return the clips that meet the conditions and have some of the words, best first by BM25.

        Args:
            words: Weight of each word.
            limit: Clips at most.
        """
        query = SparseVector(tuple(words), tuple(words.values()))
        return whole_ties(
            self._collection.search_words(query, limit=limit, using=self._using, conditions=self._conditions), limit=limit
        )

    def words_of(self, clip_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Return the words of clips by clip_id."""
        return self._clip_words.of(clip_ids, self._using)
