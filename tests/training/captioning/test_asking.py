"""Many questions at once, against a real server: bounds, retries, the budget, and what is kept when it stops."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.training.llm_servers import (
    KEY,
    MODEL,
    ReceivedRequest,
    Reply,
    Script,
    Server,
    gemini_fault,
    openai_fault,
    openai_reply,
    serve,
)
from tests.waiting import wait_until
from vidseek_media.errors import ConfigError, ServiceError
from vidseek_training.captioning import asking
from vidseek_training.captioning.asking import Outcome, ask_all
from vidseek_training.captioning.budget import Subject
from vidseek_training.captioning.journal import open_journal, read_journal
from vidseek_training.captioning.opening import open_provider
from vidseek_training.captioning.provider import Request
from vidseek_training.captioning.registry import caption_provider
from vidseek_training.captioning.settings import LlmSettings

MOST_USD = 0.01
"""Of one request: 200 tokens guessed in, 64 out, as `settings_of` prices them."""


def settings_of(**more: Any) -> LlmSettings:
    """An answer of 200 tokens in and 32 out costs 0.006 USD."""
    return LlmSettings.of({
        "provider": "openai", "model": MODEL, "usd_per_million_tokens_in": 10.0, "usd_per_million_tokens_out": 125.0,
        "max_output_tokens": 64, "timeout_seconds": 5.0, **more,
    })


def good(**more: Any) -> Reply:
    return openai_reply(**{"tokens_in": 200, "tokens_out": 32, **more})


def ask(folder: Path, num_jobs: int, settings: LlmSettings) -> list[Outcome]:
    jobs = ((Subject(f"key{i}", "v", 200), Request(f"clip {i}")) for i in range(num_jobs))
    with open_journal(folder) as journal, closing(open_provider(settings)) as provider:
        return ask_all(jobs, num_jobs=num_jobs, provider=provider, settings=settings, journal=journal)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setenv("VIDSEEK_LLM_KEY", KEY)


@contextmanager
def following(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(script) as server:
        monkeypatch.setenv("VIDSEEK_LLM_URL", server.url)
        yield server


def answered(folder: Path) -> set[str]:
    return {key for key, entry in read_journal(folder).entries.items() if entry.captions}


def test_ask_all__asks_each_once_and_no_more_at_once_than_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(lambda *_: good(seconds=0.1), monkeypatch) as server:
        assert ask(tmp_path, 13, settings_of(concurrency=3)) == []
    assert answered(tmp_path) == {f"key{i}" for i in range(13)} and len(server.asked) == 13
    assert server.most_at_once == 3
    assert read_journal(tmp_path).settled_usd == pytest.approx(13 * 0.006)


@pytest.mark.parametrize("fault", [
    openai_fault(429, "slow down"), openai_fault(500, "oh"), openai_fault(503, "busy"), Reply(drops=True),
    Reply({}, seconds=30.0),
], ids=["429", "500", "503", "dropped", "hangs"])
def test_ask_all__tries_again_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Reply) -> None:
    """The first two requests about each clip fail."""
    seen: Counter[str] = Counter()

    def script(asked: ReceivedRequest, _: int) -> Reply:
        seen[asked.prompt] += 1
        return good() if seen[asked.prompt] > 2 else fault

    with following(script, monkeypatch) as server:
        assert ask(tmp_path, 4, settings_of(timeout_seconds=1.0 if fault.seconds else 60.0)) == []
    assert answered(tmp_path) == {f"key{i}" for i in range(4)} and len(server.asked) == 12
    journal = read_journal(tmp_path)
    may_be_paid = fault.drops or fault.seconds > 0
    assert journal.settled_usd == pytest.approx(4 * 0.006)
    assert journal.unsettled_usd == pytest.approx(8 * MOST_USD if may_be_paid else 0.0)


def test_ask_all__waits_as_long_as_the_server_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []

    def script(_: ReceivedRequest, number: int) -> Reply:
        moments.append(time.monotonic())
        return openai_fault(429, "slow down", headers={"Retry-After": "0.8"}) if number == 1 else good()

    with following(script, monkeypatch):
        assert ask(tmp_path, 2, settings_of()) == []
    assert len(moments) == 3 and moments[2] - moments[1] > 0.75


def test_ask_all__each_wait_is_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BACKOFF_SECONDS", 0.2)
    moments: list[float] = []

    def script(_: ReceivedRequest, number: int) -> Reply:
        moments.append(time.monotonic())
        return openai_fault(500, "oh") if number < 3 else good()

    with following(script, monkeypatch):
        ask(tmp_path, 1, settings_of())
    waits = [later - sooner for sooner, later in pairwise(moments)]
    assert [wait > low for wait, low in zip(waits, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


def test_ask_all__a_server_that_asks_for_hours_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = openai_fault(429, "slow down", headers={"Retry-After": "7200"})
    with following(lambda *_: fault, monkeypatch), raises(ServiceError, code="llm-no-answer", naming="7200 s"):
        ask(tmp_path, 3, settings_of())


def test_ask_all__a_bad_answer_is_asked_for_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with following(lambda _, number: good(text="well") if number == 0 else good(), monkeypatch) as server:
        assert ask(tmp_path, 1, settings_of()) == []
    entry = read_journal(tmp_path).entries["key0"]
    assert entry.captions and len(server.asked) == 2 and entry.cost_usd == pytest.approx(0.012)


def test_ask_all__two_bad_answers_are_a_verdict_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with following(lambda *_: good(text="I'm sorry"), monkeypatch) as server:
        assert ask(tmp_path, 1, settings_of()) == []
    entry = read_journal(tmp_path).entries["key0"]
    assert entry.captions is None and "is no JSON" in entry.reason and entry.cost_usd == pytest.approx(0.012)
    assert len(server.asked) == 2


def longest(asked: ReceivedRequest) -> int:
    return int(asked.body["max_tokens"])


def test_ask_all__an_answer_that_is_cut_off_gets_more_room_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = good(text='{"short": "a re', finish="length", thoughts=30)
    with following(lambda *_: cut, monkeypatch) as server:
        assert ask(tmp_path, 1, settings_of()) == []
    entry = read_journal(tmp_path).entries["key0"]
    assert [longest(each) for each in server.asked] == [64, 256] and entry.cut_at == 256
    assert "64 tokens (30 of them thoughts), and again at 256" in entry.reason


def test_ask_all__a_model_that_needs_more_room_is_given_it_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of 100 tokens where 64 are allowed: one clip is paid for twice, not each."""
    def script(asked: ReceivedRequest, _: int) -> Reply:
        return good(tokens_out=100) if longest(asked) >= 100 else good(text="", tokens_out=64)

    with following(script, monkeypatch) as server:
        assert ask(tmp_path, 4, settings_of(concurrency=1)) == []
    assert [longest(each) for each in server.asked] == [64, 256, 256, 256, 256]
    assert answered(tmp_path) == {f"key{i}" for i in range(4)}


