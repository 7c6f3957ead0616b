from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseek_media.ocr.text_lines import are_alike, num_edits, overlap

boxes = st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(51, 100)] * 2)


@pytest.mark.slow
@given(boxes, boxes)
@settings(max_examples=100)
def test_overlap__is_a_share_and_the_same_both_ways(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert 0 <= overlap(one, other) == overlap(other, one) <= 1  # type: ignore[arg-type]
    assert overlap(one, one) == 1  # type: ignore[arg-type]


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))
@settings(max_examples=100)
def test_num_edits__is_a_distance(one: str, other: str, third: str) -> None:
    assert num_edits(one, other) == num_edits(other, one) <= max(len(one), len(other))
    assert (num_edits(one, other) == 0) == (one == other)
    assert num_edits(one, third) <= num_edits(one, other) + num_edits(other, third)


@pytest.mark.parametrize(("one", "other", "alike"), [
    ("Quarterly revenue", "Quarterlyrevenue", True), ("Quarterly revenue", "quarterIy revenuc", True),
    ("Goal 1:0", "Goal 1:1", False), ("10:41:07", "10:41:08", False), ("LEFT", "RIGHT", False), ("—", "–", False),
    ("第三季度", "第三季度", True), ("a", "b", False), ("", "", True),
])
def test_are_alike__readings_of_one_line(one: str, other: str, alike: bool) -> None:
    assert are_alike(one, other) is alike
