"""Who waits for whom in a pool of decoders, and what becomes of inputs that are slow, that crash, or that are cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.batcher import QueueFull
from serving.http.clients import UNKNOWN, _client, client_key
from serving.inputs.pool import CutOff, Pool, Task
from tests.waiting import is_gone, until
from vidseek.settings import PoolSettings
from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer, WorkerLost
from vidseek_media.errors import InputRejected

BURN = "all(each == 0 for each in iter(int, 1))"
"""Computes for ever."""
PID = "__import__('os').getpid()"
Play = Callable[[Pool], Awaitable[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    one = ForkServer()
    yield one
    one.close()


def task(expression: str) -> Task:
    return Task(Job(eval, (expression,)))


def play(server: ForkServer, work: Play, *, recycle_after: int = 100, timeout: float = 600.0, **how: Any) -> Any:
    """What `work` gives with a pool of its own."""
    async def main() -> Any:
        pool = Pool(
            "test", server, PoolSettings(**how), Confinement.BATCH, timeout_seconds=timeout, recycle_after=recycle_after,
            max_answer_bytes=2**20,
        )
        try:
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(main())


async def ask(pool: Pool, expression: str, client: str = "a", *, num: int = 1) -> Any:
    _client.set(client)  # each asyncio task has a context of its own
    try:
        found = await pool.submit_all([task(expression)] * num)
    except Exception as error:  # noqa: BLE001 - it is what the test looks at
        return error
    return found[0] if num == 1 else found


def begin(pool: Pool, expression: str, client: str = "a", *, num: int = 1) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(ask(pool, expression, client, num=num))


class Held:
    """Work that goes on until it is let go."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "let-go"
        looks = f"lambda: __import__('time').sleep(0.002) or __import__('os').path.exists({str(self._file)!r})"
        self.work = f"all(each is not None for each in iter({looks}, True))"

    def let_go(self) -> None:
        self._file.touch()


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


def pids_of(pool: Pool) -> list[int]:
    """The workers that have something to do."""
    return [each.worker.pid for each in pool._running if each.worker is not None]


def test_pool__gives_values_and_arrays_and_errors(server: ForkServer) -> None:
    async def work(pool: Pool) -> None:
        assert await ask(pool, "6 * 7") == 42
        array = await ask(pool, "__import__('numpy').arange(24, dtype='uint8').reshape(2, 3, 4)")
        np.testing.assert_array_equal(array, np.arange(24).reshape(2, 3, 4))
        assert isinstance(await ask(pool, "1 / 0"), InputRejected)
        assert await ask(pool, "1", num=3) == [1, 1, 1]
        assert not pool._held and not pool._running

    play(server, work)


def test_pool__takes_nothing_else_from_a_worker(server: ForkServer) -> None:
    """What a worker sends may be an attacker's: neither code nor more bytes than were asked for."""
    async def work(pool: Pool) -> None:
        evil = "type('E', (), {'__reduce__': lambda s: (__import__('os').mkdir, ('/tmp/vidseek-was-hurt',))})()"
        assert isinstance(await ask(pool, evil), WorkerLost)
        assert not Path("/tmp/vidseek-was-hurt").exists()
        assert isinstance(await ask(pool, "bytes(2**21)"), WorkerLost)
        assert await ask(pool, "1") == 1

    play(server, work)


def test_pool__uses_a_worker_again_as_often_as_it_may(server: ForkServer) -> None:
    async def work(pool: Pool) -> list[int]:
        return [await ask(pool, PID) for _ in range(4)]

    first, second, third, fourth = play(server, work, recycle_after=2, workers=1)
    assert first == second != third == fourth


def test_pool__clients_take_turns(server: ForkServer, held: Held) -> None:
    async def work(pool: Pool) -> list[str]:
        order: list[str] = []

        async def one(client: str) -> None:
            await ask(pool, held.work, client)
            order.append(client)

        greedy = [asyncio.create_task(one("greedy")) for _ in range(6)]
        await until(lambda: pool.num_waiting == 5)
        late = asyncio.create_task(one("late"))
        await until(lambda: pool.num_waiting == 6)
        held.let_go()
        await asyncio.gather(late, *greedy)
        return order

    assert "late" in play(server, work, workers=1)[:3]


