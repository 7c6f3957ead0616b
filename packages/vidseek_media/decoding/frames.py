"""Frames of a video at wanted times, upright, in RGB.

The packets are read once without decoding. They say when each frame is shown, so that going through the wanted times in
order needs a seek only if a keyframe lies well ahead of the decoder, and only the wanted frames are converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.containers import MAX_PIXELS, message_of
from vidseek_media.decoding.display import is_hdr
from vidseek_media.decoding.frame_walk import PlanBroken, walks_of
from vidseek_media.decoding.packets import PacketPlan, read_plan
from vidseek_media.decoding.pictures import decode_picture
from vidseek_media.decoding.rgb_conversion import RgbConverter, is_file_mirrored
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.settings import DECODER, Decoder

DECODERS: tuple[Decoder, ...] = get_args(Decoder)

DECORD_CODECS = frozenset(["h264", "vp9"])
"""Codecs that decord 0.6 decodes bit-identically to a current FFmpeg on real files (HEVC gave wrong frames)."""

DECORD_PIXELS = frozenset(["yuv420p", "yuvj420p"])
"""Pixel formats that decord converts like FFmpeg; it rounds 10-bit formats differently."""

DECORD_TOLERANCE_MS = 0.5
"""Largest error of decord's times, which are float32 seconds, over hours of video."""

_DECORD_REMEDY = "Set frames.decoder to auto in params.yaml"


@dataclass(frozen=True)
class FrameAt:
    """The frame that is shown at a wanted time."""

    wanted_ms: int
    time_ms: int
    """When the frame begins, from the container's start; for a time before the first frame, when that begins."""
    pixels: NDArray[np.uint8]
    """RGB, shape (height, width, 3), 0 to 255, upright, square pixels, standard dynamic range.

    Times that show the same frame share one array.
    """
    is_repeated: bool
    """Whether the right frame is missing or damaged and this is the last good one before it. Always False with decord."""
    decoder: str
    """pyav, decord, or pillow for a still picture."""
    is_interlaced: bool = False
    """Whether its lines are two fields of different times. Always False with decord."""


