"""Chooses the similarity threshold of duplicates from synthetic copies of the archive's clips and pairs of different
videos.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.errors import ConfigError, GateFailed
from vidseek_retrieval.dedup.alignment import Alignment, Limits, likeness_of, weigh
from vidseek_retrieval.dedup.picture_likeness import VideoFingerprint, fingerprint_of

Frames = NDArray[np.uint8]
"""Shape (T, height, width, 3), RGB."""
NUM_CURVE = 50
MIN_CHOSEN_ON = 5
"""Copies, and pairs of different videos, that a limit is chosen on, at least."""
STILL_RECALL = 0.9
"""Of made copies, those whose pictures are as alike as is asked where nothing moves."""


@dataclass(frozen=True)
class Scored:
    """Two videos at their best alignment, and the relation of the second to the first."""

    found: Alignment
    kind: str
    """How the copy was made; `chance` for two different videos, `moments` for two times of one video."""


@dataclass(frozen=True)
class Sample:
    """Copies and pairs that are none, all of the same videos: one to choose on, one of other videos to measure on."""

    copies: Sequence[Scored]
    different: Sequence[Scored]


@dataclass(frozen=True)
class Threshold:
    """The limits from which on two spans are duplicates, and their quality on videos that were not used to choose them."""

    limits: Limits
    target: float
    precision: float
    """Of pairs called equal, those that are: where copies are as many as pairs that are none, half of each kind."""
    recall: float
    recall_by_change: Mapping[str, float]
    curve: tuple[tuple[float, float, float], ...]
    """Score of spans in which something moves, precision, recall."""
    num_copies: int
    """Of both samples; so the next."""
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
    "other frames": lambda frames: frames[1::2],  # against those between them: a copy is sampled at other times
}
CHANCE, MOMENTS = "chance", "moments"
DIFFERENT = (CHANCE, MOMENTS)


def score_copies(frames: Frames, times_ms: NDArray[np.int64]) -> list[Scored]:
    """Compare a clip with each synthetic copy of it; changes that leave too little to compare are left out.

    Args:
        frames: Frames of the clip, uint8 RGB.
        times_ms: Times of the frames in ms, shape (n,).
    """
    original = video_fingerprint(frames, times_ms)
    scored = []
    for name, change in CHANGES.items():
        copied, times, speed, offset_ms, of = change(frames), times_ms, 1.0, 0.0, original
        if name == "trimmed":
            times, offset_ms = times_ms[1:] - times_ms[1], -float(times_ms[1])
        elif name == "sped up":
            times, speed = times_ms[::2] // 2, 0.5
        elif name == "other frames":
            times, of = times_ms[1::2], VideoFingerprint(original.times_ms[::2], original.fingerprints[::2])
        copy = video_fingerprint(copied, times)
        found = weigh(of, copy, likeness_of(of, copy), speed=speed, offset_ms=offset_ms)
        if found.strength > 0:
            scored.append(Scored(found, name))
    return scored


def video_fingerprint(frames: Frames, times_ms: NDArray[np.int64]) -> VideoFingerprint:
    """Return the descriptors of frames.

    Args:
        frames: Frames, uint8 RGB.
        times_ms: Times of the frames in ms, shape (n,).
    """
    return VideoFingerprint(times_ms, np.stack([fingerprint_of(frame) for frame in frames]))


def choose_threshold(chosen_on: Sample, measured_on: Sample, called: Sequence[Alignment], *, target: float) -> Threshold:
    """Choose the lowest limits that reach a precision on one sample, and measure them on another.

    The limit for spans with motion must reach the precision in two ways: with as many copies as different pairs (half of
    each
    kind), and among the pairs of this archive that it would call equal, with the error rate seen on different videos. For
    spans
    without motion only the pictures count: the limit is above the similarity of this archive's pairs that motion tells
    apart,
    and below that of nearly all copies. A limit without support is 1, which accepts only identical frames.

    Args:
        chosen_on: Scores from videos of the archive, to choose the limits on.
        measured_on: Scores from other videos, to measure the limits on.
        called: Pairs of videos of the archive that will be judged.
        target: Precision to reach, above 0 and below 1.

    Raises:
        ConfigError: `target` is out of range.
        GateFailed: there are too few scores to choose from, or no limit reaches the precision.
    """
    if not 0 < target < 1:
        raise ConfigError(f"the precision is {target}, wanted a number between 0 and 1", code="setting-out-of-range")
    sizes = [len(each) for sample in (chosen_on, measured_on) for each in (sample.copies, sample.different)]
    if min(sizes) < MIN_CHOSEN_ON:
        raise GateFailed(
            f"{sizes[0] + sizes[2]} copies and {sizes[1] + sizes[3]} pairs of different videos are too few to choose a "
            "threshold on", code="too-few-pairs", remedy="Deduplicate an archive of more videos",
        )
    moving = _scores(chosen_on)
    least = _least_moving(moving, [each.score for each in called if each.motion is not None], target)
    apart = [each.strength for each in called if each.motion is not None and each.score < least]
    still = _least_still(apart, [each.strength for each in called if each.motion is None], target)
    usual = float(np.quantile([each.found.strength for each in chosen_on.copies], 1 - STILL_RECALL))
    limits = Limits(least, max(still, usual))
    if min(limits.moving, limits.still) >= 1:
        raise GateFailed(
            f"no threshold has a precision of {target} on made copies", code="no-threshold", remedy="Ask for less precision",
        )
    tested = _scores(measured_on)
    steps = [score for scores in (*tested.values(), *moving.values()) for score in scores]
    shares = {
        kind: float(np.mean([limits.call(each.found) for each in pairs]))
        for kind, pairs in _by_kind(measured_on).items()
    }
    recall = float(np.mean([limits.call(each.found) for each in measured_on.copies]))
    wrong = float(np.mean([shares[kind] for kind in DIFFERENT if kind in shares]))
    return Threshold(
        limits=limits, target=target, precision=round(recall / (recall + wrong), 4) if recall + wrong else 1.0,
        recall=round(recall, 4),
        recall_by_change={name: round(shares[name], 4) for name in CHANGES if name in shares},
        curve=tuple(
            (round(float(step), 4), round(_precision(tested, step), 4), round(_share(_copies(tested), step), 4))
            for step in (np.quantile(steps, np.linspace(0, 1, NUM_CURVE)) if steps else ())
        ),
        num_copies=sizes[0] + sizes[2], num_different=sizes[1] + sizes[3],
    )


Scores = Mapping[str, Sequence[float]]
"""By kind."""


def _by_kind(sample: Sample) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for each in (*sample.copies, *sample.different):
        found.setdefault(each.kind, []).append(each)
    return found


def _scores(sample: Sample) -> Scores:
    """Return the likeness of the pairs with motion."""
    return {
        kind: [each.found.score for each in pairs if each.found.motion is not None]
        for kind, pairs in _by_kind(sample).items()
    }


def _least_moving(sample: Scores, called: Sequence[float], target: float) -> float:
    chance = sample.get(CHANCE, [])
    if min(len(_copies(sample)), len(chance)) >= MIN_CHOSEN_ON:
        for step in np.unique(np.concatenate([np.asarray(scores) for scores in sample.values()])):
            if _precision(sample, step) >= target and _are_few(_share(chance, step), called, step, target):
                return float(step)
    return 1.0


def _least_still(apart: Sequence[float], called: Sequence[float], target: float) -> float:
    if len(apart) >= MIN_CHOSEN_ON:
        for step in np.unique([*apart, *called]):
            if _are_few(_share(apart, step), called, step, target):
                return float(step)
    return 1.0


def _are_few(share: float, called: Sequence[float], threshold: float, target: float) -> bool:
    """Whether so many mistakes are few among what is called one."""
    return share * len(called) <= (1 - target) * sum(score >= threshold for score in called)


def _copies(sample: Scores) -> list[float]:
    return [score for kind, scores in sample.items() if kind not in DIFFERENT for score in scores]


def _share(scores: Sequence[float], threshold: float) -> float:
    return float(np.mean(np.asarray(scores) >= threshold)) if len(scores) else 0.0


def _precision(sample: Scores, threshold: float) -> float:
    """Return the precision if copies and different pairs are equally frequent, with half of each existing kind."""
    right = _share(_copies(sample), threshold)
    wrong = float(np.mean([_share(sample[kind], threshold) for kind in DIFFERENT if sample.get(kind)] or [0.0]))
    return right / (right + wrong) if right + wrong else 1.0
