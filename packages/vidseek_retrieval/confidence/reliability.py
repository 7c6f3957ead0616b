"""Measures whether confidences are right: over all hits, over first hits, and for each kind of query separately.

An error over all queries together hides opposite errors: confidence too low if the answer exists, too high if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.intervals import interval
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.confidence.calibration_fit import Judged, prior_weights

NUM_BINS = 10
_NUM_CHANCES = 200
_RESAMPLES, _SEED = 2000, 0


def reliability(
    calibration: Calibration, judged: Sequence[Judged], *, num_bins: int = NUM_BINS,
    weights: NDArray[np.float64] | None = None,
) -> list[dict[str, float]]:
    """Return bins of equally many hits by confidence: mean confidence, share of right hits, number, and share of all hits.

    Args:
        calibration: Computes the confidences.
        judged: Queries with their first hits.
        num_bins: Most bins, at least 1.
        weights: Weight of each query, shape (queries,); None weighs all equally.
    """
    values, right, worth = _flat(calibration, judged, weights)
    bins = _binned(values, right, worth, num_bins)
    return [{**each, "confidence": round(each["confidence"], 4), "right": round(each["right"], 4)} for each in bins]


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Return the expected calibration error: mean distance between confidence and share of right hits, weighted by hits."""
    total = sum(_share(each) for each in bins)
    distance = sum(_share(each) * abs(each["confidence"] - each["right"]) for each in bins)
    return float(distance / total) if total else 0.0


def error_by_chance(values: NDArray[np.float64], worth: NDArray[np.float64]) -> float:
    """Return the expected calibration error if every confidence were exactly right.

    A bin of 40 hits has an error of 0.06 by chance alone, so compare a measured error with this number.

    Args:
        values: Confidences, shape (n,), from 0 to 1.
        worth: Weight of each hit, shape (n,).
    """
    draws = (np.random.default_rng(0).random((_NUM_CHANCES, len(values))) < values).astype(np.float64)
    errors = np.zeros(_NUM_CHANCES)
    for rows in _bins_of(values, NUM_BINS):
        errors += np.abs((values[rows] - draws[:, rows]) @ worth[rows])
    return float(errors.mean() / worth.sum()) if len(values) else 0.0


def debiased_error(values: NDArray[np.float64], right: NDArray[np.float64], worth: NDArray[np.float64]) -> float:
    """Return the root mean squared calibration error over bins, corrected for chance; 0 if chance explains all of it.

    The variance of each bin's share of right hits is subtracted from its squared distance (Kumar, Liang and Ma 2019,
    "Verified Uncertainty Calibration").

    Args:
        values: Confidences, shape (n,), from 0 to 1.
        right: 1 for a right hit, 0 for a wrong one, shape (n,).
        worth: Weight of each hit, shape (n,).
    """
    squared = 0.0
    for rows in _bins_of(values, NUM_BINS):
        num = worth[rows].sum() ** 2 / (worth[rows] ** 2).sum()
        share = np.average(right[rows], weights=worth[rows])
        distance = np.average(values[rows], weights=worth[rows]) - share
        squared += worth[rows].sum() / worth.sum() * (distance**2 - share * (1 - share) / max(1.0, num - 1))
    return float(np.sqrt(max(0.0, squared)))


def error_figures(calibration: Calibration, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return calibration figures for each kind of query, and for all kinds at the prior; of first hits and of all hits.

    Each entry has the number of hits (`num`), of queries (`num_queries`) and of groups of videos (`num_groups`);
    `confidence`,
    its mean; `right`, the base rate; `gap`, confidence minus right, with its interval over groups (none below 20 groups);
    `error`, the expected calibration error; `error_by_chance`, its value if every confidence were exactly right; and
    `error_debiased`.

    Args:
        calibration: Computes the confidences.
        judged: Queries with their first hits.
    """
    figures: dict[str, Any] = {"at_prior": _of_hits(calibration, judged, prior_weights(judged, calibration.prior))}
    for kind in sorted({each.kind for each in judged}):
        figures[kind] = _of_hits(calibration, [each for each in judged if each.kind == kind], None)
    return figures


def firsts_of(judged: Sequence[Judged]) -> list[Judged]:
    """Return the queries with only their first hits."""
    return [replace(each, moments=each.moments[:1], right=each.right[:1]) for each in judged]


def kept_and_turned_away(calibration: Calibration, judged: Sequence[Judged]) -> dict[str, float]:
    """Return the effect of `min_confidence`: the share of right hits kept, and by kind the share of queries without a hit.

    Args:
        calibration: Computes the confidences, and holds the threshold.
        judged: Queries with their first hits.
    """
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


def _of_hits(
    calibration: Calibration, judged: Sequence[Judged], weights: NDArray[np.float64] | None
) -> dict[str, dict[str, Any]]:
    return {
        name: _entry(calibration, hits, weights) for name, hits in (("first", firsts_of(judged)), ("all", judged))
    }


def _entry(
    calibration: Calibration, judged: Sequence[Judged], weights: NDArray[np.float64] | None
) -> dict[str, Any]:
    values, right, worth = _flat(calibration, judged, weights)
    groups = [each.group for each in judged for _ in each.right]
    # Weights of mean 1: a mean of weighted values is the weighted mean.
    gap = interval((values - right) * worth / worth.mean(), groups, resamples=_RESAMPLES, seed=_SEED)
    return {
        "num": len(values), "num_queries": len(judged), "num_groups": gap.num_groups,
        "confidence": round(float(np.average(values, weights=worth)), 4),
        "right": round(float(np.average(right, weights=worth)), 4), "gap": gap.to_json(),
        "error": round(calibration_error(_binned(values, right, worth, NUM_BINS)), 4),
        "error_by_chance": round(error_by_chance(values, worth), 4),
        "error_debiased": round(debiased_error(values, right, worth), 4),
    }


def _flat(
    calibration: Calibration, judged: Sequence[Judged], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Hit by hit: confidence, whether it is right, and what it counts."""
    values = np.array([value for each in judged for value in calibration.confidences(each.moments, each.context)])
    right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
    of_query = np.ones(len(judged)) if weights is None else weights
    return values, right, np.repeat(of_query, [len(each.right) for each in judged])


def _binned(
    values: NDArray[np.float64], right: NDArray[np.float64], worth: NDArray[np.float64], num_bins: int
) -> list[dict[str, float]]:
    return [
        {"confidence": float(np.average(values[rows], weights=worth[rows])),
         "right": float(np.average(right[rows], weights=worth[rows])), "num": len(rows),
         "share": round(float(worth[rows].sum() / worth.sum()), 6)}
        for rows in _bins_of(values, num_bins)
    ]


def _bins_of(values: NDArray[np.float64], num_bins: int) -> list[NDArray[np.int64]]:
    """Return the rows of each bin of equally many, by value."""
    if not len(values):
        return []
    return list(np.array_split(np.argsort(values, kind="stable"), min(num_bins, len(values))))


def _share(each: Mapping[str, float]) -> float:
    return each.get("share", each["num"])
