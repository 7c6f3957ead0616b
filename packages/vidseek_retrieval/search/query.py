"""Records of a search: the query, its options, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.confidence.query_stats import QueryStats
from vidseek_retrieval.lexical.hit_evidence import Evidence
from vidseek_retrieval.settings import Weights


@dataclass(frozen=True)
class Query:
    """An encoded query. Several examples are combined into one direction: the sum of the positive ones, minus a share of the
    negative ones.
    """

    encoder_version: str
    """Of the vectors."""
    positive: NDArray[np.float32]
    """Shape (n, dimension), unit rows: what the moments shall look like."""
    negative: NDArray[np.float32]
    """The same: what they shall not look like."""
    positive_ids: tuple[str, ...] = ()
    """Clips of the archive that they shall look like; neither these nor what overlaps them is an answer."""
    negative_ids: tuple[str, ...] = ()
    """Clips of the archive that they shall not look like."""
    words: str = ""
    """What was asked in words, for the vector `words`."""

    @staticmethod
    def of_vector(vector: NDArray[np.float32], encoder_version: str, *, words: str = "") -> Query:
        """Return a query for one vector.

        Args:
            vector: float32 of shape (dimension,), unit length.
            encoder_version: 16 hex digits of the vector's space.
            words: Text for the vector `words`; "" for none.
        """
        return Query(encoder_version, vector[np.newaxis], np.empty((0, *vector.shape), np.float32), words=words)


@dataclass(frozen=True)
class QueryInputs:
    """Things in their own form: texts, pictures (uint8 RGB (height, width, 3)), clips (T, height, width, 3), clip ids."""

    texts: tuple[str, ...] = ()
    images: tuple[NDArray[np.uint8], ...] = ()
    clips: tuple[NDArray[np.uint8], ...] = ()
    clip_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.texts or self.images or self.clips or self.clip_ids)


@dataclass(frozen=True)
class SearchOptions:
    """Which moments of a query's ranking are the answer."""

    limit: int = 10
    offset: int = 0
    collection: str | None = None
    """The one to search, as the page before names it; by default the live one."""
    filters: Mapping[str, object] = field(default_factory=dict)
    """As `parse_filters` takes them."""
    weights: Weights | None = None
    """Of single vectors: one alone ranks by its score, several are fused by rank. By default those of the searcher; it has
    none by default, and pictures and words are ranked together."""
    diversity: float = 0.0
    """0 to 1: how much an answer loses by being like one before it."""
    min_confidence: float = 0.0
    """0 to 1: hits that are less likely right are left out. Above 0 it is for queries of one text without phrases that are
    ranked by pictures, with or without words: others have no confidence."""
    fields: tuple[str, ...] = ()
    """Some of `FIELDS`: what is looked at; empty for all. Without `visual`, only clips with evidence are found."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """The second look at a hit."""

    score: float
    """How well the best of the clips that were looked at shows what is looked for, from 0 to 1. No probability: nobody
    calibrated it."""
    first_rank: int
    """Its place in the first ranking, from 1."""


@dataclass(frozen=True, slots=True)
class RerankReport:
    """What came of a second look at the first hits."""

    is_done: bool
    """False where the first ranking stands."""
    reason: str
    """Why it stands, or why some hits have no score; empty where all is well."""
    model: str
    """Who looked."""
    num_hits: int
    """That were looked at."""
    num_cached: int
    """Of those, the ones whose score was known."""
    cost_usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A moment, as it is shown: the same in the command, the API and the web page."""

    video_id: str
    start_ms: int
    end_ms: int
    score: float
    """Of the best clip: its cosine, with what words add to it. Where pictures do not count, the probability of the words; 0
    to 1 where several vectors were fused by rank."""
    confidence: float | None
    """0 to 1, where it was calibrated."""
    best_clip_id: str
    best_ms: int
    clip_ids: tuple[str, ...]
    title: str
    uri: str
    """As the source names the file: relative to its root, or what a manifest says."""
    thumbnail_url: str | None
    evidence: tuple[Evidence, ...] = ()
    """The texts for which it was found, the best first; empty where pictures alone speak for it."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the user declared, as its best clip has them; a field without a value is left out."""
    reranked: Reranked | None = None
    """Where a second look put it here. `score` stays that of the first ranking, and there is no confidence: it was of that
    ranking."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One page of hits."""

    encoder_version: str
    collection: str
    """Name it with the next offset, and the next page is of the same index."""
    hits: tuple[Hit, ...]
    next_offset: int | None
    """None on the last page."""
    query_stats: QueryStats | None = None
    """What is kept of the query to judge drift by, where it has a confidence; no part of the JSON."""
    rerank: RerankReport | None = None
    """What came of the second look; None where nobody wanted one."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        return {
            "encoder_version": self.encoder_version,
            "collection": self.collection,
            "hits": [_json_of(hit) for hit in self.hits],
            "next_offset": self.next_offset,
            **({} if self.rerank is None else {"rerank": asdict(self.rerank)}),
        }


def _json_of(hit: Hit) -> dict[str, Any]:
    evidence = [{**asdict(each), "matches": list(each.matches)} for each in hit.evidence]
    content = {**asdict(hit), "clip_ids": list(hit.clip_ids), "evidence": evidence}
    if hit.reranked is None:
        del content["reranked"]
    return content
