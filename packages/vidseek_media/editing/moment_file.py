"""Writes a moment of a video as a file of its own, exact to the frame, with its sound.

Packets are copied where the moment begins at a keyframe and its frames depend on no others; else the frames are encoded
again, as H.264. Frames that are shown within the span are in the file, and no others.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from math import ceil
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from vidseek_media.decoding.containers import FOREIGN, OpenVideo, demux, message_of, open_sound, open_video
from vidseek_media.decoding.frames import frames_at
from vidseek_media.decoding.packets import PacketPlan, plan_of
from vidseek_media.editing.source_times import frames_of_span
from vidseek_media.errors import InputRejected
from vidseek_media.output import disk_fault

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's formats by the suffix of the file to write."""

_COPIED_FROM = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers whose packets go into all of `FORMATS` as they are."""
_COPIED_VIDEO = frozenset(["h264", "hevc", "av1", "vp9", "mpeg4"])
_COPIED_SOUND = frozenset(["aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"])
_FINEST = 1_000_000
"""A time base with more ticks a second is replaced: MP4 has 32 bits for it."""
_ROUND_TICKS = Fraction(1, 120_000)
"""A tick that divides the frames of all standard rates."""
_MOST_SILENCE_SECONDS = 3600
_SOUND_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""That every player of AAC takes; others become 48,000."""
_BT709 = 1
"""Primaries, transfer and matrix of ITU-R BT.709 (H.273)."""

Target: TypeAlias = "Path | io.BytesIO"
_Packets: TypeAlias = "Iterator[av.Packet[Any]]"


@dataclass(frozen=True)
class MomentFile:
    """What was written."""

    start_ms: int
    """When its first frame begins in the video."""
    end_ms: int
    """When its last frame ends in the video."""
    num_frames: int
    is_copied: bool
    """Whether the pictures are the video's own packets."""
    has_sound: bool


def moment_bytes(path: Path, *, start_ms: int, end_ms: int) -> bytes:
    """Return a moment as an MP4 file. Arguments and errors are those of `write_moment`."""
    buffer = io.BytesIO()
    write_moment(path, buffer, start_ms=start_ms, end_ms=end_ms)
    return buffer.getvalue()


def write_moment_file(job: tuple[Path, Path, str, int, int, int]) -> MomentFile:
    """Write a moment in a worker: source, file to write, its format, start and end in ms, encoder threads."""
    path, out, name, start_ms, end_ms, threads = job
    return write_moment(path, out, name=name, start_ms=start_ms, end_ms=end_ms, threads=threads)


def write_moment(
    path: Path, out: Target, *, start_ms: int, end_ms: int, name: str = "mp4", threads: int = 1
) -> MomentFile:
    """Write the frames that are shown in a span, and the sound from the first one's beginning to the last one's end.

    Args:
        path: The video.
        out: The file to write, or a buffer.
        start_ms: Start of the span in milliseconds from the container's start.
        end_ms: End of the span, exclusive.
        name: One of the values of `FORMATS`.
        threads: Encoder threads, at least 1.

    Raises:
        InputRejected: the span lies outside of the video, or cannot be decoded or written.
        ArtifactError: the disk is full.
    """
    with open_video(path, decodes=False) as video:
        plan = plan_of(video)
        format_name = str(video.container.format.name)
    if plan.is_still:
        raise InputRejected("is a still picture: it has no moments", code="no-frames-to-cut")
    first, end = frames_of_span(plan, start_ms, end_ms)
    span = _Span(path, plan, first, end)
    try:
        if format_name in _COPIED_FROM and _is_copyable(plan, first, end):
            with suppress(_NotCopied, *FOREIGN):
                return _written(span, out, name, threads, is_copied=True)
        return _written(span, out, name, threads, is_copied=False)
    except FOREIGN as error:
        if (fault := disk_fault(error)) is not None:
            raise fault from error
        raise InputRejected(
            f"{path.name}: [{start_ms}, {end_ms}) ms cannot be written: {message_of(error)}", code="moment-not-written",
        ) from error


class _NotCopied(Exception):
    """The packets did not come as the plan says."""


