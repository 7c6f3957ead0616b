"""Whisper by faster-whisper (CTranslate2), from a local folder or a model of the hub that was loaded before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidseek_media.errors import ConfigError
from vidseek_media.installing import require_module
from vidseek_media.speech.engine import NoAnswer, SpeechEngine, Transcriber, Utterance, Word, utterances_of
from vidseek_media.speech.registry import register
from vidseek_media.speech.sound import Samples

_LOADING = frozenset({"device", "device_index", "compute_type", "cpu_threads", "num_workers", "download_root", "revision"})
"""Options for loading the model; the others are for `transcribe`."""
_OURS = frozenset({"audio", "language", "word_timestamps", "vad_filter", "model_size_or_path", "local_files_only"})


@register
class FasterWhisperEngine(SpeechEngine):
    """faster-whisper. `speech.model` is a folder, or a name of the hub; `options` are its own."""

    name = "faster-whisper"
    extra = "whisper"
    library = "faster_whisper"
    needs_model = True

    def open(self, *, model: str | None, language: str | None, options: Mapping[str, Any]) -> Transcriber:
        """Implement `SpeechEngine.open`."""
        require_module("faster_whisper", self.extra, why="speech.engine is faster-whisper")
        if model is None:
            raise ConfigError(
                "speech.engine is faster-whisper, and speech.model is not said", code="setting-missing",
                remedy="Name a folder with a converted model, or one of the hub, such as Systran/faster-whisper-small",
            )
        if ours := sorted(_OURS & options.keys()):
            raise ConfigError(
                f"speech.options hold {', '.join(ours)}, which the other keys of speech decide", code="settings-disagree",
                remedy="Take it out of speech.options",
            )
        return _Whisper(model, options)

    def identity(self, model: str | None) -> str:
        """Implement `SpeechEngine.identity`: of a folder, its name alone."""
        return super().identity(Path(model).expanduser().resolve().name if model and _is_folder(model) else model)

    def fingerprint(self, model: str | None) -> str:
        """Implement `SpeechEngine.fingerprint`: the names and sizes of a folder's files."""
        if not model or not _is_folder(model):
            return ""
        files = sorted(path for path in Path(model).expanduser().glob("*") if path.is_file())
        return " ".join(f"{path.name}:{path.stat().st_size}" for path in files)


def _is_folder(model: str) -> bool:
    return Path(model).expanduser().is_dir()


class _Whisper:
    is_parallel = False

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        from faster_whisper import WhisperModel

        loading = {name: value for name, value in options.items() if name in _LOADING}
        self._options = {name: value for name, value in options.items() if name not in _LOADING}
        looks_like_folder = model.startswith((".", "/", "~")) or model.count("/") > 1
        if looks_like_folder and not _is_folder(model):
            raise _missing(model, "it is no folder")
        try:
            self._model = WhisperModel(str(Path(model).expanduser()) if _is_folder(model) else model, **loading)
        except TypeError as error:
            raise ConfigError(
                f"speech.options are not taken by faster-whisper: {error}", code="settings-disagree",
                remedy="Mend speech.options in params.yaml",
            ) from error
        except FileNotFoundError as error:  # the hub's client raises one of its own for a name that was not loaded before
            if _is_folder(model):
                raise _missing(model, str(error)) from error
            raise _missing(model, "there is no such folder, and the hub's cache has no model of that name") from error
        except Exception as error:  # CTranslate2 and tokenizers each raise their own
            raise _missing(model, f"{type(error).__name__}: {str(error)[:300]}") from error

    def transcribe(self, samples: Samples, *, language: str | None) -> list[Utterance]:
        """Implement `Transcriber.transcribe`."""
        options = {"condition_on_previous_text": False, **self._options}
        code = language.split("-")[0].lower() if language else None
        try:
            found, info = self._model.transcribe(
                samples.astype(np.float32) / 32768, language=code, word_timestamps=True, vad_filter=False, **options
            )
            said = [each for segment in found for each in _utterances(segment, str(info.language or ""))]
            return sorted(said, key=lambda each: each.start_ms)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"faster-whisper does not take speech.language {language} or speech.options {self._options}: {error}",
                code="settings-disagree", remedy="Mend them in params.yaml",
            ) from error
        except RuntimeError as error:
            raise NoAnswer(f"faster-whisper: {str(error)[:200]}") from error

    def close(self) -> None:
        """Implement `Transcriber.close`."""
        del self._model


def _utterances(segment: Any, language: str) -> list[Utterance]:
    words = [
        Word(word.start * 1000, word.end * 1000, word.word, word.probability)
        for word in segment.words or ()
    ]
    if words:
        return utterances_of(words, language=language)
    sure = math.exp(min(segment.avg_logprob, 0.0))
    return utterances_of([Word(segment.start * 1000, segment.end * 1000, segment.text, sure)], language=language)


def _missing(model: str, why: str) -> ConfigError:
    return ConfigError(
        f"the model {model} of speech.model cannot be loaded: {why}", code="speech-model-missing",
        remedy="Name a folder that holds model.bin, config.json and tokenizer.json, as CTranslate2 writes them; stages load "
        "nothing from the hub: run `hf download` for it first",
    )
