"""Confidence intervals of means over queries, by groups of videos: captions of one video are not independent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MIN_GROUPS = 20
"""Groups of videos below which nothing is proven: with fewer, false wins exceed 5 % (docs/decisions/2026-11-27-proof.md)."""

_MOST_CELLS = 2_000_000
"""Resamples times groups that are in memory at once."""
_MOST_JOINED = 1000
"""Groups that the bootstrap draws from."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are infinite where there are too few groups of videos."""

    value: float
    low: float
    high: float
    num_groups: int
    """Of videos that the queries come from."""
    level: float = 0.95
    min_groups: int = MIN_GROUPS

    @property
    def too_few(self) -> bool:
        """Whether there are fewer groups than an interval needs."""
        return self.num_groups < self.min_groups

    @property
    def why_not(self) -> str:
        """"not proven: too few videos ..." where that is so, else empty."""
        return too_few_videos(self.num_groups, self.min_groups) if self.too_few else ""

    def to_json(self) -> dict[str, Any]:
        """For metrics.json: rounded to four digits; without bounds but with the reason where there are too few groups."""
        figures: dict[str, Any] = {
            "value": round(self.value, 4), "low": _finite(self.low), "high": _finite(self.high),
            "num_groups": self.num_groups,
        }
        return figures | {"note": self.why_not} if self.too_few else figures


def too_few_videos(num_groups: int, wanted: int = MIN_GROUPS) -> str:
    """The answer where there are too few groups of videos to prove anything."""
    return f"not proven: too few videos ({num_groups} groups of videos, at least {wanted} are wanted)"


def interval_text(figure: Mapping[str, Any], *, signed: bool = False) -> str:
    """Return what `Interval.to_json` gave, for people: `0.812 (0.770 to 0.850)`, or why there is no interval.

    Args:
        figure: With value, low, high and perhaps note.
        signed: Whether a plus sign is shown.
    """
    sign = "+" if signed else ""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high is None:
        return f"{value:{sign}.3f} ({figure.get('note') or 'no interval'})"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def interval(
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int = 2000, seed: int = 0,
    level: float = 0.95, min_groups: int = MIN_GROUPS, exact_tails: bool = True,
) -> Interval:
    """Return the mean of `values` with its two-sided interval, for values that depend on each other within a group.

    On each side the wider of two intervals holds:

    - a t interval on the delete-a-group jackknife (CR3: Bell and McCaffrey 2002; MacKinnon and White 1985), with as many
      degrees of freedom as groups of equal size would have, less one (Kish 1965; Carter, Schnepel and Steigerwald 2017):
      right for few groups, unequal sizes and many ties;
    - a studentised bootstrap that resamples whole groups (Efron 1981; Hall 1988; Cameron, Gelbach and Miller 2008): right
      for skewed values.

    A percentile bootstrap of groups is too narrow at twenty groups. Neither knows of a loss so rare that no group shows it.
    For a paired comparison give the differences, one for each query.

    Args:
        values: Shape (n,), n at least 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Of groups, in the bootstrap.
        seed: Of the bootstrap.
        level: Share of such intervals that hold the truth.
        min_groups: With fewer groups the interval is infinite.
        exact_tails: Draw as many more resamples as the tails of `level` need; else just `resamples`.

    Raises:
        ValueError: there is no value, or there are not as many groups as values.
    """
    sums = GroupSums.of(values, groups)
    tail = (1 - level) / 2
    if sums.count < max(min_groups, 2):
        return Interval(sums.mean, -math.inf, math.inf, sums.count, level, max(min_groups, 2))
    error, quantile = sums.error, sums.t_quantile(1 - tail)
    drawn = np.sort(sums.studentised(enough_resamples(resamples, tail) if exact_tails else resamples, seed))
    outside = math.floor(tail * (len(drawn) + 1))
    below, above = drawn[max(outside - 1, 0)], drawn[min(len(drawn) - outside, len(drawn) - 1)]
    return Interval(
        sums.mean, sums.mean - error * max(quantile, float(above)), sums.mean + error * max(quantile, -float(below)),
        sums.count, level, min_groups,
    )


