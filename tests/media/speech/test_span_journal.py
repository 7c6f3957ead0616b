from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.speech.engine import Utterance
from vidseek_media.speech.span_journal import SPENT_NAME, SpanJournal, SpeechBudget

SAID = [Utterance(0, 900, "größe und maß", "de", 0.5)]


def test_journal__recalls_answers_of_these_settings_and_forgets_them(tmp_path: Path) -> None:
    journal = SpanJournal(tmp_path / "new", {"engine": "a"})
    journal.remember("v1", (0, 16000), SAID)
    journal.remember("v1", (20000, 30000), [])
    assert SpanJournal(tmp_path / "new", {"engine": "a"}).recall("v1") == {(0, 16000): SAID, (20000, 30000): []}
    assert journal.recall("v2") == {} == SpanJournal(tmp_path / "new", {"engine": "b"}).recall("v1")
    journal.forget("v1")
    journal.forget("v1")
    assert journal.recall("v1") == {}


def test_journal__a_torn_line_is_an_answer_that_is_not_known(tmp_path: Path) -> None:
    journal = SpanJournal(tmp_path, {})
    journal.remember("v1", (0, 16000), SAID)
    [path] = tmp_path.glob("v1-*.parts.jsonl")
    path.write_bytes(path.read_bytes() + b'{"start": 1, "end": 2}\n{"start": 16000, "e')
    assert journal.recall("v1") == {(0, 16000): SAID}
    journal.remember("v1", (20000, 30000), [])
    assert set(journal.recall("v1")) == {(0, 16000), (20000, 30000)}


def test_budget__counts_all_runs_and_stops_at_its_limit(tmp_path: Path) -> None:
    first = SpeechBudget(tmp_path, usd_per_minute=0.6, budget_usd=1.0)
    first.reserve(60)
    freed = first.reserve(30)
    first.free(freed)
    first.free(freed)
    again = SpeechBudget(tmp_path, usd_per_minute=0.6, budget_usd=1.0)
    assert again.spent_usd == pytest.approx(0.6)
    again.reserve(40)  # 1.0 exactly
    with raises(ConfigError, code="budget-used-up", naming="1.0000"):
        again.reserve(1)
    assert SpeechBudget(tmp_path, usd_per_minute=0.6, budget_usd=2.0).spent_usd == pytest.approx(1.0)


def test_budget__what_is_free_is_not_written(tmp_path: Path) -> None:
    budget = SpeechBudget(tmp_path, usd_per_minute=0.0, budget_usd=0.0)
    budget.free(budget.reserve(3600))
    assert not (tmp_path / SPENT_NAME).exists()
