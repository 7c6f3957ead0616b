"""Choose what is exported: a challenger takes the place of the champion only by proof on the proof half of validation."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import read_json
from vidseek_media.names import plain_name, shown
from vidseek_training import backbones, tracking
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.proof import (
    ALPHA,
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
from vidseek_training.evaluation.proof_ledger import LEDGER, ProofLedger, ProofUse
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora
from vidseek_training.fitting.train import gallery_hash

BASE = "base"
"""The name of the champion that is no adapter."""


@dataclass(frozen=True)
class ProofRows:
    """The proof half, and how worn it is."""

    rows: str
    """The hash of its clips, captions and groups of videos."""
    num_queries: int
    num_groups: int
    """Of videos."""
    num_choosing_groups: int
    """Of videos, in the choosing half."""
    times_used: float
    """Before this run, for another challenger or champion; a use that shared a part of the groups counts as that part."""
    alpha: float | None
    """What this run's challengers could spend together; None where nothing new was put to the proof."""
    alpha_of_all: float = ALPHA
    """The chance of any false win in all uses of these rows."""


@dataclass(frozen=True)
class Selected:
    """What is exported; selected.json."""

    setting: str
    """The adapter setting, or `base`."""
    backbone: str
    adapter_sha256: str
    """Empty for the base."""
    run_id: str
    """Of the MLflow run that trained it; empty for the base."""
    gallery: str
    """The hash of the choosing half."""
    num_queries: int
    """Of the choosing half."""
    mrr: float
    """On the choosing half, which chose the checkpoint: flattering."""
    challenges: tuple[Challenge, ...]
    notes: tuple[str, ...]
    """Settings that could not take part, and why; why nothing could be proven."""
    proof: ProofRows
    proven: Challenge | None = None
    """What the champion won by, in this run or an earlier one; None of the base."""


@dataclass(frozen=True)
class _Candidate:
    contender: Contender
    adapter: Path | None
    run_id: str


def select(
    adapters: Path, settings: Sequence[str], *, backbone: str, pairs: Path, frames: Path, champion: Path, out: Path,
    ledger: Path, resamples: int, seed: int,
) -> Selected:
    """Put every trained setting that is better on the choosing half to the proof against the champion; write the winner.

    The champion is the one that an earlier run left in `champion`, measured again on today's rows; at first, or where there
    is no validation pair, it is the base. See `proof.py` for the rule. Of those that are proven better the best on the
    choosing half wins.

    Args:
        adapters: A folder for each setting, as the train stage wrote them.
        settings: Those that take part; the folders of settings that are no more are left alone.
        backbone: The base.
        pairs: The pairs table; groups.parquet lies beside it.
        frames: The frames stage's folder.
        champion: Is read, and gets the winner: selected.json, proofs.jsonl and, unless the base won, adapter/.
        out: Gets a copy of selected.json.
        ledger: The archive's ledger of proofs; outside DVC, so that neither its cache nor a re-run forgets a use.
        resamples: Of groups of videos, in the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ArtifactError: an outcome is missing or broken, or was measured on another gallery; the ledger is broken.
    """
    notes: list[str] = []
    model = backbones.load(backbone)
    choosing, proof = (load_pairs(pairs, frames, model.spec, split="validation", half=half) for half in _HALVES)
    challengers = _challengers([adapters / name for name in sorted(settings)], backbone, gallery_hash(choosing), notes)
    holder = _holder(champion, challengers, model, choosing, notes)
    if not len(choosing):
        notes.append("no validation pair: nothing can be proven, the base stays")
        challengers = []
    by_sha256 = {each.contender.sha256: each for each in (*challengers, holder)}

    def score(contender: Contender) -> Values:
        return _reciprocal_ranks(lora.merged(model, by_sha256[contender.sha256].adapter), proof)

    decision = decide(
        holder.contender, [each.contender for each in challengers], score=score, backbone=backbone,
        rows=_rows_digest(proof), groups=proof.groups, videos=list(proof.table.video_id),
        num_choosing_groups=len(set(choosing.groups)),
        ledger=ProofLedger.read(ledger, champion / LEDGER), resamples=resamples, seed=seed,
    )
    winner = by_sha256[decision.winner.sha256]
    selected = Selected(
        decision.winner.setting, backbone, decision.winner.sha256, winner.run_id, gallery_hash(choosing), len(choosing),
        round(decision.winner.chosen_mrr, 4), decision.challenges, (*notes, *decision.notes), decision.proof,
        decision.ledger.proof_of(decision.winner.sha256),
    )
    decision.ledger.write(ledger)
    _write(selected, winner, decision.ledger, champion, out)
    return selected


