"""Sounds for tests: tones, spoken sentences, and videos that carry them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_media.speech.sound import RATE, Samples, decode_sound, read_samples

Track = NDArray[np.float32]
"""Shape (channels, samples), -1 to 1."""


def tone(seconds: float, *, rate: int = RATE, channels: int = 1, hertz: float = 440.0) -> Track:
    """A sine of half the full level in all channels."""
    line = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.tile(line, (channels, 1)).astype(np.float32)


def write_sound(
    path: Path, tracks: Sequence[Track], *, rate: int = RATE, codec: str = "pcm_s16le", start_ms: int = 0,
    seconds: float = 0,
) -> Path:
    """A video of grey frames with audio tracks, which begin at `start_ms`; without tracks a silent one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    longest = max([seconds, *(track.shape[1] / rate + start_ms / 1000 for track in tracks)])
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        names = {1: "mono", 2: "stereo", 6: "5.1", 12: "7.1.4"}
        streams = [
            container.add_stream(codec, rate=rate, layout=names[track.shape[0]]) for track in tracks
        ]
        for number in range(max(round(longest * 5), 1)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for stream, track in zip(streams, tracks, strict=True):
            for start in range(0, track.shape[1], 1024):
                block = (track[:, start : start + 1024] * 32767).astype(np.int16)
                sound = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(block.T.reshape(1, -1)), format="s16", layout=names[track.shape[0]]
                )
                sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = start + start_ms * rate // 1000
                container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    return path


def heard(path: Path, folder: Path) -> Samples:
    """The decoded sound of a video."""
    out = folder / "samples.pcm"
    assert decode_sound(path, out)
    return read_samples(out)


def spoken(text: str, folder: Path, *, voice: str = "en-us", noise_db: float | None = None) -> Track:
    """A sentence by espeak-ng at `RATE`, with white noise so many dB below it; skips where espeak-ng is missing."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: apt-get install espeak-ng")
    wav = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", str(wav), text], check=True)
    with av.open(str(wav)) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        frames = [part for frame in [*container.decode(audio=0), None] for part in resampler.resample(frame)]
    line = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)
    if noise_db is not None:
        level = float(np.sqrt(np.mean(line**2))) * 10 ** (-noise_db / 20)
        line = line + np.random.default_rng(0).normal(0, level, len(line)).astype(np.float32)
    return line.clip(-1, 1)[None, :]


def samples_of(track: Track) -> Samples:
    """The samples of a track of one channel at `RATE`."""
    return (track[0] * 32767).astype(np.int16)
