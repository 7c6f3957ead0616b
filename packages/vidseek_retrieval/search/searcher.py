"""A query to ranked moments, over whichever collection is live."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.confidence.calibration import (
    LEVEL,
    REBUILD_REMEDY,
    Calibration,
    Context,
    OldCalibration,
    is_current,
)
from vidseek_retrieval.confidence.query_stats import Seen
from vidseek_retrieval.index.backend import (
    PUBLISH_REMEDY,
    USE_REMEDY,
    VIDEO_VECTOR,
    Collection,
    CollectionMetadata,
    CollectionRemoved,
    Dense,
    IndexBackend,
    Point,
    SparseVector,
    Value,
)
from vidseek_retrieval.index.open_backend import Index, home_of
from vidseek_retrieval.index.score_spread import margin_of, score_spread
from vidseek_retrieval.search.denylist import Denylist, FilteredCollection
from vidseek_retrieval.search.filters import Condition, parse_filters
from vidseek_retrieval.search.fusion import diversify, fuse
from vidseek_retrieval.search.moments import NUM_CLIPS, Moment, RankedClip, fold_duplicates, merge_moments
from vidseek_retrieval.search.nearest import Nearest, without
from vidseek_retrieval.search.query import Answer, Hit, Query, QueryInputs, SearchOptions
from vidseek_retrieval.settings import MERGE_MARGIN_SD, NEGATIVE_WEIGHT, Weights
from vidseek_retrieval.vectors.registry import index_vectors

log = logging.getLogger("vidseek.search")

FUSED_MARGIN = 0.05
"""How far below the best a neighbour may score and still widen a moment, of fused scores, which fall by a sixtieth from
one rank to the next."""
MAX_LIMIT = 1000
_SPREAD_SAMPLE = 512
"""Points from which the spread of scores is taken where the collection does not know it."""
MAX_DIVERSIFIED = 100
"""Moments that are reordered for diversity; those after them keep their order."""


class Searcher:
    """Searches the live collection; follows its alias when it moves. Safe to share between threads."""

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
        hidden: Denylist = frozenset,
    ) -> None:
        for name, value in (
            ("merge_margin_sd", merge_margin_sd), ("merge_margin", merge_margin), ("negative_weight", negative_weight)
        ):
            if value is not None and not value >= 0:
                raise ConfigError(f"{name} is {value}, wanted a number of at least 0", code="setting-out-of-range")
        self._home = backend
        self._encoder = encoder
        self._alias = alias
        self._merge_margin_sd = merge_margin_sd
        self._merge_margin = merge_margin
        self._spreads: dict[tuple[str, Dense], float] = {}
        self._negative_weight = negative_weight
        self._weights = weights or Weights()
        self._hidden = hidden
        self._open: dict[str, Collection] = {}
        self._calibrations: dict[str, Calibration | None] = {}
        self._lock = threading.Lock()

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
        hidden: Denylist = frozenset,
    ) -> Searcher:
        """Open what `alias` points to in `index` (a folder, or another home), and see that `encoder` speaks its language.

        What `hidden` gives is in no answer. A neighbour widens a moment if it scores no more than `merge_margin_sd` standard
        deviations of the collection's scores below the best, or, where it is given, than the cosine `merge_margin`.

        Raises:
            ArtifactError: nothing was published, it is broken, or its encoder_version is not the encoder's.
        """
        searcher = cls(
            home_of(index), encoder, alias=alias, merge_margin_sd=merge_margin_sd, merge_margin=merge_margin,
            negative_weight=negative_weight, weights=weights, hidden=hidden,
        )
        collection = searcher._collection(None)
        if encoder is not None:
            _require_same_space(encoder.spec.encoder_version, collection)
        return searcher

    def encode(self, more: QueryInputs, less: QueryInputs | None = None) -> Query:
        """What is wanted, and what is not, as a query.

        Raises:
            InputRejected: nothing is wanted; a text is blank or not valid Unicode.
        """
        less = less or QueryInputs()
        if not more:
            raise InputRejected(
                "the query wants nothing", code="empty-query", remedy="Say what to look for, not only what not",
            )
        if not all(text.strip() for text in (*more.texts, *less.texts)):
            raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what to look for")
        return Query(
            self._require_encoder().spec.encoder_version, self._vectors_of(more), self._vectors_of(less), like=more.like,
            unlike=less.like, words=" ".join(more.texts),
        )

    def search_text(self, text: str, *, limit: int = 10, offset: int = 0, collection: str | None = None) -> Answer:
        """Moments that look like what `text` says. The arguments are those of `SearchOptions`.

        Raises:
            InputRejected: the text is blank or not valid Unicode; limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        return self.search(self.encode(QueryInputs(texts=(text,))), SearchOptions(limit, offset, collection))

    def search_image(
        self, image: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Moments that look like a picture: uint8 RGB of shape (height, width, 3). Else as `search_text`."""
        return self.search(self.encode(QueryInputs(images=(image,))), SearchOptions(limit, offset, collection))

    def search_frames(
        self, frames: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Moments that look like a clip: uint8 RGB of shape (T, height, width, 3). Else as `search_text`."""
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
        """Moments near a vector of the space `encoder_version`. Else as `search_text`.

        Args:
            vector: Shape (dimension,), unit.
            encoder_version: Of the vector.
            limit: As `SearchOptions` has it; so the next two.
            offset: See there.
            collection: See there.
            words: The text that it is of, or "": only for a text there is a confidence, and a ranking by words.
        """
        query = Query.of_vector(vector, encoder_version, words=words)
        return self.search(query, SearchOptions(limit, offset, collection))

    def search(self, query: Query, options: SearchOptions | None = None) -> Answer:
        """One page of the moments that answer `query`. The same query gives the same moments on every page.

        Raises:
            InputRejected: the query or an option cannot be used; a filter names no field; a clip is not in the archive.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        options = options or SearchOptions()
        _check_options(options)
        try:
            return self._search(query, options)
        except CollectionRemoved:  # removed since it was opened; its alias has moved, or it was none that is live
            with self._lock:
                self._open = {}
            return self._search(query, options)

    def _search(self, query: Query, options: SearchOptions) -> Answer:
        conditions = parse_filters(options.filters)
        opened = self._collection(options.collection)
        _require_same_space(query.encoder_version, opened)
        moments, seen = self._moments(opened, query, options, conditions)
        page = moments[options.offset : options.offset + options.limit]
        payloads = opened.payloads([each.moment.best_clip_id for each in page]) if page else {}
        end = options.offset + options.limit
        return Answer(
            encoder_version=query.encoder_version,
            collection=opened.metadata.name,
            hits=tuple(_hit(each, payloads[each.moment.best_clip_id]) for each in page),
            next_offset=end if end < len(moments) else None,
            seen=seen,
        )

    def _moments(
        self, opened: Collection, query: Query, options: SearchOptions, conditions: Sequence[Condition]
    ) -> tuple[list[_Rated], Seen | None]:
        """Moments, best first: all of them, or as many as the page needs and one more, which says that a page follows; and
        how the query was seen."""
        examples = _examples(opened, (*query.like, *query.unlike))
        vector = self._direction(query, examples, opened.metadata)
        like = [examples[clip_id] for clip_id in query.like]
        weights = options.weights or self._weights
        compared = _compared(opened, vector, query.words, weights)
        if len(compared) != 1 or isinstance(compared[0].value, SparseVector):
            ranked = without(fuse(_rank(opened, compared, weights, conditions)), like)
            moments = fold_duplicates(merge_moments(ranked, margin=FUSED_MARGIN))
            return _chosen([_Rated(moment, None) for moment in moments], opened, options), None
        calibration = self._calibration(opened.metadata) if _is_one_text(query, weights) else None
        num_least = max(LEVEL if calibration else 0, MAX_DIVERSIFIED if options.diversity else 0)
        using, value = compared[0].name, compared[0].value
        nearest = Nearest(opened, value, self._margin(opened, using), using, conditions, like, num_least)
        num = max(options.offset + options.limit + 1, num_least)
        moments = nearest.moments(num)
        rated, seen = _rate(moments, calibration, query, nearest)
        return _chosen(rated, opened, options), seen

    def _margin(self, opened: Collection, using: Dense) -> float:
        """How far below the best a neighbour may score and still widen a moment, as a difference of scores by `using`."""
        if self._merge_margin is not None:
            return self._merge_margin
        key = (opened.metadata.name, using)
        with self._lock:
            spread = self._spreads.get(key, opened.metadata.score_spread.get(using))
        if spread is None:  # of an earlier build
            spread = _sampled_spread(opened, using)
            with self._lock:
                self._spreads = {key: spread, **{each: kept for each, kept in self._spreads.items() if each[0] == key[0]}}
        return margin_of(spread, margin_sd=self._merge_margin_sd)

    def _calibration(self, metadata: CollectionMetadata) -> Calibration | None:
        """Of a collection that has one of this version; read once."""
        if metadata.calibration is None:
            return None
        with self._lock:
            if metadata.name not in self._calibrations:
                self._calibrations = {metadata.name: _read_calibration(metadata.name, metadata.calibration)}
            return self._calibrations[metadata.name]

    def _direction(self, query: Query, examples: Mapping[str, Point], metadata: CollectionMetadata) -> NDArray[np.float32]:
        """The unit vector that is searched for, of shape (dimension,)."""
        for vectors in (query.more, query.less):
            if vectors.shape[1:] != (metadata.dimension,) or not np.isfinite(vectors).all():
                raise InputRejected(
                    f"a query vector of shape {vectors.shape[1:]}, wanted ({metadata.dimension},) and every value finite",
                    code="bad-vector",
                )
        more = np.concatenate([query.more, *[examples[each].vector[np.newaxis] for each in query.like]])
        less = np.concatenate([query.less, *[examples[each].vector[np.newaxis] for each in query.unlike]])
        if not len(more):
            raise InputRejected(
                "the query wants nothing", code="empty-query", remedy="Say what to look for, not only what not",
            )
        if len(more) == 1 and not len(less):
            return more[0]
        direction = _unit(more.mean(axis=0))
        if len(less):
            direction = _unit(direction - self._negative_weight * _unit(less.mean(axis=0)))
        return direction

    def _vectors_of(self, asked: QueryInputs) -> NDArray[np.float32]:
        encoder = self._require_encoder()
        vectors = [np.empty((0, encoder.spec.dimension), np.float32)]
        if asked.texts:
            vectors.append(encoder.embed_texts(asked.texts))
        if asked.images:
            vectors.append(encoder.embed_images(asked.images))
        if asked.clips:
            vectors.append(encoder.embed_frames(asked.clips))
        return np.concatenate(vectors)

    def points(self, clip_ids: Sequence[str], *, collection: str | None = None) -> list[Point]:
        """The clips with these ids as they are in the index, in this order; those that are not there are left out.

        Raises:
            InputRejected: the collection that was named is not there any more.
            ArtifactError: nothing was published.
        """
        return self._collection(collection).points(clip_ids)

    def opened(self) -> Collection:
        """The collection that a search would look at now, open.

        Raises:
            ArtifactError: nothing was published, or it is broken.
        """
        return self._collection(None)

    def calibration(self) -> Calibration | None:
        """Of the collection that a search would look at now; None where nothing was fitted.

        Raises:
            ArtifactError: nothing was published, or it is broken.
        """
        metadata = self._collection(None).metadata
        return self._calibration(metadata)

    @property
    def live(self) -> str:
        """The name of the collection that a search would look at now.

        Raises:
            ArtifactError: nothing was published.
        """
        live = self._home.live(self._alias)
        if live is None:
            is_lost = bool(self._home.stored())  # collections are there, and no alias says which is live
            raise ArtifactError(
                f"nothing was published as {self._alias!r}",
                code="not-published", remedy=USE_REMEDY if is_lost else PUBLISH_REMEDY
            )
        return live

    def require_stored(self) -> str:
        """The name of the live collection, which must still be in the index: what is open outlives what is removed.

        Raises:
            ArtifactError: it is not there.
        """
        live = self.live
        if live not in self._home.stored():
            raise ArtifactError(
                f"the alias {self._alias!r} names {live}, which is not there", code="collection-absent", remedy=USE_REMEDY,
            )
        return live

    def _collection(self, name: str | None) -> Collection:
        live = self.live
        wanted = name or live
        with self._lock:
            if wanted in self._open:
                return self._open[wanted]
        try:
            opened: Collection = FilteredCollection(self._home.open(wanted), self._hidden)
        except ArtifactError as error:
            if wanted != live:
                raise InputRejected(
                    f"there is no collection {wanted} any more",
                    code="no-such-collection", remedy="Search again from the first page"
                ) from error
            if self.live == live:
                raise
            return self._collection(name)  # the alias moved while we opened, and what it left is gone
        with self._lock:
            # A collection that is neither live nor asked for is let go; a search that still runs holds its own.
            self._open = {each: kept for each, kept in self._open.items() if each == live} | {wanted: opened}
        return opened

    def _require_encoder(self) -> Encoder:
        if self._encoder is None:
            raise ConfigError(
                "this searcher has no encoder", code="no-encoder", remedy="Open it with one, or search by a vector",
            )
        return self._encoder


def _read_calibration(name: str, content: Mapping[str, Any]) -> Calibration | None:
    """The calibration; None, and a line in the log, where it is of an earlier version: hits then have no confidence."""
    try:
        return Calibration.from_json(content)
    except OldCalibration as error:
        log.warning("%s has no confidences: %s. %s", name, error.message, error.remedy)
        return None


def _sampled_spread(opened: Collection, using: Dense) -> float:
    """The spread of the scores by `using`, from a sample of the points: their captions are asked, where there are some."""
    points = opened.points(sorted(opened.sample(_SPREAD_SAMPLE, seed=0)))
    captions = [point.caption for point in points if point.caption is not None]
    clips = [np.asarray(point.vectors[using]) for point in points if using in point.vectors]
    empty = np.empty((0, opened.metadata.dimension), np.float32)
    return score_spread(np.stack(clips) if clips else empty, np.stack(captions) if captions else empty)


class _Rated(NamedTuple):
    moment: Moment
    confidence: float | None


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


def _examples(opened: Collection, clip_ids: Sequence[str]) -> dict[str, Point]:
    """The clips of the archive that a query names."""
    if not clip_ids:
        return {}
    try:
        wanted = [str(uuid.UUID(clip_id)) for clip_id in clip_ids]
    except ValueError as error:
        raise InputRejected(f"no clip id is {clip_ids}", code="bad-clip-id", remedy="Take best_clip_id of a hit") from error
    found = {point.clip_id: point for point in opened.points(wanted)}
    lacking = [clip_id for clip_id in wanted if clip_id not in found]
    if lacking:
        raise InputRejected(
            f"{opened.metadata.name} has no clip {lacking[0]}", code="unknown-example", remedy="Take best_clip_id of a hit",
        )
    return dict(zip(clip_ids, (found[clip_id] for clip_id in wanted), strict=True))


class _Compared(NamedTuple):
    name: str
    weight: float
    value: Value
    """What the query is compared by."""


def _compared(
    opened: Collection, direction: NDArray[np.float32], text: str, weights: Weights
) -> list[_Compared]:
    """The vectors that have a weight, that the collection has, and that the query can be compared with."""
    found, of = [], weights.by_name()
    for each in index_vectors():
        if of[each.name] and opened.metadata.has(each.name):
            value = each.query(direction, text, language=opened.metadata.settings.language)
            if value is not None:
                found.append(_Compared(each.name, of[each.name], value))
    return found


def _rank(
    opened: Collection, compared: Sequence[_Compared], weights: Weights, conditions: Sequence[Condition]
) -> list[tuple[float, list[RankedClip]]]:
    """The ranking by each of these vectors, with its weight."""
    if not compared:
        raise InputRejected(
            f"{weights} leave nothing to rank by: {opened.metadata.name} has not these vectors, or the query no words",
            code="nothing-to-rank-by",
            remedy="Give video a weight",
        )
    rankings = []
    for name, weight, value in compared:
        if isinstance(value, SparseVector):
            found = opened.search_words(value, limit=NUM_CLIPS, using=name, conditions=conditions)
        else:
            found = opened.search(value, limit=NUM_CLIPS, using=name, conditions=conditions)
        rankings.append((weight, found))
    return rankings


def _rate(
    moments: Sequence[Moment], calibration: Calibration | None, query: Query, nearest: Nearest
) -> tuple[list[_Rated], Seen | None]:
    """The moments with their confidence, and how the query was seen, where there is a calibration for such a query.

    What a score is worth depends on the query's ranking over the whole archive: where that of `nearest` was filtered, it
    is searched for once more.
    """
    if calibration is None or not moments:
        return [_Rated(moment, None) for moment in moments], None
    whole = replace(nearest, conditions=()).moments(LEVEL) if nearest.conditions else moments
    context = Context.of(whole, familiarity=calibration.familiarity, text=query.words, vector=query.more[0])
    return list(map(_Rated, moments, calibration.confidences(moments, context))), calibration.seen(whole, context)


def _chosen(rated: list[_Rated], opened: Collection, options: SearchOptions) -> list[_Rated]:
    """Those that are sure enough, in the order that was asked for."""
    if options.min_confidence:
        rated = _sure(rated, options.min_confidence, opened.metadata)
    return _diversified(rated, opened, options.diversity) if options.diversity else rated


def _is_one_text(query: Query, weights: Weights) -> bool:
    """Whether it is what calibrations are fitted on."""
    is_alone = len(query.more) == 1 and not (len(query.less) or query.like or query.unlike)
    others = any(weight for name, weight in weights.by_name().items() if name != VIDEO_VECTOR)
    return bool(query.words) and is_alone and not others


def _sure(rated: Sequence[_Rated], min_confidence: float, metadata: CollectionMetadata) -> list[_Rated]:
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


def _diversified(rated: list[_Rated], opened: Collection, diversity: float) -> list[_Rated]:
    head, tail = rated[:MAX_DIVERSIFIED], rated[MAX_DIVERSIFIED:]
    if not head:
        return rated
    vectors = np.stack([point.vector for point in opened.points([each.moment.best_clip_id for each in head])])
    order = diversify([each.moment.score for each in head], vectors, diversity=diversity)
    return [head[place] for place in order] + tail


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise InputRejected(
            "what is wanted and what is not cancel each other", code="vectors-cancel", remedy="Leave one of them out",
        )
    return (vector / length).astype(np.float32)


def _require_same_space(encoder_version: str, collection: Collection) -> None:
    metadata = collection.metadata
    if encoder_version != metadata.encoder_version:
        raise ArtifactError(
            f"the query is of encoder_version {encoder_version}, the collection {metadata.name} is of "
            f"{metadata.encoder_version}: their vectors cannot be compared", code="other-encoder",
            remedy="Publish with this bundle by `dvc repro --force --single-item publish`, or bring the published one "
            "back by `git checkout dvc.lock params.yaml && dvc checkout`",
        )


def _hit(rated: _Rated, payload: Mapping[str, Any]) -> Hit:
    moment = rated.moment
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
        uri=bare_url(payload.get("uri", "")),  # a collection of an earlier version may have it whole
        thumbnail_url=bare_address(payload.get("thumbnail_url")) or None,
    )
