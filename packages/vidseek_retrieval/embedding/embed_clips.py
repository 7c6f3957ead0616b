"""Embeds the frame shards of an archive, one part at a time; a killed run resumes where it was.

    reader (a thread) → queue → encoder (the caller) → queue → writer (a thread)

Both queues are bounded, so memory does not grow with the archive.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from vidseek_encoder.bundle import file_sha256
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.json_files import write_json
from vidseek_media.frame_store.shards import list_shards, read_shard
from vidseek_media.records import ClipFrames
from vidseek_media.tables import FRAMES, read_table
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, SUMMARY_FILE, is_whole, remove_stale, write_part
from vidseek_retrieval.settings import BATCH

READ_AHEAD = 2
"""Batches of decoded frames that may wait for the encoder."""
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
    num_parts: int
    num_written: int
    """Parts that this run made."""
    num_kept: int
    """Parts that were there already."""
    num_removed: int
    """Stale parts, of shards or encoders that are no more."""


class Executor(Protocol):
    """Where parts are made: `embed_shards` in this process, or `on_ray.executor_on_ray`."""

    def __call__(self, shard_of: Mapping[Path, Path], *, batch: int, progress: Callable[[int], object]) -> None:
        """Write the part of each shard, whole or not at all.

        Args:
            shard_of: The shard of each part.
            batch: Most clips in one run of the encoder, at least 1.
            progress: Called with the number of clips that were embedded.
        """


def embed_archive(
    frames: Path, encoder: Encoder, *, out: Path, batch: int = BATCH, executor: Executor | None = None
) -> EmbedReport:
    """Write `out/parts/*.parquet`, one part for each frame shard, and `out/embeddings.json`.

    A part is named by its shard and a hash of shard content, encoder_version and variant. It is written whole or not at all.
    With the same number of threads its bytes are always equal, since a batch never spans two shards.

    Args:
        frames: Folder with the frame shards.
        encoder: The encoder whose vision tower is used; with an `executor` only its version and variant are read.
        out: Folder for parts and summary.
        batch: Most clips in one run of the encoder, at least 1.
        executor: Writes the parts elsewhere; None writes them in this process. Its errors are passed on.

    Raises:
        ArtifactError: there is no shard, or one cannot be read.
        ConfigError: `batch` is not positive.
    """
    if batch < 1:
        raise ConfigError(f"embed batch is {batch}, wanted a whole number above 0", code="setting-out-of-range")
    shards = list_shards(frames)
    if not shards:
        raise ArtifactError(f"no frame shards in {frames}", code="no-shards", remedy="Run `dvc repro frames` to make them")
    wanted = {part_path(shard, encoder, out=out): shard for shard in shards}
    num_removed = remove_stale(out / PARTS_FOLDER, keep=set(wanted))
    missing = {part: shard for part, shard in wanted.items() if not is_whole(part)}
    execute = executor or partial(embed_shards, encoder=encoder)
    if missing:
        with tqdm(total=_num_clips(frames, missing.values()), desc="embed", unit="clip", disable=None) as progress:
            execute(missing, batch=batch, progress=progress.update)
    num_clips = _write_summary(out, encoder, sorted(wanted))
    return EmbedReport(
        encoder_version=encoder.spec.encoder_version,
        variant=encoder.variant,
        num_clips=num_clips,
        num_parts=len(wanted),
        num_written=len(missing),
        num_kept=len(wanted) - len(missing),
        num_removed=num_removed,
    )


def part_path(shard: Path, encoder: Encoder, *, out: Path) -> Path:
    """Return the path of a shard's part: `out/parts/<shard>-<hash>.parquet`.

    Args:
        shard: The frame shard.
        encoder: The encoder; its version and variant enter the hash.
        out: Output folder of the stage `embed`.
    """
    try:
        content = file_sha256(shard)
    except OSError as error:
        raise ArtifactError(
            f"{shard} cannot be read: {error}", code="broken-shard", remedy="Run `dvc repro frames`",
        ) from error
    named = f"{content}:{encoder.spec.encoder_version}:{encoder.variant}"
    return out / PARTS_FOLDER / f"{shard.stem}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.parquet"


def embed_shards(
    shard_of: Mapping[Path, Path], encoder: Encoder, *, batch: int, progress: Callable[[int], object] = lambda _: None
) -> None:
    """Write the part of each shard in this process.

    Args:
        shard_of: The shard of each part.
        encoder: The encoder whose vision tower is used.
        batch: Most clips in one run of the encoder, at least 1.
        progress: Called with the number of clips that were embedded.

    Raises:
        ArtifactError: a shard cannot be read.
    """

    def write(part: _Part) -> None:
        write_part(
            part.path, clip_ids=part.clip_ids, vectors=part.vectors,
            encoder_version=encoder.spec.encoder_version, variant=encoder.variant,
        )

    with closing(_Reader(_read_batches(shard_of, batch), ahead=READ_AHEAD)) as batches, _Writer(
        write, behind=WRITE_BEHIND
    ) as writer:
        clip_ids: list[str] = []
        vectors = [np.empty((0, encoder.spec.dimension), dtype=np.float32)]
        for read in batches:
            clip_ids += [str(clip.clip_id) for clip in read.clips]
            vectors.append(encoder.embed_frames([clip.frames for clip in read.clips]))
            progress(len(read.clips))
            if read.is_last:
                writer.put(_Part(read.part, clip_ids, np.concatenate(vectors)))
                clip_ids, vectors = [], vectors[:1]


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
    vectors: NDArray[np.float32]


def _read_batches(shard_of: Mapping[Path, Path], size: int) -> Iterator[_Batch]:
    """Batches of whole parts, one part after the other: a batch never spans two, whoever was killed before."""
    for part, shard in shard_of.items():
        ahead: list[ClipFrames] = []
        for clips in _batches(read_shard(shard), size):
            if ahead:
                yield _Batch(part, ahead, is_last=False)
            ahead = clips
        yield _Batch(part, ahead, is_last=True)


class _Reader(Generic[Item]):
    """Reads items from an iterator in a thread, at most `ahead` of the consumer."""

    def __init__(self, items: Iterator[Item], *, ahead: int) -> None:
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(items,), name="embed reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        self._stopped.set()
        while self._thread.is_alive():  # it may wait for room
            with suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._thread.join()

    def _fill(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._queue.put((item, None))
                if self._stopped.is_set():
                    return
            self._queue.put((None, None))
        except BaseException as error:  # noqa: BLE001 - whoever iterates raises it
            self._queue.put((None, error))


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


def _num_clips(frames: Path, shards: Iterable[Path]) -> int | None:
    """Return the number of clips in these shards, for the progress bar; None if no table states it."""
    table = frames / "frames.parquet"
    if not table.exists():
        return None
    wanted = {shard.relative_to(frames).as_posix() for shard in shards}
    return sum(shard in wanted for shard in read_table(table, FRAMES)["shard"])


def _write_summary(out: Path, encoder: Encoder, parts: list[Path]) -> int:
    num_clips = {part.name: int(pq.read_metadata(part).num_rows) for part in parts}
    summary = {
        "encoder_version": encoder.spec.encoder_version,
        "variant": encoder.variant,
        "dimension": encoder.spec.dimension,
        "num_clips": sum(num_clips.values()),
        "parts": num_clips,
    }
    write_json(out / SUMMARY_FILE, summary)
    return sum(num_clips.values())
