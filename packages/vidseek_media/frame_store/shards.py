"""The frames of all clips in WebDataset tar shards: decoded once, read by every epoch and every later encoder.

A shard holds whole videos, those whose ids begin with the same digits. Its name contains a hash of its plan (settings and
clips): a shard with an unchanged plan is kept, and a new video changes only its own shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import tarfile
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vidseek_media.cutting.cut import read_clips
from vidseek_media.decoding.worker_batch import Outcome, run_each
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.files.folders import sweep, whole_file
from vidseek_media.frame_store.members import (
    ClipFramesInfo,
    DecodeResult,
    VideoJob,
    decode_jpeg,
    disk_faults,
    frames_digest_of,
    kept_of,
    read_members,
    write_part,
)
from vidseek_media.names import shard_file
from vidseek_media.records import Clip, ClipFrames, Refusal, Rejection, Video
from vidseek_media.settings import FrameSettings
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.local import Folder, require_folder
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import FileChanged
from vidseek_media.sources.source import Source
from vidseek_media.tables import FRAMES, REJECTED, read_table, write_table

SHARD_FORMAT = 3
"""Part of every plan's hash: raise it when the same plan gives other bytes."""

_OF_FRAMES = {"num_frames", "per_bin", "side_px", "quality", "decoder"}
"""Settings that change what a shard holds; the others say how it is made."""

_OURS = re.compile(r"(?:all|[0-9a-f]{1,4})-[0-9a-f]{16}\.tar|\..+\.[0-9]+")
"""What this stage writes into the folder of shards, half-written files too: nothing else is removed from it."""
_END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class FramesReport:
    """num_in = num_out + num_rejected, in clips."""

    num_in: int
    num_out: int
    num_rejected: int
    num_shards: int
    num_shards_kept: int
    """Shards whose plan was unchanged, so that nothing of them was decoded."""


@dataclass(frozen=True)
class _Shard:
    path: Path
    jobs: tuple[VideoJob, ...]

    @property
    def clips(self) -> list[Clip]:
        return [clip for job in self.jobs for clip in job.clips]


def write_frames(
    source: Path | Source,
    ingest_dir: Path,
    cut_dir: Path,
    *,
    out: Path,
    settings: FrameSettings,
) -> FramesReport:
    """Write the frames of each clip as JPEG into shards.

    `settings.per_bin` frames of each of `settings.num_frames` equal bins of a clip are stored. `out` receives
    `shards/<digits>-<plan hash>.tar`, `frames.parquet` and `rejected.parquet`. Members of a shard are, clip by clip in order
    of
    key, `<key>.json` and `<key>.<i:02d>.jpg`. Another run keeps shards with an unchanged plan and videos that an interrupted
    run
    finished, and removes other shards.

    Args:
        source: The source of the videos, or their folder.
        ingest_dir: Output of the stage `ingest`.
        cut_dir: Output of the stage `cut`.
        out: The folder to write.
        settings: Number, size and quality of the frames.

    Raises:
        ConfigError: `source` is missing.
        ArtifactError: a table is missing or broken, or the disk is full.
        InputRejected: no clip has frames; `rejected.parquet` has the reasons. It is not raised if the files were only
            replaced
            since `ingest`: the next run repairs that, and the gate `check_pairs` stops this one.
    """
    source = source_of(source)
    if isinstance(source, Folder):
        require_folder(source.root)
    videos, clips = {v.video_id: v for v in read_videos(ingest_dir)}, read_clips(cut_dir)
    shards = _plan_shards(videos, clips, source, out, settings)
    with disk_faults(out):
        rows, rejections, num_kept, verdict = _fill_shards(shards, out, settings)
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    if clips and not rows and not verdict.changed >= {rejection.id for rejection in rejections}:
        (out / "frames.parquet").unlink(missing_ok=True)
        raise InputRejected(
            f"not one of {len(clips)} clips has frames; the first: {rejections[0].reason}", code="no-usable-clip",
            remedy=f"{out / 'rejected.parquet'} has the reason for each",
        )
    write_table(out / "frames.parquet", rows, FRAMES)
    return FramesReport(len(clips), len(rows), len(rejections), num_shards=len(shards), num_shards_kept=num_kept)


def list_shards(folder: Path) -> list[Path]:
    """Return the shards of a frames folder in order of name; none if a run kept no clip.

    Raises:
        ArtifactError: no run has finished there.
    """
    shards = sorted((folder / "shards").glob("*.tar"))
    if not shards and not (folder / "frames.parquet").is_file():
        raise ArtifactError(f"{folder} holds no frame shards", code="no-shards", remedy="Run `dvc repro frames`")
    return shards


