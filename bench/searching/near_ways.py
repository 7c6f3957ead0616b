"""Other ways to say whether two videos show the same: vPDQ as published, perceptual hashes, cosines of clip vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.searching.near_copies import LENGTH_MS, NUM_FRAMES, STRIDE_MS, Sampled
from vidseek_media.cutting.cut import window_spans
from vidseek_media.decoding.frames import bin_centres

VPDQ_QUALITY, VPDQ_BITS, VPDQ_SHARE = 50, 31, 0.8
"""As python-threatexchange has them: frames of less quality are left out, hashes up to so many bits apart are one, and so
many of the frames that are asked with must have one."""
WAYS = ("vPDQ", "pHash", "cosine")
_STEP_MS = 250


class Embeds(Protocol):
    """What makes clip vectors."""

    def embed_frames(self, clips: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit vectors, one for each clip."""
        ...


@dataclass(frozen=True)
class Seen:
    """A video as the other ways see it."""

    pdq: NDArray[np.int8]
    """Shape (n, 256), +1 and -1, of frames of enough quality."""
    phash: NDArray[np.int8]
    """Shape (n, 64)."""
    vectors: NDArray[np.float32]


def see(video: Sampled, encoder: Embeds | None) -> Seen:
    """A video as the other ways see it: four frames a second, at the size of the made copies, which is more than we see."""
    import imagehash
    import pdqhash

    slots = (video.times_ms // _STEP_MS).astype(int)
    rows = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
    pdq, phash = [], []
    for frame in video.frames[rows]:
        bits, quality = pdqhash.compute(np.ascontiguousarray(np.repeat(frame[:, :, np.newaxis], 3, 2)))
        if quality >= VPDQ_QUALITY:
            pdq.append(bits)
        phash.append(imagehash.phash(Image.fromarray(frame)).hash.ravel())
    clips = clips_of(video) if encoder is not None else []
    vectors = encoder.embed_frames(clips) if encoder is not None and clips else np.zeros((0, 1), np.float32)
    return Seen(_signs(pdq, 256), _signs(phash, 64), vectors)


def clips_of(video: Sampled) -> list[NDArray[np.uint8]]:
    """The frames of each clip, RGB."""
    clips = []
    for span in window_spans(video.duration_ms, length_ms=LENGTH_MS, stride_ms=STRIDE_MS):
        places = [int(np.argmin(np.abs(video.times_ms - time))) for time in bin_centres(*span, NUM_FRAMES)]
        clips.append(np.repeat(video.frames[places][..., np.newaxis], 3, axis=3))
    return clips


def scores_of(one: Seen, other: Seen) -> Mapping[str, float]:
    """What each way says of a pair, in the better of both directions."""
    has_vectors = one.vectors.size and other.vectors.size
    return {
        "vPDQ": max(_share(one.pdq, other.pdq), _share(other.pdq, one.pdq)),
        "pHash": max(_nearest(one.phash, other.phash), _nearest(other.phash, one.phash)),
        "cosine": float((one.vectors @ other.vectors.T).max(axis=1).mean()) if has_vectors else 0.0,
    }


def choose_limit(copies: Sequence[float], different: Sequence[float], *, precision: float) -> float:
    """The least score from which so many of the pairs that are called one are copies, all pairs counted."""
    values, wrong = np.sort(copies)[::-1], np.sort(different)
    best = float("inf")
    for value in np.unique(values)[::-1]:
        right, false = int((values >= value).sum()), int((wrong >= value).sum())
        if right / (right + false) >= precision:
            best = float(value)
    return best


def _share(asked: NDArray[np.int8], among: NDArray[np.int8]) -> float:
    if not len(asked) or not len(among):
        return 0.0
    apart = (256 - asked.astype(np.int32) @ among.astype(np.int32).T) // 2
    return float((apart.min(axis=1) <= VPDQ_BITS).mean())


def _nearest(asked: NDArray[np.int8], among: NDArray[np.int8]) -> float:
    if not len(asked) or not len(among):
        return 0.0
    alike = asked.astype(np.int32) @ among.astype(np.int32).T
    return float(alike.max(axis=1).mean() / asked.shape[1])


def _signs(bits: Sequence[NDArray[np.generic]], num: int) -> NDArray[np.int8]:
    return (2 * np.array(bits, dtype=np.int8).reshape(-1, num) - 1).astype(np.int8)
