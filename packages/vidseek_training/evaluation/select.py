"""Select what is exported: a challenger replaces the champion only by proof on the proof half of validation."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.names import shown
from vidseek_training import backbones, tracking
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_changes import OUTCOME
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.champion import BASE, Selected, read_selected
from vidseek_training.evaluation.decision import decide
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.proof import Contender, Values
from vidseek_training.evaluation.proof_ledger import LEDGER, ProofLedger
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora
from vidseek_training.fitting.train import gallery_hash

_HALVES: tuple[Literal["choosing"], Literal["proof"]] = ("choosing", "proof")


@dataclass(frozen=True)
class _Candidate:
    contender: Contender
    adapter: Path | None
    run_id: str


def select(
    adapters: Path, settings: Sequence[str], *, backbone: str, pairs: Path, frames: Path, champion: Path, out: Path,
    ledger: Path, resamples: int, seed: int,
) -> Selected:
    """Test every trained setting that is better on the choosing half against the champion, and write the winner.

    The champion is the one that an earlier run left in `champion`, measured again on today's rows. If there is none, or no
    validation pair, it is the base. `proof.py` has the rule. Of several proven settings the best on the choosing half wins.

    Args:
        adapters: A folder for each setting, as the train stage wrote them.
        settings: Those that take part; other folders are ignored.
        backbone: The name or folder of the base.
        pairs: The pairs table; groups.parquet lies beside it.
        frames: The folder of the frames stage.
        champion: The folder that is read, and that gets the winner: selected.json, proofs.jsonl and, unless the base won,
            adapter/.
        out: Gets a copy of selected.json.
        ledger: The archive's ledger of proofs. It lies outside DVC, so that a restored cache cannot undo a use.
        resamples: Bootstrap resamples of groups of videos, at least 1.
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


def crown(selected: Selected, receipt: Path, *, alias: str) -> None:
    """Register the winner in MLflow's registry, move an alias to it, and write a receipt.

    If the base won, the alias is removed.

    Args:
        selected: The winner.
        receipt: Where the receipt is written.
        alias: Of the registered model.

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
    content = {"model": tracking.MODEL, "alias": alias, "version": version, "setting": selected.setting}
    write_json(receipt, content)


def _rows_digest(pairs: PairSet) -> str:
    """Return a hash of the rows of a proof and their groups, 16 hex digits."""
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
        outcome = read_json(folder / OUTCOME)
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
    """Return the current champion, measured on today's choosing half. `model` is the base."""
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
    """Return the earlier champion if it is an intact adapter of today's base; otherwise add the reason to `notes`.

    Only this stage writes `champion`, so a broken one is replaced here.
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
    with whole_folder(champion) as folder:
        if winner.adapter is not None:
            shutil.copytree(winner.adapter, folder / "adapter")
        ledger.write(folder / LEDGER)
        write_json(folder / "selected.json", asdict(selected))
    write_json(out, asdict(selected))
