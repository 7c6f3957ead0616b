"""Fork servers of workers that all tests of a process share: starting one takes as long as many a test."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

from vidseek_media.decoding import worker_batch
from vidseek_media.decoding.sandbox import Confinement
from vidseek_media.decoding.workers import ForkServer, Limits, Worker


class SharedServer:
    """Stands for a `ForkServer` that begins and ends with a batch: it is that of other batches too.

    A server has the limits of the process that starts it, so that a test which sets one gets a server of its own.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._server = _server(frozenset(modules), resource.getrlimit(resource.RLIMIT_FSIZE))

    def fork(self, limits: Limits, confinement: Confinement = Confinement.BATCH) -> Worker:
        return self._server.fork(limits, confinement)

    def close(self) -> None:
        """Leave the server to others; a batch has stopped its workers itself."""


_started: list[ForkServer] = []


@cache
def _server(modules: frozenset[str], limits: tuple[int, int]) -> ForkServer:
    _started.append(ForkServer(modules))
    return _started[-1]


@contextmanager
def sharing_servers() -> Iterator[None]:
    """Within the block batches share servers."""
    worker_batch.ForkServer = SharedServer  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        worker_batch.ForkServer = ForkServer  # type: ignore[misc]
        while _started:
            _started.pop().close()
        _server.cache_clear()
