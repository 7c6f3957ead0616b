"""Compares frames by their pixels, independent of size, codec, brightness, bars and mirroring. No model is used.

A frame is cut free of bars, converted to grey, reduced to 16 x 16 pixels, and normalised to mean 0 and length 1. A second
descriptor is made without the margin, so that cropped copies match. Flat frames (black, a fade) match nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from vidseek_media.frame_store.stored_clips import read_frames, stored_clips

SIDE = 16
MARGIN = 0.08
"""Of each side, left out of the second look."""
FLAT_LEVELS = 4.0
"""The standard deviation, of 256 levels, below which a frame shows nothing."""
MIN_STEP_MS = 250
"""Overlapping clips are sampled at nearly the same times: of frames nearer than this the first is kept."""
BAR_LEVELS = 6.0
MAX_BAR = 0.3
"""Of a side: more is no bar."""
_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class VideoFingerprint:
    """The frames of one video that its clips were sampled at, in order of time."""

    times_ms: NDArray[np.int64]
    fingerprints: NDArray[np.float16]
    """Shape (n, 2, 256): whole and without margin; unit rows, or zeros where the frame is flat."""


def fingerprint_of(frame: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the two descriptors of a frame, with and without its margin: float16 of shape (2, 256).

    Args:
        frame: uint8 RGB of shape (height, width, 3).
    """
    grey = _without_bars(frame.astype(np.float32) @ _WEIGHTS)
    height, width = grey.shape
    down, right = int(height * MARGIN), int(width * MARGIN)
    inner = grey[down : height - down, right : width - right]
    return np.stack([_small(grey), _small(inner)]).astype(np.float16)


def read_fingerprints(frames: Path, video_ids: Iterable[str]) -> dict[str, VideoFingerprint]:
    """Compute the descriptors of videos from their stored frames; videos without frames are left out.

    Args:
        frames: Folder with the frame shards.
        video_ids: Ids of the videos.

    Raises:
        ArtifactError: there is no shard, or one is broken.
    """
    wanted = set(video_ids)
    found: dict[str, dict[int, NDArray[np.float16]]] = {}
    clips = stored_clips(frames, video_ids=wanted)
    for clip in tqdm(read_frames(frames, clips), desc="look", unit="clip", total=len(clips), disable=None):
        of_video = found.setdefault(clip.key.rsplit("_", 1)[0], {})
        for time_ms, frame in zip(clip.times_ms, clip.frames, strict=True):
            if of_video.keys().isdisjoint(range(time_ms - MIN_STEP_MS + 1, time_ms + MIN_STEP_MS)):
                of_video[time_ms] = fingerprint_of(frame)
    return {
        video_id: VideoFingerprint(
            np.array(sorted(fingerprints), dtype=np.int64), np.stack([fingerprints[each] for each in sorted(fingerprints)])
        )
        for video_id, fingerprints in found.items()
    }


def likeness(one: NDArray[np.float16], other: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the similarity of each frame of one set to each of another, from -1 to 1, plain or mirrored.

    Args:
        one: Descriptors of shape (n, 2, 256).
        other: Descriptors of shape (m, 2, 256).

    Returns:
        float32 of shape (n, m).
    """
    best = np.full((len(one), len(other)), -1.0, dtype=np.float32)
    for mine, theirs in views(one, other):
        np.maximum(best, mine @ theirs.T, out=best)
    return best


def views(
    one: NDArray[np.float16], other: NDArray[np.float16]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the pairs of descriptors to compare: plain or mirrored, with neither or one of the two cropped.

    Args:
        one: Descriptors of shape (n, 2, 256).
        other: Descriptors of shape (m, 2, 256).

    Returns:
        Pairs of arrays of shape (n, 256) and (m, 256).
    """
    left, right = one.astype(np.float32), other.astype(np.float32)
    mirrored = right.reshape(-1, 2, SIDE, SIDE)[..., ::-1].reshape(right.shape)
    for fingerprints in (right, mirrored):
        for mine, theirs in ((0, 0), (0, 1), (1, 0)):
            yield left[:, mine], fingerprints[:, theirs]


def is_flat(fingerprints: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return which frames are flat, shape (n,), from descriptors of shape (n, 2, 256)."""
    flat: NDArray[np.bool_] = np.all(fingerprints[:, 0] == 0, axis=1)
    return flat


def _small(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
    if small.std() < FLAT_LEVELS:
        return np.zeros(SIDE * SIDE, dtype=np.float32)
    centred = small - small.mean()
    return centred / np.linalg.norm(centred)


def _without_bars(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = _inside(np.ptp(grey, axis=1)), _inside(np.ptp(grey, axis=0))
    return grey[rows, columns]


def _inside(ranges: NDArray[np.float32]) -> slice:
    """From the first to the last line that is not of one level; all of them where a bar would be too thick."""
    lines = np.flatnonzero(ranges > BAR_LEVELS)
    most = int(len(ranges) * MAX_BAR)
    if not len(lines) or lines[0] > most or len(ranges) - 1 - lines[-1] > most:
        return slice(0, len(ranges))
    return slice(int(lines[0]), int(lines[-1]) + 1)
