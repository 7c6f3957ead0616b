"""Rank the moments of one collection for a query: by pictures, by words, by both, or by the vectors that are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import InputRejected
from vidseek_retrieval.confidence.calibration import LEVEL, Calibration
from vidseek_retrieval.confidence.query_stats import QueryStats
from vidseek_retrieval.index.backend import Collection, Point
from vidseek_retrieval.index.values import VIDEO_VECTOR, Dense, SparseVector
from vidseek_retrieval.lexical.mixture import MixedRanking
from vidseek_retrieval.lexical.query_evidence import EvidenceReader, QueryEvidence
from vidseek_retrieval.lexical.query_text import QueryText
from vidseek_retrieval.lexical.text_moments import TextMoments
from vidseek_retrieval.lexical.word_index import Rarities
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.fusion import fuse
from vidseek_retrieval.search.live_collection import LiveCollection
from vidseek_retrieval.search.moment_choice import (
    MAX_DIVERSIFIED,
    Ranking,
    RatedMoment,
    can_be_calibrated,
    choose_moments,
    rate_moments,
)
from vidseek_retrieval.search.moments import fold_duplicates, merge_moments
from vidseek_retrieval.search.nearest import Nearest, without
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.search.query_vector import direction_of, find_examples
from vidseek_retrieval.search.vector_rankings import compared_vectors, rank_by_each
from vidseek_retrieval.settings import FIELDS, VISUAL, SearchSettings

FUSED_MARGIN = 0.05
"""How far below the best clip a neighbour may score and still widen a moment, if several vectors are fused. A fused score
falls by about a sixtieth from one rank to the next."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    moments: list[RatedMoment]
    stats: QueryStats | None = None
    ranking: TextMoments | None = None
    """Has the texts of the moments, if words count."""


@dataclass(frozen=True)
class MomentRanking:
    """How moments are ranked, whatever the collection."""

    live: LiveCollection
    """Keeps what is known of each collection: its calibration, and the spread of its scores."""
    settings: SearchSettings
    """Its margins, weights and evidence."""
    rarities: Rarities = field(default_factory=Rarities)

    def find(
        self, opened: Collection, query: Query, options: SearchOptions, conditions: Sequence[Condition]
    ) -> Found:
        """Return the moments of a collection that answer a query, best first.

        A ranking by one dense vector alone gives at least one moment more than the page holds, if there is one, so that the
        caller knows whether a next page exists. Other rankings give all moments.
        """
        examples = find_examples(opened, (*query.positive_ids, *query.negative_ids))
        vector = direction_of(query, examples, opened.metadata, negative_weight=self.settings.negative_weight)
        like = [examples[clip_id] for clip_id in query.positive_ids]
        weights = options.weights or self.settings.weights
        if weights is None or options.fields:
            return self._by_pictures_and_words(opened, vector, query, options, conditions, like)
        compared = compared_vectors(opened, vector, query.words, weights)
        if len(compared) != 1 or isinstance(compared[0].value, SparseVector):
            ranked = without(fuse(rank_by_each(opened, compared, weights, conditions)), like)
            moments = fold_duplicates(merge_moments(ranked, margin=FUSED_MARGIN))
            return Found(choose_moments([RatedMoment(moment, None) for moment in moments], opened, options))
        calibration = self.live.calibration_of(opened.metadata) if can_be_calibrated(query, weights) else None
        nearest = self._nearest(opened, compared[0].value, conditions, like, options, calibration, compared[0].name)
        whole = replace(nearest, conditions=()) if conditions else None
        return self._rated(nearest, whole, calibration, query, options, opened)

    def _by_pictures_and_words(
        self, opened: Collection, vector: NDArray[np.float32], query: Query, options: SearchOptions,
        conditions: Sequence[Condition], like: Sequence[Point],
    ) -> Found:
        """Rank by what clips show and by the words of the fields that are looked at, where there is evidence."""
        fields = require_fields(options.fields)
        fitted = self.live.calibration_of(opened.metadata)
        is_visual = VISUAL in fields
        text, usual = QueryText.of(query.words), fitted.word_weight if fitted and is_visual else 1.0
        counts = {name: usual * weight for name, weight in self.settings.evidence.by_field().items()}
        calibration = fitted if is_visual and not text.phrases and can_be_calibrated(query, None) else None
        nearest = self._nearest(opened, vector, conditions, like, options, calibration)
        reader = EvidenceReader(opened, text, fields=fields, weights=counts, rarities=self.rarities)

        def ranking(met: Sequence[Condition]) -> tuple[Nearest | MixedRanking, QueryEvidence]:
            evidence = reader.read(met)
            pictures = replace(nearest, conditions=met)
            if is_visual and not evidence.odds and evidence.with_phrases is None:
                return pictures, evidence
            slope = self.live.mix_slope_of(opened)
            return MixedRanking(pictures, evidence.odds, slope, is_visual, evidence.with_phrases), evidence

        ranked, evidence = ranking(conditions)
        whole, of_whole = ranking(()) if conditions and calibration else (ranked, evidence)
        sure = max(of_whole.odds.values(), default=0.0)
        if isinstance(ranked, Nearest):
            other = None if whole is ranked else whole
            return self._rated(ranked, other, calibration, query, options, opened, word_odds=sure)
        told = TextMoments(ranked, evidence)
        # Calibrations are fitted to rankings in which a text may give several moments: those of `whole`, filters or not.
        return replace(self._rated(told, whole, calibration, query, options, opened, word_odds=sure), ranking=told)

    def _rated(
        self, ranking: Ranking, whole: Ranking | None, calibration: Calibration | None, query: Query,
        options: SearchOptions, opened: Collection, *, word_odds: float = 0.0,
    ) -> Found:
        """Return the moments of a ranking with their confidences, which `whole` gives: the ranking without filters, if it
        is another one."""
        moments = ranking.moments(_num_needed(options, calibration))
        rated, stats = rate_moments(moments, calibration, query, whole, word_odds=word_odds)
        return Found(choose_moments(rated, opened, options), stats)

    def _nearest(
        self, opened: Collection, vector: NDArray[np.float32], conditions: Sequence[Condition], like: Sequence[Point],
        options: SearchOptions, calibration: Calibration | None, using: Dense = VIDEO_VECTOR,
    ) -> Nearest:
        spread = self.live.spread_of(opened, using) if self.settings.merge_margin is None else 0.0  # it may cost a sample
        margin = self.settings.margin(spread)
        return Nearest(opened, vector, margin, using, conditions, like, _num_least(options, calibration))


def _num_needed(options: SearchOptions, calibration: Calibration | None) -> int:
    """Return how many moments are wanted: one more than the pages up to this one, and as many as what is made of them takes.
    """
    return max(options.offset + options.limit + 1, _num_least(options, calibration))


def _num_least(options: SearchOptions, calibration: Calibration | None) -> int:
    """Return how many moments every page takes, whatever it shows."""
    return max(LEVEL if calibration else 0, MAX_DIVERSIFIED if options.diversity else 0)


def require_fields(names: Sequence[str]) -> tuple[str, ...]:
    """Return the fields that a search looks at; all of them for none.

    Raises:
        InputRejected: there is no such field.
    """
    if unknown := sorted(set(names) - set(FIELDS)):
        raise InputRejected(
            f"there is nothing called {', '.join(map(repr, unknown))} to look at", code="unknown-field",
            remedy=f"Name some of {', '.join(FIELDS)}",
        )
    return tuple(names) or FIELDS
