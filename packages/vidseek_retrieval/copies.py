"""Copies made of the archive's own clips, and different videos: how alike two must be to be called one."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.errors import ConfigError, GateFailed
from vidseek_retrieval.duplicates import aligned, likeness_of, strength
from vidseek_retrieval.likeness import VideoLooks, look_of

Frames = NDArray[np.uint8]
"""Shape (T, height, width, 3), RGB."""
NUM_CURVE = 50


@dataclass(frozen=True)
class Scored:
    """Two videos, how alike they are, and what the second is of the first."""

    score: float
    """The strength of their best alignment."""
    change: str
    """How the copy was made; empty where the two are different."""


@dataclass(frozen=True)
class Threshold:
    """The likeness from which two spans are called one, and what that is worth on clips that it was not chosen on."""

    value: float
    target: float
    precision: float
    """Of pairs called equal, those that are: as many copies as different clips."""
    recall: float
    recall_by_change: Mapping[str, float]
    curve: tuple[tuple[float, float, float], ...]
    """Threshold, precision, recall."""
    num_copies: int
    num_different: int


def _each(change: Callable[[Frames], Frames]) -> Callable[[Frames], Frames]:
    return lambda frames: np.stack([change(frame) for frame in frames])


def _jpeg(frame: Frames) -> Frames:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=25)
    return np.asarray(Image.open(file))


def _scaled(frame: Frames) -> Frames:
    height, width = frame.shape[:2]
    return np.asarray(Image.fromarray(frame).resize((max(8, width * 3 // 5), max(8, height // 2))))


def _cropped(frames: Frames) -> Frames:
    height, width = frames.shape[1:3]
    return frames[:, height // 12 : height - height // 12, width // 12 : width - width // 12]


def _letterboxed(frames: Frames) -> Frames:
    bar = frames.shape[1] // 6
    return np.pad(frames, ((0, 0), (bar, bar), (0, 0), (0, 0)))


def _logo(frames: Frames) -> Frames:
    marked = frames.copy()
    height, width = frames.shape[1:3]
    marked[:, height // 16 : height // 5, -width // 4 : -width // 16] = (250, 250, 250)
    return marked


def _darker(frames: Frames) -> Frames:
    return (frames * 0.6 + 10).astype(np.uint8)


CHANGES: Mapping[str, Callable[[Frames], Frames]] = {
    "re-encoded": _each(_jpeg), "scaled": _each(_scaled), "cropped": _cropped, "letterboxed": _letterboxed,
    "logo": _logo, "brightness": _darker, "mirrored": lambda frames: frames[:, :, ::-1],
    "trimmed": lambda frames: frames[1:], "sped up": lambda frames: frames[::2],
}


def score_copies(frames: Frames, times_ms: NDArray[np.int64]) -> list[Scored]:
    """A clip against each copy of it that is made here; changes that leave too little to compare are left out."""
    original = looks_of(frames, times_ms)
    scored = []
    for name, change in CHANGES.items():
        copied, times, speed, offset = change(frames), times_ms, 1.0, 0.0
        if name == "trimmed":
            times, offset = times_ms[1:] - times_ms[1], -float(times_ms[1])
        elif name == "sped up":
            times, speed = times_ms[::2] // 2, 0.5
        copy = looks_of(copied, times)
        alike = likeness_of(original, copy)
        values = aligned(alike, original.times_ms, copy.times_ms, speed=speed, offset_ms=offset)
        value = strength(values, original.times_ms)
        if value > 0:
            scored.append(Scored(value, name))
    return scored


def looks_of(frames: Frames, times_ms: NDArray[np.int64]) -> VideoLooks:
    """The looks of frames at these times."""
    return VideoLooks(times_ms, np.stack([look_of(frame) for frame in frames]))


def choose_threshold(
    copies: Sequence[Scored], different: Sequence[float], called: Sequence[float], *, target: float, seed: int = 0
) -> Threshold:
    """The least threshold that reaches the precision `target` on one half; figures are of the other half.

    It must reach it twice over: where copies and different videos are equally frequent, and among the pairs of this
    archive that it calls equal, by as many mistakes as the different ones let expect.

    Args:
        copies: Copies made of clips of the archive.
        different: The strengths of pairs of videos that were put together by chance.
        called: The strengths of the pairs of videos that are judged by it.
        target: Of the precision.
        seed: Of the halves.

    Raises:
        ConfigError: `target` is not between 0 and 1.
        GateFailed: there is too little to choose on, or no threshold is so precise.
    """
    if not 0 < target < 1:
        raise ConfigError(f"the precision is {target}, wanted a number between 0 and 1")
    others = [Scored(score, "") for score in different]
    draws = np.random.default_rng(seed)
    (fit_copies, test_copies), (fit_others, test_others) = (_halves(each, draws) for each in (list(copies), others))
    if min(map(len, (fit_copies, test_copies, fit_others, test_others))) < 5:
        raise GateFailed(
            f"{len(copies)} copies and {len(others)} pairs of different videos are too few to choose a threshold on",
            remedy="Deduplicate an archive of more videos",
        )
    steps = np.unique([each.score for each in (*fit_copies, *others)])
    precise = [
        step for step in steps
        if _precision(fit_copies, fit_others, step) >= target
        and _share(others, step) * len(called) <= (1 - target) * sum(score >= step for score in called)
    ]
    if not precise:
        raise GateFailed(f"no threshold has a precision of {target} on made copies", remedy="Ask for less precision")
    value = float(precise[0])
    curve = tuple(
        (round(float(step), 4), round(_precision(test_copies, test_others, step), 4), round(_share(test_copies, step), 4))
        for step in np.quantile(steps, np.linspace(0, 1, NUM_CURVE))
    )
    by_change = {
        name: round(_share([each for each in test_copies if each.change == name], value), 4)
        for name in CHANGES if any(each.change == name for each in test_copies)
    }
    return Threshold(
        value=round(value, 4), target=target, precision=round(_precision(test_copies, test_others, value), 4),
        recall=round(_share(test_copies, value), 4), recall_by_change=by_change, curve=curve, num_copies=len(copies),
        num_different=len(others),
    )


def _halves(items: list[Scored], draws: np.random.Generator) -> tuple[list[Scored], list[Scored]]:
    order = draws.permutation(len(items))
    return [items[place] for place in order[::2]], [items[place] for place in order[1::2]]


def _share(scored: Sequence[Scored], threshold: float) -> float:
    return float(np.mean([each.score >= threshold for each in scored])) if scored else 0.0


def _precision(copies: Sequence[Scored], different: Sequence[Scored], threshold: float) -> float:
    """Where copies and different clips are equally frequent."""
    right, wrong = _share(copies, threshold), _share(different, threshold)
    return right / (right + wrong) if right + wrong else 1.0
