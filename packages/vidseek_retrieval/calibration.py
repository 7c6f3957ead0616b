"""How likely a hit is right: fitted on held-out captions, for one encoder and one archive.

A cosine means nothing by itself: it differs from model to model. A logistic regression over four numbers that every
ranking has turns it into a probability (Platt, 1999, "Probabilistic Outputs for Support Vector Machines").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_retrieval.moments import Moment

FEATURES = ("score", "below_first", "over_level", "lead")
LEVEL = 30
"""Moments whose mean score is the level of a ranking."""
MIN_RIGHT = 10
"""Right hits that a fit needs, at least: fewer say nothing."""
_RIDGE = 1e-3
_STEPS = 50


@dataclass(frozen=True)
class Context:
    """What the whole ranking of a query says about each of its hits."""

    first: float
    """The best score."""
    level: float
    """The mean of the first `LEVEL`."""
    lead: float
    """By how much the first is ahead of the second."""

    @staticmethod
    def of(moments: Sequence[Moment]) -> Context:
        """Of a ranking that is not empty, best first."""
        scores = [moment.score for moment in moments[:LEVEL]]
        return Context(scores[0], float(np.mean(scores)), scores[0] - scores[1] if len(scores) > 1 else 0.0)


@dataclass(frozen=True)
class Calibration:
    """A fitted logistic regression, for searches by one text over the vector `video`."""

    encoder_version: str
    weights: tuple[float, ...]
    """Of `FEATURES`."""
    bias: float
    min_confidence: float
    """Hits of at least this confidence keep 95 % of the right ones, on the queries that it was fitted on."""
    num_queries: int
    """That it was fitted on."""

    def confidences(self, moments: Sequence[Moment], context: Context) -> list[float]:
        """How likely each moment is right, 0 to 1."""
        if not moments:
            return []
        values = features_of(moments, context) @ np.asarray(self.weights) + self.bias
        return [round(float(value), 4) for value in _sigmoid(values)]

    def to_json(self) -> dict[str, Any]:
        """As calibration.json and collection.json have it."""
        return {**asdict(self), "weights": dict(zip(FEATURES, self.weights, strict=True))}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Calibration:
        """The reverse of `to_json`.

        Raises:
            ArtifactError: it is not that.
        """
        try:
            weights = tuple(float(content["weights"][name]) for name in FEATURES)
            return Calibration(
                str(content["encoder_version"]), weights, float(content["bias"]), float(content["min_confidence"]),
                int(content["num_queries"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"no calibration is {content!r}: {error!r}", remedy="Run `dvc repro calibrate`") from error


@dataclass(frozen=True)
class Judged:
    """The first hits of one query, and whether each is right."""

    moments: tuple[Moment, ...]
    context: Context
    right: tuple[bool, ...]
    kind: str
    """`present`: the archive has what was asked for; else why it has not."""


def features_of(moments: Sequence[Moment], context: Context) -> NDArray[np.float64]:
    """Shape (n, 4), in the order of `FEATURES`."""
    scores = np.array([moment.score for moment in moments])
    lead = np.full(len(scores), context.lead)
    return np.stack([scores, scores - context.first, scores - context.level, lead], axis=1)


def fit(judged: Sequence[Judged], *, encoder_version: str, keep: float = 0.95) -> Calibration | None:
    """The calibration that these hits support; None where too few of them are right, or none is wrong.

    Args:
        judged: The first hits of held-out queries; those that the archive has no answer to belong to them.
        encoder_version: Of the vectors.
        keep: The share of right hits that `min_confidence` keeps.
    """
    features = np.concatenate([features_of(each.moments, each.context) for each in judged] or [np.empty((0, 4))])
    right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
    if right.sum() < MIN_RIGHT or right.all():
        return None
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = _solve((features - mean) / deviation, right)
    weights = scaled[1:] / deviation
    found = Calibration(encoder_version, tuple(weights.tolist()), float(scaled[0] - weights @ mean), 0.0, len(judged))
    confidences = np.array([value for each in judged for value in found.confidences(each.moments, each.context)])
    least = float(np.quantile(confidences[right == 1], 1 - keep, method="lower"))
    return Calibration(found.encoder_version, found.weights, found.bias, least, found.num_queries)


def reliability(calibration: Calibration, judged: Sequence[Judged], *, num_bins: int = 10) -> list[dict[str, float]]:
    """Bins of equally many hits, by confidence: its mean, the share that is right, and how many hits there are."""
    values = np.array([value for each in judged for value in calibration.confidences(each.moments, each.context)])
    right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    return [
        {"confidence": round(float(values[rows].mean()), 4), "right": round(float(right[rows].mean()), 4),
         "num": len(rows)}
        for rows in np.array_split(order, min(num_bins, len(order))) if len(rows)
    ]


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """The expected calibration error: the mean distance of confidence from the share that is right, over hits."""
    num = sum(each["num"] for each in bins)
    return float(sum(each["num"] * abs(each["confidence"] - each["right"]) for each in bins) / num) if num else 0.0


def kept_and_turned_away(calibration: Calibration, judged: Sequence[Judged]) -> dict[str, float]:
    """At `min_confidence`: the share of right hits that stays, and by kind the share of queries left without a hit."""
    stays = [
        [value >= calibration.min_confidence for value in calibration.confidences(each.moments, each.context)]
        for each in judged
    ]
    right = [flag for each, kept in zip(judged, stays, strict=True) for flag, is_right in
             zip(kept, each.right, strict=True) if is_right]
    shares = {"kept": float(np.mean(right))} if right else {}
    for kind in sorted({each.kind for each in judged}):
        empty = [not any(kept) for each, kept in zip(judged, stays, strict=True) if each.kind == kind]
        shares[f"turned_away_{kind}"] = float(np.mean(empty))
    return {name: round(share, 4) for name, share in shares.items()}


def _solve(features: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bias and weights by Newton's method, with a ridge that keeps separable hits finite."""
    inputs = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    penalty = _RIDGE * len(inputs) * np.diag([0.0, *np.ones(features.shape[1])])
    weights = np.zeros(inputs.shape[1])
    for _ in range(_STEPS):
        guess = _sigmoid(inputs @ weights)
        slope = inputs.T @ (right - guess) - penalty @ weights
        curve = (inputs * (guess * (1 - guess))[:, np.newaxis]).T @ inputs + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(values, -40, 40)))
