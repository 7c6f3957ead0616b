"""Answers the routes: decodes inputs, encodes queries with a model, and searches in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serving.api.request_schemas import SearchRequest
from serving.inputs.decoding import Decoding, jpeg
from serving.inputs.media import ClipGone, Media, find_media
from serving.metrics import Metrics
from serving.model import Model, ModelGone, NotReady, Opened, QueryVector, open_archive
from serving.query_encoding import QueryEncoding, options_of
from serving.readiness import Readiness
from serving.seen import Window
from vidseek.actions import feedback
from vidseek.actions.base import base_facts
from vidseek.actions.second_look import AT_ONCE, SecondLook
from vidseek.archive import Archive, ModelName
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.errors import ArtifactError, InputRejected, VidseekError
from vidseek_media.records import Span

if TYPE_CHECKING:
    from vidseek_media.editing.located_spans import LocatedSpans
    from vidseek_media.sources.source import Source
    from vidseek_retrieval.index.backend import Collection, Point
    from vidseek_retrieval.index.collection_metadata import CollectionMetadata
    from vidseek_retrieval.search.query import Answer, Query, SearchOptions

SEARCH_THREADS = 4
LIVE: ModelName = "vidseek"
"""The name of the live model, whatever its encoder_version."""
BASE: ModelName = "base"

Result = TypeVar("Result")


class CollectionGone(InputRejected):
    """The collection that a request names was removed."""

    category = "collection_gone"
    code = "collection-gone"


@dataclass(frozen=True)
class Places:
    """Paths of the engine besides bundle and index."""

    source: Source | Path | None
    """The source of the videos, or their folder; None if there is none."""
    feedback: Path
    thumbnails: Path
    queries: Path
    """The statistics of the last queries."""

    @classmethod
    def of(cls, archive: Archive) -> Places:
        """Return the paths of an archive.

        Args:
            archive: Its folders.
        """
        return cls(archive.source, archive.feedback, archive.thumbnails, archive.queries)


@dataclass(frozen=True)
class Base:
    """The base model, to compare the trained model with. It may not be published."""

    opener: Callable[[], Opened]
    """Opens it; raises BaseMissing if it is not published."""
    metadata: Callable[[], CollectionMetadata | None]
    """Gives the metadata of its collection without opening it; None if it is not published."""

    @classmethod
    def of(cls, archive: Archive, settings: Settings) -> Base:
        """Return the base model of an archive.

        Args:
            archive: Its folders.
            settings: Of the archive.
        """
        return cls(lambda: open_archive(archive.seen_by("base"), settings), lambda: base_facts(archive))


class Engine:
    """Answers the routes. It opens model and index on first use, and again after they changed.

    Args:
        opener: Opens the live bundle and the live index.
        settings: Limits of requests and of concurrent work.
        places: Paths of other files.
        base: A second model that queries may name, opened on first use; None for none.
        second_look: Looks at the first hits again where a search wants it; None: no search gets that.
    """

    def __init__(
        self, opener: Callable[[], Opened], settings: ServeSettings, places: Places, base: Base | None = None,
        second_look: SecondLook | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._places = places
        self._window = Window(places.queries)
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self._second_look = second_look
        # Its threads wait for another machine; the one more than look at once says that they do.
        self._looking = ThreadPoolExecutor(AT_ONCE + 1, thread_name_prefix="second-look")
        self.live = Model(opener, settings, self.metrics, self._threads)
        self._readiness = Readiness(self.live)
        self._base = base
        self._base_model = Model(base.opener, settings, self.metrics, self._threads, prefix="base_") if base else None
        self._decoding = Decoding(settings, self.metrics)
        self._encoding = QueryEncoding(self._decoding, settings)

    async def open(self) -> None:
        """Open the live model and index. If that fails, `ready` raises the reason, and the next request tries again."""
        await self.live.open()
        self._threads.submit(self._decoding.start)

    async def ready(self) -> dict[str, str]:
        """Return the encoder_version and the collection that searches use now.

        Raises:
            NotReady: searches fail; the message has the reason.
        """
        version, collection = await self._readiness.check()
        return {"encoder_version": version, "collection": collection}

    async def models(self) -> dict[ModelName, CollectionMetadata]:
        """Return the metadata of the models' collections by the name of the model, the live one first.

        Raises:
            NotReady: nothing can be searched, or the index is broken.
        """
        await self.live.live()
        found = {LIVE: await self.browse(lambda live: live.metadata)}
        metadata = await self.on_archive(self._base.metadata) if self._base is not None else None
        return {**found, BASE: metadata} if metadata is not None else found

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """Search, and return the answer's JSON.

        Args:
            request: Of the search.

        Raises:
            InputRejected: the query cannot be used.
            ModelGone: the model that it names does not exist.
            NotReady: there is no model or no index.
            QueueFull: too many requests are waiting.
            TimeoutError: it took longer than `serve.timeout_seconds`.
        """
        self._encoding.check(request)
        model = self._model(request.model)
        answer, seconds = await model.answer(lambda opened: self._search(request, model, opened))
        if model is self.live:  # search and drift metrics are of the live model only
            self.metrics.search_seconds.observe(seconds)
            self._note(request, answer)
        return answer.to_json()

    async def embed_texts(self, texts: Sequence[str], *, model: ModelName = LIVE) -> list[QueryVector]:
        """Return a vector for each text. Raises as `search`.

        Args:
            texts: At most `serve.max_embed`, not blank.
            model: The model that embeds them.
        """
        self._encoding.check_number(texts)
        for text in texts:
            self._encoding.check_text(text)
        asked = self._model(model)
        vectors: list[QueryVector] = await asked.answer(lambda opened: asked.texts.submit_all(texts))
        return vectors

    async def embed_for(self, model: str, texts: Sequence[str]) -> tuple[list[QueryVector], int]:
        """Return a vector for each text, and the number of tokens of all texts.

        Args:
            model: `vidseek`, the live encoder_version, or `base`.
            texts: At most `serve.max_embed`, not blank.

        Raises:
            ModelGone: there is no such model.
            InputRejected, NotReady, QueueFull, TimeoutError: as `search`.
        """
        asked: ModelName = BASE if model == BASE else LIVE
        vectors = await self.embed_texts(texts, model=asked)
        if model not in (asked, vectors[0].encoder_version):
            raise ModelGone(
                f"there is no model {model!r}", remedy=f"Name {LIVE}, or {vectors[0].encoder_version}, which serves now"
            )
        return vectors, sum(self._model(asked).current().count_tokens(texts))

    async def embed_images(self, images: Sequence[bytes]) -> list[QueryVector]:
        """Return a vector for each image. Raises as `search`.

        Args:
            images: Files, at most `serve.max_embed`.
        """
        self._encoding.check_number(images)

        async def work(opened: Opened) -> list[QueryVector]:
            return await self.live.clips.submit_all(await self._decoding.images(images))

        return await self.live.answer(work)

    async def embed_clips(self, clips: Sequence[bytes]) -> list[QueryVector]:
        """Return a vector for each video file. Raises as `search`.

        Args:
            clips: Files, at most `serve.max_embed`.
        """
        self._encoding.check_number(clips)

        async def work(opened: Opened) -> list[QueryVector]:
            return await self.live.clips.submit_all(await self._decoding.clips(clips, opened.encoder.spec))

        return await self.live.answer(work)

    async def clip(self, clip_id: str) -> Point:
        """Return a clip of the live index.

        Args:
            clip_id: A UUID.

        Raises:
            ClipGone: the index has no such clip.
            NotReady: there is no model or no index.
        """
        return await self.live.answer(lambda opened: self._point(clip_id, opened))

    async def media(self, clip_id: str) -> Media:
        """Return the file of a clip's video.

        Args:
            clip_id: A UUID.

        Raises:
            ClipGone, MediaGone: the clip or the file does not exist.
            NotReady: there is no model or no index.
        """
        return await self.file_of(await self.clip(clip_id))

    async def strip(self, clip_id: str, *, frames: int = 1) -> bytes:
        """Return a JPEG of frames of a clip side by side; it is cached on disk.

        Args:
            clip_id: A UUID.
            frames: How many, at least 1; at the centres of equal parts of the clip.

        Raises:
            ClipGone, MediaGone: the clip or the file does not exist.
            InputRejected: the video cannot be decoded.
            NotReady: there is no model or no index.
        """
        point = await self.clip(clip_id)
        name = point.clip_id if frames == 1 else f"{point.clip_id}-{frames}"  # the id of the index
        kept = self._places.thumbnails / f"{name}.jpg"
        if await self.in_thread(kept.is_file):
            return await self.in_thread(kept.read_bytes)
        start_ms, end_ms = int(point.payload["start_ms"]), int(point.payload["end_ms"])
        times_ms = [start_ms + (2 * part + 1) * (end_ms - start_ms) // (2 * frames) for part in range(frames)]
        return await self._decode_jpeg(await self.file_of(point), times_ms, kept)

    async def still(self, media: Media, at_ms: int) -> bytes:
        """Return a JPEG of the frame of a video at a time.

        Args:
            media: The file.
            at_ms: From the video's start, at least 0.

        Raises:
            InputRejected: the video cannot be decoded.
        """
        return await self._decode_jpeg(media, [at_ms], None)

    async def points(self, clip_ids: Sequence[str]) -> dict[str, Point]:
        """Return those of the clips that the live index has, by id.

        Args:
            clip_ids: UUIDs.

        Raises:
            NotReady: there is no model or no index.
        """
        wanted = list(dict.fromkeys(clip_ids))
        points: list[Point] = await self.live.answer(
            lambda opened: self.in_thread(lambda: opened.searcher.points(wanted))
        )
        return {point.clip_id: point for point in points}

    async def file_of(self, point: Point) -> Media:
        """Return the file of a clip's video. Raises MediaGone.

        Args:
            point: The clip.
        """
        return await self.in_thread(lambda: find_media(self._places.source, str(point.payload.get("uri", ""))))

    async def locate(self, media: Media, spans: Sequence[Span]) -> LocatedSpans:
        """Return where spans lie among the frames of a video.

        Args:
            media: The file.
            spans: In milliseconds from the video's start.

        Raises:
            InputRejected: the video cannot be read, or a span lies outside of it.
        """
        async with asyncio.timeout(self.settings.timeout_seconds):
            return await self._decoding.locate(media.path, spans)

    async def moment(self, media: Media, span: Span) -> bytes:
        """Return a moment of a video as an MP4 file.

        Args:
            media: The file.
            span: In milliseconds from the video's start.

        Raises:
            InputRejected: the video cannot be read, or the span lies outside of it.
        """
        async with asyncio.timeout(self.settings.timeout_seconds):
            return await self._decoding.moment(media.path, span)

    async def browse(self, look: Callable[[Collection], Result]) -> Result:
        """Return what a function finds in the live collection; it runs in a thread.

        Args:
            look: Takes the open collection.

        Raises:
            NotReady: there is no model or no index.
        """
        found: Result = await self.live.answer(lambda opened: self.in_thread(lambda: look(opened.searcher.opened())))
        return found

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Call a function that may block in a thread, and return its result.

        Args:
            function: Takes no arguments.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def on_archive(self, function: Callable[[], Result]) -> Result:
        """Call a function that reads or writes files of the archive, as `in_thread` does.

        Args:
            function: Takes no arguments.

        Raises:
            NotReady: a file is missing or broken, or cannot be written: no fault of the service.
        """
        try:
            return await self.in_thread(function)
        except ArtifactError as error:
            raise NotReady(error.message, remedy=error.remedy) from error

    async def record_feedback(self, *, query: str, clip_id: str, relevant: bool) -> str:
        """Record whether a clip is relevant to a query, and return the time of the record.

        Args:
            query: The text of the query.
            clip_id: A UUID.
            relevant: Whether the clip is what the query looked for.

        Raises:
            InputRejected: the query is blank or too long, or the clip is not in the index.
            NotReady: there is no model or no index, or the record cannot be written.
        """
        self._encoding.check_text(query)
        point = await self.clip(clip_id)
        said = feedback.Feedback.now(query, point, relevant=relevant)
        await self.on_archive(lambda: feedback.append(self._places.feedback, said))
        self.metrics.feedback.labels("right" if relevant else "wrong").inc()
        return said.said_at

    async def metrics_page(self) -> bytes:
        """Return the metrics for Prometheus, with those of the live collection."""
        try:
            metadata = await self.browse(lambda live: live.metadata)
            self.metrics.note_index(metadata.name, metadata.num_points)
            calibration = await self.live.answer(lambda opened: self.in_thread(opened.searcher.calibration))
            self.metrics.note_drift(await self.in_thread(self._window.drift(calibration)))
        except (VidseekError, TimeoutError):
            self.metrics.note_index(None)
            self.metrics.note_drift(None)
        return self.metrics.page()

    def close(self) -> None:
        """Stop the threads and worker processes."""
        for each in (self._readiness, self.live, self._base_model, self._decoding, self._window):
            if each is not None:
                each.close()
        for pool in (self._threads, self._looking):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._second_look is not None:
            self._second_look.close()

    def _model(self, name: ModelName) -> Model:
        if name == LIVE:
            return self.live
        if self._base_model is None:
            raise ModelGone(f"there is no model {name!r}", remedy=f"Name {LIVE}, which is live")
        return self._base_model

    def _note(self, request: SearchRequest, answer: Answer) -> None:
        if request.offset:
            return
        stats = answer.query_stats
        if stats is not None and request.collection is None and (write := self._window.note(stats)):
            self._threads.submit(write)
        if not answer.hits:
            self.metrics.empty_answers.inc()
        elif request.weights is None:
            best = answer.hits[0]
            self.metrics.best_score.observe(best.score)
            if best.confidence is not None:
                self.metrics.best_confidence.observe(best.confidence)

    async def _decode_jpeg(self, media: Media, times_ms: Sequence[int], kept: Path | None) -> bytes:
        async with asyncio.timeout(self.settings.timeout_seconds):
            pixels = await self._decoding.strip(media.path, times_ms)
        return await self.in_thread(lambda: jpeg(pixels, kept))

    async def _search(self, request: SearchRequest, model: Model, opened: Opened) -> tuple[Answer, float]:
        """Return the answer, and the seconds that the index took."""
        if request.collection is not None:
            await self._require_collection(request.collection, opened)
        query = await self._encoding.encode(request, model, opened.encoder.spec)
        options = options_of(request)
        begin = time.perf_counter()
        try:
            answer = await self._find(opened, query, options, request)
        except ArtifactError as error:
            if request.collection is None:
                raise
            # The named collection has another encoder_version than the live model.
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error
        return answer, time.perf_counter() - begin

    async def _find(self, opened: Opened, query: Query, options: SearchOptions, request: SearchRequest) -> Answer:
        look, find = self._second_look, partial(opened.searcher.search, query)
        if look is None or not look.is_wanted(options, wanted=request.rerank):
            return await self.in_thread(lambda: find(options))
        again = partial(look.search, find, options, texts=request.text, wanted=request.rerank)
        return await asyncio.get_running_loop().run_in_executor(self._looking, again)

    async def _require_collection(self, name: str, opened: Opened) -> None:
        try:
            await self.in_thread(lambda: opened.searcher.points([], collection=name))
        except InputRejected as error:  # it was pruned
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error

    async def _point(self, clip_id: str, opened: Opened) -> Point:
        points = await self.in_thread(lambda: opened.searcher.points([clip_id]))
        if not points:
            raise ClipGone(f"the live index has no clip {clip_id}", remedy="Take a clip_id of a hit")
        return points[0]
