"""The words of several fields of an archive as one: a name on the screen and a word that is said make one query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vidseek_retrieval.lexical.word_index import WordIndex, whole_ties
from vidseek_retrieval.lexical.word_odds import QueryWord
from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order

WordKey = tuple[int, ...]
"""Says which word of a query a `QueryWord` is of, in all fields: its own numbers, and a place where it is made of two."""


class JointWords:
    """The words of several fields: a `WordIndex`.

    Args:
        fields: The words of each field; at least one.
    """

    def __init__(self, fields: Sequence[WordIndex]) -> None:
        self._fields = fields

    @property
    def num_clips(self) -> int:
        """Clips of the archive."""
        return self._fields[0].num_clips

    def idf(self, words: Iterable[int]) -> dict[int, float]:
        """Return how rare each word is where it is least rare; words of no clip are left out."""
        asked, found = list(words), dict[int, float]()
        for field in self._fields:
            for word, rarity in field.idf(asked).items():
                found[word] = min(rarity, found.get(word, rarity))
        return found

    def ranked(self, words: Mapping[int, float], *, limit: int) -> list[RankedClip]:
        """Return the clips that have some of the words, best first by the sum of BM25 over the fields.

        Args:
            words: Weight of each word.
            limit: Clips at most.
        """
        clips: dict[str, RankedClip] = {}
        scores: dict[str, float] = defaultdict(float)
        for field in self._fields:
            for clip in field.ranked(words, limit=limit):
                clips[clip.clip_id] = clip
                scores[clip.clip_id] += clip.score
        summed = (clip._replace(score=round(scores[clip_id], SCORE_DIGITS)) for clip_id, clip in clips.items())
        return whole_ties(sorted(summed, key=rank_order)[:limit], limit=limit)

    def words_of(self, clip_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Return the words of clips by clip_id."""
        found: dict[str, frozenset[int]] = {}
        for field in self._fields:
            for clip_id, words in field.words_of(clip_ids).items():
                found[clip_id] = found.get(clip_id, frozenset()) | words
        return found


def joint_query(fields: Iterable[Mapping[WordKey, QueryWord]]) -> list[QueryWord]:
    """Return the words of a query with what stands for each in any of the fields.

    Args:
        fields: The words of the query as each field spells them.
    """
    found: dict[WordKey, dict[int, None]] = {}
    for words in fields:
        for key, word in words.items():
            found.setdefault(key, {}).update(dict.fromkeys(word.indices))
    made_of_two = {key[:-1] for key in found if key[:-1] in found}
    return [QueryWord(tuple(indices)) for key, indices in found.items() if indices or key not in made_of_two]
