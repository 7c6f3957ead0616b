from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vidseek.actions.hit_order import options_of_first, page_of, reranked
from vidseek_retrieval.search.query import Answer, Hit, RerankReport, SearchOptions

REPORT = RerankReport(True, "", "m", 1, 0, 0.0, 0.1)


def hits_of(num: int) -> tuple[Hit, ...]:
    return tuple(
        Hit("v", 0, 1, 1 - place / 100, 0.1, f"c{place}", 0, (f"c{place}",), "", "", None) for place in range(num)
    )


SCORES = st.dictionaries(st.integers(0, 12).map("c{}".format), st.sampled_from([0.0, 0.2, 0.5, 1.0]))


@given(st.integers(0, 12), SCORES)
def test_reranked__moves_what_was_looked_at_among_its_own_places(num: int, scores: dict[str, float]) -> None:
    first = hits_of(num)
    found = reranked(first, scores)
    assert sorted(hit.best_clip_id for hit in found) == sorted(hit.best_clip_id for hit in first)
    for place, hit in enumerate(found):
        if hit.best_clip_id not in scores:
            assert hit == first[place]
            continue
        assert hit.reranked is not None and hit.confidence is None
        before = first[hit.reranked.first_rank - 1]
        assert (hit.best_clip_id, hit.score) == (before.best_clip_id, before.score)
        assert hit.reranked.score == scores[hit.best_clip_id]
    looked = [(-scores[hit.best_clip_id], hit.reranked.first_rank) for hit in found if hit.reranked]
    assert looked == sorted(looked)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 40), st.integers(2, 10), SCORES)
def test_pages__are_parts_of_one_order(num: int, limit: int, offset: int, top: int, scores: dict[str, float]) -> None:
    """Whatever the pages, they are those of the whole list with its first hits in the new order."""
    every = hits_of(num)

    def find(options: SearchOptions) -> Answer:
        end = options.offset + options.limit
        return Answer("v", "c", every[options.offset : end], end if end < num else None)

    options = SearchOptions(limit=limit, offset=offset)
    answer = find(options_of_first(options, top))
    expected = (*reranked(every[:top], scores), *every[top:])[offset : offset + limit]
    if offset < top:
        hits = (*reranked(answer.hits[:top], scores), *answer.hits[top:])
        answer = page_of(answer, options, hits=hits, report=REPORT)
    assert answer.hits == expected
    assert answer.next_offset == (offset + limit if offset + limit < num else None)
