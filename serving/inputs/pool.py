"""A pool of worker processes: clients take turns, slow inputs give way, and each input has limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.batcher import QueueFull
from serving.http.clients import current_client
from vidseek.settings import PoolSettings
from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer, Limits, Worker, WorkerLost
from vidseek_media.errors import ServiceError

LOOK_SECONDS = 0.1
"""How often a running input is asked what it has computed."""
HALF_LIFE_SECONDS = 30.0
"""After so long a second that a client has used counts half."""
MAX_REMEMBERED = 1000

log = logging.getLogger("vidseek.serving")


class CutOff(ServiceError):
    """The work was cut off for a reason that is not in the input: the service ends, or something else ended the decoder."""

    category = "cut_off"
    code = "cut-off"


@dataclass(frozen=True)
class Task:
    """One input: the job, and its bytes if the job reads them as a file."""

    job: Job
    content: bytes | None = None


@dataclass(eq=False)
class _Running:
    """An input that waits or is decoded."""

    task: Task
    client: str
    future: asyncio.Future[Any]
    worker: Worker | None = None
    began_cpu: float = 0.0
    cpu_seconds: float = 0.0
    """What it had computed when it was last looked at."""
    is_slow: bool = False
    is_displaced: bool = False
    """It was slow, and there was no place for one more that is."""


class Pool:
    """Runs tasks in worker processes of one kind.

    The client that has used the least computing time of late comes first, and the last free worker is kept for clients
    that have used little. A client holds at most `max_share` places. An input that has computed for `quick_seconds` is
    slow: it goes on beside the pool, at the lowest priority, and the next input begins.

    Args:
        name: For metrics and messages.
        server: Where workers are forked. Not closed by the pool.
        settings: How many, and for how long.
        confinement: Of the workers.
        timeout_seconds: For one input, from its beginning.
        recycle_after: Inputs of one worker.
        max_answer_bytes: Of one result.
        observe: Told the size (1) and the seconds of every input that went well.
        lost: Told the fault of every worker that was lost.
    """

    def __init__(
        self,
        name: str,
        server: ForkServer,
        settings: PoolSettings,
        confinement: Confinement,
        *,
        timeout_seconds: float,
        recycle_after: int,
        max_answer_bytes: int,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
        lost: Callable[[str], None] = lambda fault: None,
    ) -> None:
        self._name = name
        self._server = server
        self._settings = settings
        self._confinement = confinement
        self._limits = Limits(timeout_seconds, settings.memory_mb, recycle_after, settings.cpu_seconds, max_answer_bytes)
        self._observe = observe
        self._lost = lost
        self._waiting: OrderedDict[str, deque[_Running]] = OrderedDict()
        self._held: Counter[str] = Counter()
        """Inputs that wait or run, by client."""
        self._used: dict[str, tuple[float, float]] = {}
        """Computing time by client, and when that was."""
        self._running: set[_Running] = set()
        self._idle: list[Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(settings.workers + settings.slow_workers, thread_name_prefix=name)
        self._reaper = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-end")
        self._is_closed = False

    @property
    def num_waiting(self) -> int:
        """Number of inputs that wait for a worker."""
        return sum(len(each) for each in self._waiting.values())

    async def submit_all(self, tasks: Sequence[Task]) -> list[Any]:
        """Return the results of `tasks`, in order: all of them are taken, or none. Cancelling it ends their work.

        Raises:
            VidseekError: as the jobs; the first in order of time.
            WorkerLost: an input took too long, or its worker died of it.
            QueueFull: too many are waiting, or too many of this client; or an input is slow, and others are too.
            CutOff: the service ends, or a worker was ended from outside.
        """
        client = current_client()
        self._check_room(len(tasks), client)
        loop = asyncio.get_running_loop()
        entries = [_Running(task, client, loop.create_future()) for task in tasks]
        self._held[client] += len(entries)
        self._waiting.setdefault(client, deque()).extend(entries)
        self._begin_waiting()
        try:
            return list(await asyncio.gather(*(each.future for each in entries)))
        finally:
            for each in entries:
                self._give_up(each)

    def close(self) -> None:
        """End all workers; waiting inputs get CutOff."""
        self._is_closed = True
        for each in [one for entries in self._waiting.values() for one in entries] + list(self._running):
            if each.worker is not None:
                each.worker.kill()
            if not each.future.done():
                each.future.set_exception(_ending())
        self._waiting.clear()
        for worker in self._idle:
            worker.stop()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reaper.shutdown(wait=False)

    def _check_room(self, num: int, client: str) -> None:
        if self._is_closed:
            raise _ending()
        share, held = self._settings.max_share, self._held[client]
        if held + num > max(share, num):
            raise QueueFull(
                f"{held} inputs for {self._name} are under way for this client, at most {share} are taken at once",
                code="client-share-used",
                remedy="Wait for the answers, then go on",
            )
        if self.num_waiting + num > max(self._settings.max_waiting, num):
            raise QueueFull(f"{self.num_waiting} items wait for {self._name} already", remedy="Try again in a second")

    def _begin_waiting(self) -> None:
        """Start what there is room for; of clients that have used the same, one of each in turn. The last place is kept
        for clients that have used little."""
        while self._waiting:
            free = self._settings.workers - sum(not each.is_slow for each in self._running)
            client = min(self._waiting, key=self._used_by)
            is_last = free == 1 < self._settings.workers
            if free < 1 or (is_last and self._used_by(client) > self._settings.quick_seconds):
                return
            entries = self._waiting.pop(client)
            entry = entries.popleft()
            if entries:
                self._waiting[client] = entries  # behind the others
            self._running.add(entry)
            task = asyncio.get_running_loop().create_task(self._run(entry))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, entry))

    async def _run(self, entry: _Running) -> None:
        begin = time.perf_counter()
        try:
            result = await self._tried_twice(entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to whoever asked
            if not entry.future.done():
                entry.future.set_exception(error)
        else:
            self._observe(1, time.perf_counter() - begin)
            if not entry.future.done():
                entry.future.set_result(result)

    def _ended(self, entry: _Running, task: asyncio.Task[None]) -> None:
        """Its place is free."""
        self._tasks.discard(task)
        self._running.discard(entry)
        self._note_use(entry)
        if not self._is_closed and not task.cancelled():
            self._begin_waiting()

    def _used_by(self, client: str) -> float:
        """Return the computing time of a client; what is long ago counts less."""
        seconds, at = self._used.get(client, (0.0, 0.0))
        now = sum(each.cpu_seconds for each in self._running if each.client == client)
        return now + seconds * 0.5 ** ((time.monotonic() - at) / HALF_LIFE_SECONDS)

    def _note_use(self, entry: _Running) -> None:
        if entry.cpu_seconds:  # it was looked at: what is done sooner is not counted
            self._used[entry.client] = (self._used_by(entry.client) + entry.cpu_seconds, time.monotonic())
        if len(self._used) > MAX_REMEMBERED:
            self._used = {client: used for client, used in self._used.items() if self._used_by(client) > LOOK_SECONDS}

    async def _tried_twice(self, entry: _Running) -> Any:
        """Return the result; where the worker may have died for another reason than this input, of a second, fresh worker.
        """
        try:
            return await self._tried(entry, fresh=False)
        except WorkerLost as error:
            self._lost(error.fault)
            if not self._may_be_innocent(error, entry):
                raise self._judged(error, entry) from error
        try:
            return await self._tried(entry, fresh=True)
        except WorkerLost as error:
            self._lost(error.fault)
            raise self._judged(error, entry) from error

    async def _tried(self, entry: _Running, *, fresh: bool) -> Any:
        watch = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, entry)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, entry, fresh)
        finally:
            watch.cancel()
            entry.worker = None

    def _work(self, entry: _Running, fresh: bool) -> Any:
        """In a thread: give the input to a worker, and wait for it."""
        worker = None if fresh else self._take_idle()
        worker = worker or self._server.fork(self._limits, self._confinement)
        entry.began_cpu, entry.worker = worker.cpu_seconds, worker
        try:
            if entry.future.done() or self._is_closed:
                raise CutOff("nobody waits for it any more")
            return worker.call(entry.task.job, content=entry.task.content)
        finally:
            if worker.is_spent or entry.is_slow or self._is_closed:
                self._stop(worker)
            else:
                self._idle.append(worker)

    def _stop(self, worker: Worker) -> None:
        """End a worker, and do not wait until the system has taken back what it held."""
        worker.kill()
        try:
            self._reaper.submit(worker.stop)
        except RuntimeError:  # the pool is closed
            worker.stop()

    def _take_idle(self) -> Worker | None:
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return None

    def _look(self, entry: _Running) -> None:
        """Measure the CPU time of a running input, and whether it counts as slow by now."""
        if entry not in self._running or entry.future.done():
            return
        if (worker := entry.worker) is not None:
            entry.cpu_seconds = worker.cpu_seconds - entry.began_cpu
            if entry.cpu_seconds > self._settings.quick_seconds and not entry.is_slow:
                self._set_aside(entry, worker)
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, entry)

    def _set_aside(self, entry: _Running, worker: Worker) -> None:
        slow = [each for each in self._running if each.is_slow]
        most_of_one = max(1, self._settings.slow_workers - 1)  # one place is another client's
        if len(slow) < self._settings.slow_workers and sum(each.client == entry.client for each in slow) < most_of_one:
            entry.is_slow = True
            worker.lower_priority()
            self._begin_waiting()
        else:
            entry.is_displaced = True
            worker.kill()

    def _give_up(self, entry: _Running) -> None:
        """Nobody waits for it any more, or it is done: it gives back its place."""
        self._held[entry.client] -= 1
        if not self._held[entry.client]:
            del self._held[entry.client]
        if entry.future.done() and not entry.future.cancelled():
            entry.future.exception()  # it may be one of several that failed, of which the first was raised
            return
        entry.future.cancel()
        entries = self._waiting.get(entry.client)
        if entries is not None and entry in entries:
            entries.remove(entry)
            if not entries:
                del self._waiting[entry.client]
        if entry in self._running and entry.worker is not None:
            entry.worker.kill()

    def _may_be_innocent(self, error: WorkerLost, entry: _Running) -> bool:
        """Whether another input, the kernel or a person may have ended the worker."""
        if entry.is_displaced or entry.future.done() or self._is_closed or error.fault == "time":
            return False
        return error.fault != "crash" or not error.was_fresh

    def _judged(self, error: WorkerLost, entry: _Running) -> Exception:
        """Return the input's fault (422), or not (503)."""
        if self._is_closed:
            return _ending()
        if entry.is_displaced:
            return QueueFull(
                f"this input for {self._name} is slow, and others that are slow are under way", code="decoder-busy",
                remedy="Try again later, or with a smaller file",
            )
        if error.fault == "time" and entry.is_slow and entry.cpu_seconds < self._settings.cpu_seconds / 2:
            return QueueFull(
                f"this input for {self._name} is slow, and others had the processor", code="decoder-busy",
                remedy="Try again later",
            )
        if error.fault == "stopped":
            return CutOff(f"the decoder was stopped: {error.message}", remedy="Try again")
        log.warning("%s: %s", self._name, error.message)
        return error


def _ending() -> CutOff:
    return CutOff("the service is ending", remedy="Try again in a few seconds")
