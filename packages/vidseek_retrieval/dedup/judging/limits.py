"""Says from which odds on two videos are called one, how sure that is, and what another precision would give.

What different videos and made copies come to is known beforehand, from a broad set (`prior`). An archive adds what it has:
how alike its different videos are (a camera on one room makes more of them alike), how many pairs it has, and copies made of
its own videos. The precision at a limit is that of the pairs of this archive that would be called one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ConfigError
from vidseek_retrieval.dedup.judging import prior
from vidseek_retrieval.dedup.judging.scoring import probability

CURVE = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Precisions whose limits are told."""
_STEPS = np.arange(1.0, 30.0, 0.05)
"""Limits that there may be, as logarithms of odds: below the first lie recordings of one fixed camera, in the prior too."""
_TAIL = 25
"""Of different videos, those with the highest odds: how fast they become fewer goes on above them."""
_WEIGHT = 3.0
"""How many pairs of the archive the prior counts for, where the archive says how alike different videos are."""
_LEAST_ALIKE, _MANY_SEEN = 0.25, 25
"""An archive that shows few alike pairs is taken to have this share of what the prior has, at least. The more of them are
seen, half of it at so many, the less that counts: a large archive says itself that one pair of a million is alike.
"""
_COPIES = 0.02
"""Copies that are expected for each video before any is found."""
_KIND_WEIGHT = 20.0
"""How many made copies of a kind the prior counts for."""
_SIDES = 1.645
"""Standard errors on both sides of an interval that holds nine of ten."""


@dataclass(frozen=True)
class Point:
    """What a precision would give in this archive."""

    precision: float
    limit: float
    """The likeness, 0 to 1."""
    recall: float
    """Of made copies."""
    num_found: int
    """Pairs of this archive from there on."""


@dataclass(frozen=True)
class Threshold:
    """The likeness from which on two videos are called one, and what is known of it."""

    target: float
    limit: float
    odds: float
    """The same limit as a logarithm of odds."""
    precision: float
    """Of the pairs of this archive that are called one, the share that is expected to be."""
    precision_between: tuple[float, float]
    """Nine of ten such archives lie there."""
    recall: float
    """Of made copies, the mean over the kinds."""
    recall_between: tuple[float, float]
    recall_by_change: Mapping[str, float]
    curve: tuple[Point, ...]
    num_pairs: int
    """Pairs of different files in the archive."""
    alikeness: float
    """How many times more of this archive's different videos are alike than usual."""
    num_copies: int
    """Copies that were made, of the archive's own videos and for the prior."""
    num_different: int
    """Pairs of different videos of the prior."""
    remark: str
    """Where another precision changes nothing, or the wanted one is out of reach: why; or empty."""


