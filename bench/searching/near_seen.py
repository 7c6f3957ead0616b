"""Videos and copies made of them, as three ways to find near-duplicates see them: looks, clip vectors, perceptual hashes.

All ways see the same frames: those at which clips are sampled, in windows, as the stage `frames` does. Pictures are changed
by `copies.CHANGES`; what changes times is done to the whole video, and the copy is cut and sampled anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.cutting.cut import window_spans
from vidseek_media.decoding.frames import bin_centres, frames_at
from vidseek_retrieval.dedup.made_copies import CHANGES, Frames, video_fingerprint
from vidseek_retrieval.dedup.picture_likeness import MIN_STEP_MS, VideoFingerprint, is_flat

TIMES: Mapping[str, tuple[float, float, int]] = {
    "trimmed": (1.0, 0.25, 0), "sped up": (2.0, 0.0, 0), "other frames": (1.0, 0.0, 187),
}
"""Changes of time: the speed, the share that is lost at the beginning, and so many ms more (half a bin of the demo's)."""
HASHES = {"pHash": (8, 32, 0), "PDQ": (16, 64, 1)}
"""Frequencies in each direction, the side of the grey picture, and the first frequency."""
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Embeds(Protocol):
    """What makes clip vectors."""

    def embed_frames(self, clips: list[Frames]) -> NDArray[np.float32]:
        """Unit vectors, one for each clip."""
        ...


@dataclass(frozen=True)
class Cut:
    """How a video is cut into clips, and sampled."""

    length_ms: int
    stride_ms: int
    num_frames: int
    side_px: int


@dataclass(frozen=True)
class Sampled:
    """The frames of a video at the times at which its clips are sampled."""

    times_ms: NDArray[np.int64]
    frames: Frames
    clips: list[list[int]]
    """Of each clip the places of its frames."""
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class Seen:
    """A video as each way sees it."""

    fingerprints: VideoFingerprint
    vectors: NDArray[np.float32]
    """Shape (clips, dimension), unit."""
    spans: list[tuple[int, int]]
    hashes: Mapping[str, NDArray[np.float32]]
    """By name, and by name with `mirrored`: shape (frames, bits), each +1 or -1; frames that are flat are left out."""

    @cached_property
    def middles_ms(self) -> list[int]:
        """Of each clip."""
        return [(start + end) // 2 for start, end in self.spans]


def sample(path: Path, cut: Cut, *, start_ms: int, end_ms: int, speed: float = 1.0) -> Sampled:
    """The part `[start_ms, end_ms)` of the video at `path`, played `speed` times as fast."""
    spans = list(window_spans(int((end_ms - start_ms) / speed), length_ms=cut.length_ms, stride_ms=cut.stride_ms))
    wanted = [bin_centres(*span, cut.num_frames) for span in spans]
    times = sorted({each for clip in wanted for each in clip})
    shown = {time: start_ms + round(time * speed) for time in times}
    found = {each.wanted_ms: each.pixels for each in frames_at(path, sorted(set(shown.values())), side_px=cut.side_px)}
    place = {time: number for number, time in enumerate(times)}
    return Sampled(
        np.array(times, dtype=np.int64), np.stack([found[shown[time]] for time in times]),
        [[place[time] for time in clip] for clip in wanted], spans,
    )


def made_copies(path: Path, cut: Cut, original: Sampled, *, start_ms: int, end_ms: int) -> Iterator[tuple[str, Sampled]]:
    """Each copy of `original`, which is `[start_ms, end_ms)` of `path`, and how it was made."""
    for name, change in CHANGES.items():
        if name in TIMES:
            speed, share, more_ms = TIMES[name]
            begin_ms = start_ms + int(share * (end_ms - start_ms)) + more_ms
            yield name, sample(path, cut, start_ms=begin_ms, end_ms=end_ms, speed=speed)
        else:
            yield name, replace(original, frames=change(original.frames))


def see(sampled: Sampled, encoder: Embeds) -> Seen:
    """`sampled` as each way sees it."""
    fingerprints = _fingerprints(sampled)
    rows = np.searchsorted(sampled.times_ms, fingerprints.times_ms)[~is_flat(fingerprints.fingerprints)]
    frames = sampled.frames[rows]
    hashes: dict[str, NDArray[np.float32]] = {}
    for name in HASHES:
        hashes[name], hashes[f"{name} mirrored"] = hashes_of(frames, name), hashes_of(frames[:, :, ::-1], name)
    vectors = encoder.embed_frames([sampled.frames[clip] for clip in sampled.clips])
    return Seen(fingerprints, vectors, sampled.spans, hashes)


def hashes_of(frames: Frames, name: str) -> NDArray[np.float32]:
    """The bits of each of `frames` (n, height, width, 3), as +1 and -1: its low frequencies above or below their median.

    pHash: 8 x 8 of a picture of 32 x 32 (Zauner 2010, as ImageHash has it). PDQ: 16 x 16 of one of 64 x 64, without the
    first of each direction (Facebook 2019); its blur before it is made small is a mean over blocks here.
    """
    num, side, first = HASHES[name]
    at = (2 * np.arange(side) + 1) * np.pi / (2 * side)
    rows = np.cos(np.arange(first, first + num)[:, np.newaxis] * at)
    bits = []
    for frame in frames:
        grey = Image.fromarray(frame.astype(np.float32) @ _GREY).resize((side, side), Image.Resampling.BOX)
        low = (rows @ np.asarray(grey, dtype=np.float64) @ rows.T).ravel()
        bits.append(np.where(low > np.median(low), 1, -1))
    return np.array(bits, dtype=np.float32).reshape(-1, num * num)


def _fingerprints(sampled: Sampled) -> VideoFingerprint:
    """As `likeness.read_fingerprints` has them from the shards: of frames that are nearly at one time the first."""
    kept: list[int] = []
    for place in (place for clip in sampled.clips for place in clip):
        if all(abs(int(sampled.times_ms[place] - sampled.times_ms[each])) >= MIN_STEP_MS for each in kept):
            kept.append(place)
    rows = sorted(kept)
    return video_fingerprint(sampled.frames[rows], sampled.times_ms[rows])
