"""What every provider of a language model does: answer one request, or say whether to retry, skip or stop."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from vidseek_media.errors import ConfigError, ServiceError, VidseekError
from vidseek_media.secret import secret
from vidseek_training.llm.settings import LlmSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

URL_VARIABLE = "VIDSEEK_LLM_URL"
KEY_VARIABLE = "VIDSEEK_LLM_KEY"
"""The key for the address in URL_VARIABLE: a provider's own key is never sent anywhere else than to that provider."""


@dataclass(frozen=True)
class Request:
    """One question about one clip."""

    prompt: str
    pictures: tuple[bytes, ...] = ()
    """JPEG files, in order of time."""
    video: bytes | None = None
    """MP4, in the place of pictures."""


@dataclass(frozen=True)
class Usage:
    """The tokens that an answer cost, as the provider counted them."""

    tokens_in: int
    tokens_out: int
    """With the model's thoughts."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str
    usage: Usage | None
    """None where the provider did not say."""
    is_cut: bool = False
    """It ended at the longest that was allowed."""


class Provider(Protocol):
    """A model that can be asked. Safe to be used by several threads."""

    def ask(self, request: Request) -> Answer:
        """The answer to one request, sent once.

        Raises:
            Retry: another try may be answered.
            Skip: this request will not be answered, others may be.
            Stop: no request will be answered.
        """

    def close(self) -> None:
        """Give connections back."""


class Retry(Exception):
    """The same request may be answered later: too many requests, a fault of the server, no answer in time."""

    def __init__(self, message: str, *, after_seconds: float | None = None, may_be_paid: bool = False) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds
        """What the server asked for."""
        self.may_be_paid = may_be_paid
        """The request went out and no answer was seen: the provider may have counted it."""


class Skip(Exception):
    """This clip is not captioned, others may be."""

    def __init__(self, message: str, *, usage: Usage | None = None, is_judged: bool = True) -> None:
        super().__init__(message)
        self.usage = usage
        self.is_judged = is_judged
        """The model or its filter looked at the clip and declined; else the request itself was not taken."""


class Stop(Exception):
    """No clip will be captioned any more."""

    def __init__(self, error: VidseekError) -> None:
        super().__init__(str(error))
        self.error = error


def open_provider(settings: LlmSettings) -> Provider:
    """The provider that the settings name, with address and key from the environment. Nothing is sent.

    Raises:
        ConfigError: the model is not said, its library is not installed, or the key is missing.
    """
    settings.require_complete()
    if not _is_installed("openai" if settings.provider == "openai" else "google.genai"):
        raise ConfigError(
            f"the library for caption.llm.provider {settings.provider} is not installed",
            remedy="Run `pip install -c constraints.txt -e '.[llm]'`",
        )
    url = os.environ.get(URL_VARIABLE) or None
    if settings.provider == "openai":
        from vidseek_training.llm.openai_endpoint import OpenAIEndpoint

        return OpenAIEndpoint(settings, url=url, key=_key("OPENAI_API_KEY", url))
    from vidseek_training.llm.gemini import Gemini

    return Gemini(settings, url=url, key=_key("GEMINI_API_KEY", url))


def failure_of(
    status: int, message: str, *, who: str, after_seconds: float | None = None, quota_is_gone: bool = False
) -> Retry | Skip | Stop:
    """What an HTTP status means for the clip and for the run."""
    said = f"{who} answered HTTP {status}: {message[:300]}"
    if status in (401, 403):
        return Stop(ConfigError(said, remedy="Check the key in the environment, and what it may do"))
    if status == 404:
        return Stop(ConfigError(said, remedy=f"Check caption.llm.model in params.yaml, and {URL_VARIABLE}"))
    if status == 402 or quota_is_gone:
        return Stop(ServiceError(said, remedy="Its quota is used up: raise it or wait; what is there is kept"))
    if status in (408, 409, 425, 429) or status >= 500:
        return Retry(said, after_seconds=after_seconds)
    return Skip(said, is_judged=False)


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """What Retry-After says, in seconds or as a date; None where it says nothing that can be read."""
    said = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def without_key(text: str, key: str) -> str:
    """`text` with the key blacked out: servers repeat what they were sent."""
    return text.replace(key, "[key]") if key else text


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it lies in
        return False


def _key(own_variable: str, url: str | None) -> str:
    if url is not None:
        return secret(KEY_VARIABLE) or ""
    if key := secret(own_variable):
        return key
    raise ConfigError(
        f"{own_variable} is not set in the environment",
        remedy=f"Set it, or name a server of your own in {URL_VARIABLE} (and its key in {KEY_VARIABLE})",
    )