_HALVES: tuple[Literal["choosing"], Literal["proof"]] = ("choosing", "proof")


@dataclass(frozen=True)
class Decision:
    """What a proof came to."""

    winner: Contender
    challenges: tuple[Challenge, ...]
    """Best on the choosing half first."""
    proof: ProofRows
    notes: tuple[str, ...]
    ledger: ProofLedger
    """With this use, where something new was put to the proof."""


def decide(
    champion: Contender, challengers: Sequence[Contender], *, score: Callable[[Contender], Values], backbone: str, rows: str,
    groups: Sequence[str] | NDArray[Any], num_choosing_groups: int, ledger: ProofLedger, resamples: int, seed: int,
    videos: Sequence[str] | None = None,
) -> Decision:
    """Put the challengers that are better on the choosing half to the proof.

    A challenge that the ledger knows, on the same rows and against the same champion, costs nothing and ends as it ended.

    Args:
        champion: To be beaten.
        challengers: In any order; one that is the champion takes no part.
        score: Gives the reciprocal ranks of a contender on the proof half, shape (n,); is asked only where a proof is due.
        backbone: The base's name.
        rows: The hash of the proof half's rows.
        groups: Shape (n,): the group of videos of each query of the proof half.
        num_choosing_groups: Groups of videos in the choosing half.
        ledger: What the rows were used for before.
        resamples: Of groups of videos, in the bootstrap.
        seed: Of the bootstrap.
        videos: Shape (n,): the video of each query of the proof half, by which the ledger knows a group that was named
            anew.
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


def crown(selected: Selected, receipt: Path, *, alias: str) -> None:
    """Register the winner in MLflow's registry and move `alias` there; leave a receipt.

    Where the base won, no registered adapter is the champion, and the alias is taken away.

    Raises:
        ServiceError: the registry does not answer.
    """
    version = None
    if selected.run_id:
        tags = {
            "setting": selected.setting, "backbone": selected.backbone, "adapter_sha256": selected.adapter_sha256,
            "proof_queries": str(selected.proof.num_queries), "proof_groups": str(selected.proof.num_groups),
            "proof_times_used": f"{selected.proof.times_used:g}",
        }
        version = tracking.register(selected.run_id, "adapter", tags, alias=alias)
    else:
        tracking.take_alias_away(alias)
    receipt.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": tracking.MODEL, "alias": alias, "version": version, "setting": selected.setting}
    receipt.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_selected(champion: Path) -> Selected:
    """What the select stage chose.

    Raises:
        ArtifactError: selected.json is missing or broken.
    """
    path = champion / "selected.json"
    try:
        content = read_json(path)
        if "proof" not in content:
            raise ValueError("it was written by an earlier version of vidseek, whose proof was another")
        content["challenges"] = tuple(Challenge(**each) for each in content["challenges"])
        content["proven"] = Challenge(**content["proven"]) if content.get("proven") else None
        proof = ProofRows(**content["proof"])
        return _checked(Selected(**content | {"notes": tuple(content["notes"]), "proof": proof}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", code="selection-broken", remedy="Run `dvc repro select`",
        ) from error


def _checked(selected: Selected) -> Selected:
    """`selected`, where its names are names.

    Raises:
        ValueError: one is none.
    """
    plain_name(selected.setting, what="setting")
    if not isinstance(selected.backbone, str) or len(selected.backbone) > 1024 or not selected.backbone.isprintable():
        raise ValueError(f"backbone is {shown(selected.backbone)}, wanted a name")
    for name in ("run_id", "adapter_sha256", "gallery"):
        if getattr(selected, name) != "":
            plain_name(getattr(selected, name), what=name)
    return selected


def adapter_of(champion: Path) -> Path | None:
    """The champion's adapter folder; None where the base is the champion."""
    return champion / "adapter" if read_selected(champion).adapter_sha256 else None


def _rows_digest(pairs: PairSet) -> str:
    """Names the rows of a proof and how they are grouped."""
    content = json.dumps([gallery_hash(pairs), pairs.groups.tolist()])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _reciprocal_ranks(model: Backbone, pairs: PairSet) -> Values:
    ranks = judge(embed_pairs(model, pairs), pairs.table).text_ranks
    return 1 / ranks.astype(np.float64)


