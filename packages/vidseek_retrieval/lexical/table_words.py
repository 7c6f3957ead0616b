"""The words of texts that are in memory: what an index of them would say, without some of the clips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.word_index import whole_ties
from vidseek_retrieval.lexical.word_odds import QueryWord, clip_odds
from vidseek_retrieval.search.moments import SCORE_DIGITS, RankedClip, rank_order


@dataclass(frozen=True)
class TableWords:
    """The words of the texts of clips: a `WordIndex`."""

    clips: Sequence[RankedClip]
    encoder: WordEncoder
    postings: Mapping[int, tuple[NDArray[np.int64], NDArray[np.float64]]]
    """For each word the rows of the clips that have it, and its weight in each."""
    words: Sequence[frozenset[int]]
    """Of each clip."""
    row_of: Mapping[str, int]
    """The row of each clip by clip_id."""
    visible: NDArray[np.bool_]
    """Which clips' texts are looked at, shape (num_clips,)."""

    @staticmethod
    def of(clips: Sequence[RankedClip], texts: Mapping[str, str], encoder: WordEncoder) -> TableWords:
        """Number the words of texts.

        Args:
            clips: The clips of an archive; their scores do not matter.
            texts: Text by clip_id; clips without text are left out.
            encoder: Numbers words.
        """
        rows: dict[int, list[int]] = defaultdict(list)
        weights: dict[int, list[float]] = defaultdict(list)
        documents: dict[str, dict[int, float]] = {}
        words = []
        for row, clip in enumerate(clips):
            text = texts.get(clip.clip_id, "")
            if text not in documents:
                vector = encoder.document(text)
                documents[text] = dict(zip(vector.indices, vector.values, strict=True))
            for word, weight in documents[text].items():
                rows[word].append(row)
                weights[word].append(weight)
            words.append(frozenset(documents[text]))
        postings = {word: (np.array(rows[word]), np.array(weights[word])) for word in rows}
        row_of = {clip.clip_id: row for row, clip in enumerate(clips)}
        return TableWords(clips, encoder, postings, words, row_of, np.ones(len(clips), dtype=bool))

    def odds(self, query: str, *, weight: float = 1.0) -> dict[str, float]:
        """Return the odds that a clip's text is what a query means, as `clip_odds` does. Nothing is corrected."""
        indices = dict.fromkeys(self.encoder.query(query).indices)
        return clip_odds([QueryWord((index,)) for index in indices], self, weight=weight) if indices else {}

    @property
    def num_clips(self) -> int:
        """Clips of the archive."""
        return len(self.clips)

    def idf(self, words: Iterable[int]) -> dict[int, float]:
        """Return how rare each word is; words that no visible text has are left out."""
        found = {}
        for word in words:
            if word in self.postings and (num := int(self.visible[self.postings[word][0]].sum())):
                found[word] = math.log1p((self.num_clips - num + 0.5) / (num + 0.5))
        return found

    def ranked(self, words: Mapping[int, float], *, limit: int) -> list[RankedClip]:
        """Return the clips whose visible texts have some of the words, best first by BM25.

        Args:
            words: Weight of each word.
            limit: Clips at most.
        """
        scores = np.zeros(self.num_clips)
        for word, rarity in self.idf(words).items():
            rows, weights = self.postings[word]
            scores[rows] += words[word] * rarity * weights
        scores[~self.visible] = 0.0
        with_words = np.flatnonzero(scores > 0)
        first = with_words[np.argsort(-scores[with_words], kind="stable")[:limit]]
        found = [
            RankedClip(clip.clip_id, clip.video_id, clip.start_ms, clip.end_ms, score, clip.duplicate_of)
            for clip, score in zip(
                map(self.clips.__getitem__, first.tolist()), np.round(scores[first], SCORE_DIGITS).tolist(), strict=True
            )
        ]
        return whole_ties(sorted(found, key=rank_order), limit=limit)

    def words_of(self, clip_ids: Sequence[str]) -> dict[str, frozenset[int]]:
        """Return the words of clips by clip_id."""
        return {clip_id: self.words[self.row_of[clip_id]] for clip_id in clip_ids if clip_id in self.row_of}
