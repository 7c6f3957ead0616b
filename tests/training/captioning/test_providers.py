"""Both protocols against servers that speak them: what is sent, and what each failure means."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.raising import raises
from tests.training.llm_servers import (
    CAPTIONS,
    KEY,
    MODEL,
    ReceivedRequest,
    Reply,
    Server,
    gemini_fault,
    gemini_reply,
    openai_fault,
    openai_reply,
    serve,
)
from vidseek_media.errors import ConfigError, ServiceError
from vidseek_media.files.http_answers import seconds_of
from vidseek_media.frame_store.members import encode_jpeg
from vidseek_training.captioning import openai_endpoint
from vidseek_training.captioning.opening import open_provider
from vidseek_training.captioning.prompt import SCHEMA, read_answer
from vidseek_training.captioning.provider import Answer, Provider, Request, Retry, Skip, Stop, Usage
from vidseek_training.captioning.registry import caption_provider
from vidseek_training.captioning.settings import LlmSettings

ROOT = Path(__file__).parents[3]
PICTURE = encode_jpeg(np.full((24, 32, 3), 90, np.uint8), quality=80)
REQUEST = Request("What is there?", pictures=(PICTURE, PICTURE))


def settings_of(provider: str, **more: Any) -> LlmSettings:
    return LlmSettings.of({
        "provider": provider, "model": MODEL, "usd_per_million_tokens_in": 1.0, "usd_per_million_tokens_out": 10.0,
        "timeout_seconds": 5.0, **more,
    })


@pytest.fixture
def replies() -> list[Reply]:
    return []


@pytest.fixture
def server(replies: list[Reply], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(lambda _, number: replies[number]) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        monkeypatch.setenv("VIDSEEK_LLM_KEY", KEY)
        yield server


def ask(settings: LlmSettings, request: Request = REQUEST) -> Any:
    """The answer, or the failure."""
    provider: Provider = open_provider(settings)
    try:
        return provider.ask(request)
    except (Retry, Skip, Stop) as failure:
        return failure
    finally:
        provider.close()


def test_openai__sends_pictures_schema_and_key(server: Server, replies: list[Reply]) -> None:
    replies.append(openai_reply())
    answer = ask(settings_of("openai", max_output_tokens=321, options={"temperature": 0.2}))
    assert read_answer(answer.text) == CAPTIONS and answer.usage == Usage(1000, 100)
    [asked] = server.asked
    assert asked.path == "/chat/completions" and asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.pictures == (PICTURE, PICTURE) and asked.prompt == "What is there?"
    assert asked.body["model"] == MODEL and asked.body["max_tokens"] == 321
    assert asked.body["temperature"] == 0.2
    assert asked.body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_gemini__sends_pictures_schema_and_key(server: Server, replies: list[Reply]) -> None:
    replies.append(gemini_reply())
    options = {"temperature": 0.2, "thinking_config": {"thinking_budget": 0}}
    answer = ask(settings_of("gemini", max_output_tokens=321, options=options))
    assert read_answer(answer.text) == CAPTIONS and answer.usage == Usage(1000, 100)  # 80 and 20 of thoughts
    [asked] = server.asked
    assert asked.path.endswith(f"/models/{MODEL}:generateContent") and asked.headers["x-goog-api-key"] == KEY
    assert KEY not in asked.path
    assert asked.pictures == (PICTURE, PICTURE) and asked.prompt == "What is there?"
    config = asked.body["generationConfig"]
    assert config["responseMimeType"] == "application/json" and config["maxOutputTokens"] == 321
    assert config["responseJsonSchema"] == SCHEMA
    assert config["temperature"] == 0.2 and config["thinkingConfig"] == {"thinking_budget": 0}


def test_gemini__sends_a_video(server: Server, replies: list[Reply]) -> None:
    replies.append(gemini_reply())
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    ask(settings_of("gemini", send="video", video_fps=4.0), Request("Well?", video=buffer.getvalue()))
    [asked] = server.asked
    assert asked.video == buffer.getvalue()
    assert asked.body["contents"][0]["parts"][0]["videoMetadata"] == {"fps": 4.0}


OPENAI_RETRIES = [
    openai_fault(429, "slow down", headers={"Retry-After": "7"}), openai_fault(500, "oh"), openai_fault(503, "busy"),
    openai_fault(408, "late"), openai_fault(409, "again"), Reply(drops=True), Reply(b"<html>", status=502),
]
GEMINI_RETRIES = [
    gemini_fault(429, "RESOURCE_EXHAUSTED", "slow down", {
        "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}),
    gemini_fault(500, "INTERNAL", "oh"), gemini_fault(503, "UNAVAILABLE", "busy"),
    gemini_fault(504, "DEADLINE_EXCEEDED", "late"), Reply(drops=True), Reply(b"<html>", status=502),
]
EACH_RETRY = pytest.mark.parametrize(("provider", "reply"), [
    *(("openai", reply) for reply in OPENAI_RETRIES), *(("gemini", reply) for reply in GEMINI_RETRIES),
])


def test_ask__an_answer_that_was_cut_off_says_so(server: Server, replies: list[Reply]) -> None:
    replies += [openai_reply("{", finish="length"), gemini_reply(finish="MAX_TOKENS")]
    assert ask(settings_of("openai")).is_cut and ask(settings_of("gemini")).is_cut


@EACH_RETRY
def test_ask__another_try_may_be_answered(server: Server, replies: list[Reply], provider: str, reply: Reply) -> None:
    replies.append(reply)
    failure = ask(settings_of(provider))
    assert isinstance(failure, Retry)
    assert failure.after_seconds == (7.0 if reply.status == 429 else None)
    assert failure.may_be_paid == reply.drops
    assert len(server.asked) == 1  # the library does not try by itself


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_ask__no_answer_in_time_is_another_try_and_may_be_paid(
    server: Server, replies: list[Reply], provider: str
) -> None:
    replies.append(Reply({}, seconds=30))
    failure = ask(settings_of(provider, timeout_seconds=0.3))
    assert isinstance(failure, Retry) and failure.may_be_paid and "0.3 s" in str(failure)


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_ask__a_longer_answer_has_longer_to_come(server: Server, replies: list[Reply], provider: str) -> None:
    """Four times the tokens, four times the seconds; and the address, the key and no other try are as before."""
    replies.append(openai_reply(seconds=1.0) if provider == "openai" else gemini_reply(seconds=1.0))
    settings = settings_of(provider, timeout_seconds=0.8, max_output_tokens=100)
    assert ask(settings, replace(REQUEST, max_output_tokens=400)).text
    replies.append(Reply({}, seconds=30))
    failure = ask(settings, replace(REQUEST, max_output_tokens=200))
    assert isinstance(failure, Retry) and "1.6 s" in str(failure)
    assert KEY in str(server.asked[0].headers) and len(server.asked) == 2


def test_openai__a_server_that_names_no_model_is_read_all_the_same(server: Server, replies: list[Reply]) -> None:
    body = {name: value for name, value in openai_reply().body.items() if name != "model"}
    replies.append(Reply(body))
    answer = ask(settings_of("openai"))
    assert read_answer(answer.text) == CAPTIONS and answer.model == ""


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_ask__nobody_there_is_another_try_and_free(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_LLM_URL", "http://127.0.0.1:9")
    failure = ask(settings_of(provider))
    assert isinstance(failure, Retry) and not failure.may_be_paid


@pytest.mark.parametrize("provider", ["openai", "gemini"])
@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b"{}"])
def test_ask__a_body_of_no_protocol_is_no_answer(
    server: Server, replies: list[Reply], provider: str, body: bytes
) -> None:
    replies.append(Reply(body))
    found = ask(settings_of(provider))
    assert isinstance(found, Retry) or found.text == ""


@pytest.mark.parametrize("usage", [
    None, {}, {"prompt_tokens": None, "completion_tokens": 5}, {"prompt_tokens": float("nan"), "completion_tokens": 5},
    {"prompt_tokens": -5, "completion_tokens": 5}, {"prompt_tokens": 10**30, "completion_tokens": 5},
    {"prompt_tokens": "many", "completion_tokens": [5]},
])
def test_openai__an_answer_is_kept_whatever_its_server_counts(
    server: Server, replies: list[Reply], usage: object
) -> None:
    replies.append(Reply({**openai_reply(json.dumps(CAPTIONS)).body, "usage": usage}))
    answer = ask(settings_of("openai"))
    assert isinstance(answer, Answer) and read_answer(answer.text) == CAPTIONS and answer.usage is None


@pytest.mark.parametrize("message", [
    {"content": None, "reasoning_content": json.dumps(CAPTIONS)}, {"content": "", "reasoning": json.dumps(CAPTIONS)},
    {"content": [{"type": "text", "text": json.dumps(CAPTIONS)[:30]}, {"type": "text", "text": json.dumps(CAPTIONS)[30:]}]},
    {"content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "captions", "arguments": json.dumps(CAPTIONS)}},
    ]},
])
def test_openai__an_answer_is_read_wherever_its_server_puts_it(
    server: Server, replies: list[Reply], message: dict[str, Any]
) -> None:
    body = openai_reply("").body
    replies.append(Reply({**body, "choices": [{**body["choices"][0], "message": {"role": "assistant", **message}}]}))
    answer = ask(settings_of("openai"))
    assert isinstance(answer, Answer) and read_answer(answer.text) == CAPTIONS


@pytest.mark.parametrize(("code", "kind"), [(429, Retry), ("rate_limited", Retry), (None, Retry), (401, Stop), (404, Stop)])
def test_openai__a_failure_that_a_router_tells_with_status_200_is_one(
    server: Server, replies: list[Reply], code: object, kind: type[Exception]
) -> None:
    replies.append(Reply({"error": {"message": "upstream says no", "code": code}}))
    failure = ask(settings_of("openai"))
    assert isinstance(failure, kind) and "upstream says no" in str(failure)


@pytest.mark.parametrize("said", ["nan", "1e999", "soon", "Fri, 31 Dec 9999 23:59:59 -2300", "-5", ""])
def test_seconds_of__what_cannot_be_read_is_none_or_no_wait(said: str) -> None:
    assert seconds_of({"retry-after": said}) in (None, 0.0) or "9999" in said


@pytest.mark.parametrize(("reply", "usage"), [
    (openai_reply("", finish="content_filter"), Usage(1000, 100)),
    (openai_reply("", refusal="I will not"), Usage(1000, 100)),
    (openai_fault(400, "not allowed", code="content_policy_violation"), None),
])
def test_openai__what_is_blocked_is_skipped_for_good(
    server: Server, replies: list[Reply], reply: Reply, usage: Usage | None
) -> None:
    replies.append(reply)
    failure = ask(settings_of("openai"))
    assert isinstance(failure, Skip) and failure.is_judged and failure.usage == usage


@pytest.mark.parametrize(("reply", "usage"), [
    (gemini_reply(finish="SAFETY"), Usage(1000, 100)), (gemini_reply(finish="PROHIBITED_CONTENT"), Usage(1000, 100)),
    (Reply({"promptFeedback": {"blockReason": "SAFETY"}}), None),
])
def test_gemini__what_is_blocked_is_skipped_for_good(
    server: Server, replies: list[Reply], reply: Reply, usage: Usage | None
) -> None:
    replies.append(reply)
    failure = ask(settings_of("gemini"))
    assert isinstance(failure, Skip) and failure.is_judged and failure.usage == usage
    assert "SAFETY" in str(failure) or "PROHIBITED" in str(failure)


@pytest.mark.parametrize(("provider", "reply"), [
    ("openai", openai_fault(400, "invalid image")), ("openai", openai_fault(422, "no such field")),
    ("gemini", gemini_fault(400, "INVALID_ARGUMENT", "Unable to process input image")),
])
def test_ask__a_request_that_is_not_taken_is_skipped_for_now(
    server: Server, replies: list[Reply], provider: str, reply: Reply
) -> None:
    replies.append(reply)
    failure = ask(settings_of(provider))
    assert isinstance(failure, Skip) and not failure.is_judged


@pytest.mark.parametrize(("provider", "reply", "kind"), [
    ("openai", openai_fault(401, f"Incorrect API key provided: {KEY}"), ConfigError),
    ("openai", openai_fault(403, "not yours"), ConfigError),
    ("openai", openai_fault(404, "no such model"), ConfigError),
    ("openai", openai_fault(402, "no credits"), ServiceError),
    ("openai", openai_fault(429, "You exceeded your current quota", code="insufficient_quota"), ServiceError),
    ("gemini", gemini_fault(400, "INVALID_ARGUMENT", f"API key {KEY} not valid", {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}), ConfigError),
    ("gemini", gemini_fault(403, "PERMISSION_DENIED", "not yours"), ConfigError),
    ("gemini", gemini_fault(404, "NOT_FOUND", "no such model"), ConfigError),
    ("gemini", gemini_fault(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}), ServiceError),
])
def test_ask__what_no_clip_can_pass_stops_and_never_shows_the_key(
    server: Server, replies: list[Reply], provider: str, reply: Reply, kind: type[Exception]
) -> None:
    replies.append(reply)
    failure = ask(settings_of(provider))
    assert isinstance(failure, Stop) and isinstance(failure.error, kind) and failure.error.remedy
    assert KEY not in str(failure) and MODEL in str(failure)


def test_ask__a_redirect_is_not_followed(server: Server, replies: list[Reply]) -> None:
    """Frames and key go to the address that was named."""
    with serve(lambda *_: openai_reply()) as elsewhere:
        replies += [Reply({}, status=307, headers={"Location": f"{elsewhere.url}/chat/completions"})] * 2
        assert not hasattr(ask(settings_of("openai")), "text")
        assert not hasattr(ask(settings_of("gemini")), "text")
    assert elsewhere.asked == []


def test_retry_after__may_be_a_date(server: Server, replies: list[Reply]) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=40))
    replies.append(openai_fault(429, "slow down", headers={"Retry-After": moment}))
    failure = ask(settings_of("openai"))
    assert isinstance(failure, Retry) and failure.after_seconds is not None and 30 < failure.after_seconds <= 40


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_open_provider__a_providers_own_key_goes_nowhere_else(
    server: Server, replies: list[Reply], provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies.append(openai_reply() if provider == "openai" else gemini_reply())
    monkeypatch.delenv("VIDSEEK_LLM_KEY")
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "sk-of-the-provider")
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-provider")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-gateway: sk-of-the-provider")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    assert ask(settings_of(provider)).text
    assert "sk-of-the-provider" not in str(server.asked[0].headers)
    assert not [name for name in server.asked[0].headers if name.startswith("x-stainless")]


@pytest.mark.parametrize(("provider", "name"), [("openai", "OPENAI_API_KEY"), ("gemini", "GEMINI_API_KEY")])
def test_open_provider__without_a_key_says_which(provider: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("VIDSEEK_LLM_URL", name):
        monkeypatch.delenv(variable, raising=False)
    with raises(ConfigError, code="variable-not-set", naming=name):
        open_provider(settings_of(provider))


TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")


def token_fields(asked: ReceivedRequest) -> dict[str, int]:
    return {name: asked.body[name] for name in TOKEN_FIELDS if name in asked.body}


@pytest.mark.parametrize("field", TOKEN_FIELDS)
def test_openai__the_limit_has_the_name_that_was_said(server: Server, replies: list[Reply], field: str) -> None:
    replies.append(openai_reply())
    ask(settings_of("openai", max_output_tokens=99, max_tokens_field=field))
    assert token_fields(server.asked[0]) == {field: 99}


def test_openai__its_own_address_gets_max_completion_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda *_: openai_reply()) as server:
        monkeypatch.delenv("VIDSEEK_LLM_URL", raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setattr(openai_endpoint, "PUBLIC_URL", server.url)
        ask(settings_of("openai", max_output_tokens=99))
    assert token_fields(server.asked[0]) == {"max_completion_tokens": 99}


def test_openai__a_name_of_the_limit_that_is_refused_is_changed_for_good(server: Server, replies: list[Reply]) -> None:
    refused = openai_fault(400, "Unsupported parameter: use 'max_completion_tokens'", param="max_tokens")
    replies += [refused, openai_reply(), openai_reply(), openai_fault(400, "max_completion_tokens is too large")]
    provider = open_provider(settings_of("openai", max_output_tokens=99))
    assert provider.ask(REQUEST).text and provider.ask(replace(REQUEST, max_output_tokens=7)).text
    with pytest.raises(Skip):
        provider.ask(REQUEST)
    provider.close()
    assert [token_fields(each) for each in server.asked] == [
        {"max_tokens": 99}, {"max_completion_tokens": 99}, {"max_completion_tokens": 7}, {"max_completion_tokens": 99},
    ]


@pytest.mark.parametrize(("provider", "model", "thinking", "sent"), [
    ("gemini", "gemini-2.5-flash", "auto", {"thinking_budget": 0}),
    ("gemini", "gemini-2.5-flash-lite", "auto", {"thinking_budget": 0}),
    ("gemini", "models/gemini-2.5-pro", "auto", {"thinking_budget": 128}),
    ("gemini", "gemini-3-pro-preview", "auto", {"thinking_level": "LOW"}),
    ("gemini", "gemini-3.5-flash-lite", "auto", {"thinking_level": "LOW"}),
    ("gemini", "gemini-12-argon", "auto", {"thinking_level": "LOW"}),
    ("gemini", "gemini-flash-latest", "auto", {"thinking_level": "LOW"}),
    ("gemini", "gemini-2.0-flash", "auto", None), ("gemini", "gemini-1.5-flash-8b", "auto", None),
    ("gemini", "tunedModels/mine", "auto", None), ("gemini", "gemini-3-pro", "model", None),
    ("gemini", "gemini-2.5-flash", "medium", {"thinking_budget": 2048}),  # half of max_output_tokens, at the most
    ("gemini", "gemini-2.5-pro", "none", {"thinking_budget": 128}),
    ("gemini", "gemini-3-flash", "none", {"thinking_level": "MINIMAL"}),
    ("gemini", "gemini-3-flash", 700, {"thinking_budget": 700}),
    ("openai", "o4-mini", "auto", "low"), ("openai", "gpt-5-mini", "auto", "low"), ("openai", "gpt-12-sol", "auto", "low"),
    ("openai", "openai/gpt-5.2", "auto", "low"), ("openai", "gpt-5-chat-latest", "auto", None),
    ("openai", "gpt-4.1-mini", "auto", None), ("openai", "openai/gpt-oss-20b", "auto", None),
    ("openai", "Qwen/Qwen3-VL-8B-Thinking", "auto", None), ("openai", "Qwen/Qwen3-VL-8B-Thinking", "none", "none"),
    ("openai", "gpt-5.1", "model", None),
])
def test_ask__thinking_is_limited_as_the_generation_takes_it(
    server: Server, replies: list[Reply], provider: str, model: str, thinking: str | int, sent: object
) -> None:
    replies.append(openai_reply() if provider == "openai" else gemini_reply())
    assert ask(settings_of(provider, model=model, thinking=thinking)).text
    body = server.asked[0].body
    assert sent == (body.get("reasoning_effort") if provider == "openai" else body["generationConfig"].get("thinkingConfig"))


@pytest.mark.parametrize(("provider", "model", "refusal"), [
    ("gemini", "gemini-2.5-flash", gemini_fault(400, "INVALID_ARGUMENT", "Budget 0 is invalid. This model only works in "
                                                "thinking mode.")),
    ("gemini", "gemini-9-flash", gemini_fault(400, "INVALID_ARGUMENT", "Thinking level LOW is not supported")),
    ("openai", "gpt-5-pro", openai_fault(400, "Unsupported value", param="reasoning_effort", code="unsupported_value")),
    ("openai", "o9", openai_fault(400, "Unrecognized request argument supplied: reasoning_effort")),
])
def test_ask__a_limit_on_thinking_that_nobody_set_gives_way_where_it_is_refused(
    server: Server, replies: list[Reply], provider: str, model: str, refusal: Reply
) -> None:
    answer = openai_reply() if provider == "openai" else gemini_reply()
    replies += [refusal, answer, answer, refusal]
    client = open_provider(settings_of(provider, model=model))
    assert client.ask(REQUEST).text and client.ask(REQUEST).text
    with pytest.raises(Skip):
        client.ask(REQUEST)  # Nothing is left that could give way.
    client.close()
    has_limit = ["thinkingConfig" in str(each.body) or "reasoning_effort" in each.body for each in server.asked]
    assert has_limit == [True, False, False, False]


def test_ask__a_limit_on_thinking_that_was_set_does_not_give_way(server: Server, replies: list[Reply]) -> None:
    replies.append(openai_fault(400, "Unsupported value", param="reasoning_effort"))
    assert isinstance(ask(settings_of("openai", model="gpt-5", thinking="minimal")), Skip) and len(server.asked) == 1


@pytest.mark.parametrize(("provider", "more"), [
    ("openai", {"thinking": 500}), ("gemini", {"thinking": 5000}), ("gemini", {"thinking": -1}),
    ("gemini", {"thinking": "low", "options": {"thinking_config": {"thinking_budget": 0}}}),
    ("openai", {"thinking": "low", "options": {"reasoning_effort": "high"}}), ("gemini", {"thinking": "a little"}),
    ("openai", {"send": "video"}), ("oracle", {}),
])
def test_settings__what_no_provider_takes_is_refused_at_once(provider: str, more: dict[str, Any]) -> None:
    codes = ("settings-disagree", "setting-out-of-range", "unknown-choice", "invalid-settings")
    with raises(ConfigError, code=codes, naming="caption.llm"):
        settings_of(provider, **more)


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_ask__the_model_that_answered_and_its_thoughts_are_told(
    server: Server, replies: list[Reply], provider: str
) -> None:
    replies.append(openai_reply(model="seer-1-0417", thoughts=20) if provider == "openai" else
                   gemini_reply(model="seer-1-0417"))
    answer = ask(settings_of(provider))
    assert answer.model == "seer-1-0417" and answer.usage.tokens_thought == 20


@pytest.mark.parametrize(("provider", "model", "size", "options", "tokens"), [
    # https://ai.google.dev/gemini-api/docs/tokens: 384 x 384 is one tile; 960 x 540 is cut into tiles of 360.
    ("gemini", "gemini-2.5-flash", (384, 384), {}, 258), ("gemini", "gemini-2.5-flash", (960, 540), {}, 6 * 258),
    ("gemini", "gemini-2.0-flash", (1920, 1080), {}, 6 * 258), ("gemini", "gemini-2.5-pro", (100, 500), {}, 2 * 258),
    ("gemini", "gemini-2.5-pro", (960, 540), {"media_resolution": "MEDIA_RESOLUTION_LOW"}, 64),
    ("gemini", "gemini-3-pro", (256, 256), {}, 1120), ("gemini", "gemini-4-argon", (960, 540), {}, 1120),
    ("gemini", "gemini-3-flash", (256, 256), {"media_resolution": "MEDIA_RESOLUTION_LOW"}, 280),
    ("gemini", "gemini-flash-latest", (256, 256), {"mediaResolution": "media_resolution_medium"}, 560),
    # https://developers.openai.com/api/docs/guides/images-vision: its own examples, then small pictures.
    ("openai", "gpt-4o", (1024, 1024), {}, 765), ("openai", "gpt-4.1", (2048, 4096), {}, 1105),
    ("openai", "gpt-5", (512, 512), {}, 210), ("openai", "o3", (256, 256), {}, 225),
    ("openai", "gpt-4o-mini", (512, 512), {}, 8500),
    ("openai", "gpt-5-mini", (256, 256), {}, 104), ("openai", "gpt-4.1-nano", (1024, 1024), {}, 2520),
    ("openai", "o4-mini", (1800, 2400), {}, 2642), ("openai", "gpt-5.5", (256, 144), {}, 40),
    ("openai", "openai/gpt-6-sol", (4000, 4000), {}, 2500), ("openai", "Qwen/Qwen2.5-VL-7B-Instruct", (256, 256), {}, 258),
])
def test_picture_tokens__are_those_of_the_providers_rule(
    provider: str, model: str, size: tuple[int, int], options: dict[str, Any], tokens: int
) -> None:
    rule = caption_provider(provider).picture_tokens
    assert rule is not None and rule(model, *size, options) == tokens


@pytest.mark.parametrize(("model", "options", "tokens"), [
    ("gemini-2.5-flash", {}, 1032), ("gemini-2.5-flash", {"media_resolution": "MEDIA_RESOLUTION_LOW"}, 264),
    ("gemini-3-flash", {}, 280), ("gemini-3-flash", {"media_resolution": "MEDIA_RESOLUTION_HIGH"}, 1120),
])
def test_video_tokens__are_those_of_its_frames(model: str, options: dict[str, Any], tokens: int) -> None:
    rule = caption_provider("gemini").video_tokens
    assert rule is not None and rule(model, 2.0, 2.0, options) == tokens


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "gemini"])
@pytest.mark.parametrize("blocked", ["openai", "google"])
def test_open_provider__without_its_library_says_what_to_install(provider: str, blocked: str) -> None:
    """In a process where nothing of the library is there."""
    code = (
        f"import sys; sys.modules[{blocked!r}] = None\n"
        "from vidseek_training.captioning.opening import open_provider\n"
        "from vidseek_training.captioning.settings import LlmSettings\n"
        f"open_provider(LlmSettings(provider={provider!r}, model='m', usd_per_million_tokens_in=0,\n"
        "              usd_per_million_tokens_out=0)).close()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT / "packages"), "VIDSEEK_LLM_URL": "http://127.0.0.1:9"},
    )
    is_blocked = (provider, blocked) in {("openai", "openai"), ("gemini", "google")}
    assert ("pip install -c constraints.txt -e '.[llm]'" in run.stderr) == is_blocked
    assert (run.returncode == 0) != is_blocked


def test_open_provider__gemini_refuses_options_that_it_does_not_know(server: Server) -> None:
    with raises(ConfigError, code="invalid-settings", naming="caption.llm.options: warmth"):
        open_provider(settings_of("gemini", options={"warmth": 1}))


@pytest.mark.parametrize(("provider", "reply"), [("openai", openai_reply), ("gemini", gemini_reply)])
def test_providers__ask_as_many_at_once_as_the_settings_say(
    provider: str, reply: Callable[[], Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    num, all_are_there = 102, threading.Barrier(102)  # httpx alone makes a hundred connections

    def script(request: ReceivedRequest, number: int) -> Reply:
        all_are_there.wait(60)
        return reply()

    with serve(script) as server, ThreadPoolExecutor(num) as pool:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        with closing(open_provider(settings_of(provider, concurrency=num, timeout_seconds=60.0))) as client:
            answers = list(pool.map(client.ask, [Request("What is there?")] * num))
    assert len(answers) == num == server.most_at_once
