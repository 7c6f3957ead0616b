from __future__ import annotations

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_retrieval.index.bm25 import WordEncoder


@pytest.mark.parametrize(("one", "other"), [
    ("a red crane", "A RED, crane!"),
    ("café", "cafe\u0301"),
    ("camera_12", "Camera 12"),
    ("12號", "12 號"),
])
def test_query__the_same_words_are_the_same(one: str, other: str) -> None:
    words = WordEncoder()
    assert words.query(one) == words.query(other) and words.query(one).indices


@pytest.mark.parametrize(("one", "other"), [("camera 12", "camera 13"), ("2024", "2025"), ("4k", "8k"), ("running", "run")])
def test_query__other_words_are_others(one: str, other: str) -> None:
    assert set(WordEncoder().query(one).indices) != set(WordEncoder().query(other).indices)


@pytest.mark.parametrize(("text", "num"), [
    ("红色汽车", 3), ("자동차", 2), ("красная машина", 2), ("2024", 1), ("", 0), ("😀 !", 0),
])
def test_query__words_of_any_script(text: str, num: int) -> None:
    assert len(WordEncoder().query(text).indices) == num


def test_document__counts_and_lengths_are_bm25s() -> None:
    words = WordEncoder()
    twice = dict(zip(*words.document("crane crane van"), strict=True))
    (van,), (crane,) = words.query("van").indices, words.query("crane").indices
    # tf (k + 1) / (tf + k (1 - b + b length / average)), k 1.2, b 0.75, average 24
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 24)
    assert twice[crane] == pytest.approx(2 * 2.2 / (2 + norm), abs=1e-5)
    assert twice[van] == pytest.approx(2.2 / (1 + norm), abs=1e-5)
    assert set(words.query("crane crane").values) == {1.0}


def test_language__stems_and_leaves_stop_words_out() -> None:
    english = WordEncoder("english")
    assert english.query("running the runs") == english.query("run")
    assert english.query("Läufer 3").indices != english.query("Läufer 4").indices


@pytest.mark.parametrize("language", ["klingon", "", "English"])
def test_language__unknown_lists_those_that_are(language: str) -> None:
    with raises(ConfigError, code="unknown-choice", naming=("multilingual", "arabic")):
        WordEncoder(language)
