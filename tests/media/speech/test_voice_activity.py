from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.media.speech.sounds import samples_of, spoken, tone
from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.speech import voice_activity
from vidseek_media.speech.sound import RATE
from vidseek_media.speech.voice_activity import require_model, speech_spans


@pytest.fixture(autouse=True)
def _model() -> None:
    try:
        require_model()
    except ConfigError:
        pytest.skip("silero-vad is not installed: the extra speech")


@pytest.mark.parametrize("noise_db", [None, 20, 10])
def test_speech_spans__finds_the_sentence_between_silence(tmp_path: Path, noise_db: float | None) -> None:
    line = samples_of(spoken("The harbour bridge will open next year.", tmp_path, noise_db=noise_db))
    silence = np.random.default_rng(1).normal(0, 20, 2 * RATE).astype(np.int16)
    [(start, end)] = speech_spans(np.concatenate([silence, line, silence]), threshold=0.5, max_seconds=28)
    assert start == pytest.approx(2 * RATE, abs=0.5 * RATE)
    assert end == pytest.approx(2 * RATE + len(line), abs=0.6 * RATE)


def test_speech_spans__of_silence_noise_and_tones_are_none() -> None:
    noise = np.random.default_rng(0).normal(0, 2000, 3 * RATE).astype(np.int16)
    for sound in (np.zeros(3 * RATE, np.int16), noise, samples_of(tone(3.0)), np.zeros(0, np.int16), np.zeros(7, np.int16)):
        assert speech_spans(sound, threshold=0.5, max_seconds=28) == []


def test_speech_spans__a_long_one_is_cut_and_nothing_is_lost(tmp_path: Path) -> None:
    line = samples_of(spoken("One sentence follows another without any pause in between, on and on it goes. " * 4, tmp_path))
    spans = speech_spans(line, threshold=0.5, max_seconds=6)
    assert len(spans) >= 3 and all(0 < end - start <= 6 * RATE for start, end in spans)
    assert sum(end - start for start, end in spans) > 0.9 * len(line)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_speech_spans__without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_activity, "find_spec", lambda name: None)
    with raises(ConfigError, code="not-installed", naming="silero-vad"):
        require_model()
