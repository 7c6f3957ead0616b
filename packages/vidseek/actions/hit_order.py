"""Puts the first hits of an answer into the order of a second look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vidseek_retrieval.search.query import Answer, Hit, Reranked, RerankReport, SearchOptions


def reranked(hits: Sequence[Hit], scores: Mapping[str, float]) -> tuple[Hit, ...]:
    """Return hits in the order of their scores, equal ones as they were; a hit without a score keeps its place.

    A hit that was looked at has no confidence any more: that was of the first ranking.

    Args:
        hits: In the first ranking, from its begin.
        scores: By `best_clip_id`, from 0 to 1.
    """
    places = [place for place, hit in enumerate(hits) if hit.best_clip_id in scores]
    in_order = sorted(places, key=lambda place: -scores[hits[place].best_clip_id])
    found = list(hits)
    for place, come_from in zip(places, in_order, strict=True):
        hit = hits[come_from]
        found[place] = replace(hit, confidence=None, reranked=Reranked(scores[hit.best_clip_id], come_from + 1))
    return tuple(found)


def options_of_first(options: SearchOptions, top: int) -> SearchOptions:
    """Return the options that give the page of `options` and all hits before it that a second look may move.

    Args:
        options: Of the page.
        top: Hits that are looked at.
    """
    end = options.offset + options.limit
    return options if options.offset >= top else replace(options, offset=0, limit=max(end, top))


def page_of(answer: Answer, options: SearchOptions, *, hits: Sequence[Hit], report: RerankReport) -> Answer:
    """Return the page of `options` of an answer that begins with the first hit.

    Args:
        answer: To `options_of_first`.
        options: Of the page.
        hits: Those of the answer, in their new order.
        report: Of the second look.
    """
    end = options.offset + options.limit
    has_more = end < len(hits) or answer.next_offset is not None
    return replace(
        answer, hits=tuple(hits[options.offset : end]), next_offset=end if has_more else None, rerank=report,
    )
