"""How likely a hit is right: fitted on held-out captions, for one encoder and one archive.

A cosine means nothing by itself: it differs from model to model. A logistic regression over four numbers that every
ranking has, and two of how familiar its query is, turns it into a probability (Platt, 1999, "Probabilistic Outputs for
Support Vector Machines").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.names import hex_digits, shown
from vidseek_retrieval.familiarity import Familiarity
from vidseek_retrieval.moments import Moment
from vidseek_retrieval.seen import QuerySample, Seen

FEATURES = ("score", "below_first", "over_level", "lead", "strange", "novel")
LEVEL = 30
"""Moments whose mean score is the level of a ranking."""
MIN_RIGHT = 10
"""Right hits that a fit needs, at least: fewer say nothing."""
KEEP = 0.95
"""Of right hits, the share that `min_confidence` keeps, elsewhere as on the queries of the fit."""
ASSURANCE = 0.95
"""How surely: few right hits in the fit say little of others, and then less is cut."""
PRESENT = "present"
"""The kind of queries that the archive has an answer to."""
FEEDBACK = "feedback"
"""The kind of what people said of hits: fitted on, and not what is measured."""
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
    strange: float = 0.0
    """As `Familiarity.strange` has it; 0 where nothing is known of that."""
    novel: float = 0.0
    """As `Familiarity.novel` has it."""
    place: tuple[float, ...] = ()
    """As `Familiarity.place` has it."""

    @staticmethod
    def of(
        moments: Sequence[Moment], *, familiarity: Familiarity | None = None, text: str = "",
        vector: NDArray[np.float32] | None = None,
    ) -> Context:
        """Of a ranking that is not empty, best first, and of the query that it answers."""
        scores = [moment.score for moment in moments[:LEVEL]]
        context = Context(scores[0], float(np.mean(scores)), scores[0] - scores[1] if len(scores) > 1 else 0.0)
        if familiarity is None or vector is None:
            return context
        return replace(
            context, strange=familiarity.strange(vector), novel=familiarity.novel(text), place=familiarity.place(vector)
        )


@dataclass(frozen=True)
class Calibration:
    """A fitted logistic regression, for searches by one text over the vector `video`."""

    encoder_version: str
    weights: tuple[float, ...]
    """Of `FEATURES`."""
    bias: float
    min_confidence: float
    """Hits of at least this confidence keep nearly all right ones (`KEEP`), on the queries that it was fitted on."""
    num_queries: int
    """That it was fitted on."""
    familiarity: Familiarity | None = None
    """What the last two features are measured by; None where there were too few captions to learn from."""
    reference: QuerySample | None = field(default=None, compare=False)
    """The held-out queries as they were seen, which drift is measured against."""

    @property
    def falls(self) -> bool:
        """Whether no hit of a ranking is likelier right than one before it."""
        return sum(self.weights[:3]) >= 0  # of the features that move with a hit's score; the others are the query's

    def confidences(self, moments: Sequence[Moment], context: Context) -> list[float]:
        """How likely each moment is right, 0 to 1."""
        if not moments:
            return []
        values = features_of(moments, context) @ np.asarray(self.weights) + self.bias
        rounded: list[float] = np.round(_sigmoid(values), 4).tolist()
        return rounded

    def seen(self, moments: Sequence[Moment], context: Context) -> Seen:
        """What is kept of a query whose whole ranking this is; it is not empty."""
        (confidence,) = self.confidences(moments[:1], context)
        axes = self.familiarity.key if self.familiarity else ""
        place = (context.strange, *context.place) if axes else ()
        return Seen(self.encoder_version, axes, (context.first, confidence, *place))

    def to_json(self) -> dict[str, Any]:
        """As calibration.json and collection.json have it."""
        known = self.familiarity.to_json() if self.familiarity else None
        reference = self.reference.to_json() if self.reference else None
        plain = {name: getattr(self, name) for name in ("encoder_version", "bias", "min_confidence", "num_queries")}
        return {**plain, "weights": dict(zip(FEATURES, self.weights, strict=True)), "familiarity": known,
                "reference": reference}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Calibration:
        """The reverse of `to_json`.

        Raises:
            ArtifactError: it is not that.
        """
        try:
            named = content["weights"]
            # Those that an older one has not weigh nothing.
            weights = tuple(float(named[name]) for name in FEATURES[:4]) + tuple(
                float(named.get(name, 0.0)) for name in FEATURES[4:]
            )
            known, reference = content.get("familiarity"), content.get("reference")
            found = Calibration(
                hex_digits(content["encoder_version"], 16, what="encoder_version"), weights, float(content["bias"]),
                float(content["min_confidence"]), int(content["num_queries"]),
                Familiarity.from_json(known) if known else None, QuerySample.from_json(reference) if reference else None,
            )
            if not all(map(math.isfinite, (*weights, found.bias))) or not 0 <= found.min_confidence <= 1:
                raise ValueError("weights and bias are no finite numbers, or min_confidence is not within 0 and 1")
            return found
        except (ArtifactError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(
                f"no calibration is {shown(content)}: {error!r}", remedy="Run `dvc repro calibrate`"
            ) from error


@dataclass(frozen=True)
class Judged:
    """The first hits of one query, and whether each is right."""

    moments: tuple[Moment, ...]
    context: Context
    right: tuple[bool, ...]
    kind: str
    """`PRESENT`, or why the archive has not what was asked for."""


def features_of(moments: Sequence[Moment], context: Context) -> NDArray[np.float64]:
    """Shape (n, 6), in the order of `FEATURES`."""
    scores = np.array([moment.score for moment in moments])
    same = [np.full(len(scores), value) for value in (context.lead, context.strange, context.novel)]
    return np.stack([scores, scores - context.first, scores - context.level, *same], axis=1)


def fit(
    judged: Sequence[Judged], *, encoder_version: str, familiarity: Familiarity | None = None, keep: float = KEEP
) -> Calibration | None:
    """The calibration that these hits support; None where too few of them are right, or none is wrong.

    Args:
        judged: The first hits of held-out queries; those that the archive has no answer to belong to them.
        encoder_version: Of the vectors.
        familiarity: By which the contexts of `judged` were made.
        keep: The share of right hits that `min_confidence` keeps.
    """
    features = np.concatenate([features_of(each.moments, each.context) for each in judged] or [np.empty((0, len(FEATURES)))])
    right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
    if right.sum() < MIN_RIGHT or right.all():
        return None
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
    scaled = _solve((features - mean) / deviation, right)
    weights = scaled[1:] / deviation
    found = Calibration(
        encoder_version, tuple(weights.tolist()), float(scaled[0] - weights @ mean), 0.0, len(judged), familiarity
    )
    asked = [each for each in judged if each.kind != FEEDBACK and any(each.right)] or judged
    of_right = [
        value for each in asked
        for value, flag in zip(found.confidences(each.moments, each.context), each.right, strict=True) if flag
    ]
    return replace(found, min_confidence=sorted(of_right)[num_spared(len(of_right), 1 - keep)])


def num_spared(num: int, share: float, assurance: float = ASSURANCE) -> int:
    """How many of `num` draws may lie below a limit that at most `share` of all draws lie below, with that assurance.

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
