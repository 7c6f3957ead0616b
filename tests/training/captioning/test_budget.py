"""The budget under many threads, with answers of any cost."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vidseek_media.errors import ConfigError
from vidseek_training.captioning.budget import Budget, Cancelled, Subject, most_usd
from vidseek_training.captioning.journal import Tally, open_journal, read_journal
from vidseek_training.captioning.provider import Stop, Usage
from vidseek_training.captioning.settings import LlmSettings


def settings_of(**more: Any) -> LlmSettings:
    return LlmSettings.of({
        "model": "m", "usd_per_million_tokens_in": 10.0, "usd_per_million_tokens_out": 100.0, "max_output_tokens": 100,
        **more,
    })


SUBJECT = Subject("k", "v", 500)
MOST_USD = (500 * 10.0 + 100 * 100.0) / 1e6


@pytest.mark.parametrize("seed", range(4))
def test_purse__any_mix_of_outcomes_stays_within_the_budget(tmp_path: Path, seed: int) -> None:
    """Twelve threads ask until nothing is left; each answer costs up to what was reserved, some are lost, some are free."""
    allowed = 0.5
    chance = random.Random(seed)
    worst: list[float] = []

    def work(number: int) -> int:
        own, num_asked = random.Random(seed * 100 + number), 0
        while True:
            try:
                reserved = budget.reserve(SUBJECT)
            except Stop:
                return num_asked
            num_asked += 1
            worst.append(budget.counted_usd)
            threading.Event().wait(own.uniform(0, 0.002))
            draw = own.random()
            if draw < 0.1:
                budget.release(reserved, may_be_paid=True)
            elif draw < 0.2:
                budget.release(reserved, may_be_paid=False)
            else:
                usage = Usage(own.randint(1, 500), own.randint(1, 100)) if draw < 0.9 else None
                budget.settle(reserved, usage, captions=None, reason="")

    with open_journal(tmp_path) as journal:
        budget = Budget(settings_of(budget_usd=allowed), journal)
        with ThreadPoolExecutor(12) as pool:
            num_asked = sum(pool.map(work, chance.sample(range(100), 12)))
        assert max(worst) <= allowed + 1e-9
    again = read_journal(tmp_path)
    spent = again.settled_usd + again.unsettled_usd
    assert allowed - MOST_USD < spent <= allowed + 1e-9  # it is used up as far as it goes
    assert num_asked >= allowed / MOST_USD


def test_purse__waits_for_those_under_way_before_it_gives_up(tmp_path: Path) -> None:
    """The budget takes one request at the most; its answer is cheap, so a second one fits after all."""
    with open_journal(tmp_path) as journal:
        budget = Budget(settings_of(budget_usd=MOST_USD * 1.5), journal)
        first = budget.reserve(SUBJECT)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(budget.reserve, SUBJECT)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.1)
            budget.settle(first, Usage(100, 10), captions=None, reason="")
            assert second.result(timeout=60).most_usd == pytest.approx(MOST_USD)


def test_purse__closing_frees_who_waits(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        budget = Budget(settings_of(budget_usd=MOST_USD), journal)
        budget.reserve(SUBJECT)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(budget.reserve, SUBJECT)
            budget.close()
            with pytest.raises(Cancelled):
                waiting.result(timeout=60)


def test_purse__what_a_killed_run_had_on_its_way_counts_in_the_next(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        Budget(settings_of(budget_usd=1.0), journal).reserve(SUBJECT)  # and no more of it
    with open_journal(tmp_path) as journal:
        budget = Budget(settings_of(budget_usd=MOST_USD * 1.9), journal)
        with pytest.raises(Stop) as caught:
            budget.reserve(SUBJECT)
    error = caught.value.error
    assert isinstance(error, ConfigError) and error.code == "budget-used-up" and "never seen" in error.message


def test_most_usd__grows_with_what_the_model_counted() -> None:
    tally = Tally()
    assert most_usd(settings_of(), tally, 500) == pytest.approx(MOST_USD)
    tally.note(tokens_in=100, tokens_out=10, guessed_in=500)
    assert most_usd(settings_of(), tally, 500) == pytest.approx(MOST_USD)  # never less than the guess
    tally.note(tokens_in=1500, tokens_out=300, guessed_in=500)
    assert most_usd(settings_of(), tally, 500) == pytest.approx((1500 * 10.0 + 300 * 100.0) / 1e6)
