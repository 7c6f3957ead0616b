"""Rankings of held-out captions by pictures and words, as a search of the published archive would give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.mixture import log_total_of, overtaking_weight, worded_scores
from vidseek_retrieval.lexical.table_words import TableWords
from vidseek_retrieval.search.moments import NUM_CLIPS, SCORE_DIGITS, RankedClip, Ranking

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
        shown = np.asarray(np.round(ranking.scores.astype(np.float64), SCORE_DIGITS), np.float64)
        worded = np.array(sorted(self._rows[clip_id] for clip_id in odds), np.int64)
        rows = np.union1d(_first_rows(shown, None if without is None else self.groups != without), worded)
        rows = rows[np.argsort(-shown[rows], kind="stable")]  # stable: in the order of clip_id
        log_total = log_total_of(
            zip(*(values[rows].tolist() for values in (*self._spans, shown)), strict=True), slope=self.slope
        )
        clips = (ranking.clips[row]._replace(score=float(shown[row])) for row in worded.tolist())
        scores = ranking.scores.copy()
        for clip_id, score in worded_scores(clips, odds, log_total=log_total, slope=self.slope).items():
            scores[self._rows[clip_id]] = score
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
    def _spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """A number of its video, start and end of each clip."""
        clips = self.words.clips
        _, videos = np.unique([clip.video_id for clip in clips], return_inverse=True)
        return (
            videos.astype(np.int64), np.array([clip.start_ms for clip in clips], np.int64),
            np.array([clip.end_ms for clip in clips], np.int64),
        )


def _first_rows(scores: NDArray[np.float64], among: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the rows of the first `NUM_CLIPS` scores, in any order; of equal ones the first rows."""
    rows = np.arange(len(scores)) if among is None else np.flatnonzero(among)
    if len(rows) > NUM_CLIPS:
        least = np.partition(scores[rows], -NUM_CLIPS)[-NUM_CLIPS]
        rows = rows[scores[rows] >= least]
        rows = rows[np.argsort(-scores[rows], kind="stable")[:NUM_CLIPS]]
    return rows