def test_ask_all__a_server_that_takes_no_longer_answers_is_not_asked_for_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its context is full at 200 tokens, and clip 1 is cut off: a verdict, and no more than one request for clip 2."""
    def script(asked: ReceivedRequest, _: int) -> Reply:
        if longest(asked) > 200:
            return openai_fault(400, "this model's maximum context length is 200 tokens")
        return good() if asked.prompt in ("clip 0", "clip 3") else good(text="{", finish="length")

    with following(script, monkeypatch) as server:
        assert ask(tmp_path, 4, settings_of(concurrency=1)) == []
    assert [each.prompt[-1] for each in server.asked] == ["0", "1", "1", "2", "3"]
    entries = read_journal(tmp_path).entries
    assert "context length" in entries["key1"].reason and entries["key1"].cut_at == entries["key2"].cut_at == 256
    assert entries["key1"].cost_usd == pytest.approx(0.006)  # what was refused cost nothing


def test_ask_all__a_longer_answer_is_reserved_at_what_it_may_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 tokens out may cost 0.01, 256 cost 0.034: with 0.006 spent, 0.035 are too little."""
    cut = good(text="{", finish="length")
    with following(lambda *_: cut, monkeypatch) as server, raises(ConfigError, code="budget-used-up", naming="0.0340"):
        ask(tmp_path, 1, settings_of(budget_usd=0.035))
    assert len(server.asked) == 1


@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_ask_all__a_retired_model_is_one_error_that_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    gone = openai_fault(404, "no such model", code="model_not_found") if provider == "openai" else gemini_fault(
        404, "NOT_FOUND", "models/seer-1 is not found for API version v1beta")
    names, page = (f"{provider}/{MODEL}", "retired"), caption_provider(provider).models_page
    refused = raises(ConfigError, code="llm-model-unknown", naming=names, remedy=page)
    with following(lambda *_: gone, monkeypatch) as server, refused:
        ask(tmp_path, 9, settings_of(provider=provider))
    assert len(server.asked) == 1
    assert read_journal(tmp_path).entries == {}


def test_ask_all__a_model_that_never_answers_well_is_stopped_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = good(text="here you are:")
    fruitless = raises(ServiceError, code="llm-no-captions", naming=("first 5 clips", "no JSON"))
    with following(lambda *_: bad, monkeypatch) as server, fruitless:
        ask(tmp_path, 40, settings_of(concurrency=8))
    assert len(server.asked) == 10 and len(read_journal(tmp_path).entries) == 5


def test_ask_all__what_is_blocked_is_skipped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(asked: ReceivedRequest, _: int) -> Reply:
        return good(text="", finish="content_filter") if asked.prompt == "clip 1" else good()

    with following(script, monkeypatch) as server:
        assert ask(tmp_path, 3, settings_of()) == []
    assert answered(tmp_path) == {"key0", "key2"} and len(server.asked) == 3
    assert "filter" in read_journal(tmp_path).entries["key1"].reason


