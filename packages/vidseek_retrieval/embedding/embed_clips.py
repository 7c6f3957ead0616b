"""Embeds the clips of an archive whose vectors are missing, a piece at a time; a killed run resumes where it was.

    reader (a thread) → queue → encoder (the caller) → queue → writer (a thread)

Both queues are bounded, so memory does not grow with the archive. A vector belongs to the digest of a clip's frames and to
an encoder: where the frames lie, and what else is embedded beside them, changes nothing.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.folders import sole_writer
from vidseek_media.frame_store.stored_clips import StoredClip, read_frames, stored_clips
from vidseek_media.records import ClipFrames
from vidseek_media.terminal.progress import Progress
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, write_part
from vidseek_retrieval.embedding.part_store import PIECE_ROWS, PartStore, Space
from vidseek_retrieval.settings import BATCH

READ_AHEAD = 2
"""Batches of decoded frames that may wait for the encoder, beside the one that is being read."""
WRITE_BEHIND = 2
"""Finished parts that may wait for the disk."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class EmbedReport:
    """What a run did."""

    encoder_version: str
    variant: str
    num_clips: int
    """In all parts."""
    num_embedded: int
    """Of them, those that this run embedded."""
    num_parts: int


class Executor(Protocol):
    """Where clips are embedded: `embed_pieces` in this process, or `on_ray.executor_on_ray`."""

    def __call__(
        self, frames: Path, pieces: Mapping[Path, Sequence[StoredClip]], *, batch: int, progress: Callable[[int], object]
    ) -> None:
        """Write a part for each piece, whole or not at all.

        Args:
            frames: Output of the stage `frames`.
            pieces: The clips of each part, by its path.
            batch: Most clips in one run of the encoder, at least 1.
            progress: Called with the number of clips that were embedded.
        """


def embed_archive(
    frames: Path, encoder: Encoder, *, out: Path, batch: int = BATCH, executor: Executor | None = None
) -> EmbedReport:
    """Write `out/parts/*.parquet` with a row for each clip that has frames, and `out/embeddings.json`, which lists them.

    Only frames whose digest has no vector of this encoder and variant yet are embedded. With the same number of threads of a
    run a vector is the same to the bit, whatever is embedded with it.

    Args:
        frames: Output of the stage `frames`.
        encoder: The encoder whose vision tower is used; with an `executor` only its version and variant are read.
        out: Folder for parts and list.
        batch: Most clips that are read at once, and in one run of the encoder on a GPU; at least 1.
        executor: Embeds elsewhere; None embeds in this process. Its errors are passed on.

    Raises:
        ArtifactError: no clip has frames, a shard cannot be read, or another process writes into `out`.
        ConfigError: `batch` is not positive.
    """
    if batch < 1:
        raise ConfigError(f"embed batch is {batch}, wanted a whole number above 0", code="setting-out-of-range")
    clips = {clip.clip_id: clip for clip in stored_clips(frames)}
    if not clips:
        raise ArtifactError(f"no frame shards in {frames}", code="no-shards", remedy="Run `dvc repro frames` to make them")
    if unnamed := next((clip for clip in clips.values() if not clip.frames_digest), None):
        raise ArtifactError(
            f"{frames} is of an earlier version: its table has no digest for clip {unnamed.clip_id}", code="no-digests",
            remedy="Run `dvc repro frames`; it copies what is there",
        )
    wanted = [(clip.clip_id, clip.frames_digest) for clip in clips.values()]
    space = Space(encoder.spec.encoder_version, encoder.variant, encoder.spec.dimension)
    with sole_writer(out):
        store = PartStore(out / PARTS_FOLDER, space)
        missing = store.missing(wanted)
        pieces = [missing[start : start + PIECE_ROWS] for start in range(0, len(missing), PIECE_ROWS)]
        todo = {store.path_of(piece): [clips[clip_id] for clip_id, _ in piece] for piece in pieces}
        execute = executor or partial(embed_pieces, encoder=encoder)
        if todo:
            with Progress("embed", unit="clip", total=len(missing)) as progress:
                execute(frames, todo, batch=batch, progress=progress.update)
        for part in todo:
            store.note(part)
        parts = store.commit(wanted)
    return EmbedReport(
        encoder_version=space.encoder_version, variant=space.variant, num_clips=len(wanted), num_embedded=len(missing),
        num_parts=len(parts),
    )


def embed_pieces(
    frames: Path, pieces: Mapping[Path, Sequence[StoredClip]], encoder: Encoder, *, batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Write the part of each piece in this process.

    Args:
        frames: Output of the stage `frames`.
        pieces: The clips of each part, by its path.
        encoder: The encoder whose vision tower is used.
        batch: Most clips that are read at once, and in one run of the encoder on a GPU; at least 1.
        progress: Called with the number of clips that were embedded.

    Raises:
        ArtifactError: a shard cannot be read, or holds other frames.
    """

    def write(part: _Part) -> None:
        write_part(
            part.path, clip_ids=part.clip_ids, vectors=part.vectors, digests=part.digests,
            encoder_version=encoder.spec.encoder_version, variant=encoder.variant,
        )

    batches = _read_ahead(_read_batches(frames, pieces, batch), READ_AHEAD + 1)
    with closing(batches), _Writer(write, behind=WRITE_BEHIND) as writer:
        part = _Part.begun(encoder)
        for read in batches:
            vectors = encoder.embed_frames([clip.frames for clip in read.clips], steady=True)
            part = part.followed_by(read, vectors)
            progress(len(read.clips))
            if read.is_last:
                writer.put(part)
                part = _Part.begun(encoder)


@dataclass(frozen=True)
class _Batch:
    part: Path
    clips: list[ClipFrames]
    is_last: bool
    """Of its part."""


@dataclass(frozen=True)
class _Part:
    path: Path
    clip_ids: list[str]
    digests: list[str]
    vectors: NDArray[np.float32]

    @staticmethod
    def begun(encoder: Encoder) -> _Part:
        return _Part(Path(), [], [], np.empty((0, encoder.spec.dimension), dtype=np.float32))

    def followed_by(self, read: _Batch, vectors: NDArray[np.float32]) -> _Part:
        return _Part(
            read.part, [*self.clip_ids, *(str(clip.clip_id) for clip in read.clips)],
            [*self.digests, *(clip.digest for clip in read.clips)], np.concatenate([self.vectors, vectors]),
        )


def _read_batches(frames: Path, pieces: Mapping[Path, Sequence[StoredClip]], size: int) -> Iterator[_Batch]:
    """Yield batches of whole parts, one part after the other."""
    for part, clips in pieces.items():
        left = len(clips)
        for batch in _batches(read_frames(frames, clips), size):
            left -= len(batch)
            yield _Batch(part, batch, is_last=not left)


def _read_ahead(batches: Iterator[_Batch], num: int) -> Generator[_Batch, None, None]:
    """Yield batches that a thread reads, at most `num` of them before they are asked for."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="embed reader")
    try:
        ahead = deque(pool.submit(next, batches, None) for _ in range(num))
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, batches, None))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer(Generic[Item]):
    """Passes items to `write` in a thread, at most `behind` the producer; leaving the block waits for all of them."""

    def __init__(self, write: Callable[[Item], None], *, behind: int) -> None:
        self._write = write
        self._queue: queue.Queue[Item | None] = queue.Queue(behind)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, name="embed writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def put(self, item: Item) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def _drain(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(item)
                except BaseException as error:  # noqa: BLE001 - whoever puts raises it
                    self._error = error


def _batches(clips: Iterator[ClipFrames], size: int) -> Iterator[list[ClipFrames]]:
    batch: list[ClipFrames] = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
