"""A query to ranked moments, over whichever collection is live."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_retrieval.edge import EdgeHome
from vidseek_retrieval.index import PUBLISH_REMEDY, Collection, IndexHome, Point
from vidseek_retrieval.moments import NUM_CLIPS, Moment, merge_moments

MERGE_MARGIN = 0.02
"""How far below the best a neighbour may score and still widen a moment, where params do not say."""
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment, as it is shown: the same in the command, the API and the web page."""

    video_id: str
    start_ms: int
    end_ms: int
    score: float
    """Cosine of the best clip."""
    confidence: float | None
    """0 to 1, where it was calibrated."""
    best_clip_id: str
    best_ms: int
    clip_ids: tuple[str, ...]
    title: str
    uri: str
    """Relative to the source root."""
    thumbnail_url: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One page of hits."""

    encoder_version: str
    collection: str
    """Name it with the next offset, and the next page is of the same index."""
    hits: tuple[Hit, ...]
    next_offset: int | None
    """None on the last page."""

    def to_json(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {
            "encoder_version": self.encoder_version,
            "collection": self.collection,
            "hits": [{**asdict(hit), "clip_ids": list(hit.clip_ids)} for hit in self.hits],
            "next_offset": self.next_offset,
        }


class Searcher:
    """Searches the live collection; follows its alias when it moves. Safe to share between threads."""

    def __init__(
        self,
        home: IndexHome,
        encoder: Encoder | None,
        *,
        alias: str = "clips",
        merge_margin: float = MERGE_MARGIN,
    ) -> None:
        if not merge_margin >= 0:
            raise ConfigError(f"merge_margin is {merge_margin}, wanted a number of at least 0")
        self._home = home
        self._encoder = encoder
        self._alias = alias
        self._merge_margin = merge_margin
        self._open: dict[str, Collection] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, index: Path, encoder: Encoder | None, *, alias: str = "clips", merge_margin: float = MERGE_MARGIN
    ) -> Searcher:
        """Open what `alias` points to in the folder `index`, and see that `encoder` speaks its language.

        Raises:
            ArtifactError: nothing was published, it is broken, or its encoder_version is not the encoder's.
        """
        searcher = cls(EdgeHome(index), encoder, alias=alias, merge_margin=merge_margin)
        collection = searcher._collection(None)
        if encoder is not None:
            _require_same_space(encoder.spec.encoder_version, collection)
        return searcher

    def search_text(self, text: str, *, limit: int = 10, offset: int = 0, collection: str | None = None) -> Answer:
        """Moments that look like what `text` says.

        Args:
            text: In words.
            limit: Hits of this page, at most.
            offset: Hits to skip, as `next_offset` of the page before says.
            collection: The one to search, as the page before names it; by default the live one.

        Raises:
            InputRejected: the text is blank or not valid Unicode; limit or offset is out of range.
            ArtifactError: nothing was published, or by another encoder_version.
        """
        if not text.strip():
            raise InputRejected("the query is blank", remedy="Say in a few words what to look for")
        encoder = self._require_encoder()
        vector = encoder.embed_texts([text])[0]
        return self.search_vector(
            vector, encoder.spec.encoder_version, limit=limit, offset=offset, collection=collection
        )

    def search_image(
        self, image: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Moments that look like a picture: uint8 RGB of shape (height, width, 3). Else as `search_text`."""
        encoder = self._require_encoder()
        vector = encoder.embed_images([image])[0]
        return self.search_vector(
            vector, encoder.spec.encoder_version, limit=limit, offset=offset, collection=collection
        )

    def search_frames(
        self, frames: NDArray[np.uint8], *, limit: int = 10, offset: int = 0, collection: str | None = None
    ) -> Answer:
        """Moments that look like a clip: uint8 RGB of shape (T, height, width, 3). Else as `search_text`."""
        encoder = self._require_encoder()
        vector = encoder.embed_frames([frames])[0]
        return self.search_vector(
            vector, encoder.spec.encoder_version, limit=limit, offset=offset, collection=collection
        )

    def search_vector(
        self,
        vector: NDArray[np.float32],
        encoder_version: str,
        *,
        limit: int = 10,
        offset: int = 0,
        collection: str | None = None,
    ) -> Answer:
        """Moments near a vector of the space `encoder_version`. Else as `search_text`."""
        if not 1 <= limit <= MAX_LIMIT or offset < 0:
            raise InputRejected(f"limit is {limit} and offset {offset}, wanted 1 to {MAX_LIMIT} and at least 0")
        opened = self._collection(collection)
        _require_same_space(encoder_version, opened)
        if vector.shape != (opened.facts.dimension,) or not np.isfinite(vector).all():
            raise InputRejected(
                f"a query vector of shape {vector.shape}, wanted ({opened.facts.dimension},) and every value finite"
            )
        found = opened.search(vector, limit=NUM_CLIPS)
        moments = merge_moments(found, margin=self._merge_margin)
        page = moments[offset : offset + limit]
        payloads = opened.payloads([moment.best_clip_id for moment in page]) if page else {}
        return Answer(
            encoder_version=encoder_version,
            collection=opened.facts.name,
            hits=tuple(_hit(moment, payloads[moment.best_clip_id]) for moment in page),
            next_offset=offset + limit if offset + limit < len(moments) else None,
        )

    def points(self, clip_ids: Sequence[str], *, collection: str | None = None) -> list[Point]:
        """The clips with these ids as they are in the index, in this order; those that are not there are left out.

        Raises:
            InputRejected: the collection that was named is not there any more.
            ArtifactError: nothing was published.
        """
        return self._collection(collection).points(clip_ids)

    @property
    def live(self) -> str:
        """The name of the collection that a search would look at now.

        Raises:
            ArtifactError: nothing was published.
        """
        alias = self._home.aliases().get(self._alias)
        if alias is None:
            raise ArtifactError(f"nothing was published as {self._alias!r}", remedy=PUBLISH_REMEDY)
        return alias.collection

    def _collection(self, name: str | None) -> Collection:
        live = self.live
        wanted = name or live
        with self._lock:
            if wanted in self._open:
                return self._open[wanted]
        try:
            opened = self._home.open(wanted)
        except ArtifactError as error:
            if wanted != live:
                raise InputRejected(
                    f"there is no collection {wanted} any more", remedy="Search again from the first page"
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
            raise ConfigError("this searcher has no encoder", remedy="Open it with one, or search by a vector")
        return self._encoder


def _require_same_space(encoder_version: str, collection: Collection) -> None:
    facts = collection.facts
    if encoder_version != facts.encoder_version:
        raise ArtifactError(
            f"the query is of encoder_version {encoder_version}, the collection {facts.name} is of "
            f"{facts.encoder_version}: their vectors cannot be compared",
            remedy="Publish with this bundle by `dvc repro --force --single-item publish`, or bring the published one "
            "back by `git checkout dvc.lock params.yaml && dvc checkout`",
        )


def _hit(moment: Moment, payload: Mapping[str, Any]) -> Hit:
    return Hit(
        video_id=moment.video_id,
        start_ms=moment.start_ms,
        end_ms=moment.end_ms,
        score=moment.score,
        confidence=None,
        best_clip_id=moment.best_clip_id,
        best_ms=moment.best_ms,
        clip_ids=moment.clip_ids,
        title=payload.get("title", ""),
        uri=payload.get("uri", ""),
        thumbnail_url=payload.get("thumbnail_url"),
    )
