from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_training.evaluation.decision import Decision, decide
from vidseek_training.evaluation.proof import ALPHA, Contender, alpha_of_use, proof_mask, prove, why_no_proof
from vidseek_training.evaluation.proof_ledger import ProofLedger, ProofUse, as_lines, used

RUNS = int(os.environ.get("VIDSEEK_PROOFS", "100"))
"""Simulated archives of each layout; `make proofs` runs thousands."""
ALLOWED = 0.05
NOTHING = ProofLedger(())

Values = NDArray[np.float64]


class Simulated:
    """An archive whose challengers gain `gain` in truth: looks and settings are chosen on one half, proven on the other."""

    def __init__(self, rng: np.random.Generator, *, videos: int = 50, captions: int = 5, gain: float = 0.0) -> None:
        self.rng, self.gain = rng, gain
        self.groups = np.repeat([f"video{number}" for number in range(videos)], captions)
        self.is_proof = proof_mask(self.groups)
        self.proofs: dict[str, Values] = {"": np.zeros(int(self.is_proof.sum()))}

    def challenger(self, name: str, looks: int) -> Contender:
        """The best of `looks` checkpoints on the choosing half; checkpoints and captions of a video resemble each other."""
        common = self._noise()
        seen = [self.gain + 0.3 * (np.sqrt(0.7) * common + np.sqrt(0.3) * self._noise()) for _ in range(looks)]
        best = max(seen, key=lambda values: float(values[~self.is_proof].mean()))
        self.proofs[name] = best[self.is_proof]
        return Contender(name, name, best[~self.is_proof])

    def decide(self, looks: int, challengers: int, ledger: ProofLedger = NOTHING, name: str = "c") -> Decision:
        return decide(
            Contender("base", "", np.zeros(int((~self.is_proof).sum()))),
            [self.challenger(f"{name}{number}", looks) for number in range(challengers)],
            score=lambda contender: self.proofs[contender.sha256], backbone="b", rows="r", groups=self.groups[self.is_proof],
            num_choosing_groups=len(set(self.groups[~self.is_proof])), ledger=ledger, resamples=500, seed=0,
        )

    def _noise(self) -> Values:
        names, owner = np.unique(self.groups, return_inverse=True)
        of_videos = self.rng.normal(size=len(names))[owner]
        return np.sqrt(0.2) * of_videos + np.sqrt(0.8) * self.rng.normal(size=len(self.groups))


def false_wins(looks: int, challengers: int, **layout: int) -> float:
    rng = np.random.default_rng([looks, challengers])
    won = [Simulated(rng, **layout).decide(looks, challengers).winner.setting != "base" for _ in range(RUNS)]
    return float(np.mean(won))


@pytest.mark.slow
@pytest.mark.parametrize(("looks", "challengers"), [(1, 1), (20, 1), (4, 4), (20, 8)])
def test_decide__however_much_is_tried_few_win_that_are_no_better(looks: int, challengers: int) -> None:
    assert false_wins(looks, challengers) <= ALLOWED


