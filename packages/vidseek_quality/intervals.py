"""Confidence intervals of means over queries, clustered by groups of videos, since captions of one video are not
independent.
"""

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
"""Fewest groups of videos for a proof: with fewer, false wins exceed 5 % (docs/decisions/2026-11-27-proof.md)."""

_MOST_CELLS = 2_000_000
"""Most resamples times groups in memory at once."""
_MOST_JOINED = 1000
"""Most groups that the bootstrap draws from."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `low` and `high` are infinite if there are too few groups of videos."""

    value: float
    low: float
    high: float
    num_groups: int
    """Number of groups of videos that the queries come from."""
    level: float = 0.95
    min_groups: int = MIN_GROUPS

    @property
    def too_few(self) -> bool:
        """Whether there are fewer groups than an interval needs."""
        return self.num_groups < self.min_groups

    @property
    def why_not(self) -> str:
        """"not proven: too few videos ..." if there are too few groups, else empty."""
        return too_few_videos(self.num_groups, self.min_groups) if self.too_few else ""

    def to_json(self) -> dict[str, Any]:
        """Return the figures for metrics.json, rounded to four digits; with too few groups a reason replaces the bounds."""
        figures: dict[str, Any] = {
            "value": round(self.value, 4), "low": _finite(self.low), "high": _finite(self.high),
            "num_groups": self.num_groups,
        }
        return figures | {"note": self.why_not} if self.too_few else figures


def too_few_videos(num_groups: int, wanted: int = MIN_GROUPS) -> str:
    """Return the message for too few groups of videos.

    Args:
        num_groups: Number of groups.
        wanted: Number of groups that a proof needs.
    """
    return f"not proven: too few videos ({num_groups} groups of videos, at least {wanted} are wanted)"


