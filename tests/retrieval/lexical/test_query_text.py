from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.lexical.query_text import QueryText


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
