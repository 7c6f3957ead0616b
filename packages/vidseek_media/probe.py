"""What a video file really holds: length, rate, upright size and codec, from its packets and a decoded frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidseek_media.errors import InputRejected
from vidseek_media.frames import decode_at, open_video, read_plan

MAX_FRAME_MS = 600_000
"""Longer than this a frame is not shown, on average; times that say so are broken, and would give clips without end."""


@dataclass(frozen=True)
class Probe:
    """Measured, not taken from the header."""

    duration_ms: int
    """From the first frame to the end of the last."""
    fps: float
    """Frames a second on average, to three digits."""
    width: int
    """Upright, in pixels."""
    height: int
    codec: str
    num_frames: int


def probe(path: Path) -> Probe:
    """Measure `path`, and prove by one decoded frame that it can be decoded.

    Raises:
        InputRejected: it is empty, no video, or not one frame of it can be decoded; the message is the reason.
    """
    try:
        if path.stat().st_size == 0:
            raise InputRejected("is empty (0 bytes)")
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}") from error
    with open_video(path) as (_, stream):
        codec = str(stream.codec_context.codec.canonical_name)
    plan = read_plan(path)
    if plan.duration_ms > MAX_FRAME_MS * len(plan.pts):
        raise InputRejected(f"its times are broken: {len(plan.pts)} frames over {plan.duration_ms // 1000} s")
    [(_, first)] = decode_at(path, [0])
    height, width = first.shape[:2]
    fps = round(1000 * len(plan.pts) / plan.duration_ms, 3)
    return Probe(plan.duration_ms, fps, width, height, codec, num_frames=len(plan.pts))
