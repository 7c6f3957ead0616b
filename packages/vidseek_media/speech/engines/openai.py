"""Any endpoint with OpenAI's `/v1/audio/transcriptions`: OpenAI itself, vLLM, speaches, whisper.cpp's server and others."""

from __future__ import annotations

import io
import json
import math
import os
import threading
import time
import wave
from collections.abc import Mapping
from typing import Any, cast

import httpx

from vidseek_media.errors import ConfigError, ServiceError
from vidseek_media.files.http_answers import seconds_of, without_key
from vidseek_media.files.json_files import parse_json
from vidseek_media.secret import secret
from vidseek_media.speech.engine import NoAnswer, SpeechEngine, Transcriber, Utterance, Word, utterances_of
from vidseek_media.speech.registry import register
from vidseek_media.speech.sound import RATE, Samples
from vidseek_media.urls import bare_address

URL_VARIABLE, KEY_VARIABLE = "VIDSEEK_SPEECH_URL", "VIDSEEK_SPEECH_KEY"
"""Address of a server of one's own, up to `/v1`, and its key. OpenAI's own key is sent to OpenAI alone."""
PUBLIC_URL, PUBLIC_KEY = "https://api.openai.com/v1", "OPENAI_API_KEY"

MAX_ANSWER_BYTES = 4 * 2**20
"""Half a minute of speech takes a few KB."""
ATTEMPTS = 4
BACKOFF_SECONDS = 1.0
"""Before the second attempt; twice as long before each further one."""
MAX_WAIT_SECONDS = 120.0
"""A server that asks for more is not waited for."""
TIMEOUT_SECONDS = 120.0
"""For one request, from its first byte to the last of its answer; `timeout_seconds` of speech.options."""

_OURS = frozenset({"file", "model", "language", "response_format", "timestamp_granularities", "stream"})
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)


