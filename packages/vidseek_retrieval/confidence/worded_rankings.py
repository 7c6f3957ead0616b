"""Rankings of held-out captions by pictures and words, as a search of the published archive would give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.mixture import mix, overtaking_weight
from vidseek_retrieval.lexical.table_words import TableWords
from vidseek_retrieval.search.moments import NUM_CLIPS, RankedClip, Ranking

HARMED = 0.01
"""The share of right first hits by pictures that words may cost."""
MIN_WEIGHT = 0.02
"""The least weight of words: odds of words that decide are a hundred, and stay above 1."""


@dataclass(frozen=True)
class WordedRankings:
    """Adds what words say to rankings by pictures. The texts of some videos may be left out, to ask for what they say."""

    words: TableWords
    groups: NDArray[np.str_]
    """The group of videos of each clip of `words`."""
    slope: float
    """Of the scores of pictures: see `vidseek_retrieval.lexical.mixture.mix`."""
    weight: float = 1.0
    """What odds are multiplied by."""

    @staticmethod
    def of(
        clips: Sequence[RankedClip], texts: Mapping[str, str], groups: Mapping[str, str], *, language: str, slope: float
    ) -> WordedRankings:
        """Number the words of the published texts.

        Args:
            clips: The clips that are published.
            texts: Text by clip_id.
            groups: The group of videos by video_id; a video that is not named is a group of its own.
            language: Of the words.
            slope: Of the scores of pictures.
        """
        ordered = sorted(clips, key=lambda clip: clip.clip_id)
        of_clips = np.array([groups.get(clip.video_id, clip.video_id) for clip in ordered], dtype=np.str_)
        return WordedRankings(TableWords.of(ordered, texts, WordEncoder(language)), of_clips, slope)

    def has_text(self, group: str) -> bool:
        """Return whether a clip of a group of videos has a text."""
        return group in self._with_text

    @cached_property
    def _with_text(self) -> frozenset[str]:
        return frozenset(str(group) for group, words in zip(self.groups, self.words.words, strict=True) if words)

    def odds(self, text: str, *, without: str | None = None) -> dict[str, float]:
        """Return the odds of the clips whose texts a query may mean.

        Args:
            text: The query.
            without: A group of videos whose texts are not looked at; None for none.
        """
        words = self.words if without is None else replace(self.words, visible=self.groups != without)
        return words.odds(text, weight=self.weight)

    def mixed(self, ranking: Ranking, odds: Mapping[str, float], *, without: str | None = None) -> Ranking:
        """Return a ranking by pictures with what words add to it.

        Args:
            ranking: All clips by pictures.
            odds: Odds by clip_id.
            without: A group of videos whose clips are no answer; None for none.
        """
        clips = (clip for clip in ranking if without is None or self._group_of[clip.clip_id] != without)
        first = {clip.clip_id: clip for clip in islice(clips, NUM_CLIPS)}
        rows = {clip_id: self._rows[clip_id] for clip_id in odds}
        first |= {
            clip_id: ranking.clips[row]._replace(score=float(ranking.scores[row])) for clip_id, row in rows.items()
        }
        scores = ranking.scores.copy()
        for clip in mix(list(first.values()), odds, slope=self.slope):
            if clip.clip_id in rows:
                scores[rows[clip.clip_id]] = clip.score
        return replace(ranking, scores=scores)

    def harmless_weight(self, asked: Iterable[tuple[str, str, Ranking]]) -> float:
        """Return the greatest weight of words, at most 1, at which texts of other videos cost pictures hardly a first hit.

        It is the quantile `HARMED` of the weights from which a clip with such a text comes first.

        Args:
            asked: Queries whose first hit by pictures is right: text, group of videos, and ranking by pictures.
        """
        limits = [
            overtaking_weight(list(islice(ranking, NUM_CLIPS)), self.odds(text, without=group), slope=self.slope)
            for text, group, ranking in asked
        ]
        return min(1.0, max(MIN_WEIGHT, float(np.quantile(limits, HARMED, method="lower")))) if limits else 1.0

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {clip.clip_id: row for row, clip in enumerate(self.words.clips)}

    @cached_property
    def _group_of(self) -> dict[str, str]:
        return {clip.clip_id: str(group) for clip, group in zip(self.words.clips, self.groups, strict=True)}
