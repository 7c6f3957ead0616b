from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.at_once import run_at_once
from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import FieldType
from vidseek_media.fields.statements import values_of_clip
from vidseek_media.fields.tags import FILE, TagDecision, append_tag, read_tags, tag_statements, tags_after

A = "a" * 32
TAGS = {"tags": FieldType("keyword", many=True)}


def decision(tag: str, span: tuple[int, int] | None = None, *, has_tag: bool = True) -> TagDecision:
    return TagDecision.now(A, span, tag, has_tag=has_tag, who="ann")


def tag_many(folder: Path, who: str) -> None:
    for number in range(20):
        append_tag(folder, TagDecision.now(A, None, f"{who} {number}", has_tag=True, who=who))


def test_append__two_people_at_once_lose_nothing(tmp_path: Path) -> None:
    run_at_once(tag_many, [(tmp_path, who) for who in ("ann", "bob")])
    found = read_tags(tmp_path)
    assert {(each.who, each.tag) for each in found} == {(who, f"{who} {n}") for who in ("ann", "bob") for n in range(20)}
    assert all(each.decided_at >= "2026" for each in found)


def test_read__passes_over_torn_lines_and_those_that_are_no_decisions(tmp_path: Path) -> None:
    append_tag(tmp_path, decision("night"))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"video_id": "x"}\n[1]\n')
        file.write('{"video_id": 1, "tag": "a", "who": "", "decided_at": "", "has_tag": true}\n{"torn')
    append_tag(tmp_path, decision("rain", (0, 3000)))
    assert [(each.tag, each.start_ms) for each in read_tags(tmp_path)] == [("night", None), ("rain", 0)]
    assert read_tags(tmp_path / "none") == []


@pytest.mark.parametrize("tag", ["", "  ", "x" * 257, "a\0"])
def test_decision__of_no_tag_is_refused(tag: str) -> None:
    with raises(InputRejected, code="bad-field-value", naming="wanted a text"):
        decision(tag)


def test_statements__what_was_decided_last_counts() -> None:
    decided = [
        decision("night", (0, 3000)), decision("rain"), decision("night", (0, 3000), has_tag=False),
        decision("snow", (0, 3000)), decision("snow", has_tag=False), decision("snow", (6000, 9000)),
    ]
    said = tag_statements(decided)
    assert len(said) == 4
    assert values_of_clip(said, TAGS, 0, 3000, 0) == {"tags": ["rain"]}
    assert values_of_clip(said, TAGS, 6000, 9000, 2) == {"tags": ["rain", "snow"]}
    assert tags_after(["night", "x"], decided, A, 0, 3000) == ["rain", "x"]
    assert tags_after(["night"], decided, "b" * 32, 0, 3000) == ["night"]


SPANS = st.sampled_from([None, (0, 3000), (3000, 6000), (1000, 4000)])


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), SPANS, st.booleans()), max_size=8))
def test_statements__without_void_ones_say_the_same_as_all(steps: list[tuple[str, tuple[int, int] | None, bool]]) -> None:
    decided = [decision(tag, span, has_tag=has_tag) for tag, span, has_tag in steps]
    for start_ms in (0, 1000, 3000, 5000):
        whole = values_of_clip([each.statement for each in decided], TAGS, start_ms, start_ms + 3000, 0)
        assert values_of_clip(tag_statements(decided), TAGS, start_ms, start_ms + 3000, 0) == whole