@pytest.mark.parametrize(("videos", "captions"), [(1, 1), (3, 1), (6, 33), (24, 15)])
def test_decide__of_too_few_videos_none_wins(videos: int, captions: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        decision = Simulated(rng, videos=videos, captions=captions, gain=0.5).decide(4, 2)
        assert decision.winner.setting == "base" and decision.ledger.uses == ()
        assert all("too few videos" in each.verdict for each in decision.challenges)


def test_decide__with_the_fewest_videos_few_win_that_are_no_better() -> None:
    assert false_wins(4, 4, videos=25, captions=15) <= ALLOWED


@pytest.mark.slow
def test_decide__twelve_runs_one_after_the_other_share_one_chance() -> None:
    rng = np.random.default_rng(12)
    won, runs = 0, max(60, RUNS // 4)
    for _ in range(runs):
        archive, ledger = Simulated(rng), NOTHING
        for run in range(12):
            decision = archive.decide(4, 2, ledger, f"run{run}-")
            ledger = decision.ledger
            won += decision.winner.setting != "base"
            if decision.winner.setting != "base":
                break
    assert won / runs <= ALLOWED


@pytest.mark.parametrize(("gain", "wanted"), [(0.1, 0.5), (0.2, 0.95)])
def test_decide__what_is_better_wins(gain: float, wanted: float) -> None:
    rng = np.random.default_rng(3)
    won = [Simulated(rng, gain=gain).decide(4, 2).winner.setting != "base" for _ in range(20)]
    assert np.mean(won) >= wanted


def test_decide__asks_for_no_score_where_nothing_is_proven() -> None:
    def score(contender: Contender) -> Values:
        raise AssertionError("the proof half was looked at")

    better, worse = (Contender(name, name, np.full(3, value)) for name, value in (("better", 0.9), ("worse", 0.1)))
    base = Contender("base", "", np.full(3, 0.5))
    for challengers, num_groups in (([better], 4), ([worse], 40)):
        groups = [f"g{number}" for number in range(num_groups)]
        decision = decide(
            base, challengers, score=score, backbone="b", rows="r", groups=groups, num_choosing_groups=3, ledger=NOTHING,
            resamples=100, seed=0,
        )
        assert decision.winner is base and decision.proof.alpha is None


def test_prove__with_one_query_a_video_and_equal_small_gains_is_the_sign_test() -> None:
    base, other = Contender("base", "", np.zeros(1)), Contender("lora", "l", np.ones(1))
    gains = np.full(20, 0.01)
    (found,) = prove(
        base, [other], [str(each) for each in range(20)], score=lambda each: gains if each is other else gains * 0,
        alpha=0.0125, resamples=500, seed=0,
    ).values()
    assert found.won and found.p_value == pytest.approx(0.5**20, rel=1e-2)


@given(st.lists(st.integers(0, 60), min_size=0, max_size=200), st.integers(61, 10_000))
def test_proof_mask__takes_whole_groups_and_a_new_one_moves_one_at_most(rows: list[int], new: int) -> None:
    groups = [f"g{row}" for row in rows]
    mask = proof_mask(groups)
    proof, choosing = ({group for group, flag in zip(groups, mask, strict=True) if flag == side} for side in (True, False))
    assert not proof & choosing and len(mask) == len(rows)
    count = len(proof | choosing)
    assert len(proof) == max(count // 2, min(20, count - 5))
    more = proof_mask([*groups, f"g{new}"])
    moved = {group for group, before, after in zip(groups, mask, more, strict=False) if before != after}
    assert len(moved) <= 1


def test_why_no_proof__says_how_many_videos_are_wanted() -> None:
    assert why_no_proof(25) == why_no_proof(40) == ""
    told = why_no_proof(6)
    assert told.startswith("not proven: too few videos (3 groups of videos, at least 20 are wanted)")
    assert "validation has 6, and from 25 on" in told


def test_alpha_of_use__all_uses_together_spend_no_more_than_alpha() -> None:
    parts = [alpha_of_use(each) for each in range(1000)]
    assert parts[0] == ALPHA / 2 and sum(parts) < ALPHA and sum(parts) == pytest.approx(ALPHA, rel=2e-3)


def test_times_used__a_use_counts_as_the_share_of_the_videos_that_it_had() -> None:
    ledger = Simulated(np.random.default_rng(1), gain=0.2).decide(1, 2).ledger
    assert len(ledger.uses) == 1
    groups = [f"video{number}" for number in range(50)]
    mine = [group for group, is_proof in zip(groups, proof_mask(groups), strict=True) if is_proof]
    assert ledger.times_used(mine) == 1 and ledger.times_used(["another"]) == 0
    assert ledger.times_used([*mine, *(f"new{number}" for number in range(25))]) == 0.5
    assert ledger.times_used([]) == 0


def test_times_used__a_group_that_was_named_anew_is_no_fresher() -> None:
    videos = [f"video{number}" for number in range(20)]
    ledger = NOTHING.with_use(ProofUse.of("r", videos * 2, "b", 0.01, {}))
    # A near-duplicate joined each of ten groups and gave it its name; two groups became one.
    groups = [f"a{number}" if number < 10 else video for number, video in enumerate(videos)]
    groups[19] = groups[18]
    assert ledger.times_used(groups, videos) == 1
    assert ledger.times_used(groups) == pytest.approx(9 / 19, abs=1e-4)


def test_ledger__reads_what_it_wrote_each_use_once(tmp_path: Path) -> None:
    ledger = Simulated(np.random.default_rng(1), gain=0.2).decide(1, 3).ledger
    for name in ("one", "two"):
        ledger.write(tmp_path / name)
    assert ProofLedger.read(tmp_path / "one", tmp_path / "two", tmp_path / "none") == ledger
    (tmp_path / "two").write_text('{"rows": 3}\n')
    with raises(ArtifactError, code="proof-ledger-broken"):
        ProofLedger.read(tmp_path / "two")


def test_as_lines__say_what_was_proven_and_with_what() -> None:
    decision = Simulated(np.random.default_rng(3), gain=0.8).decide(1, 1)
    (line,) = as_lines(decision.challenges)
    assert line.startswith("c0 against base: proven better, +0.") and "on the proof half" in line
    proof = decision.proof
    told = used(proof.num_queries, proof.num_groups, proof.times_used, proof.alpha)
    assert told.startswith("the proof half has 125 queries of 25 groups of videos and had been used 0 times")
