from __future__ import annotations

import json

import pytest

from tests.raising import raises
from tests.training.llm_servers import CAPTIONS
from vidseek_media.errors import ConfigError
from vidseek_media.records import Video
from vidseek_training.captioning.prompt import DEFAULT_PROMPT, BadAnswer, prompt_hash, prompt_of, read_answer
from vidseek_training.captioning.settings import LlmSettings

VIDEO = Video("a" * 32, ("a.mp4",), 1000, 10.0, 32, 24, "h264", title="Day 1 {channel}", category="Harbour")


def test_read_answer__makes_white_space_plain() -> None:
    said = {**CAPTIONS, "short": "  a red\n box\tfalls ", "more": 1}
    assert read_answer(json.dumps(said)) == {**CAPTIONS, "short": "a red box falls"}


def test_read_answer__takes_json_out_of_a_fence() -> None:
    assert read_answer(f"```json\n{json.dumps(CAPTIONS)}\n```") == CAPTIONS


@pytest.mark.parametrize(("text", "why"), [
    ("", "no JSON"), ("a red box", "no JSON"), (json.dumps(CAPTIONS)[:-9], "no JSON"), ("[]", "no JSON object"),
    (json.dumps({"short": "a box"}), "no text for sentence"), (json.dumps({**CAPTIONS, "detail": None}), "no text for"),
    (json.dumps({**CAPTIONS, "detail": ["x"]}), "no text for detail"),
    (json.dumps({**CAPTIONS, "short": " \n "}), "0 characters"),
    (json.dumps({**CAPTIONS, "short": "box " * 40}), "159 characters"),
])
def test_read_answer__what_is_no_answer_is_named(text: str, why: str) -> None:
    with raises(BadAnswer, naming=why):
        read_answer(text)


@pytest.mark.parametrize("said", [
    "I'm sorry, but I can't help with that.", "I’m unable to describe this.", "Sorry, no.", "As an AI, I do not see.",
    "I cannot identify people in images.", "Unable to determine what happens.", "I can't assist with that request.",
])
def test_read_answer__a_refusal_is_no_caption(said: str) -> None:
    with pytest.raises(BadAnswer, match="refusal"):
        read_answer(json.dumps({**CAPTIONS, "sentence": said}))


@pytest.mark.parametrize("said", [
    "A sign reads: I am sorry.", "A man who cannot swim holds a rope.", "As an airplane lands, a dog barks.",
    "I am sitting in a red car.",
])
def test_read_answer__words_of_a_refusal_in_a_caption_are_none(said: str) -> None:
    assert read_answer(json.dumps({**CAPTIONS, "sentence": said}))["sentence"] == said


@pytest.mark.parametrize("wrapped", [
    "\ufeff{}", "```JSON\n{}\n```", "```\n{}```", "<think>Should it be {{short}}? No.</think>\n{}",
    "<Thinking>a\nb</Thinking>{}",
    "Here it is:\n\n```json\n{}\n```\nAnything else?", "<think>first {{\"short\": \"no\"}}</think> {}",
])
def test_read_answer__what_is_paid_for_is_read(wrapped: str) -> None:
    assert read_answer(wrapped.format(json.dumps(CAPTIONS))) == CAPTIONS


@pytest.mark.parametrize("wrapped", [
    {"captions": CAPTIONS}, {"result": {"captions": [CAPTIONS]}}, {"name": "captions", "arguments": json.dumps(CAPTIONS)},
    [CAPTIONS], json.dumps(CAPTIONS), {"short": "a draft of it", "final": CAPTIONS},
])
def test_read_answer__is_found_where_it_is_wrapped(wrapped: object) -> None:
    assert read_answer(json.dumps(wrapped)) == CAPTIONS
    if not isinstance(wrapped, str):
        assert read_answer(f"<think>{{}}</think>```json\n{json.dumps(wrapped)}\n```") == CAPTIONS