@register
class OpenAiEngine(SpeechEngine):
    """An endpoint. `speech.model` is the model's name there; `options` are further fields of each request."""

    name = "openai"
    extra = "speech"
    is_paid = True

    def open(self, *, model: str | None, language: str | None, options: Mapping[str, Any]) -> Transcriber:
        """Implement `SpeechEngine.open`. Nothing is sent."""
        if model is None:
            raise ConfigError(
                "speech.engine is openai, and speech.model is not said", code="setting-missing",
                remedy="Set it in params.yaml to the name that the server knows, such as whisper-1",
            )
        if ours := sorted(_OURS & options.keys()):
            raise ConfigError(
                f"speech.options hold {', '.join(ours)}, which the other keys of speech decide", code="settings-disagree",
                remedy="Take it out of speech.options",
            )
        url = os.environ.get(URL_VARIABLE) or None
        key = secret(KEY_VARIABLE if url else PUBLIC_KEY) or ""
        if url is None and not key:
            raise ConfigError(
                f"{PUBLIC_KEY} is not set in the environment", code="variable-not-set",
                remedy=f"Set it, or name a server of your own in {URL_VARIABLE} (and its key in {KEY_VARIABLE})",
            )
        fields = dict(options)
        seconds = fields.pop("timeout_seconds", TIMEOUT_SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigError(
                f"speech.options.timeout_seconds is {seconds!r}, wanted seconds above 0", code="setting-out-of-range",
                remedy="Mend it in params.yaml",
            )
        return Endpoint(url or PUBLIC_URL, key, model=model, fields=fields, timeout_seconds=float(seconds))


class _Retry(Exception):
    """The same request may be answered later."""

    def __init__(self, message: str, *, after_seconds: float | None = None, may_be_paid: bool = False) -> None:
        super().__init__(message)
        self.after_seconds, self.may_be_paid = after_seconds, may_be_paid


class Endpoint:
    """A client of one endpoint. Safe between threads."""

    is_parallel = True

    def __init__(
        self, url: str, key: str, *, model: str, fields: Mapping[str, Any], timeout_seconds: float,
        backoff_seconds: float = BACKOFF_SECONDS,
    ) -> None:
        self._url, self._key, self._model, self._fields = f"{url.rstrip('/')}/audio/transcriptions", key, model, dict(fields)
        self._timeout_seconds, self._backoff_seconds = timeout_seconds, backoff_seconds
        self._has_times = True
        """Whether the server takes verbose_json; unlearned at the first refusal."""
        self._closed = threading.Event()
        # No redirects: sound and key go to the address that was named.
        self._client = httpx.Client(
            timeout=timeout_seconds, follow_redirects=False, trust_env=url.startswith(PUBLIC_URL),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def transcribe(self, samples: Samples, *, language: str | None) -> list[Utterance]:
        """Implement `Transcriber.transcribe`. A failure that may pass is tried again, later each time."""
        may_be_paid = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask(samples, language)
            except _Retry as failure:
                may_be_paid |= failure.may_be_paid
                if attempt == ATTEMPTS:
                    raise NoAnswer(f"{failure} ({attempt} attempts)", may_be_paid=may_be_paid) from failure
                self._wait(failure, attempt)
        raise AssertionError("the last attempt answers or raises")

    def close(self) -> None:
        """Implement `Transcriber.close`."""
        self._closed.set()
        self._client.close()

    def _wait(self, failure: _Retry, attempt: int) -> None:
        seconds = failure.after_seconds
        if seconds is not None and seconds > MAX_WAIT_SECONDS:
            raise ServiceError(
                f"{failure}; it asks to come back in {seconds:.0f} s", code="speech-no-answer",
                remedy="Run again then: all that was answered is kept",
            )
        if self._closed.wait(self._backoff_seconds * 2 ** (attempt - 1) if seconds is None else seconds):
            raise NoAnswer("the run was stopped")

    def _ask(self, samples: Samples, language: str | None) -> list[Utterance]:
        """Send the request once, and again without times where the server refuses these."""
        has_times = self._has_times
        status, headers, content = self._send(samples, language, has_times=has_times)
        if status in (400, 422) and has_times and any(name in content for name in (b"response_format", b"timestamp")):
            self._has_times = False
            return self._ask(samples, language)
        if status != 200:
            raise self._failure(status, headers, content)
        duration_ms = len(samples) * 1000 / RATE
        try:
            return _utterances(_answer_of(content), duration_ms, language=language or "")
        except ValueError as error:
            raise _Retry(f"an answer that is none of the protocol ({error})", may_be_paid=True) from error

    def _send(self, samples: Samples, language: str | None, *, has_times: bool) -> tuple[int, httpx.Headers, bytes]:
        data: dict[str, Any] = {**{name: _field(value) for name, value in self._fields.items()}, "model": self._model}
        data["response_format"] = "verbose_json" if has_times else "json"
        if has_times:
            data["timestamp_granularities[]"] = ["segment", "word"]
        if language:
            data["language"] = language.split("-")[0].lower()
        until = time.monotonic() + self._timeout_seconds
        content = bytearray()
        try:
            with self._client.stream(
                "POST", self._url, data=data, files={"file": ("speech.wav", wav_of(samples), "audio/wav")}
            ) as response:
                for block in response.iter_bytes():
                    content += block
                    if len(content) > MAX_ANSWER_BYTES:
                        raise _Retry(f"an answer of more than {MAX_ANSWER_BYTES} bytes", may_be_paid=True)
                    if time.monotonic() > until:  # a time-out of the client is of each read alone
                        raise _Retry(f"no whole answer in {self._timeout_seconds:g} s", may_be_paid=True)
                return response.status_code, response.headers, bytes(content)
        except httpx.TimeoutException as error:
            said = f"no answer of {bare_address(self._url)} in {self._timeout_seconds:g} s"
            raise _Retry(said, may_be_paid=not isinstance(error, _UNSENT)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = f"no connection to {bare_address(self._url)}: {self._shown(str(error))}"
            raise _Retry(said, may_be_paid=not isinstance(error, _UNSENT)) from error

    def _failure(self, status: int, headers: httpx.Headers, content: bytes) -> Exception:
        said = self._shown(content.decode("utf-8", "replace"))
        text = f"{self._model} answered HTTP {status}: {said}"
        if status in (401, 403):
            remedy = "Check the key in the environment, and what it may do"
            return ConfigError(text, code="speech-key-refused", remedy=remedy)
        if status in (404, 405, 410) or 300 <= status < 400:
            return ConfigError(
                text, code="speech-model-unknown",
                remedy=f"Check speech.model in params.yaml and {URL_VARIABLE}: the address up to /v1, with no redirect",
            )
        if status == 402 or b"insufficient_quota" in content:
            return ServiceError(
                text, code="speech-no-answer", remedy="Its quota is used up: raise it or wait; what is there is kept"
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return _Retry(text, after_seconds=seconds_of(headers))
        return NoAnswer(text)

    def _shown(self, text: str) -> str:
        return without_key(" ".join(text.split())[:300], self._key)


def wav_of(samples: Samples) -> bytes:
    """Return a WAV file of the samples."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return content.getvalue()


def _answer_of(content: bytes) -> dict[str, Any]:
    answer = parse_json(content)
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        raise ValueError("no text in it")
    return cast(dict[str, Any], answer)


def _utterances(answer: Mapping[str, Any], duration_ms: float, *, language: str) -> list[Utterance]:
    """Return what an answer says, by its words, else by its segments, else as one; times are cut to the sound."""
    language = _language_of(answer.get("language")) or language
    words = _timed(answer.get("words"), "word", duration_ms)
    if not words:
        words = _timed(answer.get("segments"), "text", duration_ms)
    return utterances_of(words or [Word(0.0, duration_ms, answer["text"])], language=language)


def _timed(rows: object, name: str, duration_ms: float) -> list[Word]:
    """Return the rows of an answer that have a text and a time within the sound."""
    found = []
    for row in rows if isinstance(rows, list) else ():
        text, start, end = (row.get(key) for key in (name, "start", "end")) if isinstance(row, dict) else (None,) * 3
        if not isinstance(text, str) or not _is_number(start) or not _is_number(end):
            return []
        first, last = (min(max(float(cast(float, at)) * 1000, 0.0), duration_ms) for at in (start, end))
        if first >= last:
            return []
        sure = row.get("avg_logprob")
        found.append(Word(first, last, text, math.exp(min(float(sure), 0.0)) if _is_number(sure) else None))
    return sorted(found, key=lambda word: word.start_ms)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_NAMES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt", "dutch": "nl",
    "polish": "pl", "russian": "ru", "ukrainian": "uk", "turkish": "tr", "arabic": "ar", "hebrew": "he", "hindi": "hi",
    "chinese": "zh", "japanese": "ja", "korean": "ko", "swedish": "sv", "danish": "da", "norwegian": "no", "finnish": "fi",
    "greek": "el", "czech": "cs", "hungarian": "hu", "romanian": "ro", "vietnamese": "vi", "thai": "th", "indonesian": "id",
}
"""OpenAI's own endpoint names languages in English."""


def _language_of(said: object) -> str:
    from vidseek_media.text.languages import is_language

    plain = said.strip() if isinstance(said, str) else ""
    tag = _NAMES.get(plain.lower(), plain)
    return tag if is_language(tag) else ""


def _field(value: object) -> object:
    """Return the value of a form's field: texts and numbers as they are, all else as JSON."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