def test_ask_all__a_request_that_is_not_taken_is_left_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(asked: ReceivedRequest, _: int) -> Reply:
        return openai_fault(400, "invalid image") if asked.prompt == "clip 1" else good()

    with following(script, monkeypatch):
        [lost] = ask(tmp_path, 5, settings_of())
    assert lost.subject.key == "key1" and "invalid image" in lost.reason
    assert "key1" not in read_journal(tmp_path).entries
    assert read_journal(tmp_path).unsettled_usd == 0.0


def test_ask_all__a_wrong_key_costs_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = openai_fault(401, f"wrong: {KEY}")
    refused = raises(ConfigError, code="llm-key-refused", naming="HTTP 401")
    with following(lambda *_: wrong, monkeypatch) as server, refused as caught:
        ask(tmp_path, 9, settings_of(concurrency=8))
    assert len(server.asked) == 1 and KEY not in str(caught.value)
    assert KEY.encode() not in (tmp_path / "journal.sqlite3").read_bytes()


def test_ask_all__a_server_that_is_down_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = raises(ServiceError, code="llm-no-answer", naming=("3 clips", "maintenance", "2 attempts"))
    down = openai_fault(503, "maintenance")
    with following(lambda *_: down, monkeypatch) as server, stopped:
        ask(tmp_path, 50, settings_of(attempts=2, concurrency=8))
    assert len(server.asked) == 6


def test_ask_all__a_stop_keeps_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is withdrawn while three slow answers are on their way."""
    def script(_: ReceivedRequest, number: int) -> Reply:
        return openai_fault(401, "withdrawn", seconds=0.1) if number == 4 else good(seconds=0.5 if number else 0)

    with following(script, monkeypatch) as server, raises(ConfigError, code="llm-key-refused"):
        ask(tmp_path, 20, settings_of(concurrency=4))
    assert len(server.asked) == 5 and len(answered(tmp_path)) == 4
    assert read_journal(tmp_path).unsettled_usd == 0.0


def test_ask_all__never_passes_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 answers of 0.006 fit into 0.035 beside the 0.01 that a sixth may cost; two more would not."""
    with following(lambda *_: good(seconds=0.05), monkeypatch) as server:
        with raises(ConfigError, code="budget-used-up", naming="0.035 USD", remedy="max_clips"):
            ask(tmp_path, 50, settings_of(budget_usd=0.035, concurrency=8))
        assert len(server.asked) == 5 and read_journal(tmp_path).settled_usd == pytest.approx(0.030)
        assert server.most_at_once <= 2  # 0.006 spent, and twice 0.01 reserved
        with raises(ConfigError, code="budget-used-up"):
            ask(tmp_path, 1, settings_of(budget_usd=0.035))
        assert len(server.asked) == 5
        ask(tmp_path, 1, settings_of(budget_usd=0.05))  # raised: it goes on
        assert len(server.asked) == 6


def test_ask_all__a_model_that_counts_more_than_was_guessed_passes_no_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts ten times the guess: 0.024 an answer. From the second request on that is what is reserved."""
    reply = good(tokens_in=2000, seconds=0.05)
    with following(lambda *_: reply, monkeypatch) as server, raises(ConfigError, code="budget-used-up"):
        ask(tmp_path, 50, settings_of(budget_usd=0.1, concurrency=8))
    assert read_journal(tmp_path).settled_usd <= 0.1
    assert len(server.asked) == 4  # 3 x 0.024 spent + 0.028 at the most = 0.1


def test_ask_all__an_answer_without_a_count_costs_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with following(lambda *_: good(has_usage=False), monkeypatch):
        ask(tmp_path, 2, settings_of())
    assert read_journal(tmp_path).settled_usd == pytest.approx(2 * MOST_USD)


def test_ask_all__a_free_model_needs_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = settings_of(usd_per_million_tokens_in=0, usd_per_million_tokens_out=0, budget_usd=0)
    with following(lambda *_: good(), monkeypatch):
        ask(tmp_path, 5, free)
    assert len(answered(tmp_path)) == 5


def test_ask_all__an_interrupt_keeps_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while four answers are on their way, seen as the pool sees it: an exception where it draws a job."""
    with following(lambda _, number: good(seconds=0.4 if number else 0), monkeypatch) as server:
        def jobs() -> Iterator[tuple[Subject, Request]]:
            for i in range(5):
                yield Subject(f"key{i}", "v", 200), Request(f"clip {i}")
            wait_until(lambda: len(server.asked) == 5)
            raise KeyboardInterrupt

        settings = settings_of(concurrency=8)
        with (
            open_journal(tmp_path) as journal, closing(open_provider(settings)) as provider,
            pytest.raises(KeyboardInterrupt),
        ):
            ask_all(jobs(), num_jobs=9, provider=provider, settings=settings, journal=journal)
    assert len(answered(tmp_path)) == 5
    assert not [t for t in threading.enumerate() if t.name.startswith("caption")]
