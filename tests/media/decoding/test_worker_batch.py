from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidseek_media.decoding import worker_batch
from vidseek_media.decoding.worker_batch import run_each
from vidseek_media.decoding.workers import ForkServer, WorkerLost
from vidseek_media.errors import InputRejected

CRASH = "__import__('os').abort()"
HANG = "__import__('time').sleep(600)"


@pytest.fixture(autouse=True)
def own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch begins and ends its server, as it does in use."""
    monkeypatch.setattr(worker_batch, "ForkServer", ForkServer)


def test_run_each__gives_every_value() -> None:
    outcomes = list(run_each(math.sqrt, [1.0, 4.0, 9.0], workers=2, timeout_seconds=60))
    assert {o.item: o.value for o in outcomes} == {1.0: 1.0, 4.0: 2.0, 9.0: 3.0}
    assert all(o.error is None for o in outcomes)


def test_run_each__of_nothing_starts_nothing() -> None:
    assert list(run_each(math.sqrt, [], workers=2, timeout_seconds=60)) == []


def test_run_each__an_exception_costs_its_item_alone() -> None:
    outcomes = {o.item: o for o in run_each(math.sqrt, [1.0, -1.0, 4.0], workers=1, timeout_seconds=60)}
    assert isinstance(outcomes[-1.0].error, InputRejected)
    assert "ValueError" in str(outcomes[-1.0].error)
    assert (outcomes[1.0].value, outcomes[4.0].value) == (1.0, 2.0)


@pytest.mark.parametrize(("bad", "reason"), [(CRASH, "SIGABRT"), (HANG, "longer than 0.5 s")])
def test_run_each__a_crash_or_a_hang_costs_its_item_alone(bad: str, reason: str) -> None:
    seconds = {HANG: 0.5}
    outcomes = {
        o.item: o for o in
        run_each(eval, ["1", bad, "2", "3"], workers=1, timeout_seconds=lambda item: seconds.get(item, 300.0))
    }
    assert isinstance(outcomes[bad].error, WorkerLost)
    assert reason in str(outcomes[bad].error)
    assert [outcomes[item].value for item in ("1", "2", "3")] == [1, 2, 3]


def test_run_each__a_time_out_depends_on_the_item_and_names_its_setting() -> None:
    [outcome] = run_each(
        eval, [HANG], workers=1, timeout_seconds=lambda item: 0.1 * len(item) / len(HANG),
        timeout_setting="a.timeout_seconds",
    )
    assert isinstance(outcome.error, WorkerLost)
    assert outcome.error.message == "took longer than 0.1 s, see a.timeout_seconds in params.yaml"


def test_run_each__waiting_for_a_processor_does_not_count() -> None:
    """Three others compute on the processor of the worker, which gets about a quarter of it."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not say how long a process has waited")
    compute = "all(each < 0.4 for each in iter(__import__('time').process_time, None))"
    one = {min(os.sched_getaffinity(0))}
    before = os.sched_getaffinity(0)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        for each in others:
            os.sched_setaffinity(each.pid, one)
        os.sched_setaffinity(0, one)  # of the server and its workers too
        [outcome] = run_each(eval, [compute], workers=1, timeout_seconds=1.0)
    finally:
        os.sched_setaffinity(0, before)
        for each in others:
            each.kill()
            each.wait()
    assert outcome.error is None and outcome.value is False


def test_run_each__an_error_of_ours_arrives_whole() -> None:
    made = "__import__('vidseek_media.errors').errors.ConfigError('what', code='c', remedy='how')"
    raise_ours = f"(_ for _ in ()).throw({made})"
    [outcome] = run_each(eval, [raise_ours], workers=1, timeout_seconds=60)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.message, outcome.error.remedy) == ("c", "what", "how")


def test_run_each__more_memory_than_allowed_costs_its_item_alone() -> None:
    greedy = "len(bytearray(2**30))"
    outcomes = {o.item: o for o in run_each(eval, ["1", greedy, "2"], workers=1, timeout_seconds=60, memory_mib=600)}
    error = outcomes[greedy].error
    assert error is not None and error.code == "too-much-memory" and "600 MiB" in error.message
    assert [outcomes[item].value for item in ("1", "2")] == [1, 2]


def test_run_each__replaces_a_worker_after_so_many_items() -> None:
    ask = "__import__('os').getpid()"
    pids = [o.value for o in run_each(eval, [ask] * 5, workers=1, timeout_seconds=60, recycle_after=2)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_run_each__replaces_a_worker_that_leaks() -> None:
    """It keeps 400 of 600 MiB after its first item; the others must not find it so."""
    leak = "__import__('sys').__dict__.setdefault('kept', bytearray(400 * 2**20)) and __import__('os').getpid()"
    ask = "__import__('os').getpid()"
    first, second = run_each(eval, [leak, ask], workers=1, timeout_seconds=60, memory_mib=600)
    assert first.error is None and second.error is None
    assert first.value != second.value
