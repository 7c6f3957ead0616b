from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.speech.sounds import samples_of, spoken
from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.speech.engines.pocketsphinx import PocketSphinxEngine
from vidseek_media.speech.sound import RATE

pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed: the extra pocketsphinx")


@pytest.mark.slow
def test_transcribe__hears_words_of_a_sentence_at_their_times(tmp_path: Path) -> None:
    samples = samples_of(spoken("one two three four five six seven", tmp_path, voice="en-gb"))
    engine = PocketSphinxEngine().open(model=None, language="en", options={})
    said = engine.transcribe(samples, language="en")
    text = " ".join(each.text for each in said).split()
    assert {"two", "three", "four", "five"} <= set(text), text
    assert all(0 <= each.start_ms < each.end_ms <= len(samples) * 1000 / RATE + 20 for each in said)
    assert all(each.language == "en" and each.confidence is not None for each in said)
    engine.transcribe(samples[::-1].copy(), language="en")
    assert engine.transcribe(samples, language="en") == said  # nothing is left of one span for the next
    engine.close()


@pytest.mark.parametrize("asked", [
    {"model": "large"}, {"language": "de"}, {"options": {"nonsense": 1}}, {"options": {"lw": "heavy"}},
])
def test_open__refuses_what_it_has_not(asked: dict[str, object]) -> None:
    with raises(ConfigError, code="settings-disagree", naming="speech."):
        PocketSphinxEngine().open(**{"model": None, "language": None, "options": {}, **asked})  # type: ignore[arg-type]