@dataclass(frozen=True)
class _Archive:
    odds: NDArray[np.float64]
    """Of the pairs that were aligned, ascending."""
    num_pairs: int
    num_videos: int
    own: Mapping[str, Sequence[float]]
    """Of copies made of its videos, by kind."""
    weights: NDArray[np.float64]
    """How many pairs each of the aligned ones stands for."""

    @cached_property
    def alikeness(self) -> float:
        """How many pairs are moderately alike, against what is usual for so many pairs; near 1 where there are few."""
        start, end = _tail()[0] - 1.0, min(_quantile(0.05), _tail()[0] + 2.0)
        expected = self.num_pairs * float(-np.diff(_wrong_share(np.array([start, end])))[0])
        seen = float(self.weights[(self.odds >= start) & (self.odds < end)].sum())
        return max((seen + _WEIGHT) / (expected + _WEIGHT), _LEAST_ALIKE / (1 + seen / _MANY_SEEN))

    def num_wrong(self, odds: NDArray[np.float64], *, errors: float = 0.0) -> NDArray[np.float64]:
        """Return how many pairs of different videos reach these odds, so many standard errors more or less."""
        start, scale = _tail()
        unsure = (1 + np.clip(odds - start, 0, None) / scale) / np.sqrt(_TAIL)
        found: NDArray[np.float64] = self.num_pairs * self.alikeness * _wrong_share(odds) * np.exp(errors * unsure)
        return found

    def num_right(self, odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many pairs that are copies reach them: those found that are not wrong, and those to be expected."""
        found = len(self.odds) - np.searchsorted(self.odds, odds)
        expected = (1 + _COPIES * self.num_videos) * np.array([self.recall(each) for each in odds])
        return np.clip(found - self.num_wrong(odds), 0, None) + expected

    def precision(self, odds: NDArray[np.float64], *, errors: float = 0.0) -> NDArray[np.float64]:
        """Return the precision of what reaches these odds."""
        right, wrong = self.num_right(odds), self.num_wrong(odds, errors=errors)
        share: NDArray[np.float64] = right / np.maximum(right + wrong, 1e-12)
        return share

    def recall_by_change(self, odds: float) -> dict[str, float]:
        """Return the share of each kind of made copies that reaches the odds."""
        shares = {}
        for name, (num, quantiles) in prior.COPIES.items():
            own = self.own.get(name, ())
            weight = min(num, _KIND_WEIGHT)
            reached = weight * _share_from(quantiles, odds) + sum(each >= odds for each in own)
            shares[name] = reached / (weight + len(own))
        return shares

    def recall(self, odds: float) -> float:
        """Return the mean over the kinds."""
        return float(np.mean(list(self.recall_by_change(odds).values())))


def choose_threshold(
    odds: Sequence[float], *, num_videos: int, own: Mapping[str, Sequence[float]], target: float,
    weights: Sequence[float] | None = None,
) -> Threshold:
    """Return the lowest limit whose precision in this archive is expected to be as wanted.

    Args:
        odds: Logarithms of odds of the archive's pairs that could be aligned.
        num_videos: Videos that were compared with each other.
        own: Of copies made of some of its videos, by kind: each of them.
        target: The wanted precision, above 0 and below 1.
        weights: How many pairs each of these stands for; None for one each.

    Raises:
        ConfigError: `target` is out of range.
    """
    if not 0 < target < 1:
        raise ConfigError(f"the precision is {target}, wanted a number between 0 and 1", code="setting-out-of-range")
    values, order = np.asarray(odds, dtype=np.float64), np.argsort(odds, kind="stable")
    stands_for = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    archive = _Archive(values[order], num_videos * (num_videos - 1) // 2, num_videos, own, stands_for[order])
    precisions = archive.precision(_STEPS)
    limit = _limit(precisions, target)
    at = np.array([limit])
    recall = archive.recall(limit)
    error = _SIDES * float(np.sqrt(max(recall * (1 - recall), 0.01) / prior.NUM_SOURCES))
    curve = tuple(_point(archive, precisions, each) for each in sorted({*CURVE, target}))
    return Threshold(
        target=target, limit=_shown(limit), odds=round(limit, 4), precision=round(float(archive.precision(at)[0]), 4),
        precision_between=(
            round(float(archive.precision(at, errors=_SIDES)[0]), 4),
            round(float(archive.precision(at, errors=-_SIDES)[0]), 4),
        ),
        recall=round(recall, 4), recall_between=(round(max(recall - error, 0), 4), round(min(recall + error, 1), 4)),
        recall_by_change={name: round(share, 4) for name, share in archive.recall_by_change(limit).items()},
        curve=curve, num_pairs=archive.num_pairs, alikeness=round(archive.alikeness, 3),
        num_copies=sum(num for num, _ in prior.COPIES.values()) + sum(map(len, own.values())),
        num_different=prior.NUM_PAIRS, remark=_remark(curve, target, precisions),
    )


def _limit(precisions: NDArray[np.float64], target: float) -> float:
    """The lowest step that reaches the precision; where none does, that with the highest."""
    return float(_STEPS[np.argmax(precisions >= min(target, precisions.max()))])


def _point(archive: _Archive, precisions: NDArray[np.float64], target: float) -> Point:
    limit = _limit(precisions, target)
    return Point(target, _shown(limit), round(archive.recall(limit), 4), int((archive.odds >= limit).sum()))


def _remark(curve: Sequence[Point], target: float, precisions: NDArray[np.float64]) -> str:
    if target > precisions.max():
        return (f"no limit is expected to reach a precision of {target:g} here: that with the highest, "
                f"{precisions.max():.4f}, is taken")
    if target <= precisions[0]:
        return (f"a limit of {_shown(_STEPS[0]):g} has a precision of {precisions[0]:.3f} here, and below it "
                "different videos begin that look alike: less precision finds no more")
    here = next(point for point in curve if point.precision == target)
    same = [point.precision for point in curve if point.num_found == here.num_found]
    if len(same) < 2:
        return ""
    return (f"precisions from {same[0]:g} to {same[-1]:g} find the same {here.num_found} pairs: none of this archive lies "
            "between their limits")


def _shown(odds: float) -> float:
    return round(probability(odds), 6)


def _tail() -> tuple[float, float]:
    """Where the tail of different videos begins, and by how much odds grow for one of them to become 1/e."""
    highest = np.asarray(prior.DIFFERENT[:_TAIL])
    return float(highest[-1]), max(float(highest.mean() - highest[-1]), 0.3)


def _wrong_share(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of pairs of different videos that reaches odds: counted, and above the tail's begin by how it falls."""
    start, scale = _tail()
    counted = np.searchsorted(-np.asarray(prior.DIFFERENT), -odds, side="right")
    beyond = _TAIL * np.exp(-np.clip(odds - start, 0, None) / scale)
    share: NDArray[np.float64] = np.where(odds >= start, beyond, counted) / prior.NUM_PAIRS
    return share


def _share_from(quantiles: Sequence[float], odds: float) -> float:
    """The share of made copies of a kind that reaches odds, between its quantiles (ascending, equally apart)."""
    return float(1 - np.interp(odds, quantiles, np.linspace(0, 1, len(quantiles)), left=0.0, right=1.0))


def _quantile(share: float) -> float:
    """The odds that this share of all made copies does not reach."""
    num = [np.interp(share, np.linspace(0, 1, len(each)), each) for _, each in prior.COPIES.values()]
    return float(np.mean(num))
