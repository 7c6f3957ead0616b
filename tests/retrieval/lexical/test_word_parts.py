from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.word_parts import joined, plain, terms_in, with_joined, words_in

ENCODER = WordEncoder()


def shared(document: str, query: str) -> bool:
    """Whether a document has all words of a query."""
    asked = set(ENCODER.query(query).indices)
    return bool(asked) and asked <= set(ENCODER.document(document).indices)


@pytest.mark.parametrize(("document", "query"), [
    ("Anna Bergström in Łódź", "BERGSTROM lodz"), ("Straße", "strasse"), ("ÉLECTION", "élection"),
    ("１２３ ﬁsh", "123 fish"),
    ("Budget £3,500", "3500"), ("Budget 3 500", "3500"), ("Budget 3'500", "3,500"), ("1.234.567 Euro", "1,234,567"),
    ("O'Brien", "obrien"), ("O’Brien", "O'Brien"), ("co-operation", "cooperation"), ("COVID-19", "covid19"), ("U.S.", "us"),
    ("第三季度营业收入", "营业收入"), ("国家公园天气预报", "天气"), ("東京駅の天気予報", "天気予報"), ("東京駅", "駅"),
    ("박물관에 도착했다", "박물관"), ("พิพิธภัณฑ์ปิดวันพฤหัสบดี", "พิพิธภัณฑ์"),
    ("مُحَمَّد", "محمد"),
    ("الإسكندرية", "الاسكندريه"),
    ("שָׁלוֹם", "שלום"), ("учёные", "ученые"), ("μουσείο", "ΜΟΥΣΕΙΟ"), ("हिन्दी में", "हिन्दी"), ("第12回", "12"),
])
def test_words__as_they_are_typed(document: str, query: str) -> None:
    assert shared(document, query)


@pytest.mark.parametrize(("document", "query"), [
    ("12,500", "500"), ("йод", "иод"), ("が", "か"), ("10:41", "1041"), ("2.5", "25"), ("天気", "予報"),
])
def test_words__that_are_other_words(document: str, query: str) -> None:
    assert not shared(document, query)


def test_terms_in__what_is_written_together() -> None:
    text = "Mr. O'Brien paid 3,500 at 10:41 for co-operation, twice"
    assert [match[0] for match in terms_in(text)] == [
        "Mr", "O'Brien", "paid", "3,500", "at", "10:41", "for", "co-operation", "twice",
    ]
    assert [joined(each) for each in ("3.500", "10:41", "O'Brien")] == ["3500", "10x41", "obrien"]
    assert [match[0] for match in words_in("हिन्दी ข้าว")] == ["हिन्दी", "ข้าว"]  # marks are no ends of words


@given(st.text())
def test_plain__is_plain_already(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    ENCODER.document(text)
    assert set(ENCODER.query(with_joined(text)).indices) >= set(ENCODER.query(text).indices)
