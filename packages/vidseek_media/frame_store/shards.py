"""The frames of all clips in WebDataset tar shards: decoded once, read by every epoch and every later encoder.

A shard is filled with whole videos in the order in which they come, and is never changed: a new video goes into a new shard,
a removed one is listed no more. `frames.parquet` says which clips count and where they lie.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.decoding.worker_batch import Outcome, run_videos
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.files.folders import sole_writer, sweep
from vidseek_media.frame_store.compaction import compact, new_shard
from vidseek_media.frame_store.known_frames import (
    OURS,
    REJECTED_TABLE,
    SETTINGS_FILE,
    KnownFrames,
    frames_table,
    is_vouched,
    row_of,
    scan_placed,
    vouch,
)
from vidseek_media.frame_store.members import (
    DecodeResult,
    Placed,
    VideoJob,
    disk_faults,
    settings_digest_of,
    write_part,
)
from vidseek_media.frame_store.stored_clips import SHARDS, TABLE
from vidseek_media.ids import shard_key_of
from vidseek_media.records import Clip, Refusal, Rejection
from vidseek_media.settings import FrameSettings
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.local import Folder, require_folder
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import FileChanged
from vidseek_media.sources.source import Source
from vidseek_media.tables import CLIPS, FRAMES, REJECTED, read_columns, write_table

_PARTS = ".parts"


@dataclass(frozen=True)
class FramesReport:
    """num_in = num_out + num_rejected, in clips."""

    num_in: int
    num_out: int
    num_rejected: int
    num_decoded: int
    """Videos that this run decoded."""
    num_shards: int
    num_shards_kept: int
    """Shards that were there before."""


def write_frames(
    source: Path | Source,
    ingest_dir: Path,
    cut_dir: Path,
    *,
    out: Path,
    settings: FrameSettings,
    forgotten: Set[str] = frozenset(),
) -> FramesReport:
    """Write the frames of each clip as JPEG into shards, and decode only videos whose frames are not there yet.

    `settings.per_bin` frames of each of `settings.num_frames` equal bins of a clip are stored. `out` receives
    `shards/*.tar`, `frames.parquet`, `rejected.parquet` and `settings.json`. Members of a shard are, clip by clip in order
    of key within a video, `<key>.json` and `<key>.<i:02d>.jpg`. A run keeps what one before it finished that was killed.

    Args:
        source: The source of the videos, or their folder.
        ingest_dir: Output of the stage `ingest`.
        cut_dir: Output of the stage `cut`.
        out: The folder to write.
        settings: Number, size and quality of the frames.
        forgotten: Ids of videos of which no byte may be kept.

    Raises:
        ConfigError: `source` is missing.
        ArtifactError: a table is missing or broken, the disk is full, or another process writes into `out`.
        InputRejected: no clip has frames; `rejected.parquet` has the reasons. It is not raised if the files were only
            replaced since `ingest`: the next run repairs that, and the gate `check_pairs` stops this one.
    """
    source = source_of(source)
    if isinstance(source, Folder):
        require_folder(source.root)
    wanted = _wanted_clips(cut_dir)
    with disk_faults(out), sole_writer(out):
        sweep(out)
        (out / SHARDS).mkdir(exist_ok=True)
        known = KnownFrames.find(out, settings, wanted)
        jobs = _jobs_of(_missing(wanted, known), source, ingest_dir, out, settings)
        run = _Run(out, settings, jobs)
        run.decode()
        rows = compact(
            _in_order(wanted, known, run), out=out, most_bytes=settings.shard_bytes,
            unwanted=_shards_of(forgotten, known.rows),
        )
        rejections = _rejections(wanted, rows, known, run.result)
        _write_tables(out, settings, rows, rejections, may_be_empty=_may_be_empty(wanted, rejections, run.result))
        shutil.rmtree(out / _PARTS, ignore_errors=True)
        listed, before = (set(pc.unique(table["shard"]).to_pylist()) for table in (rows, known.rows))
        _remove_unlisted(out, listed)
    return FramesReport(
        len(wanted), len(rows), len(rejections), num_decoded=run.num_decoded, num_shards=len(listed),
        num_shards_kept=len(listed & before),
    )


def _wanted_clips(cut_dir: Path) -> pa.Table:
    """Return the columns of CLIPS and `key`, in order of video and index."""
    clips = read_columns(cut_dir / "clips.parquet", CLIPS).sort_by([("video_id", "ascending"), ("index", "ascending")])
    keys = map(shard_key_of, clips["video_id"].to_pylist(), clips["index"].to_pylist())
    return clips.append_column("key", pa.array(keys, pa.string())).combine_chunks()


def _shards_of(video_ids: Set[str], rows: pa.Table) -> set[str]:
    is_of = pc.is_in(rows["video_id"], value_set=pa.array(sorted(video_ids), pa.string()))
    return set(rows["shard"].filter(is_of).to_pylist())


def _missing(wanted: pa.Table, known: KnownFrames) -> pd.DataFrame:
    """Return all clips of the videos of which a clip has neither frames nor a reason why it has none."""
    places = pc.index_in(wanted["clip_id"], value_set=known.rows["clip_id"].combine_chunks())
    is_stored = pc.fill_null(pc.equal(known.rows["key"].take(places), wanted["key"]), fill_value=False)
    is_refused = pc.is_in(wanted["clip_id"], value_set=pa.array(sorted(known.refused), pa.string()))
    undone = pc.unique(wanted["video_id"].filter(pc.invert(pc.or_(is_stored, is_refused))))
    return wanted.filter(pc.is_in(wanted["video_id"], value_set=undone)).to_pandas()


def _jobs_of(
    missing: pd.DataFrame, source: Source, ingest_dir: Path, out: Path, settings: FrameSettings
) -> list[VideoJob]:
    """Return the videos to decode, in order of video_id."""
    videos = {video.video_id: video for video in read_videos(ingest_dir)} if len(missing) else {}
    jobs = []
    for video_id, rows in missing.groupby("video_id", sort=True):
        if video_id not in videos:
            raise ArtifactError(
                f"clips of {video_id} were cut, but no such video was ingested", code="tables-disagree",
                remedy="Run `dvc repro`",
            )
        clips = tuple(_clips_of(rows))
        # Absolute: a worker has another working directory.
        part = out.absolute() / _PARTS / f"{video_id}-{_plan_hash(settings, clips)}.part"
        jobs.append(VideoJob(str(video_id), source.path_of(videos[str(video_id)].uris[0]), clips, part))
    return jobs


def _clips_of(rows: pd.DataFrame) -> Iterator[Clip]:
    for row in rows.itertuples(index=False):
        try:
            clip = Clip(row.video_id, int(row.index), int(row.start_ms), int(row.end_ms), tuple(row.cut))
        except (TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(
                f"clips.parquet holds a row that is no clip: {error}", code="broken-rows", remedy="Run `dvc repro cut`",
            ) from error
        if str(clip.clip_id) != row.clip_id:
            raise ArtifactError(
                f"clips.parquet has the clip id {row.clip_id} for a span whose id is {clip.clip_id}", code="broken-rows",
                remedy="Run `dvc repro cut`",
            )
        yield clip


def _plan_hash(settings: FrameSettings, clips: Sequence[Clip]) -> str:
    plan = [settings_digest_of(settings), [[str(clip.clip_id), clip.key] for clip in clips]]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]


@dataclass
class _Run:
    """Decodes videos, and lays them into shards in the order of the jobs, whichever worker is done first."""

    out: Path
    settings: FrameSettings
    jobs: Sequence[VideoJob]
    result: DecodeResult = field(default_factory=lambda: DecodeResult({}, {}))
    num_decoded: int = 0
    rows: list[dict[str, object]] = field(default_factory=list)
    """Schema FRAMES, of clips that lie in shards."""
    _num_laid: int = 0
    """Of the jobs, from the first on."""
    _done: set[str] = field(default_factory=set)
    """Videos that wait to be laid into a shard."""

    def decode(self) -> None:
        """Decode what an interrupted run did not finish, and fill the shards."""
        (self.out / _PARTS).mkdir(exist_ok=True)
        todo = [job for job in self.jobs if not self._take_up(job)]
        self._lay(is_last=False)
        with run_videos(
            partial(write_part, settings=self.settings), todo, label="frames", workers=self.settings.workers,
            timeout_seconds=self.settings.timeout_seconds, timeout_setting="frames.timeout_seconds",
            memory_mib=self.settings.worker_memory_mib, recycle_after=self.settings.recycle_after,
        ) as outcomes:
            for outcome in outcomes:
                self._note(outcome)
                self._done.add(outcome.item.video_id)
                self._lay(is_last=False)
        self._lay(is_last=True)
        self.num_decoded = len(todo)

    def _take_up(self, job: VideoJob) -> bool:
        """Whether an interrupted run has finished this video."""
        try:
            found = {about["clip_id"]: placed for about, placed in scan_placed(job.part)}
        except (ArtifactError, OSError, KeyError):
            return False
        if set(found) != {str(clip.clip_id) for clip in job.clips}:
            return False
        self.result.kept.update(found)
        self._done.add(job.video_id)
        return True

    def _note(self, outcome: Outcome[VideoJob, DecodeResult]) -> None:
        job, error = outcome.item, outcome.error
        if isinstance(error, ArtifactError):
            raise error
        if error is not None:
            sweep(job.part.parent, job.part.name)  # where its worker was killed
            clip_ids = {str(clip.clip_id) for clip in job.clips}
            if isinstance(error, FileChanged):
                self.result.changed.update(clip_ids)
            self.result.refused.update(dict.fromkeys(clip_ids, Refusal.of(error, f"{job.path.name}: ")))
        elif outcome.value is not None:
            self.result.refused.update(outcome.value.refused)
            self.result.kept.update(outcome.value.kept)

    def _lay(self, *, is_last: bool) -> None:
        """Fill as many shards as the videos that are done allow; the last one need not be full."""
        share: list[VideoJob] = []
        num_bytes = 0
        for place in range(self._num_laid, len(self.jobs)):
            job = self.jobs[place]
            if job.video_id not in self._done:
                break
            share.append(job)
            num_bytes += sum(placed.num_bytes for _, placed in self._kept(job))
            if num_bytes >= self.settings.shard_bytes:
                self._join(share)
                share, num_bytes = [], 0
        if is_last:
            self._join(share)

    def _join(self, jobs: Sequence[VideoJob]) -> None:
        """Lay the members of videos end to end into one shard."""
        kept = [each for job in jobs for each in self._kept(job)]
        if kept:
            with new_shard(self.out, [(clip.key, placed.info.frames_digest) for clip, placed in kept]) as (name, tar):
                for job in jobs:
                    before = tar.tell()
                    for clip, placed in self._kept(job):
                        about = {"clip_id": str(clip.clip_id), "video_id": clip.video_id, "key": clip.key}
                        moved = dataclasses.replace(placed, offset=before + placed.offset)
                        self.rows.append(row_of(about, moved, name, self.settings.num_kept))
                    if job.part.exists():
                        with job.part.open("rb") as part:
                            shutil.copyfileobj(part, tar, 2**20)
        for job in jobs:
            job.part.unlink(missing_ok=True)
        self._num_laid += len(jobs)

    def _kept(self, job: VideoJob) -> list[tuple[Clip, Placed]]:
        kept = self.result.kept
        return [(clip, kept[clip_id]) for clip in job.clips if (clip_id := str(clip.clip_id)) in kept]


def _in_order(wanted: pa.Table, known: KnownFrames, run: _Run) -> pa.Table:
    """Return rows of all clips that have frames, in order of video and index."""
    decoded = pa.array([job.video_id for job in run.jobs], pa.string())
    old = known.rows.filter(pc.invert(pc.is_in(known.rows["video_id"], value_set=decoded)))
    rows = pa.concat_tables([old, frames_table(run.rows)])
    places = pc.index_in(wanted["clip_id"], value_set=rows["clip_id"].combine_chunks())
    return rows.take(places.drop_null()).combine_chunks()


def _rejections(wanted: pa.Table, rows: pa.Table, known: KnownFrames, result: DecodeResult) -> list[Rejection]:
    found = []
    has_frames = pc.is_in(wanted["clip_id"], value_set=rows["clip_id"].combine_chunks())
    for clip_id in wanted["clip_id"].filter(pc.invert(has_frames)).to_pylist():
        found.append(Rejection.of(clip_id, "frames", result.refused.get(clip_id) or known.refused[clip_id]))
    return found


def _may_be_empty(wanted: pa.Table, rejections: Sequence[Rejection], result: DecodeResult) -> bool:
    """Whether the files were only replaced since `ingest`."""
    return not len(wanted) or result.changed >= {rejection.id for rejection in rejections}


def _write_tables(
    out: Path, settings: FrameSettings, rows: pa.Table, rejections: Sequence[Rejection], *, may_be_empty: bool
) -> None:
    """Write the tables, and at last that they belong together: a run that ends in between is known by that."""
    if not is_vouched(out, settings):
        (out / SETTINGS_FILE).unlink(missing_ok=True)
    write_table(out / REJECTED_TABLE, [dataclasses.asdict(each) for each in rejections], REJECTED)
    if not len(rows) and not may_be_empty:
        (out / TABLE).unlink(missing_ok=True)
        raise InputRejected(
            f"not one of {len(rejections)} clips has frames; the first: {rejections[0].reason}", code="no-usable-clip",
            remedy=f"{out / REJECTED_TABLE} has the reason for each",
        )
    write_table(out / TABLE, rows, FRAMES)
    vouch(out, settings)


def _remove_unlisted(out: Path, listed: Set[str]) -> None:
    """Remove shards that no clip lies in any more."""
    for path in (out / SHARDS).iterdir():
        if f"{SHARDS}/{path.name}" not in listed and OURS.fullmatch(path.name):
            path.unlink()
