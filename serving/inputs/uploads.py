"""Decodes bytes of a request to frames, in the workers only and never in the service's own process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.pictures import PLUGINS
from vidseek_media.editing.located_spans import LocatedSpans
from vidseek_media.errors import InputRejected
from vidseek_media.records import Span

MODULES = (
    "serving.inputs.uploads", "vidseek_media.decoding.frames", "vidseek_media.editing.moment_file", *PLUGINS
)
"""What workers have imported before they see an input."""


def decode_clip(path: Path, num_frames: int, side_px: int, max_seconds: float) -> NDArray[np.uint8]:
    """Decode frames of an uploaded video: uint8 RGB (num_frames, height, width, 3), upright.

    Args:
        path: The file.
        num_frames: Number of frames, taken at the centres of equal bins.
        side_px: Shorter side of the frames in pixels.
        max_seconds: Longest video in seconds.

    Raises:
        InputRejected: it cannot be decoded, or is too long.
    """
    from vidseek_media.decoding.containers import as_upload
    from vidseek_media.decoding.frames import decode_uniform
    from vidseek_media.decoding.packets import read_plan

    with as_upload(), _saying("the clip cannot be used", "Send a whole video file"):
        plan = read_plan(path)
        if plan.duration_ms > max_seconds * 1000:
            raise InputRejected(
                f"it lasts {plan.duration_ms / 1000:.1f} s, at most {max_seconds:g} s are taken", code="clip-too-long",
            )
        return decode_uniform(path, num_frames=num_frames, side_px=side_px, plan=plan)


def decode_strip(path: Path, times_ms: Sequence[int], side_px: int) -> NDArray[np.uint8]:
    """Decode frames of a video side by side: uint8 RGB (height, n * width, 3).

    Args:
        path: The file.
        times_ms: n times in milliseconds.
        side_px: Largest shorter side of a frame in pixels.

    Raises:
        InputRejected: it cannot be decoded.
    """
    from vidseek_media.decoding.frames import decode_at

    with _saying("the video cannot be shown", "Run `vidseek probe` on it"):
        return np.concatenate([frame for _, frame in decode_at(path, list(times_ms), side_px=side_px)], axis=1)


@contextmanager
def _saying(what: str, remedy: str) -> Iterator[None]:
    """Put before a refusal what it is about, and behind it what to do."""
    try:
        yield
    except InputRejected as error:
        raise type(error)(f"{what}: {error.message}", code=error.code, remedy=error.remedy or remedy) from error


def locate(path: Path, spans: Sequence[Span]) -> LocatedSpans:
    """Return where spans of a video of the archive lie among its frames.

    Args:
        path: The video file.
        spans: In milliseconds from the container's start.

    Raises:
        InputRejected: the file cannot be opened, is a still picture, or a span lies outside of it.
    """
    from vidseek_media.editing.source_times import locate_spans

    return locate_spans(path, spans)


def cut_span(path: Path, start_ms: int, end_ms: int) -> bytes:
    """Return a span of a video of the archive as an MP4 file, exact to the frame, with its sound.

    Args:
        path: The video file.
        start_ms: Start of the span.
        end_ms: End of the span, exclusive.

    Raises:
        InputRejected: the span lies outside of the video, or cannot be decoded or written.
    """
    from vidseek_media.editing.moment_file import moment_bytes

    return moment_bytes(path, start_ms=start_ms, end_ms=end_ms)
