"""Measures a video file: length, rate, upright size and codec, from its packets and a decoded frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidseek_media.decoding.containers import MAX_PIXELS, OpenVideo, open_video
from vidseek_media.decoding.frame_walk import FirstFrame
from vidseek_media.decoding.frames import decoder_of
from vidseek_media.decoding.packets import PacketPlan, plan_of
from vidseek_media.decoding.pictures import decode_picture
from vidseek_media.decoding.rgb_conversion import RgbConverter
from vidseek_media.errors import InputRejected
from vidseek_media.settings import DECODER
from vidseek_media.sources.originals import FileUnreadable

MAX_FRAME_MS = 600_000
"""Longest mean duration of a frame. Files with longer ones have broken times, and would give endless clips."""

MAX_STILL_MS = 3_600_000
"""Longest duration of a single frame."""


@dataclass(frozen=True)
class Probe:
    """Measurements of a file, independent of its header."""

    duration_ms: int
    """From the container's start to the end of the last frame."""
    fps: float
    """Frames a second on average, from the first frame to the end, to three digits."""
    width: int
    """Upright, in pixels."""
    height: int
    codec: str
    num_frames: int


@dataclass(frozen=True)
class Examination:
    """The report of `vidseek probe`: measurements, the header's claims, and the decoder that would be used."""

    probe: Probe
    header_duration_ms: int | None
    """Duration in the header, which nothing relies on; None if it states none."""
    header_fps: float | None
    shortest_frame_ms: float
    """Shortest time from one frame to the next."""
    longest_frame_ms: float
    is_variable_rate: bool
    """Whether the durations of frames differ by more than the rounding of their times."""
    num_keyframes: int
    pixel_format: str
    times: str
    """Where its times come from: `packets`, or `decoder` where packets lack times of their own."""
    decoder: str
    """pyav or decord."""
    why: str
    """Why this decoder."""


def examine(path: Path, *, decoder: str = DECODER) -> Examination:
    """Measure a video file as `probe` does, and report more about it.

    Args:
        path: The file.
        decoder: `auto`, `pyav` or `decord`, as in the setting `frames.decoder`.

    Raises:
        InputRejected: as in `probe`, or the requested decoder cannot read the file.
    """
    found, plan, (header_duration_ms, header_fps) = _read(path)
    chosen, why = decoder_of(path, plan, decoder=decoder)
    steps_ms = np.diff(plan.pts) * float(plan.time_base * 1000)
    shortest, longest = (float(steps_ms.min()), float(steps_ms.max())) if len(steps_ms) else (0.0, 0.0)
    return Examination(
        found, header_duration_ms, header_fps, round(shortest, 3), round(longest, 3), is_variable_rate(plan),
        num_keyframes=len(plan.key_pts), pixel_format=plan.pixel_format,
        times="packets" if plan.is_trusted else "decoder", decoder=chosen, why=why,
    )


def is_variable_rate(plan: PacketPlan) -> bool:
    """Return whether the durations of frames differ by more than the rounding of their times.

    Times are rounded to ticks, and in some containers to milliseconds; a tenth of a frame is no other rate.

    Args:
        plan: Of the video.
    """
    steps_ms = np.diff(plan.pts) * float(plan.time_base * 1000)
    if not len(steps_ms):
        return False
    least_ms = max(1.5 * float(plan.time_base * 1000), 0.1 * float(np.median(steps_ms)), 1.0)
    return float(steps_ms.max() - steps_ms.min()) > least_ms


def _header_of(video: OpenVideo) -> tuple[int | None, float | None]:
    """Length in ms and rate in frames a second, as the header has them."""
    stream = video.stream
    seconds: Fraction | None = None
    if stream.duration is not None and stream.time_base is not None:
        seconds = stream.duration * stream.time_base
    elif video.container.duration is not None:
        seconds = Fraction(video.container.duration, 1_000_000)
    rate = stream.average_rate
    return None if seconds is None else int(seconds * 1000), None if not rate else round(float(rate), 3)


def probe(path: Path) -> Probe:
    """Measure a video file, and decode one frame to prove that it can be decoded.

    Args:
        path: A video file, or a still picture.

    Raises:
        InputRejected: the file is empty, is no video, or no frame of it can be decoded. The message is the reason.

    Examples:
        >>> from PIL import Image
        >>> Image.new("RGB", (64, 48), "red").save("red.png")
        >>> found = probe(Path("red.png"))
        >>> found.width, found.height, found.num_frames, found.codec
        (64, 48, 1, 'png')
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Probe, PacketPlan, tuple[int | None, float | None]]:
    """Return measurements, plan and header of a file, which is opened once and read once."""
    _refuse_empty(path)
    with open_video(path, decodes=False) as video:
        header, first = _header_of(video), FirstFrame(video)
        plan = plan_of(video, on_packet=None if video.is_picture else first.feed)
        _refuse_impossible_times(plan)
        if plan.is_still:
            pixels = decode_picture(video.content(), max_pixels=MAX_PIXELS)
        else:
            pixels = RgbConverter(None, plan.sample_aspect_ratio).convert_frame(first.get())
    height, width = pixels.shape[:2]
    shown_ms = max(plan.ms_of(plan.end_pts) - plan.ms_of(plan.pts[0]), 1)
    fps = round(1000 * len(plan.pts) / shown_ms, 3)
    return Probe(plan.duration_ms, fps, width, height, plan.codec, num_frames=len(plan.pts)), plan, header


def _refuse_empty(path: Path) -> None:
    try:
        if path.stat().st_size == 0:
            raise InputRejected("is empty (0 bytes)", code="file-empty")
    except OSError as error:
        raise FileUnreadable.of(error) from error


def _refuse_impossible_times(plan: PacketPlan) -> None:
    if plan.duration_ms > MAX_FRAME_MS * len(plan.pts):
        raise InputRejected(
            f"its times are broken: {len(plan.pts)} frames over {plan.duration_ms // 1000} s", code="broken-times",
        )
    steps = np.diff(np.concatenate([[plan.origin], plan.pts, [plan.end_pts]]))
    longest = int(steps.argmax())
    longest_ms = int(steps[longest] * plan.time_base * 1000)
    if longest_ms > MAX_STILL_MS:
        raise InputRejected(
            f"its times are broken: {longest_ms // 1000} s before frame {longest} of {len(plan.pts)}", code="broken-times",
            remedy="Write the file anew, with ffmpeg -i FILE -c copy say, or cut out what is wanted",
        )
