"""From a query to an answer: what comes in is decoded, a model is asked, and searching runs in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.api.request_schemas import SearchRequest
from serving.inputs.decoding import Decoding, jpeg
from serving.inputs.media import ClipGone, Media, find_media
from serving.metrics import Metrics
from serving.model import Frames, Model, ModelGone, NotReady, Opened, QueryVector, open_archive
from serving.readiness import Readiness
from serving.seen import Window
from vidseek.actions import feedback
from vidseek.actions.base import base_facts
from vidseek.archive import Archive, ModelName
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, VidseekError
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.settings import Weights

if TYPE_CHECKING:
    from vidseek_encoder.bundle import EncoderSpec
    from vidseek_media.sources.source import Source
    from vidseek_retrieval.index.backend import Collection, Point
    from vidseek_retrieval.index.collection_metadata import CollectionMetadata
    from vidseek_retrieval.search.query import Answer

SEARCH_THREADS = 4
LIVE: ModelName = "vidseek"
"""The name of the model that is live, whatever its encoder_version."""
BASE: ModelName = "base"

Result = TypeVar("Result")


class CollectionGone(InputRejected):
    """The collection that a request names is not there any more."""

    category = "collection_gone"
    code = "collection-gone"


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
        return cls(archive.source, archive.feedback, archive.thumbnails, archive.queries)


@dataclass(frozen=True)
class Base:
    """The base, to hold what was taught against: what the engine needs of it, which may not be there."""

    opener: Callable[[], Opened]
    """Raises BaseMissing where it is not."""
    metadata: Callable[[], CollectionMetadata | None]
    """Of its collection, without opening it."""

    @classmethod
    def of(cls, archive: Archive, settings: Settings) -> Base:
        """That of `archive`."""
        return cls(lambda: open_archive(archive.seen_by("base"), settings), lambda: base_facts(archive))


class Engine:
    """What the routes ask. It opens what it needs by itself, and again when that has changed or come back.

    Args:
        opener: Gives the bundle and the index that are live.
        settings: What is taken, and how much at once.
        places: Where other things are.
        base: A second model that queries may ask for; it is opened when one does.
    """

    def __init__(
        self, opener: Callable[[], Opened], settings: ServeSettings, places: Places, base: Base | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._places = places
        self._window = Window(places.queries)
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")
        self.live = Model(opener, settings, self.metrics, self._threads)
        self._readiness = Readiness(self.live)
        self._base = base
        self._base_model = Model(base.opener, settings, self.metrics, self._threads, prefix="base_") if base else None
        self._decoding = Decoding(settings, self.metrics)

    async def open(self) -> None:
        """Open what is live; where that fails, `ready` says why, and the next request tries again."""
        await self.live.open()
        self._threads.submit(self._decoding.start)

    async def ready(self) -> dict[str, str]:
        """What a search was answered by just now.

        Raises:
            NotReady: nothing can be searched; the message says why.
        """
        version, collection = await self._readiness.check()
        return {"encoder_version": version, "collection": collection}

    async def models(self) -> dict[ModelName, CollectionMetadata]:
        """The models that queries may ask for, by name, the live one first, each with what is known of its collection.

        Raises:
            NotReady: nothing can be searched, or the index is broken.
        """
        await self.live.live()
        found = {LIVE: await self.browse(lambda live: live.metadata)}
        try:
            metadata = await self.in_thread(self._base.metadata) if self._base is not None else None
        except ArtifactError as error:
            raise NotReady(error.message, remedy=error.remedy) from error
        return {**found, BASE: metadata} if metadata is not None else found

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The answer's JSON.

        Raises:
            InputRejected: the query cannot be used.
            ModelGone: the model that it names is not there.
            NotReady: nothing can be searched.
            QueueFull: too many are waiting.
            TimeoutError: it took longer than the settings allow.
        """
        self._check(request)
        model = self._model(request.model)
        answer, seconds = await model.answer(lambda opened: self._search(request, model, opened))
        if model is self.live:  # the figures of search and of drift are its alone
            self.metrics.search_seconds.observe(seconds)
            self._note(request, answer)
        return answer.to_json()

    async def embed_texts(self, texts: Sequence[str], *, model: ModelName = LIVE) -> list[QueryVector]:
        """A vector for each text. Raises as `search`."""
        self._check_number(texts)
        for text in texts:
            self._check_text(text)
        asked = self._model(model)
        vectors: list[QueryVector] = await asked.answer(lambda opened: asked.texts.submit_all(texts))
        return vectors

    async def embed_for(self, model: str, texts: Sequence[str]) -> tuple[list[QueryVector], int]:
        """A vector for each text and how many tokens were read, for a caller who names the model.

        Raises:
            ModelGone: `model` is neither `vidseek` nor the encoder_version that is live, nor `base` where that is there.
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
        """A vector for each picture. Raises as `search`."""
        self._check_number(images)

        async def work(opened: Opened) -> list[QueryVector]:
            return await self.live.clips.submit_all(await self._decoding.images(images))

        return await self.live.answer(work)

    async def embed_clips(self, clips: Sequence[bytes]) -> list[QueryVector]:
        """A vector for each video file. Raises as `search`."""
        self._check_number(clips)

        async def work(opened: Opened) -> list[QueryVector]:
            return await self.live.clips.submit_all(await self._decoding.clips(clips, opened.encoder.spec))

        return await self.live.answer(work)

    async def clip(self, clip_id: str) -> Point:
        """The clip as it is in the live index.

        Raises:
            ClipGone: it has none.
            NotReady: nothing can be searched.
        """
        return await self.live.answer(lambda opened: self._point(clip_id, opened))

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
        found: Result = await self.live.answer(lambda opened: self.in_thread(lambda: look(opened.searcher.opened())))
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
            metadata = await self.browse(lambda live: live.metadata)
            self.metrics.note_index(metadata.name, metadata.num_points)
            calibration = await self.live.answer(lambda opened: self.in_thread(opened.searcher.calibration))
            self.metrics.note_drift(await self.in_thread(self._window.drift(calibration)))
        except (VidseekError, TimeoutError):
            self.metrics.note_index(None)
            self.metrics.note_drift(None)
        return self.metrics.page()

    def close(self) -> None:
        """Let the threads go."""
        for each in (self._readiness, self.live, self._base_model, self._decoding, self._window):
            if each is not None:
                each.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _model(self, name: ModelName) -> Model:
        if name == LIVE:
            return self.live
        if self._base_model is None:
            raise ModelGone(f"there is no model {name!r}", remedy=f"Name {LIVE}, which is live")
        return self._base_model

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
        async with asyncio.timeout(self.settings.timeout_seconds):
            pixels = await self._decoding.strip(media.path, times_ms)
        return await self.in_thread(lambda: jpeg(pixels, kept))

    async def _search(self, request: SearchRequest, model: Model, opened: Opened) -> tuple[Answer, float]:
        """The answer, and the seconds that the index took for it."""
        if request.collection is not None:
            await self._require_collection(request.collection, opened)
        query = await self._encode(request, model, opened.encoder.spec)
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
        return answer, time.perf_counter() - begin

    async def _require_collection(self, name: str, opened: Opened) -> None:
        try:
            await self.in_thread(lambda: opened.searcher.points([], collection=name))
        except InputRejected as error:  # it was pruned
            raise CollectionGone(error.message, remedy="Search again without `collection`") from error

    async def _encode(self, request: SearchRequest, model: Model, spec: EncoderSpec) -> Query:
        pictures = [*request.image, *await self._decoding.fetch(request.url)]
        clips = await self._decoding.clips(request.clip, spec)
        more = await self._vectors_of(model, request.text, pictures, clips)
        less = await self._vectors_of(model, request.not_text, request.not_image)
        versions = {each.encoder_version for each in (*more, *less)} or {spec.encoder_version}
        if len(versions) > 1:
            # It is encoded again.
            raise ArtifactError("the bundle changed while the query was encoded", code="bundle-changed")
        return Query(
            versions.pop(), _rows(more, spec.dimension), _rows(less, spec.dimension), like=request.clip_id,
            unlike=request.not_clip_id, words=" ".join(request.text),
        )

    async def _vectors_of(
        self, model: Model, texts: Sequence[str], images: Sequence[bytes], clips: Sequence[Frames] = ()
    ) -> list[QueryVector]:
        vectors: list[QueryVector] = await model.texts.submit_all(texts)
        return vectors + await model.clips.submit_all([*await self._decoding.images(images), *clips])

    async def _point(self, clip_id: str, opened: Opened) -> Point:
        points = await self.in_thread(lambda: opened.searcher.points([clip_id]))
        if not points:
            raise ClipGone(f"the live index has no clip {clip_id}", remedy="Take a clip_id of a hit")
        return points[0]

    def _check(self, request: SearchRequest) -> None:
        if not (request.text or request.image or request.url or request.clip or request.clip_id):
            raise InputRejected(
                "the query wants nothing",
                code="empty-query", remedy="Give text, image, url, clip or clip_id; not only what you do not want"
            )
        for text in (*request.text, *request.not_text):
            self._check_text(text)

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what to look for")
        longest = self.settings.max_text_length
        if len(text) > longest:
            raise InputRejected(f"the text has {len(text)} characters, at most {longest} are taken", code="text-too-long")

    def _check_number(self, items: Sequence[object]) -> None:
        if len(items) > self.settings.max_embed:
            raise InputRejected(
                f"{len(items)} items in one request, at most {self.settings.max_embed} are taken", code="too-many-items",
                remedy="Send them in several requests",
            )


def _weights_of(request: SearchRequest) -> Weights | None:
    if request.weights is None:
        return None
    try:
        return Weights(**request.weights.model_dump())
    except ConfigError as error:
        raise InputRejected(
            error.message, code="bad-query-weights", remedy="Give one of video, caption and words a weight",
        ) from error


def _rows(vectors: Sequence[QueryVector], dimension: int) -> NDArray[np.float32]:
    """Shape (n, dimension)."""
    return np.array([each.values for each in vectors], dtype=np.float32).reshape(len(vectors), dimension)
