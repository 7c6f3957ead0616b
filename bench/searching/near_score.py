"""Three ways to say how alike two videos are, and what each is worth: precision, recall, and all limits at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.searching.near_seen import HASHES, Seen
from vidseek_retrieval.dedup.alignment import Alignment, align
from vidseek_retrieval.dedup.find import NOWHERE
from vidseek_retrieval.dedup.made_copies import CHANCE, CHANGES, DIFFERENT, Sample, Scored, choose_threshold
from vidseek_retrieval.dedup.video_matches import MAX_CANDIDATES

OURS, COSINE, HASH = WAYS = ("vidseek", "cosine", "hash")
TARGET = 0.95
VOTES = {"pHash": (6, 10, 14), "PDQ": (31, 50, 70)}
"""Bits up to which two frames are one: 10 of 64 and 31 of 256 are what is usual, the others are tighter and looser."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A pair of videos, what it is, and what each way says of it."""

    kind: str
    """How the copy was made; `chance` for two different videos, `moments` for two times of one."""
    videos: tuple[str, ...]
    """The originals that it is of."""
    alignment: Alignment
    scores: Mapping[str, float]
    """By form; those of a way begin with its name."""
    is_proposed: bool = True
    """Whether our search for candidates proposes it."""


def judge(kind: str, videos: tuple[str, ...], one: Seen, other: Seen, *, is_proposed: bool = True) -> Judged:
    """What all ways say of a pair; ours nothing where its search for candidates does not propose it."""
    near = {("one", "other"): nearest_clips(one, other)} if is_proposed else {}
    alignment = align(near, {"one": one.fingerprints, "other": other.fingerprints}).get(("one", "other"), NOWHERE)
    scores = {OURS: alignment.score, **_cosines(one, other), **_hashes(one, other)}
    return Judged(kind, videos, alignment, scores, is_proposed)


def nearest_clips(one: Seen, other: Seen) -> list[tuple[int, int]]:
    """The middles of the clips of two videos that are nearest by their vectors, as many as are looked at."""
    alike = one.vectors @ other.vectors.T
    order = np.argsort(-alike, axis=None, kind="stable")[:MAX_CANDIDATES]
    places = zip(*np.unravel_index(order, alike.shape), strict=True)
    return [(one.middles_ms[row], other.middles_ms[column]) for row, column in places]


def forms_of(way: str, judged: Sequence[Judged]) -> list[str]:
    """The forms in which a way was tried."""
    return [form for form in judged[0].scores if form.split(":")[0] == way]


def choose_form(way: str, chosen_on: Sequence[Judged]) -> str:
    """The form of a way with the highest average precision."""
    return max(forms_of(way, chosen_on), key=lambda form: average_precision(chosen_on, form))


def choose_limit(chosen_on: Sequence[Judged], form: str, *, target: float = TARGET) -> float:
    """The least score from which on the precision is at least `target`; infinity where none is so precise."""
    copies, none = _sides(chosen_on, form)
    for step in np.unique(np.concatenate([copies, *none])):
        right, wrong = _share(copies, step), float(np.mean([_share(kind, step) for kind in none] or [0.0]))
        if right / (right + wrong) >= target:
            return float(step)
    return float("inf")


def from_on(form: str, limit: float) -> Callable[[Judged], bool]:
    """Calls one what reaches `limit`."""
    return lambda each: each.scores[form] >= limit


def by_the_command(chosen_on: Sequence[Judged], measured_on: Sequence[Judged]) -> Callable[[Judged], bool]:
    """What `vidseek dedup` would call one in an archive with all these pairs: two limits, by its own rule."""
    samples = [
        Sample(*([Scored(each.alignment, each.kind) for each in half if (each.kind in DIFFERENT) == is_none]
                 for is_none in (False, True)))
        for half in (chosen_on, measured_on)
    ]
    called = [each.alignment for half in (chosen_on, measured_on) for each in half]
    limits = choose_threshold(samples[0], samples[1], called, target=TARGET).limits
    return lambda each: limits.call(each.alignment)


