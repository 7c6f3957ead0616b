"""The interface of engines that turn speech into text, and what they answer."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from vidseek_media.guards import mended_text
from vidseek_media.speech.sound import Samples


@dataclass(frozen=True)
class Utterance:
    """What was said in a part of a span of sound."""

    start_ms: int
    """From the start of the span."""
    end_ms: int
    text: str
    language: str = ""
    """A language tag, or empty."""
    confidence: float | None = None
    """0 to 1; None where the engine gives none."""


@dataclass(frozen=True)
class Word:
    """A word with its time, from the start of the span."""

    start_ms: float
    end_ms: float
    text: str
    confidence: float | None = None


class Transcriber(Protocol):
    """An engine that was opened. `transcribe` is called from one thread at a time where `is_parallel` is False."""

    is_parallel: bool
    """Whether several spans may be transcribed at once, from several threads."""

    def transcribe(self, samples: Samples, *, language: str | None) -> list[Utterance]:
        """Return what is said in a span of sound, in order of time; empty where nothing is.

        Args:
            samples: At `sound.RATE`.
            language: That is spoken; None if the engine shall find it.

        Raises:
            NoAnswer: this span got no text; another run may try it again.
            VidseekError: no span can be transcribed.
        """

    def close(self) -> None:
        """Give memory and connections back."""


class NoAnswer(Exception):
    """A span got no text.

    Attributes:
        may_be_paid: A request went out whose answer was not seen: the provider may charge it.
    """

    def __init__(self, message: str, *, may_be_paid: bool = False) -> None:
        super().__init__(message)
        self.may_be_paid = may_be_paid


class SpeechEngine(abc.ABC):
    """A kind of engine. Making one loads nothing.

    Attributes:
        name: In `speech.engine` of params.yaml.
        extra: Of pyproject.toml, that installs what it needs beside the voice activity model.
        library: Import name of what it needs; empty where that is nothing more.
        needs_model: Whether `speech.model` must be said.
        is_paid: Whether a span may cost money.
    """

    name: ClassVar[str]
    extra: ClassVar[str]
    library: ClassVar[str] = ""
    needs_model: ClassVar[bool] = False
    is_paid: ClassVar[bool] = False

    @abc.abstractmethod
    def open(self, *, model: str | None, language: str | None, options: Mapping[str, Any]) -> Transcriber:
        """Load the engine.

        Args:
            model: As `speech.model` has it.
            language: As `speech.language` has it.
            options: As `speech.options` has them.

        Raises:
            ConfigError: its library or model is missing, or a setting is not for it.
        """

    def identity(self, model: str | None) -> str:
        """Return the engine with its model, as the column `source` has it."""
        return f"{self.name}/{model}" if model else self.name

    def fingerprint(self, model: str | None) -> str:
        """Return what changes when the same name stands for another model here, such as the files of a folder."""
        return ""


MAX_PAUSE_MS = 700
"""A longer pause between two words ends an utterance."""
MAX_LENGTH_MS = 8_000
"""A longer utterance is cut at its next word: a moment shall begin where its words do."""


def utterances_of(words: Iterable[Word], *, language: str = "") -> list[Utterance]:
    """Join words with times to utterances, at pauses and at `MAX_LENGTH_MS`.

    Args:
        words: In any order; words that are blank or have no finite time are left out.
        language: Of all of them.
    """
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda word: word.start_ms):
        if not mended_text(word.text) or not math.isfinite(word.start_ms) or not math.isfinite(word.end_ms):
            continue
        line = lines[-1] if lines else None
        if line is None or word.start_ms - line[-1].end_ms > MAX_PAUSE_MS or word.end_ms - line[0].start_ms > MAX_LENGTH_MS:
            lines.append([word])
        else:
            line.append(word)
    return [
        Utterance(
            max(round(line[0].start_ms), 0), round(line[-1].end_ms), mended_text(" ".join(word.text for word in line)),
            language, _mean([word.confidence for word in line]),
        )
        for line in lines
    ]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(min(max(sum(known) / len(known), 0.0), 1.0)) if known else None
