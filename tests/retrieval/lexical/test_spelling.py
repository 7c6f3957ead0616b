from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.lexical.spelling import is_form, is_one_edit, may_stand_for
from vidseek_retrieval.lexical.word_parts import document_parts, end_parts, run_parts

WORDS = st.text("abcdefghijk", min_size=5, max_size=12)


def edited(word: str, at: int, letter: str, how: str) -> str:
    at %= len(word)
    return {
        "less": word[:at] + word[at + 1 :], "more": word[:at] + letter + word[at:],
        "other": word[:at] + letter + word[at + 1 :], "swap": word[:at] + word[at : at + 2][::-1] + word[at + 2 :],
    }[how]


@given(WORDS, st.integers(0, 20), st.sampled_from("xyz"), st.sampled_from(["less", "more", "other", "swap"]))
def test_is_one_edit__knows_each_kind_in_both_directions(word: str, at: int, letter: str, how: str) -> None:
    wrong = edited(word, at, letter, how)
    assert is_one_edit(word, wrong) is is_one_edit(wrong, word) is (wrong != word)


@given(WORDS, st.integers(0, 20), st.sampled_from("xyz"), st.sampled_from(["less", "more", "other"]))
def test_end_parts__one_edit_leaves_a_part_to_find_the_word_by(word: str, at: int, letter: str, how: str) -> None:
    wrong = edited(word, at, letter, how)
    if len(wrong) >= 5:
        assert set(end_parts(word)) & set(end_parts(wrong))


@pytest.mark.parametrize(("one", "other"), [
    ("bandana", "banana!"), ("bandana", "bnadaan"), ("abcde", "abcdefg"), ("same", "same"),
])
def test_is_one_edit__more_is_too_much(one: str, other: str) -> None:
    assert not is_one_edit(one, other)


def test_may_stand_for__beginnings_edits_and_words_inside() -> None:
    assert may_stand_for("revenues", "revenue") and may_stand_for("revenue", "revenje")
    assert not may_stand_for("rev", "revenue") and not may_stand_for("cat", "car")  # short words are not corrected
    assert may_stand_for("exitonly", "only", run_together=True) and not may_stand_for("exitonly", "only")
    assert not may_stand_for("thessaloniki", "the", run_together=True)


def test_may_stand_for__another_number_is_another_thing() -> None:
    assert not may_stand_for("123456", "123457") and not may_stand_for("1234567", "123456")
    assert not may_stand_for("2500", "500", run_together=True)
    assert may_stand_for("gate12only", "gate", run_together=True) and may_stand_for("covid19s", "covid19")


@pytest.mark.parametrize(("one", "other", "are"), [
    ("announced", "announcing", True), ("negotiators", "negotiation", True), ("photographed", "photographs", True),
    ("interview", "internet", False), ("station", "statue", False), ("cat", "cats", False),
])
def test_is_form__two_thirds_of_the_longer_one_are_shared(one: str, other: str, are: bool) -> None:
    assert is_form(one, other) is is_form(other, one) is are


def test_document_parts__find_a_word_inside_of_words_that_run_together() -> None:
    assert run_parts("only") <= document_parts("EXIT ONLY", run_together=True)
    assert run_parts("only") <= document_parts("EXITONLY", run_together=True)
    assert not run_parts("only") <= document_parts("EXITONLY", run_together=False)
