"""How long the demo takes: twice as slow products, or one core in place of two, take twice as long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidseek_demo import duration
from vidseek_demo.duration import (
    CORES_IN_USE,
    REFERENCE_SECONDS,
    STAGES_SECONDS,
    TRAINING_SECONDS,
    count_cores,
    minutes_of,
    products_seconds,
)


def test_minutes_of__the_reference_machine_are_those_that_were_measured_there() -> None:
    found = minutes_of(REFERENCE_SECONDS, cores=2, has_bf16=True)
    assert found == pytest.approx((STAGES_SECONDS + TRAINING_SECONDS) / CORES_IN_USE / 60)
    assert minutes_of(2 * REFERENCE_SECONDS, cores=2, has_bf16=True) == pytest.approx(2 * found)
    assert minutes_of(REFERENCE_SECONDS, cores=1, has_bf16=True) == pytest.approx(CORES_IN_USE * found)
    assert minutes_of(REFERENCE_SECONDS, cores=64, has_bf16=True) == pytest.approx(found)
    assert minutes_of(REFERENCE_SECONDS, cores=2, has_bf16=False) > found


def test_count_cores__threads_of_one_core_count_once(tmp_path: Path) -> None:
    for number, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        place = tmp_path / f"cpu{number}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{siblings}\n")
    assert [count_cores(some, tmp_path) for some in ({0, 1, 2, 3}, {0, 2}, {0, 1}, {3}, {0, 2, 7, 8})] == [2, 1, 2, 1, 3]
    assert 1 <= count_cores(os.sched_getaffinity(0)) <= len(os.sched_getaffinity(0))


def test_products_seconds__doubles_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    once = products_seconds()
    monkeypatch.setattr(duration, "TIMES", 4 * duration.TIMES)
    assert 2 * once < products_seconds() < 8 * once


def test_products_seconds__is_no_more_on_several_threads() -> None:
    """What other threads of the library do would count too: its products are too small for them."""
    code = "from vidseek_demo.duration import products_seconds; print(products_seconds())"
    one, two = (
        float(subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": num}, check=True,
                             capture_output=True, text=True).stdout)
        for num in ("1", "2")
    )
    assert two < 2 * one
