"""Bytes of others to frames: pictures of URLs are fetched, uploads and the archive's videos decoded, so many at once."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.batcher import Batcher, QueueFull
from serving.fetching import Fetcher
from serving.metrics import Metrics
from serving.model import Frames, batcher
from serving.uploads import decode_clip, decode_image, decode_strip
from vidseek.settings import ServeSettings

if TYPE_CHECKING:
    from vidseek_encoder.bundle import EncoderSpec

FETCH_THREADS = 4
MAX_FETCHING = 32
"""Pictures of URLs that are being fetched or wait for it."""
THUMBNAIL_PX = 256
"""Of the shorter side."""


class Decoding:
    """Decoders, and the queues before them.

    Args:
        settings: What is taken.
        metrics: Told of the decoders' runs, under `picture` and `film`.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self._settings = settings
        # A clip may take its decoder as long as it is let; pictures do not wait behind it.
        told: dict[str, Any] = {"settings": settings, "metrics": metrics, "lone": True}
        self._pictures: Batcher[Callable[[], Frames], Frames] = batcher(_call_each, "picture", **told)
        self._films: Batcher[Callable[[], Frames], Frames] = batcher(_call_each, "film", **told)
        self._fetcher = Fetcher(
            settings.url_hosts, max_bytes=settings.max_body_mb * 2**20, timeout_seconds=settings.url_timeout_seconds
        )
        self._fetching = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
        self._num_fetching = 0

    async def images(self, contents: Sequence[bytes]) -> list[Frames]:
        """A clip of one frame for each picture file.

        Raises:
            InputRejected: one is no picture, or too large.
            QueueFull: too many are waiting.
        """
        return await self._pictures.submit_all([partial(self._image, content) for content in contents])

    async def clips(self, contents: Sequence[bytes], spec: EncoderSpec) -> list[Frames]:
        """As many frames as `spec` says of each video file. Raises as `images`."""
        return await self._films.submit_all([partial(self._clip, content, spec) for content in contents])

    async def strip(self, path: Path, times_ms: Sequence[int]) -> NDArray[np.uint8]:
        """Frames of a video file side by side: RGB of shape (height, width, 3). Raises as `images`."""
        decode = partial(
            decode_strip, path, times_ms=times_ms, side_px=THUMBNAIL_PX,
            timeout_seconds=self._settings.decode_timeout_seconds,
        )
        return await self._films.submit(decode)

    async def fetch(self, urls: Sequence[str]) -> list[bytes]:
        """The pictures that lie there.

        Raises:
            InputRejected: one is not at a host that the settings name, or does not come.
            QueueFull: too many are being fetched.
        """
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

    def close(self) -> None:
        """Let the threads go."""
        self._pictures.close()
        self._films.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def _image(self, content: bytes) -> Frames:
        return decode_image(content, max_megapixels=self._settings.max_image_megapixels)[np.newaxis]

    def _clip(self, content: bytes, spec: EncoderSpec) -> Frames:
        return decode_clip(
            content, num_frames=spec.frames, side_px=spec.side, max_seconds=self._settings.max_clip_seconds,
            timeout_seconds=self._settings.decode_timeout_seconds,
        )


def jpeg(pixels: NDArray[np.uint8], kept: Path | None) -> bytes:
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


def _call_each(works: list[Callable[[], Frames]]) -> list[Frames]:
    return [work() for work in works]