def bin_centres(start_ms: int, end_ms: int, num_frames: int) -> list[int]:
    """Return the centres of equal bins of a span in whole milliseconds, rounded half up, ascending.

    Args:
        start_ms: Start of the span.
        end_ms: End of the span, exclusive, after `start_ms`.
        num_frames: Bins, at least 1.

    Examples:
        >>> bin_centres(0, 3000, 3)
        [500, 1500, 2500]
    """
    length = end_ms - start_ms
    return [
        min(start_ms + ((2 * i + 1) * length + num_frames) // (2 * num_frames), end_ms - 1) for i in range(num_frames)
    ]


def decode_at(path: Path, times_ms: Sequence[int], *, side_px: int | None = None) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return the frames shown at the given times, in the given order.

    Args:
        path: The video.
        times_ms: From the container's start, at least 0, in any order. A time before the first frame gives the first
            frame, a time at or after the end gives the last.
        side_px: The shorter side of all frames; None, or more than the video has, for the video's own.

    Returns:
        Of each wanted time: when the frame begins, in milliseconds, and its pixels: RGB, uint8, shape (height, width, 3),
        upright. All frames have one size.

    Raises:
        InputRejected: the file cannot be decoded.
        ValueError: a time is negative.

    Examples:
        >>> from PIL import Image
        >>> Image.new("RGB", (64, 48), "red").save("red.png")
        >>> [(time_ms, pixels)] = decode_at(Path("red.png"), [0], side_px=24)
        >>> pixels.shape, pixels[0, 0].tolist()
        ((24, 32, 3), [255, 0, 0])
    """
    if any(time_ms < 0 for time_ms in times_ms):
        raise ValueError(f"wanted times must not be negative, got {min(times_ms)} ms")
    found = {f.wanted_ms: f for f in frames_at(path, sorted(set(times_ms)), side_px=side_px)}
    return [(found[time_ms].time_ms, found[time_ms].pixels) for time_ms in times_ms]


def decode_uniform(
    path: Path, num_frames: int, side_px: int | None = None, *, plan: PacketPlan | None = None
) -> NDArray[np.uint8]:
    """Return frames at the bin centres of the whole file: RGB, uint8, shape (num_frames, height, width, 3), upright.

    Args:
        path: The video.
        num_frames: At least 1.
        side_px: The shorter side of all frames; None, or more than the video has, for the video's own.
        plan: Of the file; None to read it.

    Raises:
        InputRejected: the file cannot be decoded.
    """
    plan = plan or read_plan(path)
    times_ms = bin_centres(0, max(plan.duration_ms, 1), num_frames)
    return np.stack([f.pixels for f in frames_at(path, times_ms, side_px=side_px, plan=plan)])


def frames_at(
    path: Path,
    times_ms: Sequence[int],
    *,
    side_px: int | None = None,
    threads: int = 1,
    plan: PacketPlan | None = None,
    decoder: str = DECODER,
) -> Iterator[FrameAt]:
    """Yield the frame shown at each time, in one pass through the file.

    A still picture is read by Pillow, as the picture of a query is.

    Args:
        path: The video.
        times_ms: From the container's start, at least 0, ascending.
        side_px: The shorter side of all frames; None, or more than the video has, for the video's own.
        threads: Decoder threads, at least 1.
        plan: Of the file; None to read it.
        decoder: `auto` or `pyav` for PyAV; `decord`, which refuses files that it may decode differently from PyAV.

    Raises:
        InputRejected: the file cannot be opened, or no frame of it can be decoded.
        ConfigError: `decoder` is another name.
    """
    if decoder not in DECODERS:
        raise ConfigError(
            f"frames.decoder is {decoder!r}, wanted one of {', '.join(DECODERS)}",
            code="unknown-choice", remedy="Set it in params.yaml"
        )
    plan = plan or read_plan(path)
    if plan.is_still:
        yield from _frames_of_picture(path, times_ms, side_px)
    elif decoder == "decord":
        yield from _frames_by_decord(path, times_ms, plan, side_px, threads)
    else:
        yield from _frames_by_pyav(path, times_ms, plan, side_px, threads)


def decoder_of(path: Path, plan: PacketPlan, *, decoder: str = DECODER) -> tuple[str, str]:
    """Return which decoder a file gets, and why. That PyAV or Pillow can decode it is taken as known.

    Args:
        path: The video.
        plan: Of the file.
        decoder: The setting `frames.decoder`: auto, pyav or decord.

    Returns:
        pillow, pyav or decord; and a reason for people.

    Raises:
        InputRejected: decord cannot decode it, or may show other frames than the packet plan says.
        ConfigError: `decoder` is another name.
    """
    if decoder not in ("auto", "pyav"):
        next(frames_at(path, [0], plan=plan, decoder=decoder))
    if plan.is_still:
        return "pillow", "it is one still picture"
    if decoder == "auto":
        return "pyav", "right on every file tried, and faster"
    is_decord = decoder == "decord"
    return decoder, f"it is asked for{', and sure to show the frames that the packets promise' if is_decord else ''}"


def _frames_of_picture(path: Path, times_ms: Sequence[int], side_px: int | None) -> Iterator[FrameAt]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputRejected(f"cannot be read: {message_of(error)}", code="undecodable") from error
    pixels = decode_picture(content, max_pixels=MAX_PIXELS, shorter_side_px=side_px)
    for time_ms in times_ms:
        yield FrameAt(time_ms, 0, pixels, is_repeated=False, decoder="pillow")


def _frames_by_pyav(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, side_px: int | None, threads: int
) -> Iterator[FrameAt]:
    converter = RgbConverter(side_px, plan.sample_aspect_ratio)
    num_done = 0
    for walk in walks_of(plan):
        try:
            for wanted in walk(path, times_ms[num_done:], plan, threads):
                yield FrameAt(
                    wanted.wanted_ms, max(plan.ms_of(wanted.pts), 0), converter.convert(wanted, plan, path),
                    wanted.is_repeated, decoder="pyav", is_interlaced=bool(wanted.frame.interlaced_frame),
                )
                num_done += 1
            return
        except PlanBroken:
            continue  # continue with a walk that relies less on the packets' times


def _frames_by_decord(
    path: Path, times_ms: Sequence[int], plan: PacketPlan, side_px: int | None, threads: int
) -> Iterator[FrameAt]:
    """Decode with decord.

    Raises:
        InputRejected: decord may show other frames than the packet plan says.
    """
    # decord's FFmpeg is old and has no limit on frame size, so PyAV must accept the file first.
    next(_frames_by_pyav(path, [0], plan, None, 1))
    reader = _open_decord(path, plan, threads)
    converter = RgbConverter(side_px, plan.sample_aspect_ratio)
    last: tuple[int, NDArray[np.uint8]] | None = None
    for time_ms in times_ms:
        index = plan.index_at(time_ms)
        if last is None or last[0] != index:
            try:
                rgb = reader[index].asnumpy()
            except Exception as error:  # decord raises bare classes of its own
                raise InputRejected(
                    f"decord cannot decode frame {index}: {message_of(error)}", code="undecodable"
                ) from error
            last = (index, converter.convert_array(rgb))
        yield FrameAt(time_ms, plan.ms_of(plan.pts[index]), last[1], is_repeated=False, decoder="decord")


def _open_decord(path: Path, plan: PacketPlan, threads: int) -> Any:
    """Return a decord reader whose frame i is frame i of the plan."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    why = "" if plan.is_trusted else "its packets lack times"
    if plan.codec not in DECORD_CODECS:
        why = f"its {plan.codec} does not decode exactly as elsewhere"
    elif plan.pixel_format not in DECORD_PIXELS:
        why = f"its pixels are {plan.pixel_format}"
    elif plan.sample_aspect_ratio != 1 or is_hdr(plan.transfer) or is_file_mirrored(path):
        why = "its pixels are not square, it is mirrored, or of high dynamic range"
    if not why:
        try:
            reader = decord.VideoReader(str(path), num_threads=threads)
            starts = reader.get_frame_timestamp(range(len(reader)))[:, 0] * 1000
        except Exception as error:  # decord raises bare classes of its own
            raise InputRejected(
                f"decord cannot open it: {message_of(error)}", code="undecodable", remedy=_DECORD_REMEDY
            ) from error
        times_ms = (plan.pts - plan.pts[0]) * float(plan.time_base * 1000)
        if len(starts) != len(times_ms):
            why = f"it counts {len(starts)} frames, the packets are {len(times_ms)}"
        elif np.abs(starts - starts[0] - times_ms).max() > DECORD_TOLERANCE_MS:
            why = "its times are not those of the packets"
        else:
            return reader
    raise InputRejected(f"decord is not sure to show the right frames: {why}", code="unsure-frames", remedy=_DECORD_REMEDY)
