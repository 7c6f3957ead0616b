"""The rule by which a challenger replaces the champion: chosen on one half of validation, proven on the other.

Everything that is tried (checkpoints, scales of an adapter, settings) is chosen on the choosing half. The proof half is used
only here: each challenger is compared with the same champion, paired by query, in groups of videos, with Holm's correction
over the challengers. Repeated use of the same rows weakens a proof. Each use is therefore tested at a smaller level, so that
the chance of a false win over all uses is at most ALPHA (alpha spending over a sequence of tests: Foster and Stine 2008).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.intervals import MIN_GROUPS, holm, interval, p_value, too_few_videos

Values = NDArray[np.float64]

ALPHA = 0.025
"""The chance that any challenger which is no better is ever taken for better on the same rows: one side of 95 %."""
MIN_CHOOSING = 5
"""Groups of videos that the choosing half keeps where both halves cannot have enough."""
PROVABLE_GROUPS = MIN_GROUPS + MIN_CHOOSING
"""Groups of videos in validation from which something can be proven."""

NOT_BETTER = "not put to the proof: no better on the choosing half"
PROVEN, NOT_PROVEN = "proven better", "not proven"


@dataclass(frozen=True)
class Contender:
    """An adapter, or the base, that takes part."""

    setting: str
    sha256: str
    """Of the adapter; empty for the base."""
    choosing: Values
    """Shape (n,): the reciprocal rank of each query of the choosing half."""

    @property
    def chosen_mrr(self) -> float:
        """Mean reciprocal rank on the choosing half; 0 without queries."""
        return float(self.choosing.mean()) if len(self.choosing) else 0.0


@dataclass(frozen=True)
class Challenge:
    """One challenger against the champion, in mean reciprocal rank."""

    challenger: str
    champion: str
    choosing_gain: float
    """On the choosing half, which also chose the checkpoint: flattering, and no proof."""
    gain: float | None
    """On the proof half, paired by query; None where the challenger was not put to the proof."""
    low: float | None
    high: float | None
    """Ends of the interval whose two tails are `alpha` each; None where there is no proof."""
    p_value: float | None
    """One-sided."""
    alpha: float | None
    """The level that Holm's correction and earlier uses of the rows left."""
    won: bool
    verdict: str


def proof_mask(groups: Sequence[str] | NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of validation belong to the proof half, whole groups of videos at a time.

    The groups with the smallest hashes are the proof's, so that a new video moves at most one other group. The proof gets
    half of the groups, or the 20 that it needs where the choosing half keeps at least 5.

    Args:
        groups: Shape (n,): the group of videos of each validation pair.
    """
    names = sorted(set(map(str, groups)), key=lambda name: hashlib.sha256(f"proof:{name}".encode()).digest())
    chosen = set(names[: num_proof_groups(len(names))])
    return np.array([str(group) in chosen for group in groups], np.bool_)


def num_proof_groups(num_groups: int) -> int:
    """Return how many of the groups of videos in validation the proof half gets."""
    return max(num_groups // 2, min(MIN_GROUPS, num_groups - MIN_CHOOSING))


def why_no_proof(num_groups: int) -> str:
    """Return why nothing can be proven with so many groups of videos in validation, or nothing."""
    num_proof = num_proof_groups(num_groups)
    if num_proof >= MIN_GROUPS:
        return ""
    return (
        f"{too_few_videos(num_proof)} in the proof half; validation has {num_groups}, and from {PROVABLE_GROUPS} "
        f"on the proof gets {MIN_GROUPS}"
    )


def alpha_of_use(times_used: float) -> float:
    """Return the level of a proof whose rows were used so many times before: all uses together spend ALPHA.

    The parts are ALPHA / ((n + 1) (n + 2)): a half, a sixth, a twelfth, ... of it; their sum is ALPHA.
    """
    return ALPHA / ((times_used + 1) * (times_used + 2))


def prove(
    holder: Contender, challengers: Sequence[Contender], groups: Sequence[str] | NDArray[Any], *,
    score: Callable[[Contender], Values], alpha: float, resamples: int, seed: int,
) -> dict[str, Challenge]:
    """Test challengers against the champion on the proof half; the chance of any false win is at most `alpha`.

    Args:
        holder: The champion.
        challengers: At least one.
        groups: Shape (n,): the group of videos of each query of the proof half; at least 20 groups.
        score: Returns the reciprocal ranks of a contender on the proof half, shape (n,).
        alpha: Family-wise error rate of this use, from `alpha_of_use`.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.

    Returns:
        The challenges by the sha256 of the challenger.
    """
    held = score(holder)
    gains = [score(challenger) - held for challenger in challengers]
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    smallest = alpha / len(challengers)
    p_values = [p_value(gain, groups, smallest=smallest, largest=alpha, **options) for gain in gains]
    found = {}
    for challenger, gain, p, (won, level) in zip(challengers, gains, p_values, holm(p_values, alpha), strict=True):
        around = interval(gain, groups, level=1 - 2 * level, exact_tails=won, **options)
        found[challenger.sha256] = Challenge(
            challenger.setting, holder.setting, _rounded(challenger.chosen_mrr - holder.chosen_mrr),
            _rounded(around.value), _bound(around.low), _bound(around.high), float(f"{p:.3g}"), float(f"{level:.3g}"), won,
            PROVEN if won else NOT_PROVEN,
        )
    return found


def unproven(challenger: Contender, holder: Contender, verdict: str) -> Challenge:
    """Return the record of a challenger that was not tested.

    Args:
        challenger: The challenger.
        holder: The champion.
        verdict: Why it was not tested.
    """
    gain = _rounded(challenger.chosen_mrr - holder.chosen_mrr)
    return Challenge(challenger.setting, holder.setting, gain, None, None, None, None, None, False, verdict)


def is_promising(challenger: Contender, holder: Contender) -> bool:
    """Whether the challenger is better on the choosing half; only then a proof is spent on it.

    Args:
        challenger: The challenger.
        holder: The champion.
    """
    return challenger.chosen_mrr > holder.chosen_mrr


def winner_of(holder: Contender, challengers: Sequence[Contender], challenges: Mapping[str, Challenge]) -> Contender:
    """Return the winner that is best on the choosing half, or the champion if none won.

    Args:
        holder: The champion.
        challengers: The challengers.
        challenges: Results of the tests by the sha256 of the challenger.
    """
    won = [each for each in challengers if challenges[each.sha256].won]
    return max(won, key=lambda each: each.chosen_mrr, default=holder)


def renamed(challenge: Challenge, challenger: Contender, holder: Contender) -> Challenge:
    """Return an earlier challenge with the present names of its contenders.

    Args:
        challenge: The earlier result.
        challenger: The challenger.
        holder: The champion.
    """
    return replace(challenge, challenger=challenger.setting, champion=holder.setting)


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _bound(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
