"""CMU PocketSphinx: English only and rough, with its model in its package; for tests and first tries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vidseek_media.errors import ConfigError
from vidseek_media.installing import require_module
from vidseek_media.speech.engine import SpeechEngine, Transcriber, Utterance, Word, utterances_of
from vidseek_media.speech.registry import register
from vidseek_media.speech.sound import RATE, Samples

FRAME_MS = 10
_SIGN = re.compile(r"[<\[+].*[>\]+]|")
"""Of silence, noise and the ends of a sentence; no word."""


@register
class PocketSphinxEngine(SpeechEngine):
    """PocketSphinx with the US English model of its package."""

    name = "pocketsphinx"
    extra = "pocketsphinx"
    library = "pocketsphinx"

    def open(self, *, model: str | None, language: str | None, options: Mapping[str, Any]) -> Transcriber:
        """Implement `SpeechEngine.open`. `options` are parameters of its decoder, such as `lw`."""
        require_module("pocketsphinx", self.extra, why="speech.engine is pocketsphinx")
        if model is not None or (language or "en").split("-")[0].lower() != "en":
            raise ConfigError(
                f"speech.model is {model} and speech.language is {language}; pocketsphinx has one model, of English",
                code="settings-disagree",
                remedy="Set speech.model to null, and speech.language to en, or take another engine",
            )
        return _PocketSphinx(options)


class _PocketSphinx:
    is_parallel = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        from pocketsphinx import Decoder

        try:
            self._decoder = Decoder(**{**options, "samprate": RATE, "loglevel": "FATAL"})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"speech.options are {dict(options)}, which pocketsphinx does not take: {error}", code="settings-disagree",
                remedy="Mend speech.options in params.yaml; its manual lists its parameters",
            ) from error

    def transcribe(self, samples: Samples, *, language: str | None) -> list[Utterance]:
        """Implement `Transcriber.transcribe`."""
        decoder = self._decoder
        decoder.reinit_feat()  # else what it learned of the spectrum so far would change the answer
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), False, True)
        decoder.end_utt()
        words = [
            Word(each.start_frame * FRAME_MS, (each.end_frame + 1) * FRAME_MS, each.word.split("(")[0], float(each.prob))
            for each in (decoder.seg() or ()) if not _SIGN.fullmatch(each.word)
        ]
        return utterances_of(words, language="en")

    def close(self) -> None:
        """Implement `Transcriber.close`."""