def test_pool__a_client_has_a_share_and_others_theirs(server: ForkServer, held: Held) -> None:
    async def work(pool: Pool) -> None:
        running = [begin(pool, held.work) for _ in range(3)]
        await until(lambda: len(pids_of(pool)) == 3)
        refused = await ask(pool, "1")
        assert isinstance(refused, QueueFull) and "for this client" in refused.message
        assert await ask(pool, "2", "b") == 2
        held.let_go()
        await asyncio.gather(*running)
        assert await ask(pool, "3", num=20) == [3] * 20  # one request with more, and nothing else

    play(server, work, workers=4, max_share=3, max_waiting=8)


def test_pool__has_an_end(server: ForkServer, held: Held) -> None:
    async def work(pool: Pool) -> None:
        running = [begin(pool, held.work, str(number)) for number in range(3)]
        await until(lambda: pool.num_waiting == 2)
        assert isinstance(await ask(pool, "1", "late"), QueueFull)
        held.let_go()
        await asyncio.gather(*running)

    play(server, work, workers=1, max_waiting=2)


def test_pool__what_is_slow_steps_aside(server: ForkServer) -> None:
    """One worker; three clients send what computes for ever. An ordinary client is answered as if they were not there."""
    async def work(pool: Pool) -> None:
        slow = [begin(pool, BURN, f"slow {number}") for number in range(3)]
        await until(lambda: bool(pids_of(pool)))
        assert await ask(pool, "1", "ordinary") == 1
        assert not all(each.done() for each in slow)  # it waited for none of them to end
        for _ in range(4):
            assert await ask(pool, "1", "ordinary") == 1
        await until(lambda: any(each.done() for each in slow))
        [refused] = [each.result() for each in slow if each.done()]
        assert isinstance(refused, QueueFull)  # no place for a third
        assert await ask(pool, "1", "ordinary") == 1

    play(server, work, workers=1, slow_workers=2, quick_seconds=0.1, cpu_seconds=600.0)


def test_pool__one_client_never_has_all_slow_places(server: ForkServer) -> None:
    async def work(pool: Pool) -> None:
        asked = [begin(pool, BURN, "greedy") for _ in range(3)]
        await until(lambda: sum(each.done() for each in asked) == 2)
        assert all(isinstance(each.result(), QueueFull) for each in asked if each.done())

    play(server, work, workers=2, slow_workers=2, quick_seconds=0.1, cpu_seconds=600.0)


def test_pool__a_client_that_has_used_much_comes_last(server: ForkServer, held: Held) -> None:
    async def work(pool: Pool) -> None:
        pool._used = {"heavy": (5.0, time.monotonic()), "of old": (5.0, time.monotonic() - 10_000)}
        begin(pool, held.work, "first")
        await until(lambda: bool(pids_of(pool)))
        order: list[str] = []

        async def one(client: str) -> None:
            await ask(pool, "1", client)
            order.append(client)

        asked = [asyncio.create_task(one(client)) for client in ("heavy", "heavy", "of old", "new")]
        await until(lambda: pool.num_waiting == 4)
        held.let_go()
        await asyncio.gather(*asked)
        assert order == ["new", "of old", "heavy", "heavy"] or order == ["of old", "new", "heavy", "heavy"]

    play(server, work, workers=1)


