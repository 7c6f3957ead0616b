"""Fingerprints of drawn videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.retrieval.pictures import picture
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint, fingerprint_of, picture_of

STEP_MS = 250


def shown(seed: int, times_ms: Sequence[float], *, scene_ms: float = 3000) -> list[NDArray[np.uint8]]:
    """What the video of a seed shows at these times: a new scene after each `scene_ms`, in which blobs move."""
    return [picture(1000 * seed + int(time // scene_ms), at=time % scene_ms / 1000) for time in times_ms]


def video(
    seed: int, *, start_ms: float = 0, length_ms: int = 6000, speed: float = 1.0,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda frame: frame,
) -> VideoFingerprint:
    """A part of the video of a seed, so much faster, with each frame changed."""
    times = list(range(0, length_ms, STEP_MS))
    frames = shown(seed, [start_ms + time * speed for time in times])
    return fingerprint_of(times, [picture_of(np.ascontiguousarray(change(frame))) for frame in frames])


def of_frames(frames: Sequence[NDArray[np.uint8]], *, step_ms: int = STEP_MS) -> VideoFingerprint:
    """A video of these frames."""
    return fingerprint_of([step_ms * place for place in range(len(frames))], [picture_of(frame) for frame in frames])


def letterboxed(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With bars above and below."""
    return np.pad(frame, ((20, 20), (0, 0), (0, 0)))


def marked(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a logo."""
    changed = frame.copy()
    changed[4:22, 90:116] = 250
    return changed


CHANGES: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "cropped": lambda frame: frame[8:-6, 8:-12],
    "letterboxed": letterboxed,
    "bordered": lambda frame: np.pad(frame, ((6, 6), (6, 6), (0, 0)), constant_values=180),
    "darker": lambda frame: (frame * 0.6 + 8).astype(np.uint8),
    "mirrored": lambda frame: frame[:, ::-1],
    "marked": marked,
    "letterboxed, marked": lambda frame: marked(letterboxed(frame)),
}
