"""Says in words what differs between two videos that show the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidseek_media.records import Video
from vidseek_retrieval.dedup.comparing.alignment import Alignment
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint

_SPEED = 0.01
_MARGIN = 0.03
_MIDDLE = slice(8, -8)
_LEVELS = 12.0
_CONTRAST = 0.12
_MARKED = 0.9
"""The likeness of aligned frames below which something is drawn over one of them."""


def differences(
    alignment: Alignment, videos: tuple[Video, Video], seen: tuple[VideoFingerprint, VideoFingerprint]
) -> list[str]:
    """Return what a person sees to differ, the first video against the second.

    Args:
        alignment: How the two fit.
        videos: The two videos.
        seen: Their fingerprints.
    """
    return [*_of_time(alignment), *_of_picture(alignment, seen), *_of_files(*videos)]


def _of_time(alignment: Alignment) -> Iterator[str]:
    by = alignment.by
    if abs(by.speed - 1) > _SPEED:
        yield f"{by.speed:.2f} times as fast"
    if abs(by.offset_ms) >= 100:
        yield f"{abs(by.offset_ms) / 1000:.1f} s {'less' if by.offset_ms > 0 else 'more'} at the beginning"


def _of_picture(alignment: Alignment, seen: tuple[VideoFingerprint, VideoFingerprint]) -> Iterator[str]:
    view = alignment.view
    if view.is_mirrored:
        yield "mirrored"
    for part, verb in ((view.theirs, "cropped"), (view.mine, "with bars or a border")):
        if part.area < 1 - 2 * _MARGIN:
            yield f"{verb}: {100 * part.area:.0f} % of the picture is common"
    rows = np.flatnonzero((seen[0].times_ms >= alignment.one_ms[0]) & (seen[0].times_ms < alignment.one_ms[1]))
    if len(rows):
        others = np.searchsorted(seen[1].times_ms, alignment.by.times(seen[0].times_ms[rows]))
        mine = seen[0].pictures[rows][:, _MIDDLE, _MIDDLE].astype(np.float32)
        theirs = seen[1].pictures[others.clip(0, len(seen[1].times_ms) - 1)][:, _MIDDLE, _MIDDLE].astype(np.float32)
        level = float(mine.mean() - theirs.mean())
        contrast = float(mine.std(axis=(1, 2)).mean() / max(float(theirs.std(axis=(1, 2)).mean()), 1e-3))
        if abs(level) > _LEVELS:
            yield f"{'brighter' if level > 0 else 'darker'} by {abs(level):.0f} of 255"
        if abs(np.log(max(contrast, 1e-3))) > _CONTRAST:
            yield f"{contrast:.2f} times the contrast"
    if alignment.evidence.likeness < _MARKED:
        yield "something is drawn over one of them, or the pictures are worse"


def _of_files(one: Video, other: Video) -> Iterator[str]:
    if (one.width, one.height) != (other.width, other.height):
        yield f"{one.width} x {one.height} for {other.width} x {other.height}"
    if one.codec != other.codec:
        yield f"{one.codec} for {other.codec}"
    if abs(one.fps - other.fps) > 0.5:
        yield f"{one.fps:.3g} frames a second for {other.fps:.3g}"
    if abs(one.duration_ms - other.duration_ms) >= 100:
        yield f"{one.duration_ms / 1000:.1f} s for {other.duration_ms / 1000:.1f} s"
