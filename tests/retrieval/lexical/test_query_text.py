from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.lexical.query_text import QueryText, has_phrase


@pytest.mark.parametrize(("text", "plain", "phrases"), [
    ("a red boat", "a red boat", ()),
    ('the "quarterly revenue" slide', "the quarterly revenue slide", ("quarterly revenue",)),
    ('"one two" and “three four”', "one two and three four", ("one two", "three four")),
    ("„eins zwei“ «trois»", "eins zwei trois", ("eins zwei", "trois")),
    ('a 5" screen', 'a 5" screen', ()),  # a quote that is not closed
    ('an "" empty one', 'an "" empty one', ()),
    ('signs "?!" alone', 'signs "?!" alone', ()),
])
def test_query_text__phrases_are_what_stands_in_quotes(text: str, plain: str, phrases: tuple[str, ...]) -> None:
    assert QueryText.of(text) == QueryText(plain, phrases)


@given(st.text())
def test_query_text__takes_every_text(text: str) -> None:
    query = QueryText.of(text)
    assert all(phrase.strip() for phrase in query.phrases)
    assert query.text == text if not query.phrases else '"' not in query.text


@pytest.mark.parametrize(("text", "phrase", "is_there"), [
    ("Our quarterly revenue grew", "Quarterly Revenue", True),
    ("revenue, quarterly", "quarterly revenue", False),
    ("quarterly; revenue", "quarterly revenue", True),
    ("quarterlyrevenue", "quarterly revenue", False),
    ("semiquarterly revenue", "quarterly revenue", False),
    ("今日は良い天気です", "良い天気", True),
    ("今日は良い天気です", "悪い天気", False),
])
def test_has_phrase__whole_words_in_order(text: str, phrase: str, is_there: bool) -> None:
    assert has_phrase(text, phrase) is is_there


def test_has_phrase__run_together() -> None:
    assert has_phrase("QUARTERLYREVENUE", "quarterly revenue", run_together=True)
    assert not has_phrase("QUARTERLYREVENUE", "quarterly profit", run_together=True)
