"""Tries a collection before an alias moves to it, with searches as the command and the service make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidseek_media.errors import VidseekError
from vidseek_retrieval.index.backend import Collection, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.values import VIDEO_VECTOR, WORDS_VECTOR
from vidseek_retrieval.search.browse import facets_of, neighbours
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import Weights

NUM_QUERIES = 3
_ALIAS = "trial"


def trial_problems(collection: Collection) -> list[str]:
    """Search a collection by some of its own clips, with fusion, filters and browsing, and return what fails.

    Args:
        collection: Open; it stays open.

    Returns:
        A description of each problem; empty if all searches succeed.
    """
    searcher = Searcher(_AsIfLive(collection), None, alias=_ALIAS)  # type: ignore[arg-type]
    try:
        opened = searcher.opened()
        facets_of(opened)
        points = opened.points(opened.sample(NUM_QUERIES, seed=1))
        problems = [problem for point in points for problem in _search_problems(searcher, collection.metadata, point)]
        for point in () if problems else points:
            neighbours(opened, point.clip_id, num=1)
    except VidseekError as error:
        return [f"a trial search failed: {error.message}"]
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        return [f"a trial search failed: {error!r}"]
    return problems


@dataclass(frozen=True)
class _AsIfLive:
    """A backend whose one alias points to the collection on trial."""

    collection: Collection

    def live(self, alias: str) -> str:
        assert alias == _ALIAS
        return self.collection.metadata.name

    def open(self, name: str) -> Collection:
        return self.collection


def _search_problems(searcher: Searcher, metadata: CollectionMetadata, point: Point) -> Sequence[str]:
    """Return the searches that find nothing: by the clip's own vector, the same within its video, and with words."""
    query = Query.of_vector(point.vector, metadata.encoder_version, words=str(point.payload.get("title", "video")))
    own_video = SearchOptions(limit=10, filters={"video_id": str(point.payload["video_id"])}, weights=Weights())
    options = [SearchOptions(limit=10, weights=Weights()), own_video]
    if metadata.has(WORDS_VECTOR):
        options.append(SearchOptions(limit=10, weights=Weights(**{VIDEO_VECTOR: 1.0, WORDS_VECTOR: 1.0})))
    answers = [searcher.search(query, each).to_json() for each in options]
    return [f"a trial search by the clip {point.clip_id} finds nothing" for each in answers if not each["hits"]]