def _challengers(folders: list[Path], backbone: str, gallery: str, notes: list[str]) -> list[_Candidate]:
    found = []
    for folder in folders:
        outcome, ranks = _read_outcome(folder)
        if not outcome["trained"]:
            notes.append(f"{folder.name}: {outcome['reason']}")
            continue
        if outcome["backbone"] != backbone or ranks["gallery"] != gallery:
            raise ArtifactError(
                f"{folder} was trained on {outcome['backbone']} and judged on gallery {ranks['gallery']}; "
                f"today's are {backbone} and {gallery}", code="outcomes-disagree", remedy="Run `dvc repro train`",
            )
        sha256 = file_sha256(folder / "adapter" / "adapter_model.safetensors")
        chosen = Contender(folder.name, sha256, 1 / np.array(ranks["adapted"], np.float64))
        found.append(_Candidate(chosen, folder / "adapter", outcome["run_id"]))
    if not found:
        notes.append("no setting was trained")
    return found


def _read_outcome(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        outcome = read_json(folder / "outcome.json")
        ranks = read_json(folder / "validation.json") if outcome["trained"] else {}
        _check_outcome(outcome, ranks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{folder} holds no outcome of a training: {error}", code="outcome-broken", remedy="Run `dvc repro train`",
        ) from error
    return outcome, ranks


def _check_outcome(outcome: dict[str, Any], ranks: dict[str, Any]) -> None:
    if not isinstance(outcome["trained"], bool) or not isinstance(outcome["reason"], str):
        raise ValueError("trained is neither true nor false, or reason no text")
    if outcome["trained"]:
        for name in ("backbone", "run_id"):
            if not isinstance(outcome[name], str):
                raise ValueError(f"{name} is {shown(outcome[name])}, wanted a text")
        adapted = ranks["adapted"]
        if not isinstance(adapted, list) or not all(isinstance(rank, int) and rank > 0 for rank in adapted):
            raise ValueError("adapted is no list of ranks")
        if not isinstance(ranks["gallery"], str):
            raise ValueError(f"gallery is {shown(ranks['gallery'])}, wanted a text")


def _holder(
    champion: Path, challengers: list[_Candidate], model: Backbone, choosing: PairSet, notes: list[str]
) -> _Candidate:
    """The champion to beat, measured on today's choosing half; `model` is the base."""
    before = _earlier(champion, model.spec.name, notes) if len(choosing) else None
    adapter, setting, run_id, sha256 = None, BASE, "", ""
    if before is not None:
        for same in challengers:
            if same.contender.sha256 == before.adapter_sha256:
                return same
        adapter, setting, run_id, sha256 = champion / "adapter", before.setting, before.run_id, before.adapter_sha256
    ranks = _reciprocal_ranks(lora.merged(model, adapter), choosing)
    return _Candidate(Contender(setting, sha256, ranks), adapter, run_id)


def _earlier(champion: Path, backbone: str, notes: list[str]) -> Selected | None:
    """What an earlier run chose, where that is an adapter of today's base, and whole; else `notes` says why not.

    This stage alone writes `champion`, so a broken one is replaced here: nobody else could mend it.
    """
    if not (champion / "selected.json").exists():
        return None
    try:
        before = read_selected(champion)
        if not before.adapter_sha256:
            return None
        if before.backbone != backbone:
            notes.append(f"the champion {before.setting} was an adapter of {before.backbone}: the base begins again")
            return None
        found = file_sha256(champion / "adapter" / "adapter_model.safetensors")
        if found != before.adapter_sha256:
            raise ArtifactError(
                f"its adapter has the sha256 {found[:12]}, {before.adapter_sha256[:12]} was chosen", code="adapter-changed",
            )
        lora.load_into(backbones.load(backbone), champion / "adapter")
    except (OSError, ArtifactError) as error:
        notes.append(f"the earlier champion cannot be used ({error}): the base begins again")
        return None
    return before


def _write(selected: Selected, winner: _Candidate, ledger: ProofLedger, champion: Path, out: Path) -> None:
    content = json.dumps(asdict(selected), indent=2) + "\n"
    with whole_folder(champion) as folder:
        if winner.adapter is not None:
            shutil.copytree(winner.adapter, folder / "adapter")
        ledger.write(folder / LEDGER)
        (folder / "selected.json").write_text(content, encoding="utf-8")
    out.write_text(content, encoding="utf-8")
