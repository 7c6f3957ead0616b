"""Client of any endpoint with OpenAI's protocol: OpenAI itself, vLLM, llama.cpp, Ollama and others."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx2
import openai

from vidseek_media.files.http_answers import seconds_of, without_key
from vidseek_media.guards import number_or_none
from vidseek_training.captioning.prompt import SCHEMA
from vidseek_training.captioning.provider import (
    Answer,
    Request,
    Retry,
    Skip,
    Stop,
    failure_of,
    http_client,
    usage_of,
)
from vidseek_training.captioning.settings import LlmSettings

PUBLIC_URL = "https://api.openai.com/v1"

_HEADERS = {
    "host", "accept", "accept-encoding", "connection", "authorization", "content-type", "content-length", "user-agent",
}
_CUT = {"length", "max_tokens", "model_length"}
"""`finish_reason` of an answer that ended at the longest that was allowed, as OpenAI and others call it."""
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class OpenAIEndpoint:
    """Chat completions with pictures as data URIs and an answer bound to the schema."""

    def __init__(self, settings: LlmSettings, *, url: str | None, key: str, models_page: str) -> None:
        self._settings = settings
        self._models_page = models_page
        self._key = key
        self._thinking = settings.thinking_fields()
        self._max_tokens_field = settings.max_tokens_field
        if self._max_tokens_field == "auto":
            self._max_tokens_field = "max_completion_tokens" if url is None else "max_tokens"
        self._may_rename = settings.max_tokens_field == "auto"
        # No retries: those are counted by the caller.
        self._client = openai.OpenAI(
            api_key=key or "none", base_url=url or PUBLIC_URL, max_retries=0, timeout=settings.timeout_seconds,
            http_client=http_client(
                timeout_seconds=settings.timeout_seconds, num_connections=settings.concurrency,
                event_hooks={"request": [_leave_off_machine if url is None else _leave_off_all]},
            ),
        )

    def ask(self, request: Request) -> Answer:
        """Implement `Provider.ask`."""
        body = self._body(request)
        try:
            response = self._client.chat.completions.create(**body)
            if (failure := self._failure_told(response)) is not None:
                raise failure
            return _answer_of(response)
        except openai.APITimeoutError as error:
            raise Retry(
                f"no answer in {body['timeout']:g} s", may_be_paid=not isinstance(error.__cause__, _UNSENT)
            ) from error
        except openai.APIConnectionError as error:
            said = without_key(str(error.__cause__ or error), self._key)
            raise Retry(f"no connection: {said}", may_be_paid=not isinstance(error.__cause__, _UNSENT)) from error
        except openai.APIStatusError as error:
            if self._gives_way(error, sent=body):
                return self.ask(request)
            raise self._failure(error) from error
        except (openai.OpenAIError, ValueError, AttributeError, LookupError, TypeError) as error:
            raise Retry(f"an answer that is none of the protocol ({type(error).__name__})", may_be_paid=True) from error

    def close(self) -> None:
        """Implement `Provider.close`."""
        self._client.close()

    def _body(self, request: Request) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        for picture in request.pictures:
            uri = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
            content.append({"type": "image_url", "image_url": {"url": uri}})
        schema = {"name": "answer", "strict": True, "schema": request.schema or SCHEMA}
        return {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {"type": "json_schema", "json_schema": schema},
            self._max_tokens_field: request.max_output_tokens or self._settings.max_output_tokens,
            "timeout": self._settings.timeout_of(request.max_output_tokens),
            "extra_body": {**self._thinking, **self._settings.options},
        }

    def _gives_way(self, error: openai.APIStatusError, *, sent: dict[str, Any]) -> bool:
        """Whether a field that no setting asked for was refused, and is left away or renamed from now on.

        Which of them a model takes, its name says only roughly. A refused request costs nothing.
        """
        if error.status_code not in (400, 422):
            return False
        refused = f"{error.param or ''} {_message_of(error)}"
        if self._settings.thinking == "auto" and "reasoning_effort" in sent["extra_body"] and "reasoning" in refused:
            self._thinking = {}
            return "reasoning_effort" not in self._settings.options
        known = "max_tokens" if "max_tokens" in sent else "max_completion_tokens"
        if self._may_rename and re.search(rf"\b{known}\b", refused):
            self._max_tokens_field = "max_completion_tokens" if known == "max_tokens" else "max_tokens"
            self._may_rename = False
            return True
        return False

    def _failure_told(self, response: Any) -> Retry | Skip | Stop | None:
        """Return the failure that a router tells in an answer of status 200, with the status that it got itself."""
        told = getattr(response, "error", None)
        if not isinstance(told, dict) or getattr(response, "choices", None):
            return None
        status = int(number_or_none(told.get("code"), low=400, high=599) or 500)
        message = without_key(str(told.get("message") or told), self._key)
        return failure_of(status, message, who=self._settings.name, models_page=self._models_page)

    def _failure(self, error: openai.APIStatusError) -> Retry | Skip | Stop:
        codes = {error.code, error.type}
        message = without_key(_message_of(error), self._key)
        status = 404 if error.status_code == 400 and (error.code == "model_not_found" or error.param == "model") else (
            error.status_code
        )
        if codes & {"content_policy_violation", "content_filter"}:
            return Skip(f"blocked by the provider's filter: {message[:200]}")
        return failure_of(
            status, message, who=self._settings.name, after_seconds=seconds_of(error.response.headers),
            models_page=self._models_page,
            quota_is_gone=bool(codes & {"insufficient_quota", "billing_hard_limit_reached"}),
        )


def _leave_off_machine(request: httpx2.Request) -> None:
    """Remove headers of the library that describe this machine and its Python."""
    for name in [name for name in request.headers if name.lower().startswith("x-stainless")]:
        del request.headers[name]


def _leave_off_all(request: httpx2.Request) -> None:
    """Remove headers that the environment sets for OpenAI (organization, project, custom ones) from requests to other
    servers.
    """
    for name in [name for name in request.headers if name.lower() not in _HEADERS]:
        del request.headers[name]


def _answer_of(response: Any) -> Answer:
    choice, counted = response.choices[0], response.usage
    thought = getattr(getattr(counted, "completion_tokens_details", None), "reasoning_tokens", None)
    usage = usage_of(getattr(counted, "prompt_tokens", None), getattr(counted, "completion_tokens", None), thought)
    if choice.finish_reason == "content_filter":
        raise Skip("blocked by the provider's filter", usage=usage)
    if refusal := getattr(choice.message, "refusal", None):
        raise Skip(f"the model declined: {str(refusal)[:200]}", usage=usage)
    model = str(getattr(response, "model", None) or "")
    return Answer(_text_of(choice.message), usage, is_cut=choice.finish_reason in _CUT, model=model)


def _text_of(message: Any) -> str:
    """Return what the model says: its content, else the arguments of a tool, else what its server took for reasoning."""
    content: Any = message.content
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if content:
        return str(content)
    called = [getattr(call, "function", None) for call in getattr(message, "tool_calls", None) or ()]
    said = [getattr(function, "arguments", None) for function in called]
    said += [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    return next((each for each in said if isinstance(each, str) and each), "")


def _message_of(error: openai.APIStatusError) -> str:
    return str(error.body.get("message") or error.message) if isinstance(error.body, dict) else error.message
