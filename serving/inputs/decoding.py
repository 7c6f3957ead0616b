"""Decodes foreign bytes to frames: fetches images of URLs, and decodes uploads and archive videos in three pools."""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.batcher import QueueFull
from serving.http.clients import current_client
from serving.inputs.pool import Pool, Task
from serving.inputs.uploads import MODULES, cut_span, decode_clip, decode_strip, locate
from serving.metrics import Metrics
from serving.model import Frames
from vidseek.settings import PoolSettings, ServeSettings
from vidseek_media.decoding.pictures import MAX_SIDE_PX, decode_picture
from vidseek_media.decoding.sandbox import Confinement, in_force
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer
from vidseek_media.editing.located_spans import LocatedSpans
from vidseek_media.files.fetching import Fetcher
from vidseek_media.files.folders import write_bytes
from vidseek_media.records import Span
from vidseek_media.settings import RECYCLE_AFTER

if TYPE_CHECKING:
    from vidseek_encoder.bundle import EncoderSpec

FETCH_THREADS = 4
MAX_FETCHING = 32
"""Pictures of URLs that are being fetched or wait for it."""
MAX_FETCHING_OF_ONE = 16
"""Of one client; more only in a request that is its only one."""
THUMBNAIL_PX = 256
"""Of the shorter side."""

log = logging.getLogger("vidseek.serving")


class Decoding:
    """The decoders, and their queues.

    Args:
        settings: Limits of inputs.
        metrics: Receives the decoders' runs, under `picture`, `clip` and `archive`.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._server = ForkServer(MODULES)
        self._metrics = metrics
        decode, seconds = settings.decode, settings.decode_timeout_seconds
        self._pictures = self._pool(
            "picture", decode.pictures, Confinement.UPLOAD, decode.picture_timeout_seconds, RECYCLE_AFTER
        )
        # Each video gets a fresh process, so that a corrupted decoder affects no other video.
        self._clips = self._pool("clip", decode.clips, Confinement.UPLOAD, seconds, 1)
        self._archive = self._pool("archive", decode.archive, Confinement.ARCHIVE, seconds, 1)
        self._fetcher = Fetcher(
            settings.url_hosts, max_bytes=settings.max_body_mb * 2**20, timeout_seconds=settings.url_timeout_seconds
        )
        self._fetching = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._num_fetching: Counter[str] = Counter()

    def start(self) -> None:
        """Start the fork server, so that the first picture need not wait for it. Takes half a second."""
        if not in_force().is_whole:
            log.warning("decoders are not wholly confined: %s; see docs/security.md", in_force().in_words())
        self._server.start()

    async def images(self, contents: Sequence[bytes]) -> list[Frames]:
        """Return a clip of one frame for each picture file.

        Raises:
            InputRejected: one is no picture, too large, or takes too long.
            QueueFull: too many are waiting, or too many of this client.
            CutOff: the service ends, or this is slow and others are too.
        """
        decode = partial(
            decode_picture, max_pixels=self._settings.max_image_megapixels * 1_000_000, max_side_px=MAX_SIDE_PX
        )
        tasks = [Task(Job(decode, (content,))) for content in contents]
        return [pixels[np.newaxis] for pixels in await self._pictures.submit_all(tasks)] if tasks else []

    async def clips(self, contents: Sequence[bytes], spec: EncoderSpec) -> list[Frames]:
        """Decode the frames that `spec` requires of each video file. Raises as `images`."""
        arguments = (spec.num_frames, spec.resizing.shorter_px, self._settings.max_clip_seconds)
        job = Job(decode_clip, arguments, takes_content=True)
        return await self._clips.submit_all([Task(job, content) for content in contents]) if contents else []

    async def strip(self, path: Path, times_ms: Sequence[int]) -> NDArray[np.uint8]:
        """Return frames of a video file side by side: RGB of shape (height, width, 3). Raises as `images`."""
        job = Job(decode_strip, (path, tuple(times_ms), THUMBNAIL_PX), file=path)
        strip: NDArray[np.uint8]
        [strip] = await self._archive.submit_all([Task(job)])
        return strip

    async def locate(self, path: Path, spans: Sequence[Span]) -> LocatedSpans:
        """Return where spans lie among the frames of a video file. Raises as `images`."""
        located: LocatedSpans
        [located] = await self._archive.submit_all([Task(Job(locate, (path, tuple(spans)), file=path))])
        return located

    async def moment(self, path: Path, span: Span) -> bytes:
        """Return a moment of a video file as MP4. Raises as `images`."""
        content: bytes
        [content] = await self._archive.submit_all([Task(Job(cut_span, (path, *span), file=path))])
        return content

    async def fetch(self, urls: Sequence[str]) -> list[bytes]:
        """Return the pictures that lie there.

        Raises:
            InputRejected: one is not at a host that the settings name, or does not come.
            QueueFull: too many are being fetched.
        """
        if not urls:
            return []
        client = current_client()
        held, total = self._num_fetching[client], self._num_fetching.total()
        if total + len(urls) > MAX_FETCHING or held + len(urls) > max(MAX_FETCHING_OF_ONE, len(urls)):
            raise QueueFull(
                f"{total} pictures are being fetched already", code="too-many-downloads", remedy="Try again in a second",
            )
        self._num_fetching[client] += len(urls)
        try:
            loop = asyncio.get_running_loop()
            return list(await asyncio.gather(
                *(loop.run_in_executor(self._fetching, self._fetcher.fetch, url) for url in urls)
            ))
        finally:
            self._num_fetching[client] -= len(urls)
            self._num_fetching += Counter()  # forgets who has none

    def close(self) -> None:
        """End the workers, and let the threads go."""
        for pool in (self._pictures, self._clips, self._archive):
            pool.close()
        self._server.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def _pool(
        self, work: str, settings: PoolSettings, confinement: Confinement, timeout_seconds: float, recycle_after: int
    ) -> Pool:
        pool = Pool(
            work, self._server, settings, confinement, timeout_seconds=timeout_seconds, recycle_after=recycle_after,
            observe=partial(self._metrics.observe_run, work),
            lost=lambda fault: self._metrics.workers_lost.labels(work, fault).inc(),
            max_answer_bytes=self._settings.decode.max_output_mb * 2**20,
        )
        self._metrics.watch_queue(work, lambda: pool.num_waiting)
        return pool


def jpeg(pixels: NDArray[np.uint8], kept: Path | None) -> bytes:
    """Return the picture as JPEG, kept at `kept` where the disk takes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    if kept is None:
        return buffer.getvalue()
    with suppress(OSError):  # it is made again the next time
        write_bytes(kept, buffer.getvalue())
    return buffer.getvalue()
