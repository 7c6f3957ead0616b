from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from serving.batcher import Batcher, QueueFull
from tests.raising import raises
from tests.waiting import until
from vidseek_media.errors import InputRejected


class Doubling:
    """Doubles numbers, when it is let; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.gate.wait(60)
        if 13 in items:
            raise InputRejected("13", code="c")
        return [2 * item for item in items]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


def batcher_of(doubling: Doubling, *, max_batch: int = 4, max_queue: int = 8) -> Batcher[int, int]:
    return Batcher(doubling, name="doubling", max_batch=max_batch, max_queue=max_queue)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_submit__lone_item_goes_at_once_and_alone(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling)
        assert [await batcher.submit(number) for number in (1, 2, 3)] == [2, 4, 6]
        batcher.close()

    run(work())
    assert doubling.batches == [[1], [2], [3]]


def test_submit__what_gathers_while_one_runs_is_the_next_batch(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling)
        doubling.gate.clear()
        first = asyncio.create_task(batcher.submit(0))
        await until(lambda: doubling.batches)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
        await asyncio.sleep(0)
        doubling.gate.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
        assert batcher.num_batches == {1: 1, 4: 1, 2: 1}
        batcher.close()

    run(work())
    assert doubling.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_submit__one_more_than_the_queue_holds_is_told_so(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling, max_queue=2)
        doubling.gate.clear()
        tasks = [asyncio.create_task(batcher.submit(0))]
        await until(lambda: doubling.batches)
        tasks += [asyncio.create_task(batcher.submit(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        with raises(QueueFull, code="queue-full"):
            await batcher.submit(3)
        doubling.gate.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert await batcher.submit(5) == 10
        batcher.close()

    run(work())


def test_submit__who_has_gone_takes_no_place_in_the_queue(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling, max_queue=1)
        doubling.gate.clear()
        first = asyncio.create_task(batcher.submit(0))
        await until(lambda: doubling.batches)
        leaving = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        staying = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        doubling.gate.set()
        assert await asyncio.gather(first, staying) == [0, 4]
        batcher.close()

    run(work())


def test_submit_all__is_all_or_nothing_and_in_order(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling, max_batch=2, max_queue=3)
        assert await batcher.submit_all([5, 6, 7, 8]) == [10, 12, 14, 16]  # alone, more than may wait is taken
        assert await batcher.submit_all([]) == []
        doubling.gate.clear()
        first = asyncio.create_task(batcher.submit_all([1, 2, 3]))
        while len(doubling.batches) < 3:
            await asyncio.sleep(0.001)
        with raises(QueueFull, code="queue-full"):
            await batcher.submit_all([4, 5, 6])  # one waits already
        assert batcher.num_waiting == 1
        doubling.gate.set()
        assert await first == [2, 4, 6]
        with raises(InputRejected, code="c"):
            await batcher.submit_all([1, 13])
        batcher.close()

    run(work())


def test_submit__one_bad_item_spoils_no_other(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling)
        answers = await asyncio.gather(*(batcher.submit(n) for n in (1, 13, 3)), return_exceptions=True)
        assert (answers[0], answers[2]) == (2, 6) and isinstance(answers[1], InputRejected)
        batcher.close()

    run(work())


def test_submit__client_that_goes_takes_its_item_along(doubling: Doubling) -> None:
    async def work() -> None:
        batcher = batcher_of(doubling)
        doubling.gate.clear()
        first = asyncio.create_task(batcher.submit(0))
        await until(lambda: doubling.batches)
        leaving, staying = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        doubling.gate.set()
        assert await asyncio.gather(first, staying) == [0, 4]
        batcher.close()

    run(work())
    assert doubling.batches == [[0], [2]]