def share_interval(
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return `interval` of values from 0 to 1, cut to that range.

    Where all values are 1, or all are 0, they do not differ, and yet another video may: there the end is that of an exact
    bound (Clopper and Pearson 1934; Hoeffding 1963) of as many groups of equal size as would say as much.

    Args:
        values: Shape (n,), n at least 1, from 0 to 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Of groups, in the bootstrap.
        seed: Of the bootstrap.
    """
    found = interval(values, groups, resamples=resamples, seed=seed)
    if found.too_few:
        return found
    if found.value in (0.0, 1.0):
        least = ((1 - found.level) / 2) ** (1 / (GroupSums.of(values, groups).freedom + 1))
        low, high = (least, 1.0) if found.value else (0.0, 1 - least)
        return replace(found, low=low, high=high)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def median_interval(
    after: Values, before: Values | None, groups: Sequence[Any] | NDArray[Any], *, resamples: int = 2000, seed: int = 0,
    level: float = 0.95, min_groups: int = MIN_GROUPS,
) -> Interval:
    """Return the median of `after`, less that of `before`, with an interval that resamples groups of videos.

    A percentile interval, widened as Student's t is wider than the normal distribution for so many groups.

    Args:
        after: Shape (n,), n at least 1.
        before: Shape (n,), of the same queries; None for the median of `after` alone.
        groups: Shape (n,): the group of videos of each query.
        resamples: Of groups.
        seed: Of the resamples.
        level: Share of such intervals that hold the truth.
        min_groups: With fewer groups the interval is infinite.
    """
    sides = [after] if before is None else [after, before]
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    sums = GroupSums.of(after, owner)
    value = float(np.median(after)) - (0.0 if before is None else float(np.median(before)))
    if sums.count < max(min_groups, 2):
        return Interval(value, -math.inf, math.inf, sums.count, level, max(min_groups, 2))
    rng, chunk = np.random.default_rng(seed), max(1, _MOST_CELLS // len(after))
    even, tail = np.full(sums.count, 1 / sums.count), (1 - level) / 2
    drawn: list[Values] = []
    for start in range(0, resamples, chunk):
        times = rng.multinomial(sums.count, even, min(chunk, resamples - start))[:, owner]
        medians = [_weighted_medians(side, times) for side in sides]
        drawn.append(medians[0] if before is None else medians[0] - medians[1])
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    wider = sums.t_quantile(1 - tail) / NormalDist().inv_cdf(1 - tail)
    return Interval(
        value, value - wider * max(0.0, value - float(low)), value + wider * max(0.0, float(high) - value), sums.count,
        level, min_groups,
    )


def _weighted_medians(values: Values, times: NDArray[np.int64]) -> Values:
    """The median of `values`, shape (n,), each counted so many `times`, shape (resamples, n)."""
    order = np.argsort(values, kind="stable")
    counted = times[:, order].cumsum(1)
    total = counted[:, -1]
    lower = (counted > ((total - 1) // 2)[:, None]).argmax(1)
    upper = (counted > (total // 2)[:, None]).argmax(1)
    medians: Values = (values[order[lower]] + values[order[upper]]) / 2
    return medians


def p_value(
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int = 2000, seed: int = 0,
    min_groups: int = MIN_GROUPS, smallest: float = 0.0125, largest: float = 1.0,
) -> float:
    """Return the one-sided p-value of a mean above 0: of the two tests that `interval` inverts, the larger.

    Args:
        values: Shape (n,), n at least 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Of groups, in the bootstrap; more where `smallest` needs them.
        seed: Of the bootstrap.
        min_groups: With fewer groups the p-value is 1.
        smallest: The smallest level that the p-value will be compared with.
        largest: The largest one; where the t test alone is above it, its p-value is returned.
    """
    sums = GroupSums.of(values, groups)
    if sums.count < max(min_groups, 2) or sums.mean <= 0:
        return 1.0
    if sums.error == 0:
        return 0.5**sums.count  # all groups have the same gain: the sign test
    observed = sums.mean / sums.error
    by_t = sums.t_tail(observed)
    if by_t > largest:
        return by_t
    drawn = sums.studentised(enough_resamples(resamples, smallest), seed)
    by_bootstrap = (1 + int((drawn >= observed).sum())) / (1 + len(drawn))
    return max(by_t, by_bootstrap)


def holm(p_values: Sequence[float], alpha: float) -> list[tuple[bool, float]]:
    """Test several hypotheses by Holm's method (1979), which bounds the chance of any false rejection by `alpha`.

    Args:
        p_values: The p-value of each of n hypotheses, from 0 to 1. They may depend on each other.
        alpha: Family-wise error rate, from 0 to 1.

    Returns:
        For each hypothesis whether it is rejected, and the level that it was tested at.

    Example:
        >>> holm([0.01, 0.04], 0.05)
        [(True, 0.025), (True, 0.05)]
    """
    order = sorted(range(len(p_values)), key=lambda each: p_values[each])
    found: list[tuple[bool, float]] = [(False, alpha)] * len(order)
    rejected, level = True, alpha
    for place, each in enumerate(order):
        if rejected:
            level = alpha / (len(order) - place)
            rejected = p_values[each] <= level
        found[each] = (rejected, level)
    return found


def enough_resamples(resamples: int, tail: float) -> int:
    """So many that a tail of `tail` holds fifty of them, but at most 400,000."""
    return max(resamples, min(math.ceil(50 / tail), 400_000))


@dataclass(frozen=True)
class GroupSums:
    """What a mean over queries and its error are made of."""

    sums: Values
    """Shape (groups,): of the values of each group."""
    sizes: Values
    """Shape (groups,): how many values each has."""

    @staticmethod
    def of(values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any]) -> GroupSums:
        """Add up `values` by group.

        Raises:
            ValueError: there is no value, or there are not as many groups as values.
        """
        numbers = np.asarray(values, np.float64)
        if not len(numbers) or len(numbers) != len(groups):
            raise ValueError(f"{len(numbers)} values of {len(groups)} groups, wanted as many of both, and at least one")
        _, owner = np.unique(np.asarray(groups), return_inverse=True)
        return GroupSums(np.bincount(owner, numbers).astype(np.float64), np.bincount(owner).astype(np.float64))

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(self.sums)

    @cached_property
    def mean(self) -> float:
        """Over all values."""
        return float(self.sums.sum() / self.sizes.sum())

    @cached_property
    def error(self) -> float:
        """The standard error of the mean by the delete-a-group jackknife; 0 where the groups do not differ."""
        without = (self.sums.sum() - self.sums) / (self.sizes.sum() - self.sizes)
        spread = without - self.mean
        error = math.sqrt((self.count - 1) / self.count * float((spread**2).sum()))
        return error if error > 1e-12 * max(1.0, float(np.abs(self.sums).max())) else 0.0

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom: as many groups of equal size would say as much, less one; at least 1."""
        return max(1.0, float(self.sizes.sum() ** 2 / (self.sizes**2).sum()) - 1)

    def t_quantile(self, share: float) -> float:
        """Of Student's t with these degrees of freedom."""
        from scipy.special import stdtrit  # the service imports this room, and has no scipy

        return float(stdtrit(self.freedom, share))

    def t_tail(self, above: float) -> float:
        """The chance that Student's t with these degrees of freedom is at least `above`."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, -above))

    def studentised(self, resamples: int, seed: int) -> Values:
        """Shape (resamples,): how many of its own errors the mean of resampled groups lies above the mean.

        More than 1,000 groups are joined at random to 1,000: groups of groups are independent too. Where the groups of a
        resample hardly differ its error counts as a third of the whole's, or it would say that there is none.
        """
        rng = np.random.default_rng(seed)
        if self.count > _MOST_JOINED:
            return self._joined(rng).studentised(resamples, seed)
        columns = np.stack([self.sums, self.sizes, self.sums**2, self.sums * self.sizes, self.sizes**2], 1)
        whole = self._means_and_errors(columns.sum(0)[None])[1][0]
        if whole == 0:
            return np.zeros(resamples)
        chunk, even = max(1, _MOST_CELLS // self.count), np.full(self.count, 1 / self.count)
        far = []
        for start in range(0, resamples, chunk):
            times = rng.multinomial(self.count, even, min(chunk, resamples - start))
            means, errors = self._means_and_errors(times.astype(np.float64) @ columns)
            far.append((means - self.mean) / np.maximum(errors, whole / 3))
        return np.concatenate(far)

    def _means_and_errors(self, drawn: Values) -> tuple[Values, Values]:
        """Of resamples with these sums of sums, sizes, their squares and products; shape (resamples, 5)."""
        sums, sizes, squares, products, size_squares = drawn.T
        means = sums / sizes
        spread = np.maximum(squares - 2 * means * products + means**2 * size_squares, 0)
        return means, np.sqrt(self.count / (self.count - 1) * spread) / sizes

    def _joined(self, rng: np.random.Generator) -> GroupSums:
        owner = rng.permutation(self.count) % _MOST_JOINED
        sums, sizes = np.zeros(_MOST_JOINED), np.zeros(_MOST_JOINED)
        np.add.at(sums, owner, self.sums)
        np.add.at(sizes, owner, self.sizes)
        return GroupSums(sums, sizes)


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
