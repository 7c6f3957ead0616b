"""Batches items of concurrent requests through one function, without waiting for more items."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from vidseek_media.errors import ServiceError

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(ServiceError):
    """As many as may wait are waiting."""

    category = "busy"
    code = "queue-full"


class Batcher(Generic[Item, Result]):
    """Runs `run` on batches, one at a time, in a thread of its own.

    An item that finds nothing running goes at once. While a batch runs, items wait in a bounded queue, and whatever has
    gathered when it ends is the next batch: so batches grow with the load, and a lone client never waits.

    Args:
        run: Gives one result for each item, in order.
        max_batch: The most items of one run.
        max_queue: The most items that may wait.
        observe: Told the size and the seconds of every run that went well.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch: int,
        max_queue: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.num_batches: Counter[int] = Counter()
        """How many batches there were of each size."""
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._observe = observe
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    @property
    def num_waiting(self) -> int:
        """Number of items that wait for a run."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Return the result for `item`. Cancelling it takes it out of the queue.

        Raises:
            QueueFull: too many are waiting.
        """
        return (await self.submit_all([item]))[0]

    async def submit_all(self, items: Sequence[Item]) -> list[Result]:
        """Return the results for `items`, in order: all of them are taken, or none.

        Raises:
            QueueFull: too many are waiting for all of these to wait too.
        """
        most = max(self._max_queue, len(items))
        if len(self._waiting) + len(items) > most:  # some may be of clients that have gone
            self._waiting = deque(each for each in self._waiting if not each[1].done())
        if len(self._waiting) + len(items) > most:
            raise QueueFull(f"{len(self._waiting)} items wait for {self._name} already", remedy="Try again in a second")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for future in futures:
                future.cancel()  # what nobody waits for any more is left out of the next batch

    def close(self) -> None:
        """Let the thread go, after the batch that runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        while batch := self._next_batch():
            self.num_batches[len(batch)] += 1
            await self._answer(batch)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # its client has gone
                batch.append((item, future))
        return batch

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        begin = time.perf_counter()
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._run, [item for item, _ in batch]
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to whoever asked
            if len(batch) > 1:  # one bad item spoils no other
                for one in batch:
                    await self._answer([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        self._observe(len(batch), time.perf_counter() - begin)
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
