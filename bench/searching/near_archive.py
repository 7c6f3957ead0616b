"""Draws fingerprints of many different videos from photos: moving views, things that move before a photo, and stills.

No two shots show the same, up to 48,000 of them: each half of 6,000 photos is there in four turns.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.searching.near_copies import LENGTH_MS, REAL, STRIDE_MS, sampled_times
from vidseek_retrieval.dedup.comparing.fingerprint_store import frames_apart
from vidseek_retrieval.dedup.comparing.fingerprints import SIDE, VideoFingerprint, inside_of
from vidseek_retrieval.dedup.judging.made_copies import CHANGES

PHOTOS = REAL / "B_image_text/flickr8k_train/images"
SHOT_MS = 3000
"""How long a shot is, in the mean."""
TRIMMED, FASTER = "trimmed", "1.1 x"
KINDS = ("as it is", *CHANGES, TRIMMED, FASTER)
_PHOTO_PX = 96
_TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
_NOISE = 1.5

Grey = NDArray[np.float32]


def video(number: int, num_windows: int) -> VideoFingerprint:
    """The fingerprint of a video of so many windows; each number is another one."""
    length_ms = LENGTH_MS + (num_windows - 1) * STRIDE_MS
    return _seen(number, length_ms, _times(length_ms), np.random.default_rng([number, 8]))


def copy(number: int, num_windows: int) -> tuple[str, VideoFingerprint]:
    """The kind of a copy, and its fingerprint: at other times, and changed."""
    draws = np.random.default_rng([number, 9])
    kind = str(draws.choice(KINDS))
    length_ms = LENGTH_MS + (num_windows - 1) * STRIDE_MS
    start_ms, speed = draws.integers(0, 200) + 0.2 * length_ms * (kind == TRIMMED), 1.1 if kind == FASTER else 1.0
    times = _times(int((length_ms - start_ms) / speed))
    seen = _seen(number, length_ms, start_ms + times * speed, draws)
    pictures = np.ascontiguousarray(CHANGES[kind](seen.pictures)) if kind in CHANGES else seen.pictures
    return kind, VideoFingerprint(times.astype(np.int64), pictures, inside_of(pictures))


def _seen(number: int, length_ms: int, times_ms: NDArray[np.float64], noise: np.random.Generator) -> VideoFingerprint:
    draws = np.random.default_rng([number, 3])
    most = length_ms // SHOT_MS
    cuts = np.sort(draws.uniform(0, length_ms, int(draws.integers(0, most))))
    begins, ends = np.r_[0.0, cuts], np.r_[cuts, float(length_ms)]
    shots = [_Shot(most * number + place, draws) for place in range(len(begins))]
    pictures = np.empty((len(times_ms), SIDE, SIDE), np.uint8)
    for picture, time_ms in zip(pictures, times_ms, strict=True):
        place = min(int(np.searchsorted(ends, time_ms, side="right")), len(shots) - 1)
        since_ms = time_ms - begins[place]
        shown = shots[place].at(since_ms / (ends[place] - begins[place]), since_ms / 1000)
        picture[:] = np.clip(shown + _NOISE * noise.standard_normal((SIDE, SIDE), np.float32), 0, 255)
    return VideoFingerprint(times_ms.astype(np.int64), pictures, inside_of(pictures))


class _Shot:
    """A view that moves over a photo; or one that stands, with or without a thing that moves before it."""

    def __init__(self, number: int, draws: np.random.Generator) -> None:
        self._photo = _half(number)
        kind = draws.choice(["view", "thing", "still"], p=[0.55, 0.3, 0.15])
        starts, ends = draws.uniform(0, 1, (2, 2))
        sizes = draws.uniform(0.6, 0.95, 2)
        far = draws.uniform(0.2, 1) if kind == "view" else 0.0
        self._places = starts, starts + (ends - starts) * far
        self._sizes = sizes[0], sizes[0] + (sizes[1] - sizes[0]) * far
        self._thing = _Thing(draws) if kind == "thing" else None
        self._standing = self._view(0.0) if kind != "view" else None

    def at(self, share: float, seconds: float) -> Grey:
        """What is shown after a share of the shot, or so many seconds."""
        if self._standing is None:
            return self._view(share)
        return self._standing if self._thing is None else self._thing.before(self._standing, seconds)

    def _view(self, share: float) -> Grey:
        size = self._sizes[0] + (self._sizes[1] - self._sizes[0]) * share
        across, down = self._places[0] + (self._places[1] - self._places[0]) * share
        left, top = across * (1 - size) * self._photo.width, down * (1 - size) * self._photo.height
        box = (left, top, left + size * self._photo.width, top + size * self._photo.height)
        return np.asarray(self._photo.resize((SIDE, SIDE), Image.Resampling.BOX, box=box), np.float32)


class _Thing:
    """A round piece of another photo that swings."""

    def __init__(self, draws: np.random.Generator) -> None:
        self._side = int(draws.integers(9, 22))
        photo = _half(int(draws.integers(10**6)))
        self._shown = np.asarray(photo.resize((self._side, self._side), Image.Resampling.BOX), np.float32)
        from_middle = np.abs(np.linspace(-1, 1, self._side))
        self._weight = np.clip(2.5 * (1 - np.hypot(from_middle[:, np.newaxis], from_middle)), 0, 1).astype(np.float32)
        self._rates, self._phases = draws.uniform(0.3, 1.6, 2), draws.uniform(0, 2 * np.pi, 2)

    def before(self, ground: Grey, seconds: float) -> Grey:
        """The thing before a ground."""
        places = (0.5 + 0.5 * np.sin(self._rates * seconds + self._phases)) * (SIDE - self._side)
        down, across = (slice(int(place), int(place) + self._side) for place in places)
        shown = ground.copy()
        shown[down, across] += (self._shown - shown[down, across]) * self._weight
        return shown


def _times(length_ms: int) -> NDArray[np.float64]:
    return np.array(list(frames_apart(sampled_times(length_ms))), dtype=np.float64)


@lru_cache(maxsize=1)
def _paths() -> list[Path]:
    return sorted(PHOTOS.glob("*.jpg"))


def _half(number: int) -> Image.Image:
    """The left or the right half of a photo, in one of four turns."""
    halves = 2 * len(_paths())
    photo = _small(_paths()[number % halves // 2])
    left = number % 2 * photo.width // 2
    half = photo.crop((left, 0, left + photo.width // 2, photo.height))
    turn = _TURNS[number // halves % len(_TURNS)]
    return half if turn is None else half.transpose(turn)


@lru_cache(maxsize=6000)
def _small(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        photo.draft("L", (2 * _PHOTO_PX, 2 * _PHOTO_PX))
        scale = _PHOTO_PX / min(photo.size)
        size = round(photo.width * scale), round(photo.height * scale)
        return photo.convert("L").resize(size, Image.Resampling.BILINEAR)
