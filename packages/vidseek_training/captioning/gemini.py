"""Client of Gemini's REST protocol: images or one small video in a request."""

from __future__ import annotations

import re
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types
from pydantic import ValidationError

from vidseek_media.errors import ConfigError
from vidseek_media.files.http_answers import seconds_of, without_key
from vidseek_training.captioning.prompt import SCHEMA
from vidseek_training.captioning.provider import (
    Answer,
    Request,
    Retry,
    Skip,
    Stop,
    Usage,
    failure_of,
    http_client,
)
from vidseek_training.captioning.settings import LlmSettings

PUBLIC_URL = "https://generativelanguage.googleapis.com"

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_BLOCKED = {"SAFETY", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "RECITATION", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"}


class Gemini:
    """One `generateContent` for each request, with an answer bound to the schema."""

    def __init__(self, settings: LlmSettings, *, url: str | None, key: str, models_page: str) -> None:
        self._settings = settings
        self._models_page = models_page
        self._key = key
        self._config = self._config_of(settings, settings.thinking_fields())
        self._may_give_way = settings.thinking == "auto"
        # No retries: those are counted by the caller.
        self._http = http_client(timeout_seconds=settings.timeout_seconds, num_connections=settings.concurrency)
        self._client = genai.Client(
            vertexai=False, api_key=key or "none",
            http_options=types.HttpOptions(
                base_url=url or PUBLIC_URL, timeout=max(1, round(settings.timeout_seconds * 1000)),
                httpx_client=self._http, retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    def ask(self, request: Request) -> Answer:
        """Implement `Provider.ask`."""
        parts = [types.Part.from_bytes(data=picture, mime_type="image/jpeg") for picture in request.pictures]
        if request.video is not None:
            parts.append(types.Part(
                inline_data=types.Blob(data=request.video, mime_type="video/mp4"),
                video_metadata=types.VideoMetadata(fps=min(self._settings.video_fps, 24.0)),
            ))
        parts.append(types.Part.from_text(text=request.prompt))
        seconds = self._settings.timeout_of(request.max_output_tokens)
        try:
            response = self._client.models.generate_content(
                model=str(self._settings.model), contents=[types.Content(role="user", parts=parts)],
                config=self._config.model_copy(update={
                    "max_output_tokens": request.max_output_tokens or self._settings.max_output_tokens,
                    "http_options": types.HttpOptions(timeout=max(1, round(seconds * 1000))),
                    "response_json_schema": request.schema or SCHEMA,
                }),
            )
        except errors.APIError as error:
            if self._gives_way(error):
                return self.ask(request)
            raise self._failure(error) from error
        except httpx2.TimeoutException as error:
            raise Retry(
                f"no answer in {seconds:g} s", may_be_paid=not isinstance(error, _UNSENT)
            ) from error
        except httpx2.HTTPError as error:
            raise Retry(
                f"no connection: {without_key(str(error), self._key)}", may_be_paid=not isinstance(error, _UNSENT)
            ) from error
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise Retry(f"an answer that is none of the protocol ({type(error).__name__})", may_be_paid=True) from error
        return _answer_of(response)

    def close(self) -> None:
        """Implement `Provider.close`."""
        self._client.close()
        self._http.close()

    def _gives_way(self, error: errors.APIError) -> bool:
        """Whether the limit on thinking that no setting asked for was refused, and is left away from now on.

        What a model takes, its name says only roughly. A refused request costs nothing.
        """
        is_refused = error.code == 400 and "think" in str(error.message).lower()
        if not (is_refused and self._may_give_way and self._settings.thinking_fields()):
            return False
        self._may_give_way = False
        self._config = self._config_of(self._settings, {})
        return True

    def _config_of(self, settings: LlmSettings, thinking: dict[str, Any]) -> types.GenerateContentConfig:
        fields: dict[str, Any] = {
            "response_mime_type": "application/json", "response_json_schema": SCHEMA,
            "max_output_tokens": settings.max_output_tokens, **thinking, **settings.options,
            # One request is one request: each further one would be paid for unseen.
            "automatic_continuation": False, "automatic_function_calling": {"disable": True},
        }
        try:
            return types.GenerateContentConfig.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"caption.llm.options: {'.'.join(map(str, first['loc']))}: {first['msg']}", code="invalid-settings",
                remedy="Name fields of Gemini's GenerateContentConfig, thinking_config say",
            ) from error

    def _failure(self, error: errors.APIError) -> Retry | Skip | Stop:
        status = int(error.code or 0)
        message = without_key(str(error.message or error.status or ""), self._key)
        details = _details_of(error)
        if status == 400 and any(each.get("reason") == "API_KEY_INVALID" for each in details):
            status = 401  # What other services call it.
        headers = getattr(error.response, "headers", None) or {}
        return failure_of(
            status, message, who=self._settings.name, models_page=self._models_page,
            after_seconds=seconds_of(headers) or _delay_of(details),
            quota_is_gone=status == 429 and any("PerDay" in str(each.get("violations", "")) for each in details),
        )


def _details_of(error: errors.APIError) -> list[dict[str, Any]]:
    body = error.details if isinstance(error.details, dict) else {}
    inner = body.get("error")
    details = (inner if isinstance(inner, dict) else body).get("details")
    return [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []


def _delay_of(details: list[dict[str, Any]]) -> float | None:
    """Return the delay of a google.rpc.RetryInfo, `{"retryDelay": "34.5s"}`, in seconds."""
    for each in details:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(each.get("retryDelay", ""))):
            return float(match[1])
    return None


def _answer_of(response: types.GenerateContentResponse) -> Answer:
    counted = response.usage_metadata
    usage = None
    if counted is not None and counted.prompt_token_count is not None:
        tokens_out = (counted.candidates_token_count or 0) + (counted.thoughts_token_count or 0)
        usage = Usage(counted.prompt_token_count, tokens_out, counted.thoughts_token_count or 0)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        raise Skip(f"blocked by the provider's filter: {_name_of(feedback.block_reason)}", usage=usage)
    candidate = response.candidates[0] if response.candidates else None
    reason = _name_of(candidate.finish_reason) if candidate is not None and candidate.finish_reason else ""
    if reason in _BLOCKED:
        raise Skip(f"blocked by the provider's filter: {reason}", usage=usage)
    parts = (candidate.content.parts or []) if candidate is not None and candidate.content is not None else []
    text = "".join(part.text or "" for part in parts if not part.thought)
    return Answer(text, usage, is_cut=reason == "MAX_TOKENS", model=response.model_version or "")


def _name_of(reason: Any) -> str:
    return str(getattr(reason, "name", reason))
