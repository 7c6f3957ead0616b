"""Reads the fingerprints of videos from their stored frames, and keeps them by the digest of those frames."""

from __future__ import annotations

import hashlib
import io
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from vidseek_media.files.folders import write_bytes
from vidseek_media.frame_store.stored_clips import StoredClip, read_frames, stored_clips
from vidseek_media.terminal.progress import counted
from vidseek_retrieval.dedup.comparing.fingerprints import SIDE, Rectangle, VideoFingerprint, fingerprint_of, picture_of
from vidseek_retrieval.dedup.comparing.processes import map_in_processes

_MANY = 150
"""New videos from which it is worth to begin a process for each core."""
VERSION = 1
"""Of what a fingerprint holds: another one is not read."""
STEP_MS = (100, 240)
"""Between two frames, at least: in a short video, and in one of two minutes and more."""
_LONG_MS = 120_000


def read_fingerprints(
    frames: Path, video_ids: Collection[str], *, cache: Path | None = None
) -> tuple[dict[str, VideoFingerprint], dict[str, str]]:
    """Return the fingerprints of videos from their stored frames, and of each a digest of these; both without the videos
    that have no frames.

    Args:
        frames: Folder with the frame shards.
        video_ids: Ids of the videos.
        cache: Folder that keeps fingerprints for the next time.

    Raises:
        ArtifactError: there is no shard, or one is broken.
        OSError: the folder of the cache cannot be written.
    """
    clips = stored_clips(frames, video_ids=set(video_ids))
    wanted = [
        _Wanted(frames, list(of), None if cache is None else cache / f"{video_id}.npz")
        for video_id, of in groupby(clips, key=lambda clip: clip.video_id)
    ]
    # Those that are kept are read sooner than a process begins.
    num_new = sum(each.kept is None or not each.kept.exists() for each in wanted)
    read = map_in_processes(_read_or_made, wanted, chunksize=8) if num_new >= _MANY else map(_read_or_made, wanted)
    found: dict[str, VideoFingerprint] = {}
    digests: dict[str, str] = {}
    for each, (of, digest) in zip(counted(wanted, "look", unit="video"), read, strict=True):
        found[each.clips[0].video_id], digests[each.clips[0].video_id] = of, digest
    return found, digests


@dataclass(frozen=True)
class _Wanted:
    frames: Path
    clips: Sequence[StoredClip]
    kept: Path | None


def _read_or_made(wanted: _Wanted) -> tuple[VideoFingerprint, str]:
    digest = _digest(wanted.clips)
    known = _read(wanted.kept, digest) if wanted.kept is not None else None
    if known is None:
        known = _fingerprint(wanted.frames, wanted.clips)
        if wanted.kept is not None:
            _write(wanted.kept, known, digest)
    return known, digest


def _fingerprint(frames: Path, clips: Sequence[StoredClip]) -> VideoFingerprint:
    pictures = {
        time_ms: picture_of(frame)
        for clip in read_frames(frames, clips) for time_ms, frame in zip(clip.times_ms, clip.frames, strict=True)
    }
    times = list(frames_apart(sorted(pictures)))
    return fingerprint_of(times, [pictures[time_ms] for time_ms in times])


def frames_apart(times_ms: Sequence[int]) -> Iterator[int]:
    """Yield the times of frames that are kept. Overlapping clips are sampled at nearly the same times: of frames that are
    nearer than a step the first is.
    """
    share = min((times_ms[-1] - times_ms[0]) / _LONG_MS, 1.0)
    step_ms = STEP_MS[0] + share * (STEP_MS[1] - STEP_MS[0])
    last = -np.inf
    for time_ms in times_ms:
        if time_ms - last >= step_ms:
            last = time_ms
            yield time_ms


def _digest(clips: Sequence[StoredClip]) -> str:
    """The digest of all frames; one that is never seen again where the table is of an earlier version and names none."""
    if not all(clip.frames_digest for clip in clips):
        return uuid.uuid4().hex
    of = "".join(f"{clip.clip_id}{clip.frames_digest}" for clip in clips)
    return hashlib.sha256(f"{VERSION}:{of}".encode()).hexdigest()[:32]


def _read(path: Path, digest: str) -> VideoFingerprint | None:
    """What is kept; None where nothing is, it is of other frames, or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["digest"]) != digest:
                return None
            found = VideoFingerprint(kept["times_ms"], kept["pictures"], Rectangle(*kept["inside"].tolist()))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return found if found.pictures.shape == (len(found.times_ms), SIDE, SIDE) else None


def _write(path: Path, found: VideoFingerprint, digest: str) -> None:
    content = io.BytesIO()
    np.savez(content, times_ms=found.times_ms, pictures=found.pictures, inside=astuple(found.inside), digest=digest)
    write_bytes(path, content.getvalue())
