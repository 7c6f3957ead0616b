"""What can be filtered by, and what lies around a clip, in both backends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.raising import raises
from tests.retrieval.index.test_backends import backend, facts_of, points  # noqa: F401  (the fixture of both backends)
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.index.backend import Collection, IndexBackend
from vidseek_retrieval.search.browse import ClipUnknown, facets_of, neighbours
from vidseek_retrieval.search.denylist import FilteredCollection


@pytest.fixture
def collection(backend: IndexBackend) -> Collection:  # noqa: F811
    # Windows of 9 s: two of one video that follow one another overlap, since they begin 4 s apart.
    content = [
        replace(point, payload={**point.payload, "end_ms": point.payload["start_ms"] + 9000}) for point in points(40)
    ]
    backend.build(facts_of(content), content)
    return backend.open(facts_of(content).name)


def test_facets__count_what_filters_may_say(collection: Collection) -> None:
    found = facets_of(collection)
    assert found.values["channel"] == {"channel 0": 14, "channel 1": 13, "channel 2": 13}
    assert next(iter(found.values["channel"])) == "channel 0"
    assert found.values["category"] == {}
    assert found.duration_ms == (0, 40_000)
    assert found.published_at == ("2024-01-01T00:00:00Z", "2024-12-01T00:00:00Z")


def test_facets__leave_out_what_is_hidden(collection: Collection) -> None:
    hidden = f"{1:032x}"
    found = facets_of(FilteredCollection(collection, lambda: frozenset([hidden]))).values["channel"]
    shown = [p for p in points(40) if p.payload["video_id"] != hidden]
    assert 0 < len(shown) < 40
    assert found == Counter(p.payload["channel"] for p in shown)


def test_neighbours__are_of_one_video_in_order_and_do_not_overlap(collection: Collection) -> None:
    video_id = f"{1:032x}"  # its clips begin at 1, 5, ... 37 s; the id is that of a clip of 3 s
    found = neighbours(collection, str(clip_id_of(video_id, 17_000, 20_000)), num=2)
    assert {clip.video_id for clip in found} == {video_id}
    assert [clip.start_ms for clip in found] == [5000, 17_000, 29_000]


def test_neighbours__at_the_ends_of_a_video_are_fewer(collection: Collection) -> None:
    found = neighbours(collection, str(clip_id_of(f"{0:032x}", 0, 3000)), num=2)
    assert [clip.start_ms for clip in found] == [0, 12_000, 24_000]


def test_neighbours__of_a_clip_that_is_not_there(collection: Collection) -> None:
    with raises(ClipUnknown, code="unknown-clip"):
        neighbours(collection, str(clip_id_of(f"{9:032x}", 0, 3000)))