@dataclass(frozen=True)
class _Span:
    """Frames `[first, end)` of a video."""

    path: Path
    plan: PacketPlan
    first: int
    end: int

    @property
    def first_pts(self) -> int:
        return int(self.plan.pts[self.first])

    @property
    def end_pts(self) -> int:
        return self.plan.end_pts if self.end == len(self.plan.pts) else int(self.plan.pts[self.end])

    @property
    def start_seconds(self) -> Fraction:
        """From the container's start."""
        return (self.first_pts - self.plan.origin) * self.plan.time_base

    @property
    def seconds(self) -> Fraction:
        return (self.end_pts - self.first_pts) * self.plan.time_base

    def durations(self) -> dict[int, int]:
        """Return how long each frame is shown, by its time; both in ticks, from the first frame."""
        times = [*(int(pts) - self.first_pts for pts in self.plan.pts[self.first : self.end]), self.end_pts - self.first_pts]
        return {time: following - time for time, following in pairwise(times)}

    def decoding_times(self) -> list[tuple[int, int]]:
        """Return presentation and decoding time of each packet in file order, in ticks from the first frame.

        Matroska stores no decoding times: they follow from the presentation times, which are all in the span.
        """
        start = self.plan.place_of(self.first_pts) or 0
        times = self.plan.pts_by_place()[start : start + self.end - self.first] - self.first_pts
        ascending = np.sort(times)
        delay = int((ascending - times).max())
        return [(int(time), int(each) - delay) for time, each in zip(times, ascending, strict=True)]


def _is_copyable(plan: PacketPlan, first: int, end: int) -> bool:
    """Whether the frames' packets are one piece of the file that begins with a keyframe: none refers to another packet."""
    if not plan.is_trusted or plan.codec not in _COPIED_VIDEO:
        return False
    places = [plan.place_of(int(pts)) for pts in plan.pts[first:end]]
    start = places[0]
    if start is None or None in places or start not in plan.key_places:
        return False
    return sorted(place for place in places if place is not None) == list(range(start, start + end - first))


def _written(span: _Span, out: Target, name: str, threads: int, *, is_copied: bool) -> MomentFile:
    if isinstance(out, io.BytesIO):
        out.seek(0)
        out.truncate()
    options = {"movflags": "faststart"} if isinstance(out, Path) and name != "matroska" else {}
    target: Any = str(out) if isinstance(out, Path) else out
    with (
        open_video(span.path, decodes=False) as video, open_sound(span.path) as (sound, stream),
        av.open(target, "w", format=name, options=options) as container,
    ):
        tracks = [_copied(span, video, container) if is_copied else _encoded(span, container, threads)]
        if stream is not None and (heard := _sound_of(span, sound, stream, container, may_copy=is_copied)) is not None:
            tracks.append(heard)
        _mux(container, tracks)
    plan = span.plan
    return MomentFile(
        plan.ms_of(span.first_pts), plan.ms_of(span.end_pts), span.end - span.first, is_copied, len(tracks) > 1
    )


def _mux(container: Any, tracks: Iterable[_Packets]) -> None:
    """Write the packets of all tracks in order of decoding time."""
    def time_of(packet: Any) -> Fraction:
        return Fraction((packet.dts if packet.dts is not None else packet.pts) or 0) * packet.time_base

    for packet in heapq.merge(*tracks, key=time_of):
        container.mux(packet)


def _copied(span: _Span, video: OpenVideo, container: Any) -> _Packets:
    """Return the packets of the frames, from time 0 on."""
    out = container.add_stream_from_template(video.stream)
    if span.first:
        video.container.seek(span.first_pts, stream=video.stream, backward=True)
    return _shifted(span, demux(video.container, video.stream), out)


def _shifted(span: _Span, packets: Iterable[Any], out: Any) -> _Packets:
    """Yield the packets of the span with their times from its start; what lies before the keyframe is passed over."""
    wanted, durations = span.decoding_times(), span.durations()
    num_done = 0
    for packet in packets:
        time = None if packet.pts is None else packet.pts - span.first_pts
        if not num_done and time != 0:
            continue  # the seek landed before the keyframe
        if time is None or time != wanted[num_done][0]:
            raise _NotCopied
        packet.pts, packet.dts = wanted[num_done]
        packet.duration, packet.stream = durations[time], out
        yield packet
        num_done += 1
        if num_done == len(wanted):
            return
    raise _NotCopied


def _encoded(span: _Span, container: Any, threads: int) -> _Packets:
    """Return the frames, upright and of standard dynamic range, encoded as H.264."""
    plan = span.plan
    ticks = plan.time_base if plan.time_base.denominator <= _FINEST else _ROUND_TICKS
    stream = container.add_stream("libx264", options={"preset": "veryfast", "crf": "18"})
    stream.pix_fmt, context = "yuv420p", stream.codec_context
    stream.time_base = context.time_base = ticks
    context.thread_count = threads
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG
    times_ms = [max(ceil((int(pts) - plan.origin) * plan.time_base * 1000), 0) for pts in plan.pts[span.first : span.end]]
    frames = frames_at(span.path, sorted(set(times_ms)), plan=plan, threads=threads)
    head = next(frames)
    stream.height, stream.width = (max(2, side - side % 2) for side in head.pixels.shape[:2])
    return _encoded_packets(span, stream, ticks, chain([head], frames))


