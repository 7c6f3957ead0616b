from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_retrieval.search.filters import Condition, parse_filters


def test_parse__values_lists_and_bounds() -> None:
    parsed = parse_filters({
        "published_at": {"gte": "2024-05-01", "lt": "2024-06-01T00:00:00+02:00"}, "duration_ms": {"lte": 60_000},
        "channel": ["news", "sport"], "category": "dogs",
    })
    june = datetime.fromisoformat("2024-06-01T00:00:00+02:00")
    assert parsed == (
        Condition("category", ("dogs",)),
        Condition("channel", ("news", "sport")),
        Condition("duration_ms", bounds=(("lte", 60_000),)),
        Condition("published_at", bounds=(("gte", datetime(2024, 5, 1, tzinfo=UTC)), ("lt", june))),
    )
    assert parse_filters({}) == ()


def test_parse__an_unknown_field_lists_those_that_exist() -> None:
    with raises(InputRejected, code="unknown-filter", naming="'colour'") as caught:
        parse_filters({"colour": "red"})
    for field in ("category", "channel", "duration_ms", "published_at", "start_ms", "video_id"):
        assert field in caught.value.remedy


@pytest.mark.parametrize("filters", [
    {"channel": 7}, {"channel": []}, {"channel": None}, {"channel": {"gte": "a"}}, {"duration_ms": "long"},
    {"duration_ms": 1.5}, {"duration_ms": True}, {"duration_ms": {}}, {"duration_ms": {"over": 3}},
    {"duration_ms": {"gt": "3"}}, {"published_at": "2024-05-01"}, {"published_at": {"gte": "yesterday"}},
    {"published_at": {"gte": 20240501}},
])
def test_parse__a_value_that_does_not_fit_names_its_field(filters: dict[str, object]) -> None:
    with raises(InputRejected, code="bad-filter", naming=next(iter(filters))):
        parse_filters(filters)
