"""What the words of one query say of the clips of a collection: odds, the clips with its phrases, and what each hit has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.lexical.hit_evidence import Evidence, evidence_of
from vidseek_retrieval.lexical.joint_words import JointWords, WordKey, joint_query
from vidseek_retrieval.lexical.phrases import Text, have_phrase
from vidseek_retrieval.lexical.query_text import QueryText
from vidseek_retrieval.lexical.spelling import Spelling, segments_in
from vidseek_retrieval.lexical.word_index import ClipWords, CollectionWords, Rarities
from vidseek_retrieval.lexical.word_odds import QueryWord, clip_odds
from vidseek_retrieval.lexical.word_parts import plain, run_parts
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import NUM_CLIPS, Moment
from vidseek_retrieval.vectors.registry import IndexVector, evidence_vectors

MAX_CLIPS_OF_HIT = 5
"""Clips of a hit whose texts are shown."""


@dataclass(frozen=True)
class QueryEvidence:
    """What the words of a query say."""

    odds: Mapping[str, float] = field(default_factory=dict)
    """That a clip's text is what the query means, by clip_id."""
    meant: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """By field, the words of the archive that the query means there."""
    with_phrases: frozenset[str] | None = None
    """Clips that have all phrases of the query; None if it has no phrase."""

    def texts_of(self, collection: Collection, moments: Iterable[Moment]) -> list[tuple[Evidence, ...]]:
        """Return the texts of each moment's first clips that share words with the query, the best first.

        Args:
            collection: The collection that was searched.
            moments: Moments of the answer.
        """
        clips = [self._worded(moment)[:MAX_CLIPS_OF_HIT] for moment in moments]
        wanted = list(dict.fromkeys(clip_id for of_moment in clips for clip_id in of_moment))
        if not wanted or not self.meant:
            return [()] * len(clips)
        payloads, encoder = collection.payloads(wanted), encoder_of(collection.metadata.settings.language)
        return [
            evidence_of([payloads[each] for each in of_moment if each in payloads], self.meant, encoder)
            for of_moment in clips
        ]

    def has_words(self, moment: Moment) -> bool:
        """Return whether a clip of a moment was found for its words."""
        return bool(self._worded(moment))

    def _worded(self, moment: Moment) -> list[str]:
        return [each for each in moment.clip_ids if each in self.odds or each in (self.with_phrases or ())]


class EvidenceReader:
    """Asks the sparse vectors of a collection for the words of one query, with filters and without.

    Args:
        collection: The collection to search.
        query: The parsed text.
        fields: Of the evidence that counts: some of captions, speech and ocr.
        weights: What the odds of each field are multiplied by; fields that are not named are not looked at.
        rarities: Shared by all searches.
    """

    def __init__(
        self, collection: Collection, query: QueryText, *, fields: Sequence[str], weights: Mapping[str, float],
        rarities: Rarities,
    ) -> None:
        self._collection, self._query, self._weights, self._rarities = collection, query, weights, rarities
        self._encoder = encoder_of(collection.metadata.settings.language)
        self._clip_words = ClipWords(collection)
        self._vectors = {
            name: vector for name, vector in evidence_vectors().items()
            if name in fields and weights.get(name) and collection.metadata.has(vector.name)
        }

    def read(self, conditions: Sequence[Condition] = ()) -> QueryEvidence:
        """Return what the words say of the clips that meet the conditions.

        Args:
            conditions: Filters.
        """
        query = self._query
        if not query.text:
            return QueryEvidence()
        with_phrases: dict[str, set[int]] = defaultdict(set)
        odds = self._odds(conditions)
        for vector in self._vectors.values():
            for number, phrase in enumerate(query.phrases):
                for clip_id in _clips_with(phrase, vector, self._collection, self._encoder, conditions):
                    with_phrases[clip_id].add(number)
        meant = {
            name: frozenset(index for word in words.values() for index in word.indices)
            for name, words in self._words.items()
        }
        if not query.phrases:
            return QueryEvidence(odds, meant)
        whole = frozenset(clip_id for clip_id, numbers in with_phrases.items() if len(numbers) == len(query.phrases))
        return QueryEvidence({clip_id: value for clip_id, value in odds.items() if clip_id in whole}, meant, whole)

    def _odds(self, conditions: Sequence[Condition]) -> dict[str, float]:
        """Return the odds of clips: the sum over the fields, or those of all fields as one text where they are higher."""
        indexes = {
            name: CollectionWords(self._collection, vector.name, self._rarities, self._clip_words, conditions)
            for name, vector in self._vectors.items() if any(word.indices for word in self._words[name].values())
        }
        odds: dict[str, float] = defaultdict(float)
        for name, index in indexes.items():
            for clip_id, value in clip_odds([*self._words[name].values()], index, weight=self._weights[name]).items():
                odds[clip_id] += value
        if len(indexes) > 1:
            weight = min(self._weights[name] for name in indexes)
            words = joint_query(self._words[name] for name in indexes)
            for clip_id, value in clip_odds(words, JointWords([*indexes.values()]), weight=weight).items():
                odds[clip_id] = max(odds[clip_id], value)
        return dict(odds)

    @cached_property
    def _words(self) -> Mapping[str, Mapping[WordKey, QueryWord]]:
        """The words of the query by field, as the archive spells them: filters do not change that."""
        return {
            name: _words_of(self._query.text, vector, self._collection, self._encoder, self._rarities)
            for name, vector in self._vectors.items()
        }


@lru_cache(maxsize=8)
def encoder_of(language: str) -> WordEncoder:
    """Return the encoder of words of a language, made once."""
    return WordEncoder(language)


def _words_of(
    text: str, vector: IndexVector, collection: Collection, encoder: WordEncoder, rarities: Rarities
) -> dict[WordKey, QueryWord]:
    spelling = Spelling(collection, vector.name, vector.evidence, encoder, rarities, run_together=vector.run_together)
    return spelling.query_words(text)


def _clips_with(
    phrase: str, vector: IndexVector, collection: Collection, encoder: WordEncoder, conditions: Sequence[Condition]
) -> list[str]:
    """Return the clips whose text has a phrase, of the first `NUM_CLIPS` with its words."""
    words = set(encoder.query(phrase).indices) | (run_parts(plain(phrase)) if vector.run_together else set())
    if not words:  # all of them are stop words of the language
        return []
    query = SparseVector(tuple(sorted(words)), (1.0,) * len(words))
    clips = collection.search_words(query, limit=NUM_CLIPS, using=vector.name, conditions=conditions)
    payloads = collection.payloads([clip.clip_id for clip in clips])
    return [
        clip_id for clip_id, payload in payloads.items()
        if have_phrase(_texts_of(payload, vector.evidence), phrase, run_together=vector.run_together)
    ]


def _texts_of(payload: Mapping[str, Any], field: str) -> list[Text]:
    return [(int(start_ms), int(end_ms), str(text)) for start_ms, end_ms, text in segments_in(payload, field)]