def shard_files(folder: Path, names: Iterable[object]) -> list[Path]:
    """Return the paths of shards, each once, in order.

    Args:
        folder: The frames folder.
        names: Names from frames.parquet.

    Raises:
        ArtifactError: a name is not that of a shard.
    """
    try:
        return [folder / name for name in sorted({shard_file(name) for name in names})]
    except ValueError as error:
        raise ArtifactError(
            f"{folder / 'frames.parquet'}: {error}", code="broken-rows", remedy="Run `dvc repro frames`",
        ) from error


def read_shard(path: Path) -> Iterator[ClipFrames]:
    """Yield the clips of a shard with decoded frames, in order of key. Sizes may differ between videos.

    Raises:
        ArtifactError: the shard is missing or broken.
    """
    for about, jpegs in read_members(path):
        try:
            frames = np.stack([decode_jpeg(jpeg) for jpeg in jpegs])
            yield ClipFrames(
                clip_id=uuid.UUID(about["clip_id"]), key=about["key"], times_ms=tuple(about["times_ms"]), frames=frames,
                num_repeated=about["num_repeated"], digest=frames_digest_of(jpegs),
            )
        except (ValueError, KeyError, OSError) as error:
            raise ArtifactError(
                f"{path}: clip {about.get('key')}: {error}", code="broken-shard", remedy="Run `dvc repro frames`",
            ) from error


def _plan_shards(
    videos: Mapping[str, Video], clips: Iterable[Clip], source: Source, out: Path, settings: FrameSettings
) -> list[_Shard]:
    by_video: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_video[clip.video_id].append(clip)
    if unknown := sorted(set(by_video) - set(videos)):
        raise ArtifactError(
            f"clips of {unknown[0]} were cut, but no such video was ingested", code="tables-disagree",
            remedy="Run `dvc repro`",
        )
    by_prefix: dict[str, list[VideoJob]] = defaultdict(list)
    for video_id in sorted(by_video):
        own = tuple(sorted(by_video[video_id], key=lambda clip: clip.index))
        # Absolute: a worker has another working directory.
        part = out.absolute() / ".parts" / f"{video_id}-{_plan_hash(settings, [own])}.part"
        job = VideoJob(video_id, source.path_of(videos[video_id].uris[0]), own, part)
        by_prefix[video_id[: settings.shard_digits]].append(job)
    return [
        _Shard(out / "shards" / f"{prefix or 'all'}-{_plan_hash(settings, [j.clips for j in jobs])}.tar", tuple(jobs))
        for prefix, jobs in sorted(by_prefix.items())
    ]


def _plan_hash(settings: FrameSettings, videos: Sequence[Sequence[Clip]]) -> str:
    plan = {
        "format": SHARD_FORMAT,
        **settings.model_dump(include=_OF_FRAMES),
        "clips": [[str(clip.clip_id), clip.key] for clips in videos for clip in clips],
    }
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def _fill_shards(
    shards: Sequence[_Shard], out: Path, settings: FrameSettings
) -> tuple[list[dict[str, object]], list[Rejection], int, DecodeResult]:
    """Make the shards that are not there; the rows of all clips, the rejections, how many shards were there, and all."""
    (out / "shards").mkdir(parents=True, exist_ok=True)
    (out / ".parts").mkdir(exist_ok=True)
    earlier = _earlier_reasons(out)
    verdict = DecodeResult({}, {})
    missing = [shard for shard in shards if not _is_whole(shard.path, shard.clips, earlier, verdict)]
    for stale in {*(out / "shards").iterdir()} - {shard.path for shard in shards}:
        if _OURS.fullmatch(stale.name):
            stale.unlink()
    _decode_shards(missing, verdict, settings)
    shutil.rmtree(out / ".parts")
    rows: list[dict[str, object]] = []
    rejections: list[Rejection] = []
    for shard in shards:
        for clip in shard.clips:
            clip_id = str(clip.clip_id)
            if kept := verdict.kept.get(clip_id):
                rows.append({
                    "clip_id": clip_id, "video_id": clip.video_id, "key": clip.key,
                    "shard": shard.path.relative_to(out).as_posix(), "num_frames": settings.num_kept,
                    "num_repeated": kept.num_repeated, "decoder": kept.decoder,
                    "quality_flags": list(kept.quality_flags), "hashes": list(kept.hashes),
                    "frames_digest": kept.frames_digest,
                })
            else:
                why = verdict.refused[clip_id]
                rejections.append(Rejection(clip_id, "frames", why.reason, retryable=why.retryable))
    return rows, rejections, len(shards) - len(missing), verdict


