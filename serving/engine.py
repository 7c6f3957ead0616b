"""From a query to an answer: bundle and index are held open, encoding is batched, and searching runs in threads."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.batcher import Batcher, QueueFull
from serving.fetching import Fetcher
from serving.media import ClipGone, Media, find_media
from serving.metrics import Metrics
from serving.schemas import SearchRequest
from serving.seen import Window
from serving.uploads import decode_clip, decode_image, decode_strip
from vidseek import feedback
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.settings import ServeSettings, Settings
from vidseek_media.errors import ArtifactError, ConfigError, DeviceError, InputRejected, ServiceError, VidseekError
from vidseek_retrieval.query import Query, SearchOptions, Weights

if TYPE_CHECKING:
    from vidseek_encoder.encoder import Encoder
    from vidseek_media.listing import Source
    from vidseek_retrieval.index import Collection, Point
    from vidseek_retrieval.query import Answer
    from vidseek_retrieval.search import Searcher

RETRY_SECONDS = 1.0
"""Opening is not tried more often than this: each try reads the bundle."""
MAX_DECODING = 16
"""Uploads that may wait for a decoder."""
SEARCH_THREADS = 4
FETCH_THREADS = 4
MAX_FETCHING = 32
"""Pictures of URLs that are being fetched or wait for it."""
ANY_MODEL = "vidseek"
"""The model's name for callers to whom any encoder_version is right."""
THUMBNAIL_PX = 256
"""Of the shorter side."""

Result = TypeVar("Result")
Frames = NDArray[np.uint8]
"""A clip (T, height, width, 3); a picture is a clip of one frame."""


class NotReady(ServiceError):
    """The bundle or the index cannot be opened, or they do not belong together."""

    code = "not_ready"


class CollectionGone(InputRejected):
    """The collection that a request names is not there any more."""

    code = "collection_gone"


class ModelGone(InputRejected):
    """The model that a request names is not the one that serves."""

    code = "model_not_found"


@dataclass(frozen=True)
class Opened:
    """A bundle and an index that speak of one vector space."""

    encoder: Encoder
    searcher: Searcher


@dataclass(frozen=True)
class QueryVector:
    """What was asked for, encoded."""

    values: NDArray[np.float32]
    encoder_version: str
    variant: str


@dataclass(frozen=True)
class Places:
    """Where the engine finds and leaves things that are neither bundle nor index."""

    source: Source | Path | None
    """Where the videos are, or their folder."""
    feedback: Path
    thumbnails: Path
    queries: Path
    """The last queries, as numbers."""

    @classmethod
    def of(cls, archive: Archive) -> Places:
        """Those of `archive`."""
        return cls(archive.source, archive.feedback, archive.state / "thumbnails", archive.queries)


def open_archive(archive: Archive, settings: Settings) -> Opened:
    """Open the archive's bundle and live collection.

    Raises:
        VidseekError: one of them is missing or broken, or they do not belong together.
    """
    # Its threads share the cores with requests, searches and decoders.
    encoder = load_encoder(archive, settings.search, spin=False)
    return Opened(encoder, open_searcher(archive, settings.search, encoder))


