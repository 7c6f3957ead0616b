"""Checks that searches are answered, by one search; the result is reused for a moment."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from serving.model import Model, NotReady, Opened
from vidseek_media.errors import VidseekError
from vidseek_retrieval.search.query import Query, SearchOptions

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder

HOLDS_SECONDS = 1.0
"""How long a search that was answered speaks for the next ones."""
MAX_SECONDS = 3.0
"""That a search may take; those who watch (compose.yaml, the chart) wait longer."""
_TEXT = "ready"


class Readiness:
    """Searches the live collection of `model`: once at a time, however many ask, and in a thread of its own.

    Neither queue nor threads of requests are used, so that a busy service is a ready one.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ready")
        self._query: tuple[Encoder, Query] | None = None
        self._last: tuple[float, str, str] | None = None
        """When a search was answered, by which encoder_version, in which collection."""
        self._search: asyncio.Task[tuple[str, str]] | None = None

    async def check(self) -> tuple[str, str]:
        """Return the encoder_version and the collection that a search was answered by.

        Raises:
            NotReady: it was not, or not in time; the message says why.
        """
        if self._search is None or self._search.done():
            self._search = asyncio.get_running_loop().create_task(self._look())
            self._search.add_done_callback(_take_exception)
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await asyncio.shield(self._search)
        except TimeoutError as error:
            raise NotReady(
                f"a search takes longer than {MAX_SECONDS:.0f} s", remedy="Look at the load, and at the disk or server"
            ) from error
        except VidseekError as error:
            if isinstance(error, NotReady):
                raise
            raise NotReady(error.message, remedy=error.remedy) from error

    def close(self) -> None:
        """Let the thread go."""
        if self._search is not None:
            self._search.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> tuple[str, str]:
        loop = asyncio.get_running_loop()

        async def work(opened: Opened) -> tuple[str, str]:
            return await loop.run_in_executor(self._thread, self._search_once, opened)

        found: tuple[str, str] = await self._model.answer(work)
        return found

    def _search_once(self, opened: Opened) -> tuple[str, str]:
        """In the thread. Where nothing has changed since a moment ago, only the alias is looked at."""
        live, version = opened.searcher.live, opened.encoder.spec.encoder_version
        at, *what = self._last or (-math.inf, "", "")
        if what == [version, live] and time.monotonic() - at < HOLDS_SECONDS:
            return version, live
        opened.searcher.require_stored()
        answer = opened.searcher.search(self._query_of(opened.encoder), SearchOptions(limit=1))
        self._last = (time.monotonic(), answer.encoder_version, answer.collection)
        return answer.encoder_version, answer.collection

    def _query_of(self, encoder: Encoder) -> Query:
        """Return a text, encoded once for each encoder that is opened."""
        if self._query is None or self._query[0] is not encoder:
            vector = encoder.embed_texts([_TEXT])[0]
            self._query = (encoder, Query.of_vector(vector, encoder.spec.encoder_version))
        return self._query[1]


def _take_exception(task: asyncio.Task[tuple[str, str]]) -> None:
    """Nobody may be waiting any more: then the exception is nobody's."""
    with suppress(asyncio.CancelledError):
        task.exception()
