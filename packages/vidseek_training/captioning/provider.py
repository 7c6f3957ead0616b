"""The interface of a language model's provider: answer one request, or raise an error to retry, skip or stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel

from vidseek_media.errors import ConfigError, ServiceError, VidseekError
from vidseek_media.guards import number_or_none

if TYPE_CHECKING:
    import httpx2

MOST_TOKENS = 2.0**40
"""A greater count is none."""

URL_VARIABLE = "VIDSEEK_LLM_URL"
KEY_VARIABLE = "VIDSEEK_LLM_KEY"
"""The key for the address in URL_VARIABLE: a provider's own key is never sent anywhere else than to that provider."""


IDLE_SECONDS = 60.0
"""So long a connection is kept that nobody asks over."""


@dataclass(frozen=True)
class Request:
    """One question about one clip."""

    prompt: str
    pictures: tuple[bytes, ...] = ()
    """JPEG files, in order of time."""
    video: bytes | None = None
    """MP4, in the place of pictures."""
    max_output_tokens: int | None = None
    """Of this answer, thoughts included; None: as the settings say."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer; None: that of captions."""


@dataclass(frozen=True)
class Usage:
    """The tokens that an answer cost, as the provider counted them."""

    tokens_in: int
    tokens_out: int
    """With the model's thoughts."""
    tokens_thought: int = field(default=0, compare=False)
    """Of tokens_out, where the provider said."""


@dataclass(frozen=True)
class Answer:
    """The answer of a provider."""

    text: str
    usage: Usage | None
    """None where the provider did not say."""
    is_cut: bool = False
    """It ended at the longest that was allowed."""
    model: str = ""
    """That answered, by the provider's own word: the model behind an alias. Empty where it did not say."""


class Provider(Protocol):
    """A model that can be asked. Safe to be used by several threads."""

    def ask(self, request: Request) -> Answer:
        """Send a request once, and return the answer.

        Raises:
            Retry: another attempt may succeed.
            Skip: this request cannot be answered, others may be.
            Stop: no request can be answered.
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


Thinking = Literal["auto", "model", "none", "minimal", "low", "medium", "high"] | int
"""How much a model may think: `auto`, the least that all models of its generation take; `model`, what it does unasked; a
word; or a number of tokens."""


@dataclass(frozen=True)
class CaptionProvider:
    """The record that a provider registers. Only `open` imports its library."""

    name: str
    """As `caption.llm.provider` has it."""
    library: str
    """The module that `open` imports."""
    key_variable: str
    """The environment variable of its own key, for its own address."""
    models_page: str
    """Where the names of its current models are looked up."""
    open: Callable[..., Provider]
    """`open(settings, *, url, key)`: a client. `settings` are `LlmSettings`, `url` None for the provider's own address."""
    options: type[BaseModel] | None = None
    """Its own settings: what `caption.llm.options` may hold. None: fields of the request, which its server judges."""
    thinking_fields: Callable[[str, Thinking, int], Mapping[str, Any]] | None = None
    """`(model, thinking, max_output_tokens)` to fields of a request; None: it has no such fields."""
    thinking_options: frozenset[str] = frozenset()
    """Options about thinking, in small letters without underscores: where one is set, `thinking: auto` adds nothing."""
    picture_tokens: Callable[[str, int, int, Mapping[str, Any]], int] | None = None
    """`(model, width, height, options)` to tokens, for the estimate."""
    video_tokens: Callable[[str, float, float, Mapping[str, Any]], int] | None = None
    """`(model, seconds, fps, options)` to tokens; None: it takes no video."""


def failure_of(
    status: int, message: str, *, who: str, after_seconds: float | None = None, quota_is_gone: bool = False,
    models_page: str = "",
) -> Retry | Skip | Stop:
    """Return the error for an HTTP status: retry or skip this clip, or stop the run."""
    said = f"{who} answered HTTP {status}: {message[:300]}"
    if status in (401, 403):
        return Stop(ConfigError(said, code="llm-key-refused", remedy="Check the key in the environment, and what it may do"))
    if status in (404, 410):
        return Stop(ConfigError(
            f"{who} is not served (HTTP {status}: {message[:300]}): the model is retired, renamed, or at another address",
            code="llm-model-unknown",
            remedy=f"Look the current name up ({models_page}), set caption.llm.model in params.yaml, check {URL_VARIABLE}",
        ))
    if status == 402 or quota_is_gone:
        return Stop(ServiceError(
            said, code="llm-quota-used-up", remedy="Its quota is used up: raise it or wait; what is there is kept",
        ))
    if status in (408, 409, 425, 429) or status >= 500:
        return Retry(said, after_seconds=after_seconds)
    return Skip(said, is_judged=False)


def usage_of(tokens_in: object, tokens_out: object, tokens_thought: object = None) -> Usage | None:
    """Return the token counts of a server; None where one of the first two is no count, which makes the answer no less paid.

    Args:
        tokens_in: Of the request.
        tokens_out: Of the answer, thoughts included.
        tokens_thought: Of tokens_out; None where the server does not say.
    """
    counts = [number_or_none(each, low=0, high=MOST_TOKENS) for each in (tokens_in, tokens_out)]
    if counts[0] is None or counts[1] is None:
        return None
    return Usage(int(counts[0]), int(counts[1]), int(number_or_none(tokens_thought, low=0, high=MOST_TOKENS) or 0))


def http_client(*, timeout_seconds: float, num_connections: int, **options: Any) -> httpx2.Client:
    """Return a client with a connection for each request that may be under way at once.

    httpx alone would make a hundred of them, and keep twenty for five seconds: the others would have to greet the server
    anew.

    Args:
        timeout_seconds: Of a request.
        num_connections: Most requests at once.
        options: Further ones of `httpx2.Client`.
    """
    import httpx2  # comes with the providers' libraries

    # No redirects: pictures and key go to the address that was named.
    return httpx2.Client(
        timeout=timeout_seconds, follow_redirects=False, limits=httpx2.Limits(
            max_connections=num_connections, max_keepalive_connections=num_connections, keepalive_expiry=IDLE_SECONDS,
        ), **options,
    )
