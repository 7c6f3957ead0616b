"""Chooses how strongly an adapter is applied, by a sweep of its scale on validation.

Between the base (0) and the trained model (1) lies a line of models. A point on it often keeps more of the general world for
a small loss on the domain (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").

The rule: take the scales whose mean reciprocal rank on the domain's choosing half is not shown to be lower than the best
one's (the upper end of the interval of the paired difference, over groups of videos, is at least 0). Of these, choose the
one with the best mean reciprocal rank on the general world's validation pairs. Without such pairs, or with queries of a
single group of videos, choose the best one on the domain. Of equal ones, choose the larger. This is a choice and not a
proof: `select` tests the result on other rows, so the interval may have fewer groups than a proof needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peft import PeftModel

from vidseek_quality.intervals import Interval, interval
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import Ranks, recall_at
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora

_RESAMPLES, _SEED = 2000, 0


@dataclass(frozen=True)
class Scaled:
    """One scale of the sweep."""

    scale: float
    mrr: float
    """On the domain's validation gallery."""
    r1: float
    difference: Interval
    """In mean reciprocal rank to the best scale, paired by query; infinite with a single group of videos."""
    general_mrr: float | None
    """On the general world's validation pairs; None without."""
    general_r1: float | None

    def to_json(self) -> dict[str, object]:
        """Return the figures for metrics.json."""
        figures = {"mrr": self.mrr, "r1": self.r1, "general_mrr": self.general_mrr, "general_r1": self.general_r1}
        rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
        return {"scale": self.scale, **rounded, "difference_to_best": self.difference.to_json()}


def sweep(
    model: Backbone, handle: PeftModel, scales: Sequence[float], *, validation: PairSet, general: PairSet | None
) -> list[Scaled]:
    """Judge the adapter at each scale; afterwards it is at 1 again.

    Args:
        model: With the adapter.
        handle: peft's handle on it.
        scales: At least one.
        validation: Of the domain, at least one pair.
        general: Of the general world, or None.
    """
    state = lora.state_of(handle)
    ranks, others = [], []
    for scale in scales:
        lora.set_scaled(handle, state, scale)
        ranks.append(_ranks(model, validation))
        others.append(_ranks(model, general) if general is not None and len(general) else None)
    lora.set_scaled(handle, state, 1.0)
    best = max(ranks, key=_mrr)
    return [
        Scaled(
            scale, _mrr(own), recall_at(own, 1), interval(
                1 / own - 1 / best, validation.groups, min_groups=2, resamples=_RESAMPLES, seed=_SEED
            ),
            None if other is None else _mrr(other), None if other is None else recall_at(other, 1),
        )
        for scale, own, other in zip(scales, ranks, others, strict=True)
    ]


def choose(swept: Sequence[Scaled]) -> Scaled:
    """Choose a scale by the rule above."""
    as_good = [each for each in swept if each.difference.high >= 0 and not each.difference.too_few]
    as_good = as_good or [each for each in swept if each.difference.value >= 0]
    return max(as_good, key=lambda each: (each.mrr if each.general_mrr is None else each.general_mrr, each.scale))


def _ranks(model: Backbone, pairs: PairSet) -> Ranks:
    return judge(embed_pairs(model, pairs), pairs.table).text_ranks


def _mrr(ranks: Ranks) -> float:
    return float((1 / ranks).mean())