def interval_text(figure: Mapping[str, Any], *, signed: bool = False) -> str:
    """Format the output of `Interval.to_json` for people: `0.812 (0.770 to 0.850)`, or why there is no interval.

    Args:
        figure: Mapping with value, low, high and optionally note.
        signed: Whether to show a plus sign.
    """
    sign = "+" if signed else ""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high is None:
        return f"{value:{sign}.3f} ({figure.get('note') or 'no interval'})"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def interval(
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int, seed: int,
    level: float = 0.95, min_groups: int = MIN_GROUPS, exact_tails: bool = True,
) -> Interval:
    """Return the mean of `values` with a two-sided confidence interval, for values that are dependent within groups.

    On each side the wider of two intervals is taken:

    - a t interval on the delete-a-group jackknife (CR3: Bell and McCaffrey 2002; MacKinnon and White 1985). Its degrees of
      freedom are the effective number of groups less one (Kish 1965; Carter, Schnepel and Steigerwald 2017). It is accurate
      for few groups, unequal sizes and many ties;
    - a studentised bootstrap over whole groups (Efron 1981; Hall 1988; Cameron, Gelbach and Miller 2008). It is accurate for
      skewed values.

    A percentile bootstrap of groups is too narrow at twenty groups. No method accounts for a loss so rare that no group
    shows
    it. For a paired comparison, pass the difference of each query.

    Args:
        values: Shape (n,), n at least 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.
        level: Coverage of the interval, from 0 to 1.
        min_groups: With fewer groups the interval is infinite.
        exact_tails: Whether to draw more resamples if the tails of `level` need them.

    Raises:
        ValueError: there are no values, or the number of groups is not the number of values.

    Examples:
        >>> gains = [0.0, 0.1, 0.2, 0.1] * 10
        >>> found = interval(gains, list(range(40)), resamples=2000, seed=0)
        >>> round(found.value, 3), found.low > 0, found.num_groups
        (0.1, True, 40)
        >>> interval(gains, [0] * 40, resamples=2000, seed=0).why_not
        'not proven: too few videos (1 groups of videos, at least 20 are wanted)'
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
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int, seed: int
) -> Interval:
    """Return the mean of values from 0 to 1 with an interval in that range, computed as by `interval`.

    If all values are 1 (or all 0), they have no variance. That end of the interval is then an exact bound (Clopper and
    Pearson
    1934; Hoeffding 1963) for the effective number of groups.

    Args:
        values: Shape (n,), n at least 1, from 0 to 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.
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
    after: Values, before: Values | None, groups: Sequence[Any] | NDArray[Any], *, resamples: int, seed: int
) -> Interval:
    """Return the median of `after` minus the median of `before`, with a 95 % interval over groups of videos.

    It is infinite with fewer groups than `MIN_GROUPS`. It is a percentile interval of a bootstrap, widened by the
    ratio of Student's t to the normal distribution for the number of groups.

    Args:
        after: Shape (n,), n at least 1.
        before: Shape (n,), values of the same queries; None returns the median of `after`.
        groups: Shape (n,): the group of videos of each query.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.
    """
    sides = [after] if before is None else [after, before]
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    sums = GroupSums.of(after, owner)
    value = float(np.median(after)) - (0.0 if before is None else float(np.median(before)))
    if sums.count < MIN_GROUPS:
        return Interval(value, -math.inf, math.inf, sums.count)
    rng, chunk = np.random.default_rng(seed), max(1, _MOST_CELLS // len(after))
    even, tail = np.full(sums.count, 1 / sums.count), (1 - Interval.level) / 2
    drawn: list[Values] = []
    for start in range(0, resamples, chunk):
        times = rng.multinomial(sums.count, even, min(chunk, resamples - start))[:, owner]
        medians = [_weighted_medians(side, times) for side in sides]
        drawn.append(medians[0] if before is None else medians[0] - medians[1])
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    wider = sums.t_quantile(1 - tail) / NormalDist().inv_cdf(1 - tail)
    return Interval(
        value, value - wider * max(0.0, value - float(low)), value + wider * max(0.0, float(high) - value), sums.count
    )


def _weighted_medians(values: Values, times: NDArray[np.int64]) -> Values:
    """Return the weighted median of each resample.

    Args:
        values: Shape (n,).
        times: Shape (resamples, n): how often each value counts.
    """
    order = np.argsort(values, kind="stable")
    counted = times[:, order].cumsum(1)
    total = counted[:, -1]
    lower = (counted > ((total - 1) // 2)[:, None]).argmax(1)
    upper = (counted > (total // 2)[:, None]).argmax(1)
    medians: Values = (values[order[lower]] + values[order[upper]]) / 2
    return medians


def p_value(
    values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any], *, resamples: int, seed: int,
    min_groups: int = MIN_GROUPS, smallest: float = 0.0125, largest: float = 1.0,
) -> float:
    """Return the one-sided p-value of a mean above 0: the larger one of the two tests that `interval` inverts.

    Args:
        values: Shape (n,), n at least 1.
        groups: Shape (n,): the group of videos of each value.
        resamples: Number of bootstrap resamples of groups; more are drawn if `smallest` needs them.
        seed: Seed of the bootstrap.
        min_groups: With fewer groups the p-value is 1.
        smallest: Smallest level that the p-value will be compared with.
        largest: Largest level that it will be compared with. If the t test alone is above it, its p-value is returned.
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

    Examples:
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
    """Return the number of resamples for which a tail holds fifty of them, at most 400,000.

    Args:
        resamples: Smallest number to return.
        tail: Probability of the tail, above 0.
    """
    return max(resamples, min(math.ceil(50 / tail), 400_000))


@dataclass(frozen=True)
class GroupSums:
    """Sums and sizes of groups, from which the mean over queries and its error are computed."""

    sums: Values
    """Shape (groups,): sum of the values of each group."""
    sizes: Values
    """Shape (groups,): number of values of each group."""

    @staticmethod
    def of(values: Sequence[float] | NDArray[Any], groups: Sequence[Any] | NDArray[Any]) -> GroupSums:
        """Sum values by group.

        Args:
            values: Shape (n,), n at least 1.
            groups: Shape (n,): the group of each value.

        Raises:
            ValueError: there are no values, or the number of groups is not the number of values.
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
        """The mean over all values."""
        return float(self.sums.sum() / self.sizes.sum())

    @cached_property
    def error(self) -> float:
        """The standard error of the mean by the delete-a-group jackknife; 0 if all groups are equal."""
        without = (self.sums.sum() - self.sums) / (self.sizes.sum() - self.sizes)
        spread = without - self.mean
        error = math.sqrt((self.count - 1) / self.count * float((spread**2).sum()))
        return error if error > 1e-12 * max(1.0, float(np.abs(self.sums).max())) else 0.0

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom: the effective number of groups less one, at least 1."""
        return max(1.0, float(self.sizes.sum() ** 2 / (self.sizes**2).sum()) - 1)

    def t_quantile(self, share: float) -> float:
        """Return the quantile `share` (0 to 1) of Student's t with these degrees of freedom."""
        from scipy.special import stdtrit  # the service imports this room, and has no scipy

        return float(stdtrit(self.freedom, share))

    def t_tail(self, above: float) -> float:
        """Return the probability that Student's t with these degrees of freedom is at least `above`."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, -above))

    def studentised(self, resamples: int, seed: int) -> Values:
        """Return studentised bootstrap means: distance from the mean in units of the resample's standard error, shape
        (resamples,).

        More than 1,000 groups are merged at random to 1,000, which are independent too. The error of a resample is at least
        a third
        of the error of all groups, since a resample of nearly equal groups would have none.

        Args:
            resamples: Number of resamples.
            seed: Seed of the draws.
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
        """Return means and standard errors of resamples.

        Args:
            drawn: Shape (resamples, 5): sums of the groups' sums, sizes, squared sums, products and squared sizes.
        """
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
