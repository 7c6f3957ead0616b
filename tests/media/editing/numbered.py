"""Videos whose frames have their number burnt in as a bar code, and readers of it that use nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS, BAR_PX = 9, 16
WIDTH, HEIGHT = BITS * BAR_PX, 32
SOUND_RATE = 48_000


def picture_of(number: int) -> NDArray[np.uint8]:
    """A bar for each bit of the number, the lowest one first."""
    bars = [255 if number >> bit & 1 else 0 for bit in range(BITS)]
    return np.broadcast_to(np.repeat(np.array(bars, np.uint8), BAR_PX)[None, :, None], (HEIGHT, WIDTH, 3))


def number_in(frame: av.VideoFrame) -> int:
    """The number that a decoded frame shows."""
    grey = frame.to_ndarray(format="gray")
    bars = grey[: HEIGHT, : WIDTH].reshape(HEIGHT, BITS, BAR_PX).mean(axis=(0, 2))
    return sum(1 << bit for bit in range(BITS) if bars[bit] > 127)


def write_numbered(
    path: Path,
    rate: Fraction,
    num_frames: int,
    *,
    timecode: str = "",
    gop: int = 12,
    b_frames: int = 2,
    times: Sequence[Fraction] | None = None,
    begin: Fraction = Fraction(0),
    sound: bool = False,
) -> Path:
    """Write frames 0, 1, 2...

    Args:
        path: The file; the suffix names the container.
        rate: Frames a second.
        num_frames: At most 512.
        timecode: Of the first frame.
        gop: Frames from one keyframe to the next.
        b_frames: Between two others.
        times: When each frame begins, in seconds; None for a constant rate.
        begin: When the first frame begins.
        sound: Whether there is a track whose samples rise with their time: from 0 on, whatever `begin` is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ticks = Fraction(1, 120_000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = ticks
        stream.options = {"preset": "ultrafast", "qp": "8", "g": str(gop), "bf": str(b_frames), "sc_threshold": "0",
                          "b-adapt": "0"}
        if timecode:
            stream.metadata["timecode"] = timecode
        track = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if sound else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_of(number)), format="rgb24")
            begins = times[number] if times else number / rate
            frame.pts, frame.time_base = round((begin + begins) / ticks), ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            seconds = float(begin + (times[-1] if times else num_frames / rate))
            container.mux(track.encode(_sound(seconds)))
            container.mux(track.encode(None))
    return path


def _sound(seconds: float) -> av.AudioFrame:
    """A tone that is silent in every second half of a second."""
    at = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    samples = np.where(at % 1 < 0.5, 0.5 * np.sin(2 * np.pi * 440 * at), 0).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
    return frame


def frames_in(path: Path) -> list[tuple[Fraction, int]]:
    """When each frame begins, in seconds from the container's start, and its number, as FFmpeg decodes the file."""
    with av.open(str(path)) as container:
        start = Fraction(container.start_time or 0, 1_000_000)
        return [
            (frame.pts * frame.time_base - start, number_in(frame))
            for frame in container.decode(container.streams.video[0]) if frame.pts is not None and frame.time_base
        ]


def numbers_of_span(frames: Sequence[tuple[Fraction, int]], start_ms: int, end_ms: int) -> list[int]:
    """The numbers of the frames that are shown within a span; frames begin at whole milliseconds, half up."""
    begins = [int(max(time, Fraction(0)) * 1000 + Fraction(1, 2)) for time, _ in frames]
    first = max((place for place, each in enumerate(begins) if each <= start_ms), default=0)
    return [frames[place][1] for place in range(first, len(frames)) if place == first or begins[place] < end_ms]


def frame_at(frames: Sequence[tuple[Fraction, int]], rate: Fraction) -> Callable[[int], int]:
    """A function that gives the number of the frame that a player shows in the middle of a position."""

    def shown(position: int) -> int:
        middle = (position + Fraction(1, 2)) / rate
        return max((each for each in frames if each[0] <= middle), default=frames[0])[1]

    return shown


NTSC_24, NTSC_30, NTSC_60 = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)


def varying(num_frames: int) -> list[Fraction]:
    """Times of a phone's video: thirty frames a second, in the middle third ten."""
    times = [Fraction(0)]
    for number in range(1, num_frames):
        times.append(times[-1] + Fraction(1, 10 if num_frames // 3 <= number < 2 * num_frames // 3 else 30))
    return times