def _decode_shards(
    shards: Sequence[_Shard], verdict: DecodeResult, settings: FrameSettings
) -> None:
    """Decode the videos that no earlier run finished, and lay each shard together as soon as its last video is done."""
    todo: list[VideoJob] = []
    waiting = {shard.path: len(shard.jobs) for shard in shards}
    shard_of = {job.video_id: shard for shard in shards for job in shard.jobs}

    def finish(job: VideoJob) -> None:
        shard = shard_of[job.video_id]
        waiting[shard.path] -= 1
        if not waiting[shard.path]:
            _join_parts(shard)

    for job in [job for shard in shards for job in shard.jobs]:
        if _is_whole(job.part, job.clips, {}, verdict):
            finish(job)
        else:
            todo.append(job)
    with closing(
        run_each(
            partial(write_part, settings=settings), todo, workers=min(settings.workers, len(todo)),
            timeout_seconds=settings.timeout_seconds, timeout_setting="frames.timeout_seconds",
            memory_mib=settings.worker_memory_mib, recycle_after=settings.recycle_after,
        )
    ) as outcomes:
        for outcome in tqdm(outcomes, desc="frames", unit="video", total=len(todo), disable=None):
            _note_outcome(outcome, verdict)
            finish(outcome.item)


def _note_outcome(outcome: Outcome[VideoJob, DecodeResult], verdict: DecodeResult) -> None:
    job, error = outcome.item, outcome.error
    if isinstance(error, ArtifactError):
        raise error
    if error is not None:
        sweep(job.part.parent, job.part.name)  # where its worker was killed
        clip_ids = {str(clip.clip_id) for clip in job.clips}
        if isinstance(error, FileChanged):
            verdict.changed.update(clip_ids)
        verdict.refused.update(dict.fromkeys(clip_ids, Refusal.of(error, f"{job.path.name}: ")))
    elif outcome.value is not None:
        verdict.refused.update(outcome.value.refused)
        verdict.kept.update(outcome.value.kept)


def _join_parts(shard: _Shard) -> None:
    if not any(job.part.exists() for job in shard.jobs):
        return  # Every video of it was refused.
    with whole_file(shard.path) as beside, beside.open("wb") as tar:
        for job in shard.jobs:
            if job.part.exists():
                with job.part.open("rb") as part:
                    shutil.copyfileobj(part, tar, 2**20)
        tar.write(_END_OF_TAR)
    for job in shard.jobs:
        job.part.unlink(missing_ok=True)


def _earlier_reasons(out: Path) -> dict[str, str]:
    """Reason by clip_id of an earlier run's rejections, less those that another try may mend."""
    try:
        table = read_table(out / "rejected.parquet", REJECTED)
    except ArtifactError:
        return {}
    return {
        clip_id: reason
        for clip_id, reason, retryable in zip(table["id"], table["reason"], table["retryable"], strict=True)
        if not retryable
    }


def _is_whole(path: Path, clips: Sequence[Clip], earlier: Mapping[str, str], verdict: DecodeResult) -> bool:
    """Whether the tar at `path` holds `clips`, but for those that `earlier` refused; if so, `verdict` learns it."""
    if not path.exists():
        return False
    try:
        found = _infos_of(path)
    except (ArtifactError, KeyError):
        return False
    lacking = {str(clip.clip_id) for clip in clips} - set(found)
    if not lacking <= set(earlier):
        return False
    verdict.kept.update(found)
    verdict.refused.update({clip_id: Refusal(earlier[clip_id]) for clip_id in lacking})
    return True


def _infos_of(path: Path) -> dict[str, ClipFramesInfo]:
    """Return the metadata of a shard's clips by clip_id. Digests that an earlier version did not write are computed.

    Raises:
        ArtifactError: the shard is broken.
        KeyError: it lacks something.
    """
    found = {about["clip_id"]: kept_of(about) for about, _ in read_members(path, with_jpegs=False)}
    if all(info.frames_digest for info in found.values()):
        return found
    return {
        about["clip_id"]: dataclasses.replace(kept_of(about), frames_digest=frames_digest_of(jpegs))
        for about, jpegs in read_members(path)
    }
