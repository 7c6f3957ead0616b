"""A model and its index, opened on first use, and again when they have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.batcher import Batcher
from serving.metrics import Metrics
from vidseek.archive import Archive, BaseMissing, load_encoder, open_searcher
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.errors import ArtifactError, DeviceError, InputRejected, ServiceError, VidseekError

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder
    from vidseek_retrieval.search.searcher import Searcher

RETRY_SECONDS = 1.0
"""Opening is not tried more often than this: each try reads the bundle."""

Result = TypeVar("Result")
Frames = NDArray[np.uint8]
"""A clip (T, height, width, 3); a picture is a clip of one frame."""


class NotReady(ServiceError):
    """The bundle or the index cannot be opened, or they do not belong together."""

    category = "not_ready"
    code = "not-ready"


class ModelGone(InputRejected):
    """The model that a request names is not one that serves."""

    category = "model_not_found"
    code = "unknown-model"


@dataclass(frozen=True)
class Opened:
    """A bundle and an index that speak of one vector space."""

    encoder: Encoder
    searcher: Searcher


@dataclass(frozen=True)
class QueryVector:
    """An encoded query."""

    values: NDArray[np.float32]
    encoder_version: str
    variant: str


def open_archive(archive: Archive, settings: Settings) -> Opened:
    """Open the archive's bundle and live collection.

    Args:
        archive: The archive.
        settings: The sections `search` and `serve`.

    Raises:
        VidseekError: one of them is missing or broken, or they do not fit together.
    """
    # Its threads share the cores with requests, searches and decoders.
    encoder = load_encoder(archive, settings.search, spin=False)
    return Opened(encoder, open_searcher(archive, settings.search, encoder))


def batcher(
    run: Callable[[list[Any]], Sequence[Any]], work: str, *, settings: ServeSettings, metrics: Metrics
) -> Batcher[Any, Any]:
    """Create a batcher whose queue and runs are reported to `metrics`.

    Args:
        run: Processes a batch.
        work: Label of the metrics.
        settings: Limits of the batches.
        metrics: Receives the figures.
    """
    made: Batcher[Any, Any] = Batcher(
        run, name=work, max_batch=settings.max_batch, max_queue=settings.max_queue,
        observe=partial(metrics.observe_run, work),
    )
    metrics.watch_queue(work, lambda: made.num_waiting)
    return made


class Model:
    """A model that queries can use.

    Args:
        opener: Opens bundle and index; raises BaseMissing if an optional model does not exist.
        settings: Limits of batches and times.
        metrics: Receives figures of the batches, under `text` and `video`.
        threads: Threads for calls that wait for a disk.
        prefix: Prefix of the metric labels, so that two models have separate figures.
    """

    def __init__(
        self, opener: Callable[[], Opened], settings: ServeSettings, metrics: Metrics, threads: ThreadPoolExecutor, *,
        prefix: str = "",
    ) -> None:
        self._opener = opener
        self._timeout_seconds = settings.timeout_seconds
        self._threads = threads
        self._opened: Opened | None = None
        self._is_stale = False
        self._reason: VidseekError | None = None
        self._tried_at = float("-inf")
        self._opening: asyncio.Task[None] | None = None
        told: dict[str, Any] = {"settings": settings, "metrics": metrics}
        self.texts: Batcher[str, QueryVector] = batcher(self._embed_texts, f"{prefix}text", **told)
        self.clips: Batcher[Frames, QueryVector] = batcher(self._embed_clips, f"{prefix}video", **told)

    async def open(self) -> None:
        """Open bundle and index; if this fails, `answer` reports the reason, and the next request tries again."""
        if self._opening is None or self._opening.done():
            is_needed = self._opened is None or self._is_stale
            if not is_needed or time.monotonic() - self._tried_at < RETRY_SECONDS:
                return
            self._opening = asyncio.get_running_loop().create_task(self._try_to_open())
        # The waiting request may time out; a large bundle is still opened for the next one.
        await asyncio.shield(self._opening)

    async def answer(self, work: Callable[[Opened], Any]) -> Any:
        """Call `work` with the open model, and again with the new one if it turns out to be outdated.

        Raises:
            NotReady: nothing can be searched; the message says why.
            ModelGone: there is no such model.
            TimeoutError: it took longer than the settings allow.
        """
        async with asyncio.timeout(self._timeout_seconds):
            try:
                return await work(await self._require_opened())
            except ArtifactError:
                self._is_stale = True  # published anew by another encoder, say: look at what is there now
            try:
                return await work(await self._require_opened())
            except ArtifactError as error:
                raise NotReady(error.message, remedy=error.remedy) from error

    async def live(self) -> tuple[str, str]:
        """Return the encoder_version of the bundle, and the live collection, which must be of the same. Raises as `answer`.
        """
        found: tuple[str, str] = await self.answer(self._live)
        return found

    def current(self) -> Encoder:
        """Return the encoder that is open.

        Raises:
            NotReady: none is.
        """
        if self._opened is None:
            raise NotReady("the archive is not open")
        return self._opened.encoder

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Call `function` in a thread, where it may wait for a disk."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Let its threads go, and what it has open; the threads that it was given are not its own."""
        self.texts.close()
        self.clips.close()
        self._opened = None  # the web framework keeps routes, and so this, for as long as the process lives

    async def _try_to_open(self) -> None:
        try:
            self._opened = await self.in_thread(self._opener)
            self._is_stale, self._reason = False, None
        except (ArtifactError, DeviceError, ServiceError) as error:
            self._reason = error
            if isinstance(error, BaseMissing):
                self._opened = None  # it was taken away: its memory goes too
        finally:
            self._tried_at = time.monotonic()

    async def _live(self, opened: Opened) -> tuple[str, str]:
        version = opened.encoder.spec.encoder_version
        collection = await self.in_thread(lambda: opened.searcher.live)
        if not collection.startswith(f"clips-{version}-"):
            raise ArtifactError(f"the bundle is of encoder_version {version}, live is {collection}", code="other-encoder")
        return version, collection

    async def _require_opened(self) -> Opened:
        await self.open()
        if self._opened is None:  # what is open and old is asked again: if it cannot answer, it says why
            reason = self._reason or NotReady("the archive is being opened", remedy="Try again in a second")
            kind = ModelGone if isinstance(reason, BaseMissing) else NotReady
            raise kind(reason.message, remedy=reason.remedy)
        return self._opened

    def _embed_texts(self, texts: list[str]) -> list[QueryVector]:
        encoder = self.current()
        return _vectors(encoder, encoder.embed_texts(texts))

    def _embed_clips(self, clips: list[Frames]) -> list[QueryVector]:
        encoder = self.current()
        return _vectors(encoder, encoder.embed_frames(clips))


def _vectors(encoder: Encoder, rows: NDArray[np.float32]) -> list[QueryVector]:
    return [QueryVector(row, encoder.spec.encoder_version, encoder.variant) for row in rows]