@pytest.mark.parametrize(
    ("long", "how", "reason"), [
        ("__import__('time').sleep(600)", {"timeout": 0.5}, "longer than 0.5 s"),
        (BURN, {"cpu_seconds": 1.0, "quick_seconds": 60.0}, "of computing"),
    ]
)
def test_pool__what_takes_too_long_is_killed(
    server: ForkServer, long: str, how: dict[str, float], reason: str
) -> None:
    async def work(pool: Pool) -> None:
        pid = await ask(pool, PID)
        end = await ask(pool, long)
        assert isinstance(end, WorkerLost) and end.fault == "time" and reason in end.message
        await gone([pid])
        assert await ask(pool, "1") == 1

    play(server, work, workers=1, **how)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_pool__a_crash_is_tried_once_more_where_the_worker_was_not_fresh(server: ForkServer, number: int) -> None:
    crash = f"__import__('signal').raise_signal({int(number)})"

    async def work(pool: Pool) -> None:
        assert await ask(pool, "1") == 1
        end = await ask(pool, crash)
        assert isinstance(end, WorkerLost) and end.fault == "crash" and end.was_fresh  # the second worker died too
        assert signal.Signals(number).name in end.message
        # Harm that another input did: this one is well in a fresh worker.
        assert await ask(pool, "__import__('sys').__dict__.setdefault('harmed', 1)") == 1
        once = f"({crash}) if hasattr(__import__('sys'), 'harmed') else 'well'"
        assert await ask(pool, once) == "well"

    play(server, work, workers=1)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGTERM, None), (signal.SIGKILL, WorkerLost), (signal.SIGUSR1, CutOff)]
)
def test_pool__a_worker_that_is_ended_from_outside(
    server: ForkServer, held: Held, number: int, kind: type[Exception] | None
) -> None:
    """SIGTERM goes to all processes of a service that ends: a decoder finishes. SIGKILL may be the kernel's for memory: it
    is tried once more, and then is the input's fault. Other signals are nobody's fault: 503."""
    async def work(pool: Pool) -> None:
        one = begin(pool, held.work)
        killed: set[int] = set()
        while len(killed) < (1 if kind is None else 2):
            await until(lambda: bool(set(pids_of(pool)) - killed))
            [pid] = set(pids_of(pool)) - killed
            os.kill(pid, number)
            killed.add(pid)
        if kind is None:
            held.let_go()
        assert await one is True if kind is None else isinstance(await one, kind)

    play(server, work, workers=1)


def test_pool__killed_once_by_the_kernel_is_answered_all_the_same(server: ForkServer, held: Held) -> None:
    async def work(pool: Pool) -> None:
        one = begin(pool, held.work)
        await until(lambda: bool(pids_of(pool)))
        [pid] = pids_of(pool)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pids_of(pool) not in ([], [pid]))
        held.let_go()
        assert await one is True

    play(server, work, workers=1)


def test_pool__closing_ends_all_work_and_says_503(server: ForkServer) -> None:
    async def work(pool: Pool) -> None:
        tasks = [begin(pool, BURN, str(number)) for number in range(4)]
        await until(lambda: len(pids_of(pool)) == 2)
        pids = pids_of(pool)
        pool.close()
        for end in await asyncio.gather(*tasks):
            assert isinstance(end, CutOff) and "ending" in end.message
        assert isinstance(await ask(pool, "1"), CutOff)
        await gone(pids)

    play(server, work, workers=2)


async def gone(pids: list[int]) -> None:
    assert pids
    await until(lambda: all(is_gone(pid) for pid in pids))


def test_pool__who_goes_away_takes_the_work_along(server: ForkServer) -> None:
    async def work(pool: Pool) -> None:
        tasks = [begin(pool, BURN) for _ in range(3)]
        await until(lambda: len(pids_of(pool)) == 1)
        pids = pids_of(pool)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gone(pids)
        assert await ask(pool, "1") == 1
        assert not pool._held and pool.num_waiting == 0

    play(server, work, workers=1)


def test_pool__goes_on_when_its_server_is_killed(server: ForkServer) -> None:
    own = ForkServer()

    async def work(pool: Pool) -> None:
        assert await ask(pool, "1") == 1
        assert own._process is not None
        own._process.kill()
        own._process.wait()
        assert await ask(pool, "2") == 2

    play(own, work, workers=1)
    own.close()


@pytest.mark.parametrize(("address", "client"), [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::9%eth0", "2001:db8:1:2::/64"), ("testclient", UNKNOWN), ("", UNKNOWN),
])
def test_client_key__is_an_address_or_a_network_of_ipv6(address: str, client: str) -> None:
    assert client_key(address) == client
