"""Predicts the cost of an archive of a given size from rates measured on this machine.

A rate that was not measured is not estimated: figures that depend on it are null.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseek.archive import Archive, load_encoder
from vidseek.new_archive.machine import cpu_fact
from vidseek_encoder.choices import usable_cores
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_retrieval.settings import PublishSettings

if TYPE_CHECKING:
    from vidseek_media.records import ClipFrames
    from vidseek_retrieval.index.backend import Point

RATES_FILE = "rates.json"
SIZES = (10_000, 1_000_000, 100_000_000)
"""Clips of the archives that are always shown."""
SECONDS_OF_VIDEO = 120
"""That are decoded for a measurement, at least, where the archive has so many."""
NUM_ENCODED = 64
NUM_PUBLISHED = 20_000
_FLOAT32, _HOUR = 4, 3600.0


@dataclass(frozen=True)
class Rates:
    """The measured rates of one machine, for one archive and one encoder."""

    machine: str
    cores: int
    """Of it."""
    measured_at: str
    """RFC 3339."""
    provider: str
    """That encoded: `cpu`, `cuda` or `tensorrt`."""
    variant: str
    dimension: int
    clip_stride_seconds: float
    """From one published clip to the next."""
    decode_clips_per_core_second: float
    """From video file to frames in a shard."""
    encode_clips_per_core_second: float | None
    """None where a GPU encodes."""
    encode_clips_per_gpu_second: float | None
    """None where none does: it was not measured."""
    publish_clips_per_core_second: float
    """Load and graph."""
    shard_bytes_per_clip: float
    part_bytes_per_clip: float
    index_bytes_per_clip: float
    """With the vector `video` alone and a short payload."""

    @staticmethod
    def read(path: Path) -> Rates:
        """Read a file of `write`.

        Raises:
            ConfigError: nothing was measured here yet.
            ArtifactError: the file is broken.
        """
        remedy = "Run `vidseek plan --measure` in an archive that `dvc repro` has made"
        if not path.is_file():
            raise ConfigError(
                f"there is no {path}: no rate was measured on this machine", code="rates-missing", remedy=remedy,
            )
        try:
            return Rates(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is broken: {error}", code="rates-broken", remedy=remedy) from error

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class Plan:
    """The needs of an archive of `num_clips`."""

    num_clips: int
    hours_of_video: float
    decode_core_hours: float
    encode_core_hours: float | None
    encode_gpu_hours: float | None
    publish_core_hours: float
    wall_hours: float | None
    """On the machines that were named; None where what they would do was not measured."""
    shards_gb: float
    parts_gb: float
    index_gb: float
    memory_gb: float
    """Of the vectors `video` as float32; a quarter of it with `quantization: int8` and `on_disk`."""


def plan(rates: Rates, *, num_clips: int, cores: int, gpus: int) -> Plan:
    """Predict time, memory and disk of an archive.

    Decoding and encoding are spread over all cores and GPUs. One machine publishes, with as many cores as were measured.

    Args:
        rates: Measured rates.
        num_clips: Number of clips of the published cut.
        cores: Number of cores that work at once.
        gpus: Number of GPUs; with 0 the cores encode.

    Raises:
        ConfigError: an argument is out of range.
    """
    if num_clips < 1 or cores < 1 or gpus < 0:
        raise ConfigError(
            f"{num_clips} clips, {cores} cores, {gpus} GPUs: wanted at least 1, 1 and 0", code="setting-out-of-range",
        )

    def hours(rate: float | None) -> float | None:
        return None if rate is None else num_clips / rate / _HOUR

    decode, publish = (
        num_clips / rate / _HOUR for rate in (rates.decode_clips_per_core_second, rates.publish_clips_per_core_second)
    )
    on_cores, on_gpus = hours(rates.encode_clips_per_core_second), hours(rates.encode_clips_per_gpu_second)
    encode = on_gpus / gpus if gpus and on_gpus is not None else on_cores / cores if on_cores and not gpus else None
    return Plan(
        num_clips=num_clips, hours_of_video=num_clips * rates.clip_stride_seconds / _HOUR, decode_core_hours=decode,
        encode_core_hours=on_cores, encode_gpu_hours=on_gpus, publish_core_hours=publish,
        wall_hours=None if encode is None else decode / cores + encode + publish / rates.cores,
        shards_gb=num_clips * rates.shard_bytes_per_clip / 1e9, parts_gb=num_clips * rates.part_bytes_per_clip / 1e9,
        index_gb=num_clips * rates.index_bytes_per_clip / 1e9, memory_gb=num_clips * _FLOAT32 * rates.dimension / 1e9,
    )


def num_clips_of(hours: float, rates: Rates) -> int:
    """Return the number of clips of a number of hours of video, by the measured rates."""
    return max(1, round(hours * _HOUR / rates.clip_stride_seconds))


def measure(archive: Archive) -> Rates:
    """Decode, encode and publish a little of `archive`: half a minute, best with nothing else running.

    Raises:
        ArtifactError: the archive was not made yet.
        ConfigError: its videos are not there.
    """
    settings = archive.settings().search
    encoder = load_encoder(archive, settings)
    cores = usable_cores()
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        decoded, shard_bytes, clips = _decode(archive, Path(folder))
        encoded = _encode(encoder, clips)
        published, index_bytes = _publish(encoder.spec.dimension, Path(folder) / "index")
        part_bytes = _part_bytes(encoder.spec.dimension, Path(folder) / "part.parquet")
    on_gpu = settings.provider != "cpu"
    threads = settings.threads or cores
    return Rates(
        machine=f"{platform.node()}, {cores} cores, {cpu_fact('model name') or platform.processor()}", cores=cores,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"), provider=settings.provider, variant=encoder.variant,
        dimension=encoder.spec.dimension, clip_stride_seconds=archive.section(CutSettings).window_stride_seconds,
        decode_clips_per_core_second=decoded, encode_clips_per_core_second=None if on_gpu else encoded / min(threads, cores),
        encode_clips_per_gpu_second=encoded if on_gpu else None, publish_clips_per_core_second=published / cores,
        shard_bytes_per_clip=shard_bytes, part_bytes_per_clip=part_bytes, index_bytes_per_clip=index_bytes,
    )


def _decode(archive: Archive, folder: Path) -> tuple[float, float, list[ClipFrames]]:
    """Return clips of the published cut in a second of one worker, bytes of each, and the clips."""
    from vidseek_media.frame_store.shards import write_frames
    from vidseek_media.frame_store.stored_clips import read_frames, stored_clips
    from vidseek_media.frame_store.stored_side import with_stored_side
    from vidseek_media.sources.ingest import read_videos
    from vidseek_media.tables import CLIPS, VIDEOS, read_table, write_table

    source = archive.require_source()
    wanted, length_ms = [], 0
    for video in sorted(read_videos(archive.ingest), key=lambda each: -each.duration_ms):
        if length_ms < SECONDS_OF_VIDEO * 1000:
            wanted.append(video.video_id)
            length_ms += video.duration_ms
    cut = archive.section(PublishSettings).cut
    tables = {"ingest/videos": VIDEOS, "cut/clips": CLIPS}
    num = 0
    for name, schema in tables.items():
        rows = read_table(archive.data / f"{name}.parquet", schema)
        rows = rows[rows["video_id"].isin(wanted)]
        if schema is CLIPS:
            rows = rows[[cut in modes for modes in rows["cut"]]]
            num = len(rows)
        write_table(folder / f"{name}.parquet", rows, schema)
    start = time.perf_counter()
    write_frames(
        source, folder / "ingest", folder / "cut", out=folder / "frames",
        settings=with_stored_side(archive.section(FrameSettings), archive.side).model_copy(update={"workers": 1}),
    )
    seconds = time.perf_counter() - start
    stored = stored_clips(folder / "frames")
    clips = list(read_frames(folder / "frames", stored[:NUM_ENCODED]))
    return num / seconds, sum(clip.num_bytes for clip in stored) / max(1, num), clips


def _encode(encoder: Any, clips: list[ClipFrames]) -> float:
    frames = [clip.frames for clip in clips]
    encoder.embed_frames(frames[:8])
    start = time.perf_counter()
    encoder.embed_frames(frames)
    return len(frames) / (time.perf_counter() - start)


def _publish(dimension: int, index: Path) -> tuple[float, float]:
    """Points loaded and optimised in a second, and bytes of each on the disk."""
    from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
    from vidseek_retrieval.index.edge.backend import EdgeBackend
    from vidseek_retrieval.settings import IndexSettings

    name = collection_name("0" * 16, "0" * 12)
    now = datetime.now(UTC).isoformat()
    metadata = CollectionMetadata(name, "0" * 16, "0" * 12, dimension, NUM_PUBLISHED, IndexSettings(), now)
    start = time.perf_counter()
    EdgeBackend(index).build(metadata, _points(dimension))
    seconds = time.perf_counter() - start
    return NUM_PUBLISHED / seconds, sum(file.stat().st_size for file in index.rglob("*") if file.is_file()) / NUM_PUBLISHED


def _points(dimension: int) -> Iterator[Point]:
    import numpy as np

    from vidseek_media.ids import clip_id_of
    from vidseek_retrieval.index.backend import Point

    draws = np.random.default_rng(0)
    for number in range(NUM_PUBLISHED):
        vector = draws.normal(size=dimension).astype(np.float32)
        video_id, start_ms = f"{number // 100:032x}", number % 100 * 1000
        yield Point(str(clip_id_of(video_id, start_ms, start_ms + 3000)), vector / np.linalg.norm(vector), {
            "video_id": video_id, "start_ms": start_ms, "end_ms": start_ms + 3000, "index": number % 100,
            "title": f"video {number // 100}", "uri": f"folder/video {number // 100}.mp4", "duration_ms": 103_000,
        })


def _part_bytes(dimension: int, path: Path) -> float:
    import numpy as np

    from vidseek_retrieval.embedding.embedding_parts import write_part

    points = [point for _, point in zip(range(2000), _points(dimension), strict=False)]
    write_part(path, clip_ids=[each.clip_id for each in points], vectors=np.stack([each.vector for each in points]),
               encoder_version="0" * 16, variant="fp32")
    return path.stat().st_size / len(points)