def _encoded_packets(span: _Span, stream: Any, ticks: Fraction, frames: Iterable[Any]) -> _Packets:
    plan = span.plan
    scale = plan.time_base / ticks
    durations = {round(time * scale): round(length * scale) for time, length in span.durations().items()}
    for each in frames:
        pixels = np.ascontiguousarray(each.pixels[: stream.height, : stream.width])
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        shown = max(plan.shown_at(each.wanted_ms), span.first_pts)
        frame.pts, frame.time_base = round((shown - span.first_pts) * scale), ticks
        yield from _with_durations(stream.encode(frame), durations)
    yield from _with_durations(stream.encode(None), durations)


def _with_durations(packets: Iterable[Any], durations: dict[int, int]) -> _Packets:
    for packet in packets:
        packet.duration = durations.get(packet.pts, packet.duration)
        yield packet


def _sound_of(span: _Span, sound: Any, stream: Any, container: Any, *, may_copy: bool) -> _Packets | None:
    """Return the packets of the sound; None where there is none that can be decoded in the span."""
    begin = Fraction(sound.start_time or 0, 1_000_000) + span.start_seconds
    if span.first and span.plan.is_trusted:
        with suppress(*FOREIGN):
            sound.seek(max(int((begin - 1) * 1_000_000), int(sound.start_time or 0)), backward=True)
    if may_copy and stream.codec_context.codec.canonical_name in _COPIED_SOUND and container.format.name != "mov":
        return _shifted_sound(demux(sound, stream), container.add_stream_from_template(stream), begin, span.seconds)
    frames = _sound_frames(sound, stream)
    head = next(frames, None)
    if head is None:
        return None
    rate = head.sample_rate if head.sample_rate in _SOUND_RATES else 48_000
    layout = "mono" if head.layout.nb_channels == 1 else "stereo"
    out = container.add_stream("aac", rate=rate, layout=layout)
    out.codec_context.bit_rate = 96_000 if layout == "mono" else 192_000
    return _encoded_sound(chain([head], frames), out, rate, layout, begin, span.seconds)


def _shifted_sound(packets: Iterable[Any], out: Any, begin: Fraction, seconds: Fraction) -> _Packets:
    """Yield the packets that sound in the span; of the first one a part lies before time 0, which an edit list hides."""
    for packet in packets:
        if packet.pts is None:
            continue
        start = packet.pts * packet.time_base - begin
        if start >= seconds:
            return
        if start + (packet.duration or 0) * packet.time_base <= 0:
            continue
        shift = round(begin / packet.time_base)
        packet.pts -= shift
        packet.dts = packet.pts
        packet.stream = out
        yield packet


def _sound_frames(sound: Any, stream: Any) -> Iterator[Any]:
    """Yield decoded sound; a packet that is damaged is passed over."""
    for packet in demux(sound, stream):
        with suppress(*FOREIGN):
            yield from packet.decode()


def _encoded_sound(
    frames: Iterable[Any], out: Any, rate: int, layout: str, begin: Fraction, seconds: Fraction
) -> _Packets:
    """Yield the sound of the span as AAC, each sample at its time; silence where there is none."""
    num_channels = 1 if layout == "mono" else 2
    total, done = round(seconds * rate), 0
    for start, samples in _resampled(frames, rate, layout, begin):
        if start >= total:
            break
        silence = min(max(start - done, 0), _MOST_SILENCE_SECONDS * rate)
        heard = samples[:, max(done - start, 0) : total - start]
        parts = [np.zeros((num_channels, silence), np.float32), heard] if silence > rate // 50 else [heard]
        block = np.concatenate(parts, axis=1)[:, : total - done]
        if block.shape[1]:
            yield from out.encode(_sound_frame(block, rate, layout, done))
            done += block.shape[1]
    if done < total:
        rest = np.zeros((num_channels, min(total - done, _MOST_SILENCE_SECONDS * rate)), np.float32)
        yield from out.encode(_sound_frame(rest, rate, layout, done))
    yield from out.encode(None)


def _sound_frame(block: Any, rate: int, layout: str, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


def _resampled(frames: Iterable[Any], rate: int, layout: str, begin: Fraction) -> Iterator[tuple[int, Any]]:
    """Yield where blocks of sound begin, in samples from the span's start, and their samples: (channels, samples)."""
    resampler, form = None, None
    following: int | None = None
    for frame in frames:
        if (now := (frame.format.name, frame.layout.name, frame.sample_rate)) != form:
            resampler, form = av.AudioResampler("fltp", layout, rate), now
        known = frame.pts is not None and frame.time_base
        start = round((frame.pts * frame.time_base - begin) * rate) if known else following or 0
        if following is not None and abs(start - following) <= rate // 20:
            start = following  # times that were rounded
        frame.pts = None
        for each in resampler.resample(frame) if resampler else ():
            samples = each.to_ndarray()
            yield start, samples
            start += samples.shape[1]
        following = start
