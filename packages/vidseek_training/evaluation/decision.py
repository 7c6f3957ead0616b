"""Decide which contender wins, by a test on the proof half of validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vidseek_training.evaluation.champion import BASE, ProofRows
from vidseek_training.evaluation.proof import (
    NOT_BETTER,
    Challenge,
    Contender,
    Values,
    alpha_of_use,
    is_promising,
    prove,
    renamed,
    unproven,
    why_no_proof,
    winner_of,
)
from vidseek_training.evaluation.proof_ledger import ProofLedger, ProofUse


@dataclass(frozen=True)
class Decision:
    """The result of a proof."""

    winner: Contender
    challenges: tuple[Challenge, ...]
    """Best on the choosing half first."""
    proof: ProofRows
    notes: tuple[str, ...]
    ledger: ProofLedger
    """With this use, if something new was tested."""


def decide(
    champion: Contender, challengers: Sequence[Contender], *, score: Callable[[Contender], Values], backbone: str, rows: str,
    groups: Sequence[str] | NDArray[Any], num_choosing_groups: int, ledger: ProofLedger, resamples: int, seed: int,
    videos: Sequence[str] | None = None,
) -> Decision:
    """Test the challengers that are better on the choosing half against the champion on the proof half.

    A challenge that the ledger knows, on the same rows and against the same champion, is not tested again.

    Args:
        champion: The current champion.
        challengers: In any order; one that is the champion itself is left out.
        score: Reciprocal ranks of a contender on the proof half, shape (n,), above 0 to 1; called only if a test is due.
        backbone: The base's name.
        rows: The hash of the proof half's rows.
        groups: Shape (n,): the group of videos of each query of the proof half.
        num_choosing_groups: Groups of videos in the choosing half.
        ledger: Earlier uses of the rows.
        resamples: Bootstrap resamples of groups of videos, at least 1.
        seed: Of the bootstrap.
        videos: Shape (n,): the video of each query of the proof half, so that the ledger recognises a renamed group.
    """
    others = [each for each in challengers if each.sha256 != champion.sha256]
    others.sort(key=lambda each: (-each.chosen_mrr, each.setting))
    num_groups, against = len(set(groups)), champion.sha256 or f"{BASE} {backbone}"
    promising = [each for each in others if is_promising(each, champion)]
    reason = why_no_proof(num_groups + num_choosing_groups) if promising else ""
    found = {} if reason else ledger.known_challenges(rows, against)
    new = [] if reason else [each for each in promising if each.sha256 not in found]
    names = list(map(str, groups))
    times_used, alpha = ledger.times_used(names, videos), None
    if new:
        alpha = alpha_of_use(times_used)
        tested = prove(champion, new, groups, score=score, alpha=alpha, resamples=resamples, seed=seed)
        ledger = ledger.with_use(ProofUse.of(rows, [*names, *(videos or ())], against, alpha, tested))
        found = found | tested
    challenges = {
        each.sha256: unproven(each, champion, reason if each in promising else NOT_BETTER)
        if reason or each not in promising else renamed(found[each.sha256], each, champion)
        for each in others
    }
    return Decision(
        winner_of(champion, others, challenges), tuple(challenges.values()),
        ProofRows(rows, len(groups), num_groups, num_choosing_groups, times_used, alpha), (reason,) if reason else (),
        ledger,
    )
