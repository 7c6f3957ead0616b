from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.speech.engine import MAX_LENGTH_MS, Utterance, Word, utterances_of
from vidseek_media.speech.registry import speech_engine

words = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 900), st.text("ab ", max_size=4)), max_size=30)


@given(words)
@settings(max_examples=100)
def test_utterances_of__keeps_every_word_in_order(gaps: list[tuple[int, int, str]]) -> None:
    time, said = 0, []
    for gap, length, text in gaps:
        said.append(Word(time + gap, time + gap + length, text))
        time += gap + length
    found = utterances_of(said, language="en")
    assert " ".join(each.text for each in found).split() == [part for word in said for part in word.text.split()]
    assert all(each.start_ms < each.end_ms and each.language == "en" for each in found)
    assert all(each.end_ms - each.start_ms <= MAX_LENGTH_MS for each in found)


def test_utterances_of__ends_at_a_pause_and_leaves_out_what_has_no_time() -> None:
    found = utterances_of([
        Word(0, 400, "one", 0.5), Word(450, 900, "two", 1.0), Word(math.nan, 1000, "never"), Word(2000, 2500, "three"),
    ])
    assert found == [Utterance(0, 900, "one two", "", 0.75), Utterance(2000, 2500, "three", "", None)]


def test_speech_engine__an_unknown_one_is_named_with_those_there_are() -> None:
    with raises(ConfigError, code="unknown-choice", naming=["parrot", "faster-whisper, openai, pocketsphinx"]):
        speech_engine("parrot")
