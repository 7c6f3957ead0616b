"""Give moments their confidence, leave out the unlikely ones, and reorder the rest for diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from vidseek_media.errors import InputRejected
from vidseek_retrieval.confidence.calibration import LEVEL, REBUILD_REMEDY, Calibration, Context, is_current
from vidseek_retrieval.confidence.query_stats import QueryStats
from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.values import VIDEO_VECTOR
from vidseek_retrieval.search.fusion import diversify
from vidseek_retrieval.search.moments import Moment
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.settings import Weights

MAX_DIVERSIFIED = 100
"""Moments that are reordered for diversity; those after them keep their order."""


class Ranking(Protocol):
    """A ranking of a collection."""

    def moments(self, num: int) -> list[Moment]:
        """Return the first `num` moments, best first."""


class RatedMoment(NamedTuple):
    """A moment and the probability that it is right."""

    moment: Moment
    confidence: float | None
    """0 to 1; None if there is no calibration for the query."""


def can_be_calibrated(query: Query, weights: Weights | None) -> bool:
    """Return whether the query is of the kind that calibrations are fitted on: one text, ranked by pictures.

    Args:
        query: The encoded query.
        weights: Of each vector, at least 0; None where pictures and words are ranked together.
    """
    is_alone = len(query.positive) == 1 and not (len(query.negative) or query.positive_ids or query.negative_ids)
    others = weights is not None and any(weight for name, weight in weights.by_name().items() if name != VIDEO_VECTOR)
    return bool(query.words) and is_alone and not others


def rate_moments(
    moments: Sequence[Moment], calibration: Calibration | None, query: Query, whole: Ranking | None,
    *, word_odds: float = 0.0,
) -> tuple[list[RatedMoment], QueryStats | None]:
    """Return the moments with their confidence, and the query's statistics if there is a calibration.

    A confidence depends on the query's ranking over the whole archive.

    Args:
        moments: Best first.
        calibration: Of the collection; None gives no confidence.
        query: The encoded query.
        whole: The ranking without filters; None if `moments` are not filtered.
        word_odds: The best odds, without filters, that a clip's text is what the query means.
    """
    if calibration is None or not moments:
        return [RatedMoment(moment, None) for moment in moments], None
    first = whole.moments(LEVEL) if whole else moments
    context = Context.of(
        first, familiarity=calibration.familiarity, text=query.words, vector=query.positive[0], odds=word_odds,
    )
    rated = list(map(RatedMoment, moments, calibration.confidences(moments, context)))
    return rated, calibration.query_stats(first, context)


def choose_moments(rated: list[RatedMoment], opened: Collection, options: SearchOptions) -> list[RatedMoment]:
    """Return the moments of at least `options.min_confidence`, reordered by `options.diversity`.

    Args:
        rated: Best first.
        opened: The collection that they are of.
        options: Of the search.

    Raises:
        InputRejected: a least confidence is given and there is no confidence for this query.
    """
    if options.min_confidence:
        rated = _confident(rated, options.min_confidence, opened.metadata)
    return _diversified(rated, opened, options.diversity) if options.diversity else rated


def _confident(
    rated: Sequence[RatedMoment], min_confidence: float, metadata: CollectionMetadata
) -> list[RatedMoment]:
    if any(each.confidence is None for each in rated):
        why, remedy = "such a query", "Ask in one text, ranked by video alone, or leave min_confidence out"
        if not metadata.calibration:
            why = f"the collection {metadata.name}, which was not calibrated"
        elif not is_current(metadata.calibration):
            why = f"the collection {metadata.name}, which was calibrated by an earlier version"
            remedy = f"{REBUILD_REMEDY}, or leave min_confidence out"
        raise InputRejected(
            f"min_confidence is {min_confidence}, and there is no confidence for {why}", code="no-confidence", remedy=remedy,
        )
    return [each for each in rated if each.confidence is not None and each.confidence >= min_confidence]


def _diversified(rated: list[RatedMoment], opened: Collection, diversity: float) -> list[RatedMoment]:
    head, tail = rated[:MAX_DIVERSIFIED], rated[MAX_DIVERSIFIED:]
    if not head:
        return rated
    vectors = np.stack([point.vector for point in opened.points([each.moment.best_clip_id for each in head])])
    order = diversify([each.moment.score for each in head], vectors, diversity=diversity)
    return [head[place] for place in order] + tail
