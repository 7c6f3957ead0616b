"""Decodes the sound of a video to 16,000 samples a second, one channel, into a file: hours of sound take no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vidseek_media.decoding.containers import FOREIGN, message_of, open_sound
from vidseek_media.errors import InputRejected

RATE = 16_000
"""Samples a second."""
Samples = NDArray[np.int16]
"""Shape (samples,), at `RATE`."""

MAX_DRIFT = RATE // 20
"""Samples by which the sound may be off its timestamps before it is moved there."""
MAX_GAP = 3600 * RATE
"""A longer gap is a broken timestamp, and no silence."""
_BLOCK = 1 << 16


def decode_sound(path: Path, out: Path) -> bool:
    """Decode the sound of a video to a file of samples: int16 in the byte order of this machine, at `RATE`.

    Time 0 is the container's start, as that of frames. Where the sound begins later, or has a hole, there is silence.

    Args:
        path: The video.
        out: The file to write.

    Returns:
        Whether the video has sound; without it `out` is not written.

    Raises:
        InputRejected: the file cannot be opened, or nothing of its sound can be decoded.
    """
    with open_sound(path) as (container, stream):
        if stream is None:
            return False
        origin = (container.start_time or 0) / av.time_base
        failures: list[str] = []
        with out.open("wb") as file:
            line = _Line(file, origin)
            for frame in _frames(container, stream, failures):
                line.put(frame)
            line.finish()
        if not line.num_samples and failures:
            raise InputRejected(f"its sound cannot be decoded: {failures[0]}", code="undecodable")
        return True


def read_samples(path: Path) -> Samples:
    """Return the samples that `decode_sound` wrote, mapped into memory as they are looked at."""
    if not path.stat().st_size:
        return np.zeros(0, np.int16)
    return np.memmap(path, np.int16, mode="r")


class _Line:
    """Writes frames one behind the other, each at its time."""

    def __init__(self, file: BinaryIO, origin: float) -> None:
        self._file, self._origin = file, origin
        self._converter = _Converter()
        self.num_samples = 0

    def put(self, frame: av.AudioFrame) -> None:
        samples = self._converter.convert(frame)
        if frame.pts is not None and frame.time_base:
            start = round((float(frame.pts * frame.time_base) - self._origin) * RATE)
            ahead = start - self.num_samples
            if MAX_DRIFT < ahead <= MAX_GAP:
                self._silence(ahead)
            elif -MAX_GAP <= ahead < -MAX_DRIFT:
                samples = samples[-ahead:]  # of a stream that was cut: its first packets lie before time 0
        self._write(samples)

    def finish(self) -> None:
        self._write(self._converter.rest())

    def _silence(self, count: int) -> None:
        for start in range(0, count, _BLOCK):
            self._write(np.zeros(min(_BLOCK, count - start), np.int16))

    def _write(self, samples: Samples) -> None:
        self._file.write(samples.tobytes())
        self.num_samples += len(samples)


class _Converter:
    """Converts frames to one channel at `RATE`; a stream may change its form on the way."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[Any, ...] = ()

    def convert(self, frame: av.AudioFrame) -> Samples:
        if (form := (frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)) != self._form:
            self._resampler, self._form = None, form
        plain = _mono(frame)
        plain.pts = None  # times are ours to keep
        if self._resampler is None:
            self._resampler = av.AudioResampler("s16", "mono", RATE)
        return _joined(self._resampler.resample(plain))

    def rest(self) -> Samples:
        return _joined(self._resampler.resample(None)) if self._resampler is not None else np.zeros(0, np.int16)


def _mono(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the mean of the channels, in their own rate. FFmpeg mixes only layouts that it has a rule for."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    mixed = _unit(values).mean(axis=0, keepdims=True).clip(-1, 1)
    mono = av.AudioFrame.from_ndarray(np.ascontiguousarray(mixed, np.float32), format="fltp", layout="mono")
    mono.sample_rate = frame.sample_rate
    return mono


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return samples of any type as numbers from -1 to 1; what is no number is 0."""
    if values.dtype.kind == "u":  # 8 bits, with silence at the middle
        return (values.astype(np.float32) - np.float32(128)) / np.float32(128)
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2 ** (8 * values.itemsize - 1))
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _joined(frames: list[av.AudioFrame]) -> Samples:
    parts = [frame.to_ndarray().reshape(-1).astype(np.int16) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _frames(container: Any, stream: Any, failures: list[str]) -> Iterator[av.AudioFrame]:
    """Yield what can be decoded; a damaged packet is noted, and the next is tried."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FOREIGN as error:
            failures.append(message_of(error))
            return  # cut off in the middle of a packet
        try:
            yield from packet.decode()
        except FOREIGN as error:
            if not isinstance(error, EOFError):
                failures.append(message_of(error))
            with suppress(*FOREIGN):
                stream.codec_context.flush_buffers()
