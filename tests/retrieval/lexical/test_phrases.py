from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.lexical.phrases import has_phrase, have_phrase


@pytest.mark.parametrize(("text", "phrase", "is_there"), [
    ("Our quarterly revenue grew", "Quarterly Revenue", True),
    ("revenue, quarterly", "quarterly revenue", False),
    ("quarterly; revenue", "quarterly revenue", True),
    ("semiquarterly revenue", "quarterly revenue", False),
    ("a budget of 3,500 pounds", "budget of 3500", True),
    ("a budget of 13,500 pounds", "3500 pounds", False),
    ("Mr. O'Brien said so", "obrien said", True),
    ("a long co-operation ended", "cooperation ended", True),
    ("the café in Łódź", "CAFE in lodz", True),
    ("今日は良い天気です", "良い天気", True),
    ("今日は良い天気です", "悪い天気", False),
    ("افتتح الوزير المتحف", "الوزير المتحف", True),
])
def test_has_phrase__whole_words_in_order(text: str, phrase: str, is_there: bool) -> None:
    assert has_phrase(text, phrase) is is_there


def test_has_phrase__run_together() -> None:
    assert has_phrase("QUARTERLYREVENUE", "quarterly revenue", run_together=True)
    assert not has_phrase("QUARTERLYREVENUE", "quarterly profit", run_together=True)


WORDS = st.lists(st.sampled_from(["one", "two", "three", "four", "five", "six"]), min_size=2, max_size=8)


@given(WORDS, st.data())
def test_have_phrase__wherever_the_words_are_cut_into_subtitles(words: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(words) - 1), max_size=3)))
    bounds = [0, *cuts, len(words)]
    texts = [
        (1000 * place, 1000 * place + 950, " ".join(words[start:end]))
        for place, (start, end) in enumerate(pairwise(bounds))
    ]
    first = data.draw(st.integers(0, len(words) - 2))
    phrase = " ".join(words[first : data.draw(st.integers(first + 2, len(words)))])
    assert have_phrase(texts, phrase)
    apart = [(20 * start_ms, 20 * start_ms + 950, text) for start_ms, _, text in texts]
    assert have_phrase(apart, phrase) is any(has_phrase(text, phrase) for _, _, text in texts)


def test_have_phrase__of_two_languages_at_one_time() -> None:
    texts = [
        (0, 1000, "the bridge will"), (0, 1000, "die Brücke wird"), (1000, 2000, "open soon"), (1000, 2000, "bald frei"),
    ]
    assert have_phrase(texts, "bridge will open") and have_phrase(texts, "Brücke wird bald")
    assert not have_phrase(texts, "open soon the bridge")


def test_have_phrase__over_lines_of_a_screen_in_any_order() -> None:
    lines = [(0, 3000, "TRANSPORT"), (0, 3000, "MINISTEROF"), (5000, 6000, "EXIT")]
    assert have_phrase(lines, "minister of transport", run_together=True)
    assert not have_phrase(lines, "transport exit", run_together=True)
    assert not have_phrase(lines, "minister of transport")  # what is said follows in time


def test_have_phrase__of_a_script_without_spaces() -> None:
    assert have_phrase([(0, 1000, "今日は良い"), (1000, 2000, "天気です")], "良い天気")