@pytest.mark.parametrize("behind", ["{}", '{"confidence": 0.9}', "It is {red}.", "<think>oops", "[1, 2]"])
def test_read_answer__a_remark_behind_it_is_none(behind: str) -> None:
    assert read_answer(f"{json.dumps(CAPTIONS)}\n{behind}") == CAPTIONS


@pytest.mark.parametrize("said", ["A sign says <think> in red letters.", "It says <thought>so</thought>, and ,} too."])
def test_read_answer__what_looks_like_reasoning_in_a_caption_is_text(said: str) -> None:
    assert read_answer(json.dumps({**CAPTIONS, "detail": said}))["detail"] == said


def test_read_answer__takes_a_comma_at_the_end() -> None:
    assert read_answer(f"{json.dumps(CAPTIONS)[:-1]},\n}}") == CAPTIONS


def test_read_answer__takes_raw_newlines_and_half_an_emoji() -> None:
    said = json.dumps({**CAPTIONS, "sentence": "A red box NEW falls HALF"}).replace("NEW", "\n").replace("HALF", "\\ud83d")
    assert read_answer(said)["sentence"] == "A red box falls"


def test_prompt_of__says_what_is_known_of_the_video() -> None:
    settings = LlmSettings(prompt="Of {title}, {category}, {channel}. Answer as {this}.")
    assert prompt_of(settings, VIDEO) == "Of Day 1 {channel}, Harbour, . Answer as {this}."
    assert prompt_of(LlmSettings(), VIDEO) == DEFAULT_PROMPT


@pytest.mark.parametrize("more", [
    {"prompt": "Other."}, {"num_frames": 5}, {"send": "video"}, {"options": {"temperature": 0.0}},
])
def test_prompt_hash__tells_apart_what_is_asked(more: dict[str, object]) -> None:
    assert prompt_hash(LlmSettings.of(more)) != prompt_hash(LlmSettings())


@pytest.mark.parametrize("more", [
    {"concurrency": 9}, {"max_output_tokens": 99}, {"keep": ["short"]}, {"budget_usd": 9.0}, {"prompt": DEFAULT_PROMPT},
])
def test_prompt_hash__does_not_heed_how_it_is_asked(more: dict[str, object]) -> None:
    assert prompt_hash(LlmSettings.of(more)) == prompt_hash(LlmSettings())


@pytest.mark.parametrize(("more", "code", "named"), [
    ({"provider": "openai", "send": "video"}, "setting-out-of-range", "send: video"),
    ({"budget": 3}, "unknown-setting", "caption.llm.budget"), ({"keep": ["long"]}, "unknown-choice", "caption.llm.keep.0"),
    ({"budget_usd": -1}, "setting-out-of-range", "budget_usd"), ({"keep": []}, "setting-out-of-range", "keep"),
    ({"options": {"n": 3}}, "setting-out-of-range", "n is decided"),
    ({"options": {"max_tokens": 9000}}, "setting-out-of-range", "max_tokens"),
    ({"options": {"httpOptions": {}}}, "setting-out-of-range", "httpOptions"),
    ({"options": {"candidate_count": 2}}, "setting-out-of-range", "candidate_count"),
    ({"budget_usd": float("inf")}, "setting-out-of-range", "budget_usd"),
    ({"concurrency": 0}, "setting-out-of-range", "concurrency"),
])
def test_settings__what_cannot_be_is_named(more: dict[str, object], code: str, named: str) -> None:
    with raises(ConfigError, code=code, naming=named):
        LlmSettings.of(more)


def test_settings__a_price_that_is_not_said_is_asked_for() -> None:
    with raises(ConfigError, code="setting-missing", naming="usd_per_million_tokens_out"):
        LlmSettings.of({"model": "m", "usd_per_million_tokens_in": 0}).require_complete()


def test_cost_usd__is_tokens_times_prices() -> None:
    settings = LlmSettings.of({"model": "m", "usd_per_million_tokens_in": 0.3, "usd_per_million_tokens_out": 2.5})
    assert settings.cost_usd(2_000_000, 100_000) == pytest.approx(2 * 0.3 + 0.1 * 2.5)
