"""From a query to an answer: bundle and index are held open, encoding is batched, and searching runs in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.batcher import Batcher
from serving.schemas import SearchRequest
from serving.uploads import decode_clip, decode_image
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.settings import ServeSettings, Settings
from vidseek_media.errors import ArtifactError, DeviceError, InputRejected, ServiceError, VidseekError

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder
    from vidseek_retrieval.search import Searcher

RETRY_SECONDS = 1.0
"""Opening is not tried more often than this: each try reads the bundle."""
MAX_DECODING = 16
"""Uploads that may wait for a decoder."""
SEARCH_THREADS = 4

Result = TypeVar("Result")


class NotReady(ServiceError):
    """The bundle or the index cannot be opened, or they do not belong together."""

    code = "not_ready"


class CollectionGone(InputRejected):
    """The collection that a request names is not there any more."""

    code = "collection_gone"


@dataclass(frozen=True)
class Opened:
    """A bundle and an index that speak of one vector space."""

    encoder: Encoder
    searcher: Searcher


@dataclass(frozen=True)
class QueryVector:
    """A query, encoded."""

    values: NDArray[np.float32]
    encoder_version: str


def open_archive(archive: Archive, settings: Settings) -> Opened:
    """Open the archive's bundle and live collection.

    Raises:
        VidseekError: one of them is missing or broken, or they do not belong together.
    """
    encoder = load_encoder(archive, settings.search)
    return Opened(encoder, open_searcher(archive, settings.search, encoder))


class Engine:
    """What the routes ask. It opens what it needs by itself, and again when that has changed or come back."""

    def __init__(self, opener: Callable[[], Opened], settings: ServeSettings) -> None:
        self.settings = settings
        self._opener = opener
        self._opened: Opened | None = None
        self._is_stale = False
        self._reason: VidseekError | None = None
        self._tried_at = float("-inf")
        self._opening = asyncio.Lock()
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        queue, batch = settings.max_queue, settings.max_batch
        self.texts: Batcher[str, QueryVector] = Batcher(
            self._embed_texts, name="the text encoder", max_batch=batch, max_queue=queue
        )
        self.clips: Batcher[NDArray[np.uint8], QueryVector] = Batcher(
            self._embed_clips, name="the video encoder", max_batch=batch, max_queue=queue
        )
        self._decoding: Batcher[SearchRequest, NDArray[np.uint8]] = Batcher(
            lambda items: [self._decode(item) for item in items], name="the decoder", max_batch=1,
            max_queue=min(queue, MAX_DECODING),
        )

    async def open(self) -> None:
        """Open what there is; where that fails, `ready` says why, and the next request tries again."""
        async with self._opening:
            is_needed = self._opened is None or self._is_stale
            if is_needed and time.monotonic() - self._tried_at >= RETRY_SECONDS:
                try:
                    self._opened = await self._in_thread(self._opener)
                    self._is_stale, self._reason = False, None
                except (ArtifactError, DeviceError, ServiceError) as error:
                    self._reason = error
                finally:
                    self._tried_at = time.monotonic()

    async def ready(self) -> dict[str, str]:
        """What a search would use now.

        Raises:
            NotReady: nothing can be searched; the message says why.
        """
        opened = await self._require_opened()
        try:
            collection = await self._in_thread(lambda: opened.searcher.live)
        except ArtifactError as error:
            raise NotReady(error.message, remedy=error.remedy) from error
        return {"encoder_version": opened.encoder.spec.encoder_version, "collection": collection}

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The answer's JSON.

        Raises:
            InputRejected: the query cannot be used.
            NotReady: nothing can be searched.
            QueueFull: too many are waiting.
            TimeoutError: it took longer than the settings allow.
        """
        async with asyncio.timeout(self.settings.timeout_seconds):
            self._check(request)
            try:
                return await self._search(request)
            except ArtifactError:
                self._is_stale = True  # published anew by another encoder, say: look at what is there now
            try:
                return await self._search(request)
            except ArtifactError as error:
                raise NotReady(error.message, remedy=error.remedy) from error

    def close(self) -> None:
        """Let the threads go."""
        for batcher in (self.texts, self.clips, self._decoding):
            batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _search(self, request: SearchRequest) -> dict[str, Any]:
        opened = await self._require_opened()
        if request.text is not None:
            query = await self.texts.submit(request.text)
        else:
            query = await self.clips.submit(await self._decoding.submit(request))
        try:
            answer = await self._in_thread(lambda: opened.searcher.search_vector(
                query.values, query.encoder_version, limit=request.limit, offset=request.offset,
                collection=request.collection, words=request.text or "",
            ))
        except (InputRejected, ArtifactError) as error:
            if request.collection is None:
                raise
            # It was pruned, or is of another encoder_version than the one that serves now.
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error
        return answer.to_json()

    def _check(self, request: SearchRequest) -> None:
        given = [name for name in ("text", "image", "clip") if getattr(request, name) is not None]
        if len(given) != 1:
            raise InputRejected(
                f"the query has {' and '.join(given) or 'neither text, image nor clip'}",
                remedy="Give exactly one of text, image and clip",
            )
        if request.text is not None:
            if not request.text.strip():
                raise InputRejected("the query is blank", remedy="Say in a few words what to look for")
            longest = self.settings.max_text_length
            if len(request.text) > longest:
                raise InputRejected(f"the text has {len(request.text)} characters, at most {longest} are taken")

    async def _require_opened(self) -> Opened:
        await self.open()
        if self._opened is None or self._is_stale:
            reason = self._reason or NotReady("the archive is being opened", remedy="Try again in a second")
            raise NotReady(reason.message, remedy=reason.remedy)
        return self._opened

    async def _in_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _current(self) -> Encoder:
        if self._opened is None:
            raise NotReady("the archive is not open")
        return self._opened.encoder

    def _embed_texts(self, texts: list[str]) -> list[QueryVector]:
        encoder = self._current()
        return [QueryVector(row, encoder.spec.encoder_version) for row in encoder.embed_texts(texts)]

    def _embed_clips(self, clips: list[NDArray[np.uint8]]) -> list[QueryVector]:
        encoder = self._current()
        return [QueryVector(row, encoder.spec.encoder_version) for row in encoder.embed_frames(clips)]

    def _decode(self, request: SearchRequest) -> NDArray[np.uint8]:
        """Frames (T, height, width, 3); a picture is a clip of one frame."""
        if request.image is not None:
            return decode_image(request.image, max_megapixels=self.settings.max_image_megapixels)[np.newaxis]
        spec = self._current().spec
        return decode_clip(
            request.clip or b"", num_frames=spec.frames, side_px=spec.side,
            timeout_seconds=self.settings.decode_timeout_seconds,
        )
