"""Fit a calibration on judged hits of held-out queries: the likelihood of each hit being right or wrong is maximised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.intervals import GroupSums
from vidseek_retrieval.confidence.calibration import FEATURES, LEVEL, Calibration, Context, Law
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.search.moments import Moment
from vidseek_retrieval.settings import PRIOR

MIN_RIGHT = 10
"""Right hits that a fit needs, at least: fewer say nothing."""
KEEP = 0.95
"""Of right hits, the share that `min_confidence` keeps, elsewhere as on the queries of the fit."""
ASSURANCE = 0.95
"""How surely: few right hits in the fit say little of others, and then less is cut."""
PRESENT = "present"
"""The kind of queries that the archive has an answer to."""
WORDED = "worded"
"""The kind of queries whose words stand in the archive, with its answer."""
FEEDBACK = "feedback"
"""The kind of what people said of hits: fitted on, and not what is measured."""
_RIDGE = 1e-3
_STEPS = 100


@dataclass(frozen=True)
class Judged:
    """The first hits of one query, and whether each is right."""

    moments: tuple[Moment, ...]
    context: Context
    right: tuple[bool, ...]
    kind: str
    """`PRESENT`, or why the archive has not what was asked for."""
    group: str = ""
    """The video that the query is about, with its near-duplicates: queries of one group are not independent."""


def prior_weights(judged: Sequence[Judged], prior: float) -> NDArray[np.float64]:
    """Shape (n,): what each query counts, so that those with an answer make up `prior` of all.

    The kinds with an answer share that equally, and those without share the rest. Feedback counts 1 each. Where one side is
    missing, the other has all of it.
    """
    kinds = np.array([each.kind for each in judged], dtype=object)
    asked = kinds != FEEDBACK
    answered = sorted(set(kinds[asked]) & {PRESENT, WORDED})
    absent = sorted(set(kinds[asked]) - {PRESENT, WORDED})
    weights = np.ones(len(judged))
    for kind in (*answered, *absent):
        rows = kinds == kind
        side, whole = (answered, prior) if kind in answered else (absent, 1 - prior)
        share = (whole if answered and absent else 1.0) / len(side)
        weights[rows] = share * asked.sum() / rows.sum()
    return weights


def fit(
    judged: Sequence[Judged], *, encoder_version: str, familiarity: Familiarity | None = None, keep: float = KEEP,
    prior: float = PRIOR,
) -> Calibration | None:
    """Return the calibration that these hits support; None where too few of them are right, or none is wrong.

    It maximises the likelihood of each hit being right or wrong, so that confidences are right hit by hit, first or not.

    Args:
        judged: The first hits of held-out queries; those that the archive has no answer to belong to them.
        encoder_version: Of the vectors.
        familiarity: By which the contexts of `judged` were made.
        keep: The share of right hits that `min_confidence` keeps.
        prior: The share of queries that have an answer in the archive, above 0 and at most 1.
    """
    if not _can_be_fitted(judged):
        return None
    worth = prior_weights(judged, prior)
    parts = {}
    for is_worded in (False, True):
        rows = [row for row, each in enumerate(judged) if each.context.is_worded == is_worded]
        part = [judged[row] for row in rows]
        parts[is_worded] = _solve(part, worth[rows], is_lifted=is_worded) if _can_be_fitted(part) else None
    law = parts[False] or _solve(judged, worth)
    found = Calibration(
        encoder_version, law.slope, law.weights, law.bias, 0.0, len(judged), prior, familiarity, worded=parts[True],
    )
    return replace(found, min_confidence=_min_confidence(found, judged, keep=keep))


def _can_be_fitted(judged: Sequence[Judged]) -> bool:
    right = [flag for each in judged for flag in each.right]
    return sum(right) >= MIN_RIGHT and not all(right)


def _min_confidence(calibration: Calibration, judged: Sequence[Judged], *, keep: float) -> float:
    """Return the confidence that `keep` of right hits reach elsewhere too, with `ASSURANCE`.

    The lesser of two limits: one that needs no distribution and takes hits for independent (`num_spared`), and one that
    takes videos for independent (`_grouped_limit`).
    """
    asked = [each for each in judged if each.kind != FEEDBACK and any(each.right)] or judged
    values, groups = [], []
    for each in asked:
        sure = calibration.confidences(each.moments, each.context)
        of_right = [value for value, flag in zip(sure, each.right, strict=True) if flag]
        values += of_right
        groups += [each.group] * len(of_right)
    free = sorted(values)[num_spared(len(values), 1 - keep)]
    return min(free, _grouped_limit(np.array(values), np.array(groups, dtype=np.str_), keep=keep))


def _grouped_limit(values: NDArray[np.float64], groups: NDArray[np.str_], *, keep: float) -> float:
    """Return the lower end, at `ASSURANCE`, of the value that `keep` of all reach, for values that depend on each other in
    groups.

    The share of values up to the observed quantile has an error over groups; the value at the lower end of that share is
    the limit (Woodruff 1952, "Confidence intervals for medians and other position measures"). A percentile of resampled
    groups fails two to three times as often. Where not even the least value is assured, that one: nothing is cut. A single
    group says nothing of others: then it is the observed quantile.
    """
    ordered = np.sort(values)
    quantile = float(np.quantile(ordered, 1 - keep, method="lower"))
    share = GroupSums.of((values <= quantile).astype(np.float64), groups)
    if share.count < 2:
        return quantile
    least = share.mean - share.t_quantile(ASSURANCE) * share.error
    return float(ordered[max(0, math.floor(least * len(ordered)) - 1)])


def num_spared(num: int, share: float, assurance: float = ASSURANCE) -> int:
    """Return how many of `num` draws may lie below a limit that at most `share` of all draws lie below, with this assurance.

    It needs no distribution (Wilks, 1941, "Determination of sample sizes for setting tolerance limits"): with the limit at
    the draw after the `k` least, more than `share` lie below only if no more than `k` of `num` draws fell into the lowest
    `share`, which is binomial. 0 where `num` is too small for any assurance.
    """
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num + 1)))])  # logarithms: else they overflow
    k = np.arange(num)
    chances = np.exp(
        factorials[num] - factorials[k] - factorials[num - k] + k * math.log(share) + (num - k) * math.log1p(-share)
    )
    return max(0, int(np.searchsorted(np.cumsum(chances), 1 - assurance, side="right")) - 1)


def _solve(judged: Sequence[Judged], weights: NDArray[np.float64], *, is_lifted: bool = False) -> Law:
    """Fit a law by Fisher scoring with a halved step, and a ridge that keeps separable hits finite.

    Args:
        judged: The first hits of queries.
        weights: What each query counts.
        is_lifted: Whether the first moment may get something on top. Where words decide it is the one with the words,
            and it leads by more than the scores of pictures say.
    """
    hits = _Hits.of(judged, weights, is_lifted=is_lifted)
    theta = np.zeros(3 + len(FEATURES))
    theta[0] = 1.0
    likelihood = hits.likelihood(theta)
    for _ in range(_STEPS):
        step, reached = hits.step(theta), False
        for _ in range(20):
            moved = theta + step
            moved[[0, 1]] = np.maximum(moved[[0, 1]], 0.0)
            gained = hits.likelihood(moved) - likelihood
            if gained >= 0:
                theta, likelihood, reached = moved, likelihood + gained, gained < 1e-10
                break
            step = step / 2
        else:
            break
        if reached:
            break
    scaled = theta[3:] / hits.deviation
    bias = float(theta[2] - scaled @ hits.mean)
    return Law(float(theta[0] / hits.unit), tuple(scaled.tolist()), bias, float(theta[1]))


@dataclass(frozen=True)
class _Hits:
    """Judged hits as arrays, scaled, for the fit. Parameters are slope, lift, bias, weights of the query's features."""

    below: NDArray[np.float64]
    """Shape (n, `LEVEL`): how far each moment of each ranking is below the first; -inf where there is none."""
    queries: NDArray[np.float64]
    """Shape (n, 1 + features): 1 and the features."""
    owner: NDArray[np.int64]
    """Shape (hits,): the query of each hit."""
    hit_below: NDArray[np.float64]
    right: NDArray[np.float64]
    weights: NDArray[np.float64]
    """Shape (hits,)."""
    unit: float
    """In which scores below the first are measured."""
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    is_lifted: bool

    @staticmethod
    def of(judged: Sequence[Judged], weights: NDArray[np.float64], *, is_lifted: bool) -> _Hits:
        below = np.full((len(judged), LEVEL), -np.inf)
        for row, each in enumerate(judged):
            below[row, : len(each.context.scores)] = np.array(each.context.scores) - each.context.first
        features: NDArray[np.float64] = np.stack([each.context.features for each in judged])
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
        owner = np.repeat(np.arange(len(judged)), [len(each.right) for each in judged])
        hit_below = np.array([moment.score - each.context.first for each in judged for moment in each.moments])
        unit = float(-below[np.isfinite(below)].mean()) or 1.0
        queries = np.concatenate([np.ones((len(judged), 1)), (features - mean) / deviation], axis=1)
        right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
        return _Hits(below / unit, queries, owner, hit_below / unit, right, weights[owner], unit, mean, deviation, is_lifted)

    def likelihood(self, theta: NDArray[np.float64]) -> float:
        """Return the penalised logarithm of the likelihood of right and wrong, hit by hit."""
        chances, *_ = self._chances(theta)
        each = self.right * np.log(chances) + (1 - self.right) * np.log1p(-chances)
        return float(self.weights @ each - 0.5 * self._ridge() @ theta**2)

    def step(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the step of Fisher scoring from `theta`."""
        chances, mean_below, first, none = self._chances(theta)
        lifted = self._is_first - first[self.owner] if self.is_lifted else np.zeros(len(self.owner))
        slopes = np.column_stack([
            self.hit_below - mean_below[self.owner], lifted, -(none[:, None] * self.queries)[self.owner]
        ]) * chances[:, None]
        worth = self.weights / (chances * (1 - chances))
        gradient = slopes.T @ (worth * (self.right - chances)) - self._ridge() * theta
        curve = (slopes * worth[:, None]).T @ slopes + np.diag(self._ridge() + 1e-9)
        found: NDArray[np.float64] = np.linalg.solve(curve, gradient).astype(np.float64)
        return found

    def _chances(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the confidence of each hit, and of each query the mean rank below the first, the share of the first moment,
        and the chance of "none of them".
        """
        present = np.isfinite(self.below)
        logits = np.where(present, theta[0] * np.where(present, self.below, 0.0), -np.inf)
        logits += theta[1] * (self.below >= 0)
        none = self.queries @ theta[2:]
        total = np.logaddexp(np.logaddexp.reduce(logits, axis=1), none)
        shares = np.exp(logits - total[:, None])
        mean_below = (shares * np.where(present, self.below, 0.0)).sum(axis=1)
        chances = np.exp(theta[0] * self.hit_below + theta[1] * self._is_first - total[self.owner])
        return np.clip(chances, 1e-9, 1 - 1e-9), mean_below, (shares * (self.below >= 0)).sum(axis=1), np.exp(none - total)

    @property
    def _is_first(self) -> NDArray[np.float64]:
        """Shape (hits,): 1 for a hit whose score is that of the first moment."""
        return (self.hit_below >= 0).astype(np.float64)

    def _ridge(self) -> NDArray[np.float64]:
        # Slope and bias are the law itself: they are held only so far that separable hits leave them finite.
        strength = np.array([_RIDGE / 10, _RIDGE, _RIDGE / 100, *[_RIDGE] * (self.queries.shape[1] - 1)])
        return strength * float(self.weights.sum())
