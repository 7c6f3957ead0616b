from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.qdrant.records import draw_ids, point_of, points_in_order, threshold_of, vectors_of
from vidseek_retrieval.index.values import SparseVector

IDS = [f"{first}0000000-0000-5000-8000-000000000000" for first in "159d"]


def first_from(start: str | None) -> str | None:
    return next((each for each in IDS if start is None or each >= start), None)


def test_draw_ids__goes_round_at_the_end_and_knows_its_seed() -> None:
    drawn = draw_ids(200, seed=3, first_from=first_from)
    assert drawn == IDS  # d..., the last, stands for what is drawn after 9...; 1... for what is drawn after d...
    few = draw_ids(2, seed=3, first_from=first_from)
    assert few == draw_ids(2, seed=3, first_from=first_from) and 1 <= len(few) <= 2
    assert len({tuple(draw_ids(1, seed=seed, first_from=first_from)) for seed in range(50)}) == 4
    assert draw_ids(5, seed=0, first_from=lambda _: None) == []


def test_points__come_back_as_they_went_in_the_order_asked_for() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    points = [
        Point(IDS[0], vector, {"video_id": "a"}),
        Point(IDS[1], -vector, {}, caption=vector, words=SparseVector((3, 5), (1.0, 0.5))),
    ]
    records = [
        SimpleNamespace(id=each.clip_id, payload=dict(each.payload), vector=vectors_of(each, lambda words: words))
        for each in points
    ]
    assert [set(record.vector) for record in records] == [{"video"}, {"video", "caption", "words"}]
    found = points_in_order(records, [IDS[1], IDS[2], IDS[0]])
    assert [each.clip_id for each in found] == [IDS[1], IDS[0]]
    assert found[0].words == points[1].words and found[0].caption is not None and found[1].caption is None
    assert (found[0].vector == -vector).all() and found[1].payload == {"video_id": "a"}
    assert point_of(SimpleNamespace(id=IDS[0], payload=None, vector={"video": [0.6, 0.8]})).payload == {}


def test_threshold_of__lets_a_score_through_that_is_rounded_up() -> None:
    assert threshold_of(-math.inf) is None
    assert 0.499998 < threshold_of(0.5) < 0.4999995  # type: ignore[operator]
