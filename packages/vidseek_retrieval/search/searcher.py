"""Search the live collection: a query to ranked moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.fields.declared import DeclaredFields, declared_values
from vidseek_media.urls import bare_address, bare_url
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.index.backend import Collection, CollectionRemoved, IndexBackend, Point
from vidseek_retrieval.index.open_backend import Index, as_backend
from vidseek_retrieval.lexical.hit_evidence import MAX_TEXTS, Evidence, spoken_span
from vidseek_retrieval.search.denylist import Denylist
from vidseek_retrieval.search.filters import parse_filters
from vidseek_retrieval.search.live_collection import LiveCollection
from vidseek_retrieval.search.moment_choice import RatedMoment
from vidseek_retrieval.search.moment_ranking import MomentRanking
from vidseek_retrieval.search.query import Answer, Hit, Query, QueryInputs, SearchOptions
from vidseek_retrieval.search.query_vector import encode_query, require_same_space, require_wanted
from vidseek_retrieval.settings import SearchSettings

MAX_LIMIT = 1000


class Searcher:
    """Searches the live collection, and follows its alias when it moves. Safe to share between threads.

    Nothing is opened yet; `Searcher.open` opens the collection and checks it.

    Args:
        backend: The index.
        encoder: Embeds queries; None if only vectors are searched for.
        alias: Names the live collection.
        settings: Margins, weights and evidence of the ranking; None for the defaults.
        hidden: Gives the video ids that no answer shows.

    Examples:
        >>> from pathlib import Path
        >>> encoder = Encoder.load(Path("models/encoder"), towers=["text"])
        >>> [hit] = Searcher.open(Path("index"), encoder).search_text("red", limit=1).hits
        >>> hit.uri, hit.start_ms, hit.end_ms
        ('red.mp4', 0, 3000)
    """

    def __init__(
        self, backend: IndexBackend, encoder: Encoder | None, *, alias: str = "clips",
        settings: SearchSettings | None = None, hidden: Denylist = frozenset,
    ) -> None:
        self._encoder = encoder
        self._collection = LiveCollection(backend, alias=alias, hidden=hidden)
        self._ranking = MomentRanking(self._collection, settings or SearchSettings())

    @classmethod
    def open(
        cls, index: Index, encoder: Encoder | None, *, alias: str = "clips", settings: SearchSettings | None = None,
        hidden: Denylist = frozenset,
    ) -> Searcher:
        """Open the collection that `alias` points to, and check that it is of the encoder's encoder_version.

        Args:
            index: A folder (the embedded index) or an index backend.
            encoder: As of `Searcher`, like all that follow.
            alias: Names the live collection.
            settings: Of the ranking.
            hidden: Gives the video ids that no answer shows.

        Raises:
            ArtifactError: nothing was published, it is broken, or its encoder_version is not the encoder's.
        """
        searcher = cls(as_backend(index), encoder, alias=alias, settings=settings, hidden=hidden)
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
        opened = self._collection.open(options.collection)
        declared = opened.metadata.declared
        conditions = parse_filters(options.filters, declared)
        require_same_space(query.encoder_version, opened)
        found = self._ranking.find(opened, query, options, conditions)
        page = found.moments[options.offset : options.offset + options.limit]
        payloads = opened.payloads([each.moment.best_clip_id for each in page]) if page else {}
        texts = found.ranking.texts_of([each.moment for each in page]) if found.ranking else [()] * len(page)
        end = options.offset + options.limit
        return Answer(
            encoder_version=query.encoder_version,
            collection=opened.metadata.name,
            hits=tuple(
                _hit(each, payloads[each.moment.best_clip_id], evidence, declared)
                for each, evidence in zip(page, texts, strict=True)
            ),
            next_offset=end if end < len(found.moments) else None,
            query_stats=found.stats,
        )

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


def _hit(
    rated: RatedMoment, payload: Mapping[str, Any], evidence: tuple[Evidence, ...], declared: DeclaredFields
) -> Hit:
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
        evidence=evidence[:MAX_TEXTS],
        fields=declared_values(payload, declared),
    )
