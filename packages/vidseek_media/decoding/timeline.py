"""The timestamps of packets on one line: repaired, joined where the clock jumps, and without hidden frames."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

BACKWARD_MS, FORWARD_MS = 100, 10_000
"""A decoding time that jumps back by more than the first begins a new piece; so does one that jumps ahead by more than the
second, if the container allows discontinuities. The limits are ffmpeg's (`ts_discontinuity_detect` in ffmpeg_demux.c)."""

NO_PICTURE_BEFORE_A_KEYFRAME = frozenset(["h264", "hevc", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1"])
"""Codecs whose decoders output nothing before the first keyframe, in file order or in display order."""

NO_TIME = -(2**62)
"""Stands for a missing timestamp."""


@dataclass(frozen=True, eq=False)
class PacketScan:
    """Times and flags of all packets in file order; times in ticks, `NO_TIME` if missing."""

    times: NDArray[np.int64]
    """The presentation time, or the decoding time if that is missing."""
    dts: NDArray[np.int64]
    durations: NDArray[np.int64]
    has_pts: NDArray[np.bool_]
    is_key: NDArray[np.bool_]
    is_hidden: NDArray[np.bool_]
    """Not shown because of an edit list or by the codec's own flag."""

    def by_dts(self) -> PacketScan:
        """Return the scan with decoding times only. If presentation times differ from them, none is kept as known."""
        is_same = bool((self.times == self.dts).all())
        return dataclasses.replace(self, times=self.dts, has_pts=self.has_pts & is_same)

    def before_zero(self) -> PacketScan:
        """Return the scan with the ticks before 0 for packets without a time, if all those are in the first GOP."""
        lost, keys = np.flatnonzero(self.times == NO_TIME), np.flatnonzero(self.is_key)
        if not len(lost) or not len(keys) or lost[0] < keys[0] or lost[-1] > [*keys, len(self.times)][1] or lost[0] == 0:
            return self
        times, has_pts = self.times.copy(), self.has_pts.copy()
        times[lost], has_pts[lost] = np.arange(-len(lost), 0), True
        return dataclasses.replace(self, times=times, has_pts=has_pts)


def shown_packets(scan: PacketScan, codec: str) -> NDArray[np.bool_]:
    """Return for each packet whether its frame is shown.

    If the codec's rules would leave no frame, they are not applied; if all frames are hidden, all count as shown.

    Args:
        scan: All packets.
        codec: FFmpeg's name of the codec.
    """
    visible = ~scan.is_hidden
    if codec in NO_PICTURE_BEFORE_A_KEYFRAME and scan.is_key.any():
        first_key = int(scan.is_key.argmax())
        after_key = np.arange(len(visible)) >= first_key
        if scan.has_pts.all():  # leading pictures follow the keyframe in the file and precede it in display order
            after_key &= _leads_not(scan, first_key)
        if (visible & after_key).any():
            visible &= after_key
    return visible if visible.any() else np.ones_like(visible)


def _leads_not(scan: PacketScan, first_key: int) -> NDArray[np.bool_]:
    """Return False for the leading pictures of the first keyframe: those before the next keyframe with an earlier time."""
    following = np.flatnonzero(scan.is_key[first_key + 1 :])
    end = first_key + 1 + int(following[0]) if len(following) else len(scan.times)
    leads_not = np.ones(len(scan.times), bool)
    leads_not[first_key:end] = scan.times[first_key:end] >= scan.times[first_key]
    return leads_not


def join_pieces(
    scan: PacketScan, is_shown: NDArray[np.bool_], second: int, step: int, *, may_break: bool
) -> tuple[NDArray[np.int64], bool]:
    """Return the packets' times with all pieces laid end to end, and whether there are several pieces.

    Args:
        scan: All packets.
        is_shown: For each packet, whether its frame is shown.
        second: One second in ticks, at least 1.
        step: From one frame to the next, in ticks.
        may_break: Whether the container allows a clock that jumps ahead. A clock that jumps back always begins a piece.
    """
    breaks = set(_breaks_of_dts(scan, second, step, may_break=may_break))
    if may_break:
        breaks |= set(_breaks_of_keys(scan))
    if not breaks:
        return scan.times, False
    times = scan.times.copy()
    end = None
    for first, last in itertools.pairwise([0, *sorted(breaks), len(times)]):
        piece = times[first:last]
        seen = piece[is_shown[first:last] & (piece != NO_TIME)]
        if not len(seen):
            continue
        if end is not None:
            piece[piece != NO_TIME] += end - seen.min()
            seen = seen + (end - seen.min())
        end = int(seen.max()) + step
    return times, True


def _breaks_of_dts(scan: PacketScan, second: int, step: int, *, may_break: bool) -> Iterator[int]:
    """Yield the places where decoding times jump. Times that FFmpeg guesses near a jump are left out."""
    is_near = (scan.dts <= scan.times) & (scan.times - scan.dts < second * FORWARD_MS // 1000)
    timed = np.flatnonzero((scan.dts != NO_TIME) & is_near)
    jumps = np.diff(scan.dts[timed])
    is_break = jumps < -(second * BACKWARD_MS // 1000)
    if may_break:
        is_break |= jumps - step > second * FORWARD_MS // 1000
    for at in np.flatnonzero(is_break):
        before, after = int(timed[at]), int(timed[at + 1])
        keys = np.flatnonzero(scan.is_key[before + 1 : after + 1])
        yield before + 1 + int(keys[0]) if len(keys) else after


def _breaks_of_keys(scan: PacketScan) -> Iterator[int]:
    """Yield places of keyframes that would be shown before a frame which precedes them in the file; no codec allows that."""
    keys = np.flatnonzero(scan.is_key)
    if not len(keys) or not scan.has_pts.all():
        return
    latest_of_gops = np.maximum.reduceat(scan.times, keys)
    latest = int(latest_of_gops[0])
    for place, latest_of_gop in zip(keys[1:].tolist(), latest_of_gops[1:].tolist(), strict=True):
        if scan.times[place] < latest:
            yield place
            latest = latest_of_gop
        latest = max(latest, latest_of_gop)


def distinct_times(times: NDArray[np.int64], count: int, step: int) -> NDArray[np.int64]:
    """Return strictly ascending times: the known ones, then the missing ones at the usual step.

    Args:
        times: Known times in ticks, ascending, shape (at most `count`,).
        count: Times that are wanted, at least 1.
        step: From one frame to the next, in ticks.
    """
    if len(times) == 0:  # a raw stream (.h264) has no times; frames follow at the nominal rate
        return np.arange(count, dtype=np.int64) * step
    missing = times[-1] + step * np.arange(1, count - len(times) + 1)
    every = np.concatenate([times, missing])
    # Equal times are moved apart by one tick.
    places = np.arange(count)
    return np.asarray(np.maximum.accumulate(every - places) + places, dtype=np.int64)


def origin_of(start: int | None, first: int, time_base: Fraction, *, may_break: bool) -> int:
    """Return the container's start in ticks.

    Args:
        start: In microseconds, as FFmpeg has it; None if unknown.
        first: The time of the first shown frame, in ticks; returned if the start is unknown, later, or too far before.
        time_base: Seconds of a tick.
        may_break: Whether the container allows discontinuities; then a start over 10 s before `first` is too far.
    """
    if start is None:
        return first
    origin = math.floor(Fraction(start, 1_000_000) / time_base + Fraction(1, 2))
    is_apart = may_break and (first - origin) * time_base * 1000 > FORWARD_MS
    return first if origin > first or is_apart else origin


def usual_step(pts: NDArray[np.int64], time_base: Fraction, rate: Fraction | None) -> int:
    """Return the usual distance of two frames in ticks, at least 1.

    Args:
        pts: Distinct times in ticks, ascending.
        time_base: Seconds of a tick.
        rate: Nominal frames a second, used if there are fewer than two times; None for 25.
    """
    if len(pts) > 1:
        return int(np.median(np.diff(pts)))
    return max(int(1 / (rate or 25) / time_base), 1)


def is_ascending(times: NDArray[np.int64]) -> bool:
    """Return whether the times ascend strictly.

    Args:
        times: In ticks.
    """
    return bool((np.diff(times) > 0).all())