def shares(judged: Sequence[Judged], is_one: Callable[[Judged], bool]) -> tuple[float, float]:
    """Of copies, and of pairs that are none (each kind by itself, then their mean), how many are called one."""
    called: dict[str, list[bool]] = {}
    for each in judged:
        called.setdefault(each.kind, []).append(is_one(each))
    right = [one for kind, ones in called.items() if kind not in DIFFERENT for one in ones]
    wrong = [float(np.mean(ones)) for kind, ones in called.items() if kind in DIFFERENT]
    return float(np.mean(right)) if right else 0.0, float(np.mean(wrong)) if wrong else 0.0


def figures(judged: Sequence[Judged], is_one: Callable[[Judged], bool]) -> dict[str, Any]:
    """Precision where copies are as many as pairs that are none, and recall, by change too."""
    right, wrong = shares(judged, is_one)
    kinds = [name for name in (*CHANGES, *DIFFERENT) if any(each.kind == name for each in judged)]
    by_kind = {name: round(float(np.mean([is_one(each) for each in judged if each.kind == name])), 4) for name in kinds}
    return {
        "precision": round(right / (right + wrong), 4) if right + wrong else 1.0, "recall": round(right, 4),
        "recall_by_change": {name: by_kind[name] for name in kinds if name not in DIFFERENT},
        "called_one_of_different": {name: by_kind[name] for name in kinds if name in DIFFERENT},
    }


def average_precision(judged: Sequence[Judged], form: str) -> float:
    """The mean of the precision over the copies, each at its own score: copies as many as pairs that are none."""
    copies, none = _sides(judged, form)
    steps = np.unique(copies)[::-1]
    recall = np.array([np.mean(copies >= step) for step in steps])
    wrong = np.array([np.mean([np.mean(kind >= step) for kind in none]) for step in steps])
    return float(np.sum(np.diff(recall, prepend=0) * recall / (recall + wrong)))


def area_under_curve(judged: Sequence[Judged], form: str) -> float:
    """How often a copy is more alike than a pair that is none, equally alike counting half; the mean of both kinds."""
    copies, none = _sides(judged, form)
    return float(np.mean([
        np.mean((copies[:, np.newaxis] > kind) + 0.5 * (copies[:, np.newaxis] == kind)) for kind in none
    ]))


def _sides(judged: Sequence[Judged], form: str) -> tuple[Values, list[Values]]:
    copies = np.array([each.scores[form] for each in judged if each.kind not in DIFFERENT])
    none = [np.array([each.scores[form] for each in judged if each.kind == kind]) for kind in DIFFERENT]
    return copies, [kind for kind in none if len(kind)]


def _share(scores: Values, step: float) -> float:
    return float(np.mean(scores >= step)) if len(scores) else 0.0


def _cosines(one: Seen, other: Seen) -> dict[str, float]:
    alike = one.vectors @ other.vectors.T
    mean, other_mean = (each.vectors.mean(axis=0) for each in (one, other))
    return {
        f"{COSINE}:best": float(alike.max()), f"{COSINE}:nearest": _nearest(alike),
        f"{COSINE}:mean": float(mean @ other_mean / np.linalg.norm(mean) / np.linalg.norm(other_mean)),
    }


def _hashes(one: Seen, other: Seen) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (num, _, _) in HASHES.items():
        plain = one.hashes[name] @ other.hashes[name].T
        either = np.maximum(plain, one.hashes[name] @ other.hashes[f"{name} mirrored"].T)
        for mirrored, products in (("", plain), (" mirrored", either)):
            differing = (num * num - products) / 2
            found[f"{HASH}:{name} nearest{mirrored}"] = _nearest(1 - differing / (num * num))
            for bits in VOTES[name]:
                found[f"{HASH}:{name} vote {bits}{mirrored}"] = _nearest(differing <= bits)
    return found


def _nearest(alike: NDArray[Any]) -> float:
    """The mean of the likeness of each to the nearest of the other; of the video of which more is found."""
    return float(max(alike.max(axis=axis).mean() for axis in (0, 1))) if alike.size else 0.0


def split(judged: Sequence[Judged], videos: Sequence[str], seed: int) -> tuple[list[Judged], list[Judged]]:
    """The pairs of half of the videos, and those of the other; a pair of both is one to choose on, as in `vidseek dedup`."""
    order = np.random.default_rng(seed).permutation(len(videos))
    half = {videos[place] for place in order[::2]}
    chosen_on = [each for each in judged if (any if each.kind == CHANCE else all)(video in half for video in each.videos)]
    return chosen_on, [each for each in judged if not any(video in half for video in each.videos)]
