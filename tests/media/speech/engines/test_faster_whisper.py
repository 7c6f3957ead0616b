from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.speech.engines.faster_whisper import FasterWhisperEngine
from vidseek_media.speech.sound import RATE

pytest.importorskip("faster_whisper", reason="faster-whisper is not installed: the extra whisper")

SOUND = np.random.default_rng(0).normal(0, 3000, 3 * RATE).astype(np.int16)
SMALL = {"device": "cpu", "compute_type": "float32", "cpu_threads": 1, "beam_size": 1, "max_new_tokens": 20,
         "temperature": 0.0, "no_speech_threshold": None, "log_prob_threshold": None, "compression_ratio_threshold": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights with one layer, as CTranslate2 keeps it: it speaks nonsense, at times of its own."""
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    made = tmp_path_factory.mktemp("whisper") / "tiny"
    made.mkdir()
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    languages = [f"<|{code}|>" for code in _LANGUAGE_CODES]
    signs = ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>", "<|startoflm|>",
             "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]
    tokenizer.add_special_tokens([AddedToken(sign, special=True) for sign in signs])
    tokenizer.save(str(made / "tokenizer.json"))
    torch.manual_seed(0)
    end, size = len(letters), tokenizer.get_vocab_size()
    spec = WhisperLoader().get_model_spec(WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, bos_token_id=end, eos_token_id=end,
        pad_token_id=end, decoder_start_token_id=end + 1, suppress_tokens=[], begin_suppress_tokens=[],
    )))
    spec.register_vocabulary([token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda each: each[1])])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.alignment_heads, spec.config.lang_ids = [[0, 0]], list(range(end + 2, end + 2 + len(languages)))
    spec.validate()
    spec.save(str(made))
    return made


def test_transcribe__gives_utterances_with_times_language_and_confidence(folder: Path) -> None:
    engine = FasterWhisperEngine()
    whisper = engine.open(model=str(folder), language=None, options=SMALL)
    said = whisper.transcribe(SOUND, language=None)
    assert said and said == sorted(said, key=lambda each: each.start_ms)
    assert all(each.language and each.confidence is not None and 0 <= each.confidence <= 1 for each in said)
    assert engine.identity(str(folder)) == "faster-whisper/tiny" and "model.bin:" in engine.fingerprint(str(folder))
    whisper.close()


def test_transcribe__an_option_that_whisper_does_not_know(folder: Path) -> None:
    whisper = FasterWhisperEngine().open(model=str(folder), language=None, options={**SMALL, "nonsense": 1})
    with raises(ConfigError, code="settings-disagree", naming="nonsense"):
        whisper.transcribe(SOUND, language=None)


def test_open__a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for model in (str(tmp_path / "nowhere"), str(tmp_path / "empty"), "~/no/such/folder", "models/none", "nobody/nothing"):
        with raises(ConfigError, code="speech-model-missing", naming=model, remedy="model.bin"):
            FasterWhisperEngine().open(model=model, language=None, options={})
    with raises(ConfigError, code="speech-model-missing", naming="no such folder"):
        FasterWhisperEngine().open(model="models/none", language=None, options={})


def test_open__asks_for_a_model_and_refuses_options_that_are_none() -> None:
    with raises(ConfigError, code="setting-missing", naming="speech.model"):
        FasterWhisperEngine().open(model=None, language=None, options={})
    with raises(ConfigError, code="settings-disagree", naming="word_timestamps"):
        FasterWhisperEngine().open(model="tiny", language=None, options={"word_timestamps": False})
