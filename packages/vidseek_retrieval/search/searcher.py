"""Search the live collection: a query to ranked moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.confidence.calibration import LEVEL, Calibration
from vidseek_retrieval.confidence.query_stats import QueryStats
from vidseek_retrieval.index.backend import Collection, CollectionRemoved, IndexBackend, Point
from vidseek_retrieval.index.open_backend import Index, home_of
from vidseek_retrieval.index.score_spread import margin_of
from vidseek_retrieval.index.values import VIDEO_VECTOR, Dense, SparseVector
from vidseek_retrieval.lexical.hit_evidence import Evidence, spoken_span
from vidseek_retrieval.lexical.mixture import MixedRanking
from vidseek_retrieval.lexical.query_evidence import EvidenceReader, QueryEvidence
from vidseek_retrieval.lexical.query_text import QueryText
from vidseek_retrieval.lexical.word_index import Rarities
from vidseek_retrieval.search.denylist import Denylist
from vidseek_retrieval.search.filters import Condition, parse_filters
from vidseek_retrieval.search.fusion import fuse
from vidseek_retrieval.search.live_collection import LiveCollection
from vidseek_retrieval.search.moment_choice import (
    MAX_DIVERSIFIED,
    RatedMoment,
    can_be_calibrated,
    choose_moments,
    rate_moments,
)
from vidseek_retrieval.search.moments import fold_duplicates, merge_moments
from vidseek_retrieval.search.nearest import Nearest, without
from vidseek_retrieval.search.query import Answer, Hit, Query, QueryInputs, SearchOptions
from vidseek_retrieval.search.query_vector import (
    direction_of,
    encode_query,
    find_examples,
    require_same_space,
    require_wanted,
)
from vidseek_retrieval.search.vector_rankings import compared_vectors, rank_by_each
from vidseek_retrieval.settings import FIELDS, MERGE_MARGIN_SD, NEGATIVE_WEIGHT, VISUAL, EvidenceWeights, Weights

FUSED_MARGIN = 0.05
"""How far below the best clip a neighbour may score and still widen a moment, if several vectors are fused. A fused score
falls by about a sixtieth from one rank to the next."""
MAX_LIMIT = 1000


class Searcher:
    """Searches the live collection, and follows its alias when it moves. Safe to share between threads.

    Examples:
        >>> from pathlib import Path
        >>> encoder = Encoder.load(Path("models/encoder"), towers=["text"])
        >>> [hit] = Searcher.open(Path("index"), encoder).search_text("red", limit=1).hits
        >>> hit.uri, hit.start_ms, hit.end_ms
        ('red.mp4', 0, 3000)
    """

    def __init__(
        self,
        backend: IndexBackend,
        encoder: Encoder | None,
        *,
        alias: str = "clips",
        merge_margin_sd: float = MERGE_MARGIN_SD,
        merge_margin: float | None = None,
        negative_weight: float = NEGATIVE_WEIGHT,
        weights: Weights | None = None,
        evidence: EvidenceWeights | None = None,
        hidden: Denylist = frozenset,
    ) -> None:
        """Take the arguments of `Searcher.open`; nothing is opened yet.

        Args:
            backend: The index.
            encoder: Embeds queries; None if only vectors are searched for.
            alias: Names the live collection.
            merge_margin_sd: How far below the best clip a neighbour may score and still widen a moment, in standard
                deviations of the collection's scores; at least 0.
            merge_margin: The same as a difference of cosines, in place of `merge_margin_sd`; at least 0.
            negative_weight: The share, at least 0, that negative inputs are subtracted with.
            weights: Of each vector of the index; None ranks pictures and words together.
            evidence: How much words count beside pictures; by default as `EvidenceWeights` says.
            hidden: Gives the video ids that no answer shows.

        Raises:
            ConfigError: a margin or `negative_weight` is negative.
        """
        for name, value in (
            ("merge_margin_sd", merge_margin_sd), ("merge_margin", merge_margin), ("negative_weight", negative_weight)
        ):
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}, wanted a number of at least 0", code="setting-out-of-range")
        self._encoder = encoder
        self._merge_margin_sd = merge_margin_sd
        self._merge_margin = merge_margin
        self._negative_weight = negative_weight
        self._weights = weights
        self._evidence = evidence or EvidenceWeights()
        self._rarities = Rarities()
        self._collection = LiveCollection(backend, alias=alias, hidden=hidden)

    @classmethod
    def open(
        cls,
        index: Index,
        encoder: Encoder | None,
        *,
        alias: str = "clips",
        merge_margin_sd: float = MERGE_MARGIN_SD,
        merge_margin: float | None = None,
        negative_weight: float = NEGATIVE_WEIGHT,
        weights: Weights | None = None,
        evidence: EvidenceWeights | None = None,
        hidden: Denylist = frozenset,
    ) -> Searcher:
        """Open the collection that `alias` points to, and check that it is of the encoder's encoder_version.

        Args:
            index: A folder (the embedded index) or an index backend.
            encoder: Embeds queries; None if only vectors are searched for.
            alias: Names the live collection.
            merge_margin_sd: How far below the best clip a neighbour may score and still widen a moment, in standard
                deviations of the collection's scores; at least 0.
            merge_margin: The same as a difference of cosines, in place of `merge_margin_sd`; at least 0.
            negative_weight: The share, at least 0, that negative inputs are subtracted with.
            weights: Of each vector of the index; None ranks pictures and words together.
            evidence: How much words count beside pictures; by default as `EvidenceWeights` says.
            hidden: Gives the video ids that no answer shows.

        Raises:
            ConfigError: a margin or `negative_weight` is negative.
            ArtifactError: nothing was published, it is broken, or its encoder_version is not the encoder's.
        """
        searcher = cls(
            home_of(index), encoder, alias=alias, merge_margin_sd=merge_margin_sd, merge_margin=merge_margin,
            negative_weight=negative_weight, weights=weights, evidence=evidence, hidden=hidden,
        )
        collection = searcher.opened()
        if encoder is not None:
            require_same_space(encoder.spec.encoder_version, collection)
        return searcher

    def encode(self, positive: QueryInputs, negative: QueryInputs | None = None) -> Query:
        """Embed the inputs of a query.

        Args:
            positive: What the moments shall look like; at least one input.
            negative: What they shall not look like; None for nothing.

        Raises:
            InputRejected: `positive` is empty, or a text is blank or not valid Unicode.
            ConfigError: this searcher has no encoder.
        """
        negative = negative or QueryInputs()
        require_wanted(positive, negative)
        return encode_query(self._require_encoder(), positive, negative)

    def search_text(self, text: str, *, limit: int = 10, offset: int = 0, collection: str | None = None) -> Answer:
        """Return moments that look like what a text says.

        Args:
            text: Not blank.
            limit: Moments on the page, 1 to 1000.
            offset: Moments before the page, at least 0.
            collection: The collection that the page before names; None for the live one.

        Raises:
            InputRejected: the text is blank or not valid Unicode; limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        return self.search(self.encode(QueryInputs(texts=(text,))), SearchOptions(limit, offset, collection))

    def search_image(
        self, image: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Return moments that look like an image.

        Args:
            image: RGB, shape (height, width, 3), 0 to 255.
            limit: Moments on the page, 1 to 1000.
            offset: Moments before the page, at least 0.
            collection: The collection that the page before names; None for the live one.

        Raises:
            InputRejected: limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        return self.search(self.encode(QueryInputs(images=(image,))), SearchOptions(limit, offset, collection))

    def search_frames(
        self, frames: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Return moments that look like a clip.

        Args:
            frames: RGB, shape (T, height, width, 3), 0 to 255, in order of time.
            limit: Moments on the page, 1 to 1000.
            offset: Moments before the page, at least 0.
            collection: The collection that the page before names; None for the live one.

        Raises:
            InputRejected: limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        return self.search(self.encode(QueryInputs(clips=(frames,))), SearchOptions(limit, offset, collection))

    def search_vector(
        self,
        vector: NDArray[np.float32],
        encoder_version: str,
        *,
        limit: int = 10,
        offset: int = 0,
        collection: str | None = None,
        words: str = "",
    ) -> Answer:
        """Return moments near a vector.

        Args:
            vector: Shape (dimension,), unit length.
            encoder_version: Of the vector.
            limit: Moments on the page, 1 to 1000.
            offset: Moments before the page, at least 0.
            collection: The collection that the page before names; None for the live one.
            words: The text that the vector was embedded from, or "". Without it there is no confidence and no ranking
                by the vector `words`.

        Raises:
            InputRejected: the vector has another dimension or is not finite; limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        query = Query.of_vector(vector, encoder_version, words=words)
        return self.search(query, SearchOptions(limit, offset, collection))

    def search(self, query: Query, options: SearchOptions | None = None) -> Answer:
        """Return one page of the moments that answer a query. Equal queries give equal moments on every page.

        Args:
            query: As `encode` gives it.
            options: Page, filters, weights, diversity and least confidence; None for the defaults.

        Raises:
            InputRejected: the query or an option cannot be used; a filter names no field; a clip is not in the archive.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        options = options or SearchOptions()
        _check_options(options)
        try:
            return self._search(query, options)
        except CollectionRemoved:  # removed after it was opened: the alias moved, or the collection was not live
            self._collection.forget_open()
            return self._search(query, options)

    def points(self, clip_ids: Sequence[str], *, collection: str | None = None) -> list[Point]:
        """Return the stored points of clips, in the order given; clips that are not in the index are left out.

        Args:
            clip_ids: UUIDs in their canonical notation.
            collection: The collection to read; None for the live one.

        Raises:
            InputRejected: the named collection was removed.
            ArtifactError: nothing was published.
        """
        return self._collection.open(collection).points(clip_ids)

    def opened(self) -> Collection:
        """Return the live collection, open.

        Raises:
            ArtifactError: nothing was published, or it is broken.
        """
        return self._collection.open()

    def calibration(self) -> Calibration | None:
        """Return the live collection's calibration; None if it has none of this version.

        Raises:
            ArtifactError: nothing was published, or it is broken.
        """
        return self._collection.calibration_of(self._collection.open().metadata)

    @property
    def live(self) -> str:
        """The name of the live collection.

        Raises:
            ArtifactError: nothing was published.
        """
        return self._collection.name

    def require_stored(self) -> str:
        """Return the name of the live collection and check that the index still has it.

        Raises:
            ArtifactError: nothing was published, or the collection was removed.
        """
        return self._collection.require_stored()

    def _search(self, query: Query, options: SearchOptions) -> Answer:
        conditions = parse_filters(options.filters)
        opened = self._collection.open(options.collection)
        require_same_space(query.encoder_version, opened)
        found = self._moments(opened, query, options, conditions)
        page = found.moments[options.offset : options.offset + options.limit]
        payloads = opened.payloads([each.moment.best_clip_id for each in page]) if page else {}
        end = options.offset + options.limit
        return Answer(
            encoder_version=query.encoder_version,
            collection=opened.metadata.name,
            hits=tuple(
                _hit(each, payloads[each.moment.best_clip_id], found.evidence.of_hit(opened, each.moment.clip_ids))
                for each in page
            ),
            next_offset=end if end < len(found.moments) else None,
            query_stats=found.stats,
        )

    def _moments(
        self, opened: Collection, query: Query, options: SearchOptions, conditions: Sequence[Condition]
    ) -> _Found:
        """Return the moments, best first.

        A ranking by one dense vector alone gives at least one moment more than the page holds, if there is one, so that the
        caller knows whether a next page exists. Other rankings give all moments.
        """
        examples = find_examples(opened, (*query.positive_ids, *query.negative_ids))
        vector = direction_of(query, examples, opened.metadata, negative_weight=self._negative_weight)
        like = [examples[clip_id] for clip_id in query.positive_ids]
        weights = options.weights or self._weights
        if weights is None or options.fields:
            return self._by_pictures_and_words(opened, vector, query, options, conditions, like)
        compared = compared_vectors(opened, vector, query.words, weights)
        if len(compared) != 1 or isinstance(compared[0].value, SparseVector):
            ranked = without(fuse(rank_by_each(opened, compared, weights, conditions)), like)
            moments = fold_duplicates(merge_moments(ranked, margin=FUSED_MARGIN))
            return _Found(choose_moments([RatedMoment(moment, None) for moment in moments], opened, options))
        calibration = self._collection.calibration_of(opened.metadata) if can_be_calibrated(query, weights) else None
        nearest = self._nearest(opened, compared[0].value, conditions, like, options, calibration, compared[0].name)
        whole = replace(nearest, conditions=()) if conditions else None
        return self._rated(nearest, whole, calibration, query, options)

    def _by_pictures_and_words(
        self, opened: Collection, vector: NDArray[np.float32], query: Query, options: SearchOptions,
        conditions: Sequence[Condition], like: Sequence[Point],
    ) -> _Found:
        """Rank by what clips show and by the words of the fields that are looked at, where there is evidence."""
        fields = require_fields(options.fields)
        fitted = self._collection.calibration_of(opened.metadata)
        is_visual = VISUAL in fields
        text, usual = QueryText.of(query.words), fitted.word_weight if fitted and is_visual else 1.0
        counts = {name: usual * weight for name, weight in self._evidence.by_field().items()}
        calibration = fitted if is_visual and not text.phrases and can_be_calibrated(query, None) else None
        nearest = self._nearest(opened, vector, conditions, like, options, calibration)
        reader = EvidenceReader(opened, text, fields=fields, weights=counts, rarities=self._rarities)

        def ranking(met: Sequence[Condition]) -> tuple[Nearest | MixedRanking, QueryEvidence]:
            evidence = reader.read(met)
            pictures = replace(nearest, conditions=met)
            if is_visual and not evidence.odds and evidence.with_phrases is None:
                return pictures, evidence
            slope = self._collection.mix_slope_of(opened)
            return MixedRanking(pictures, evidence.odds, slope, is_visual, evidence.with_phrases), evidence

        ranked, evidence = ranking(conditions)
        whole, of_whole = ranking(()) if conditions and calibration else (None, evidence)
        found = self._rated(ranked, whole, calibration, query, options, word_odds=max(of_whole.odds.values(), default=0.0))
        return replace(found, evidence=evidence)

    def _rated(
        self, ranking: Nearest | MixedRanking, whole: Nearest | MixedRanking | None, calibration: Calibration | None,
        query: Query, options: SearchOptions, *, word_odds: float = 0.0,
    ) -> _Found:
        """Return the moments of a ranking with their confidences. `whole` is the ranking without filters, if it has any."""
        opened = (ranking.nearest if isinstance(ranking, MixedRanking) else ranking).collection
        moments = ranking.moments(_num_needed(options, calibration))
        rated, stats = rate_moments(moments, calibration, query, whole, word_odds=word_odds)
        return _Found(choose_moments(rated, opened, options), stats)

    def _nearest(
        self, opened: Collection, vector: NDArray[np.float32], conditions: Sequence[Condition], like: Sequence[Point],
        options: SearchOptions, calibration: Calibration | None, using: Dense = VIDEO_VECTOR,
    ) -> Nearest:
        num_least = _num_least(options, calibration)
        return Nearest(opened, vector, self._margin(opened, using), using, conditions, like, num_least)

    def _margin(self, opened: Collection, using: Dense) -> float:
        """Return how far below the best clip a neighbour may score and still widen a moment, as a difference of scores."""
        if self._merge_margin is not None:
            return self._merge_margin
        return margin_of(self._collection.spread_of(opened, using), margin_sd=self._merge_margin_sd)

    def _require_encoder(self) -> Encoder:
        if self._encoder is None:
            raise ConfigError(
                "this searcher has no encoder", code="no-encoder", remedy="Open it with one, or search by a vector",
            )
        return self._encoder


def _check_options(options: SearchOptions) -> None:
    if not 1 <= options.limit <= MAX_LIMIT or options.offset < 0:
        raise InputRejected(
            f"limit is {options.limit} and offset {options.offset}, wanted 1 to {MAX_LIMIT} and at least 0",
            code="bad-option",
        )
    if not 0 <= options.diversity <= 1:
        raise InputRejected(f"diversity is {options.diversity}, wanted 0 to 1", code="bad-option")
    if not 0 <= options.min_confidence <= 1:
        raise InputRejected(f"min_confidence is {options.min_confidence}, wanted 0 to 1", code="bad-option")


@dataclass(frozen=True)
class _Found:
    """What a search found."""

    moments: list[RatedMoment]
    stats: QueryStats | None = None
    evidence: QueryEvidence = field(default_factory=QueryEvidence)


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


def _hit(rated: RatedMoment, payload: Mapping[str, Any], evidence: tuple[Evidence, ...]) -> Hit:
    moment = rated.moment
    if span := spoken_span(evidence, moment.start_ms, moment.end_ms):
        moment = moment._replace(start_ms=span[0], end_ms=span[1], best_ms=sum(span) // 2)
    return Hit(
        video_id=moment.video_id,
        start_ms=moment.start_ms,
        end_ms=moment.end_ms,
        score=moment.score,
        confidence=rated.confidence,
        best_clip_id=moment.best_clip_id,
        best_ms=moment.best_ms,
        clip_ids=moment.clip_ids,
        title=payload.get("title", ""),
        uri=bare_url(payload.get("uri", "")),  # a collection of an earlier version may store credentials
        thumbnail_url=bare_address(payload.get("thumbnail_url")) or None,
        evidence=evidence,
    )
