from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vidseek.matches import MAX_BEFORE, chance_if_unlikely, from_first_match, split_at_matches
from vidseek.printing import marked


@given(st.text(), st.lists(st.text(max_size=4), max_size=4))
def test_split_at_matches__the_parts_are_the_text(text: str, matches: list[str]) -> None:
    parts = split_at_matches(text, matches)
    assert "".join(part for part, _ in parts) == text
    assert all(part in matches for part, is_match in parts if is_match)


@given(st.text(max_size=150), st.text(min_size=1, max_size=9), st.text(max_size=50))
def test_from_first_match__keeps_all_from_the_match_on(before: str, match: str, after: str) -> None:
    parts = [(text, is_match) for text, is_match in [(before, False), (match, True), (after, False)] if text]
    [head, *rest] = from_first_match(parts)
    assert rest == parts[1:] or (not before and [head, *rest] == parts)
    if before:
        assert head[0] == before or (len(before) > MAX_BEFORE and before.endswith(head[0].removeprefix("… ")))
        assert len(head[0]) <= MAX_BEFORE + len("… ")


def test_from_first_match__of_no_match_and_of_nothing() -> None:
    assert from_first_match([("a" * 100, False)]) == [("a" * 100, False)]
    assert from_first_match([]) == []


def test_split_at_matches__whole_words_alone() -> None:
    assert split_at_matches("art, start and art", ["art"]) == [
        ("art", True), (", start and ", False), ("art", True),
    ]
    assert split_at_matches("C++ (x)", ["C"]) == [("C", True), ("++ (x)", False)]
    assert split_at_matches("budget 3,500 by O'Brien", ["3,500", "O'Brien"]) == [
        ("budget ", False), ("3,500", True), (" by ", False), ("O'Brien", True),
    ]


def test_split_at_matches__within_a_script_without_spaces() -> None:
    assert split_at_matches("東京駅の天気予報", ["天気予報"]) == [("東京駅の", False), ("天気予報", True)]


def test_marked__is_escaped() -> None:
    evidence = {"field": "ocr", "start_ms": 1000, "text": "[red]exit[/red] \x1b[2J", "matches": ["exit"]}
    text = marked([evidence])
    assert "\x1b" not in text and "\\[red][bold]exit[/bold]\\[/red]" in text


def test_chance_if_unlikely__says_so_where_the_hits_together_are_under_one_half() -> None:
    rated = [{"confidence": 0.3}, {"confidence": 0.19}]
    assert chance_if_unlikely(rated) == 0.49
    assert chance_if_unlikely([*rated, {"confidence": 0.02}]) is None


def test_chance_if_unlikely__is_silent_without_hits_or_confidence() -> None:
    assert chance_if_unlikely([]) is None
    assert chance_if_unlikely([{"confidence": 0.0}, {"confidence": None}]) is None