class Engine:
    """What the routes ask. It opens what it needs by itself, and again when that has changed or come back."""

    def __init__(self, opener: Callable[[], Opened], settings: ServeSettings, places: Places) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._opener = opener
        self._places = places
        self._window = Window(places.queries)
        self._opened: Opened | None = None
        self._is_stale = False
        self._reason: VidseekError | None = None
        self._tried_at = float("-inf")
        self._opening = asyncio.Lock()
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self.texts: Batcher[str, QueryVector] = self._batcher(self._embed_texts, "text")
        self.clips: Batcher[Frames, QueryVector] = self._batcher(self._embed_clips, "video")
        # A clip may take its decoder as long as it is let; pictures do not wait behind it.
        self._pictures: Batcher[Callable[[], Frames], Frames] = self._batcher(_call_each, "picture", lone=True)
        self._films: Batcher[Callable[[], Frames], Frames] = self._batcher(_call_each, "film", lone=True)
        self._fetcher = Fetcher(
            settings.url_hosts, max_bytes=settings.max_body_mb * 2**20, timeout_seconds=settings.url_timeout_seconds
        )
        self._fetching = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._num_fetching = 0

    def _batcher(self, run: Callable[[list[Any]], Sequence[Any]], work: str, *, lone: bool = False) -> Batcher[Any, Any]:
        queue = min(self.settings.max_queue, MAX_DECODING) if lone else self.settings.max_queue

        def observe(size: int, seconds: float) -> None:
            self.metrics.batch_size.labels(work).observe(size)
            self.metrics.work_seconds.labels(work).observe(seconds)

        batcher: Batcher[Any, Any] = Batcher(
            run, name=work, max_batch=1 if lone else self.settings.max_batch, max_queue=queue, observe=observe
        )
        self.metrics.watch_queue(work, lambda: batcher.num_waiting)
        return batcher

    async def open(self) -> None:
        """Open what there is; where that fails, `ready` says why, and the next request tries again."""
        async with self._opening:
            is_needed = self._opened is None or self._is_stale
            if is_needed and time.monotonic() - self._tried_at >= RETRY_SECONDS:
                try:
                    self._opened = await self.in_thread(self._opener)
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
        live: tuple[str, str] = await self._answer(lambda opened: self._live(opened))
        return {"encoder_version": live[0], "collection": live[1]}

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The answer's JSON.

        Raises:
            InputRejected: the query cannot be used.
            NotReady: nothing can be searched.
            QueueFull: too many are waiting.
            TimeoutError: it took longer than the settings allow.
        """
        self._check(request)
        answer = await self._answer(lambda opened: self._search(request, opened))
        self._note(request, answer)
        return answer.to_json()

    async def embed_texts(self, texts: Sequence[str]) -> list[QueryVector]:
        """A vector for each text. Raises as `search`."""
        self._check_number(texts)
        for text in texts:
            self._check_text(text)
        return await self._answer(lambda opened: self.texts.submit_all(texts))

    async def embed_for(self, model: str, texts: Sequence[str]) -> tuple[list[QueryVector], int]:
        """A vector for each text and how many tokens were read, for a caller who names the model.

        Raises:
            ModelGone: `model` is neither `vidseek` nor the encoder_version that serves now.
            InputRejected, NotReady, QueueFull, TimeoutError: as `search`.
        """
        vectors = await self.embed_texts(texts)
        if model not in (ANY_MODEL, vectors[0].encoder_version):
            raise ModelGone(
                f"there is no model {model!r}", remedy=f"Name {ANY_MODEL}, or {vectors[0].encoder_version}, which serves now"
            )
        return vectors, sum(self._current().count_tokens(texts))

    async def embed_images(self, images: Sequence[bytes]) -> list[QueryVector]:
        """A vector for each picture. Raises as `search`."""
        self._check_number(images)

        async def work(opened: Opened) -> list[QueryVector]:
            frames = await self._pictures.submit_all([partial(self._decode_image, image) for image in images])
            return await self.clips.submit_all(frames)

        return await self._answer(work)

    async def embed_clips(self, clips: Sequence[bytes]) -> list[QueryVector]:
        """A vector for each video file. Raises as `search`."""
        self._check_number(clips)

        async def work(opened: Opened) -> list[QueryVector]:
            frames = await self._films.submit_all([partial(self._decode_clip, clip) for clip in clips])
            return await self.clips.submit_all(frames)

        return await self._answer(work)

    async def clip(self, clip_id: str) -> Point:
        """The clip as it is in the live index.

        Raises:
            ClipGone: it has none.
            NotReady: nothing can be searched.
        """
        return await self._answer(lambda opened: self._point(clip_id, opened))

    async def media(self, clip_id: str) -> Media:
        """The file of the clip's video.

        Raises:
            ClipGone, MediaGone: it is not there.
            NotReady: nothing can be searched.
        """
        uri = str((await self.clip(clip_id)).payload.get("uri", ""))
        return await self.in_thread(lambda: find_media(self._places.source, uri))

    async def strip(self, clip_id: str, *, frames: int = 1) -> bytes:
        """A JPEG of frames of the clip side by side, at the centres of equal parts; made once and kept.

        Raises:
            ClipGone, MediaGone: it is not there.
            InputRejected: the video cannot be decoded.
            NotReady: nothing can be searched.
        """
        point = await self.clip(clip_id)
        name = point.clip_id if frames == 1 else f"{point.clip_id}-{frames}"  # of the index, not of the request
        kept = self._places.thumbnails / f"{name}.jpg"
        if await self.in_thread(kept.is_file):
            return await self.in_thread(kept.read_bytes)
        start_ms, end_ms = int(point.payload["start_ms"]), int(point.payload["end_ms"])
        times_ms = [start_ms + (2 * part + 1) * (end_ms - start_ms) // (2 * frames) for part in range(frames)]
        return await self._decode_jpeg(await self.media(clip_id), times_ms, kept)

    async def still(self, media: Media, at_ms: int) -> bytes:
        """A JPEG of the frame of a video file at a time.

        Raises:
            InputRejected: the video cannot be decoded.
        """
        return await self._decode_jpeg(media, [at_ms], None)

    async def browse(self, look: Callable[[Collection], Result]) -> Result:
        """What `look` sees in the live collection, from a thread.

        Raises:
            NotReady: nothing can be searched.
        """
        found: Result = await self._answer(lambda opened: self.in_thread(lambda: look(opened.searcher.opened())))
        return found

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """What `function` gives, called where it may wait for a disk."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def say(self, *, query: str, clip_id: str, relevant: bool) -> str:
        """Write down whether a clip is what a query looked for, and give the time of it.

        Raises:
            InputRejected: the query is blank or too long, or the clip is not in the index.
            NotReady: nothing can be searched, or nothing can be written.
        """

        self._check_text(query)
        point = await self.clip(clip_id)
        version = str(point.payload.get("encoder_version", ""))
        said = feedback.Feedback(query, point.clip_id, relevant, version, feedback.now())
        try:
            await self.in_thread(lambda: feedback.append(self._places.feedback, said))
        except ArtifactError as error:
            raise NotReady(error.message, remedy=error.remedy) from error
        self.metrics.feedback.labels("right" if relevant else "wrong").inc()
        return said.said_at

    async def metrics_page(self) -> bytes:
        """The figures for Prometheus, with what can be searched at this moment."""
        try:
            facts = await self.browse(lambda live: live.facts)
            self.metrics.note_index(facts.name, facts.num_points)
            calibration = await self._answer(lambda opened: self.in_thread(opened.searcher.calibration))
            self.metrics.note_drift(await self.in_thread(self._window.drift(calibration)))
        except (VidseekError, TimeoutError):
            self.metrics.note_index(None)
            self.metrics.note_drift(None)
        return self.metrics.page()

    def close(self) -> None:
        """Let the threads go."""
        for batcher in (self.texts, self.clips, self._pictures, self._films):
            batcher.close()
        self._window.close()
        for threads in (self._threads, self._fetching):
            threads.shutdown(wait=False, cancel_futures=True)

    def _note(self, request: SearchRequest, answer: Answer) -> None:
        if request.offset:
            return
        if answer.seen is not None and request.collection is None and (write := self._window.note(answer.seen)):
            self._threads.submit(write)
        if not answer.hits:
            self.metrics.empty_answers.inc()
        elif request.weights is None:
            best = answer.hits[0]
            self.metrics.best_score.observe(best.score)
            if best.confidence is not None:
                self.metrics.best_confidence.observe(best.confidence)

    async def _decode_jpeg(self, media: Media, times_ms: Sequence[int], kept: Path | None) -> bytes:
        decode = partial(
            decode_strip, media.path, times_ms=times_ms, side_px=THUMBNAIL_PX,
            timeout_seconds=self.settings.decode_timeout_seconds,
        )
        async with asyncio.timeout(self.settings.timeout_seconds):
            pixels = await self._films.submit(decode)
        return await self.in_thread(lambda: _jpeg(pixels, kept))

    async def _answer(self, work: Callable[[Opened], Any]) -> Any:
        """What `work` makes of what is open; where that proves to be old, of what is there now."""
        async with asyncio.timeout(self.settings.timeout_seconds):
            try:
                return await work(await self._require_opened())
            except ArtifactError:
                self._is_stale = True  # published anew by another encoder, say: look at what is there now
            try:
                return await work(await self._require_opened())
            except ArtifactError as error:
                raise NotReady(error.message, remedy=error.remedy) from error

    async def _live(self, opened: Opened) -> tuple[str, str]:
        """The encoder_version of the bundle, and the live collection, which must be of the same."""
        version = opened.encoder.spec.encoder_version
        collection = await self.in_thread(lambda: opened.searcher.live)
        if not collection.startswith(f"clips-{version}-"):
            raise ArtifactError(f"the bundle is of encoder_version {version}, live is {collection}")
        return version, collection

    async def _search(self, request: SearchRequest, opened: Opened) -> Answer:
        if request.collection is not None:
            await self._require_collection(request.collection, opened)
        query = await self._encode(request, opened)
        options = SearchOptions(
            request.limit, request.offset, request.collection, request.filters, _weights_of(request),
            request.diversity, request.min_confidence,
        )
        begin = time.perf_counter()
        try:
            answer = await self.in_thread(lambda: opened.searcher.search(query, options))
        except ArtifactError as error:
            if request.collection is None:
                raise
            # It is of another encoder_version than the one that serves now.
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error
        self.metrics.search_seconds.observe(time.perf_counter() - begin)
        return answer

    async def _require_collection(self, name: str, opened: Opened) -> None:
        try:
            await self.in_thread(lambda: opened.searcher.points([], collection=name))
        except InputRejected as error:  # it was pruned
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error

    async def _encode(self, request: SearchRequest, opened: Opened) -> Query:
        pictures = [*request.image, *await self._fetch(request.url)]
        more = await self._vectors_of(request.text, pictures, request.clip)
        less = await self._vectors_of(request.not_text, request.not_image)
        spec = opened.encoder.spec
        versions = {each.encoder_version for each in (*more, *less)} or {spec.encoder_version}
        if len(versions) > 1:
            raise ArtifactError("the bundle changed while the query was encoded")  # it is encoded again
        return Query(
            versions.pop(), _rows(more, spec.dimension), _rows(less, spec.dimension), like=request.clip_id,
            unlike=request.not_clip_id, words=" ".join(request.text),
        )

    async def _vectors_of(
        self, texts: Sequence[str], images: Sequence[bytes], clips: Sequence[bytes] = ()
    ) -> list[QueryVector]:
        vectors: list[QueryVector] = await self.texts.submit_all(texts)
        frames = await self._pictures.submit_all([partial(self._decode_image, image) for image in images])
        frames += await self._films.submit_all([partial(self._decode_clip, clip) for clip in clips])
        return vectors + await self.clips.submit_all(frames)

    async def _fetch(self, urls: Sequence[str]) -> list[bytes]:
        if self._num_fetching + len(urls) > MAX_FETCHING:
            raise QueueFull(f"{self._num_fetching} pictures are being fetched already", remedy="Try again in a second")
        self._num_fetching += len(urls)
        try:
            loop = asyncio.get_running_loop()
            return list(await asyncio.gather(
                *(loop.run_in_executor(self._fetching, self._fetcher.fetch, url) for url in urls)
            ))
        finally:
            self._num_fetching -= len(urls)

    async def _point(self, clip_id: str, opened: Opened) -> Point:
        points = await self.in_thread(lambda: opened.searcher.points([clip_id]))
        if not points:
            raise ClipGone(f"the live index has no clip {clip_id}", remedy="Take a clip_id of a hit")
        return points[0]

    def _check(self, request: SearchRequest) -> None:
        if not (request.text or request.image or request.url or request.clip or request.clip_id):
            raise InputRejected(
                "the query wants nothing", remedy="Give text, image, url, clip or clip_id; not only what you do not want"
            )
        for text in (*request.text, *request.not_text):
            self._check_text(text)

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise InputRejected("the query is blank", remedy="Say in a few words what to look for")
        longest = self.settings.max_text_length
        if len(text) > longest:
            raise InputRejected(f"the text has {len(text)} characters, at most {longest} are taken")

    def _check_number(self, items: Sequence[object]) -> None:
        if len(items) > self.settings.max_embed:
            raise InputRejected(
                f"{len(items)} items in one request, at most {self.settings.max_embed} are taken",
                remedy="Send them in several requests",
            )

    async def _require_opened(self) -> Opened:
        await self.open()
        if self._opened is None:  # what is open and old is asked again: if it cannot answer, it says why
            reason = self._reason or NotReady("the archive is being opened", remedy="Try again in a second")
            raise NotReady(reason.message, remedy=reason.remedy)
        return self._opened

    def _current(self) -> Encoder:
        if self._opened is None:
            raise NotReady("the archive is not open")
        return self._opened.encoder

    def _embed_texts(self, texts: list[str]) -> list[QueryVector]:
        encoder = self._current()
        return _vectors(encoder, encoder.embed_texts(texts))

    def _embed_clips(self, clips: list[Frames]) -> list[QueryVector]:
        encoder = self._current()
        return _vectors(encoder, encoder.embed_frames(clips))

    def _decode_image(self, content: bytes) -> Frames:
        return decode_image(content, max_megapixels=self.settings.max_image_megapixels)[np.newaxis]

    def _decode_clip(self, content: bytes) -> Frames:
        spec = self._current().spec
        return decode_clip(
            content, num_frames=spec.frames, side_px=spec.side, max_seconds=self.settings.max_clip_seconds,
            timeout_seconds=self.settings.decode_timeout_seconds,
        )


def _weights_of(request: SearchRequest) -> Weights | None:
    if request.weights is None:
        return None
    try:
        return Weights(**request.weights.model_dump())
    except ConfigError as error:
        raise InputRejected(error.message, remedy="Give one of video, caption and words a weight") from error


def _rows(vectors: Sequence[QueryVector], dimension: int) -> NDArray[np.float32]:
    """Shape (n, dimension)."""
    return np.array([each.values for each in vectors], dtype=np.float32).reshape(len(vectors), dimension)


def _call_each(works: list[Callable[[], Frames]]) -> list[Frames]:
    return [work() for work in works]


def _vectors(encoder: Encoder, rows: NDArray[np.float32]) -> list[QueryVector]:
    return [QueryVector(row, encoder.spec.encoder_version, encoder.variant) for row in rows]


def _jpeg(pixels: NDArray[np.uint8], kept: Path | None) -> bytes:
    """The picture as JPEG, kept at `kept` where the disk takes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    if kept is None:
        return buffer.getvalue()
    beside = kept.with_name(f".{kept.name}.{time.monotonic_ns()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(buffer.getvalue())
        beside.replace(kept)
    except OSError:
        beside.unlink(missing_ok=True)  # it is made again the next time
    return buffer.getvalue()
