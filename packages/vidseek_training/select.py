"""Choose what is exported: a challenger takes the place of the champion only by proof on the validation gallery."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import ArtifactError
from vidseek_media.folders import whole_folder
from vidseek_media.json_files import read_json
from vidseek_media.names import plain_name, shown
from vidseek_training import backbones, lora, tracking
from vidseek_training.backbones import Backbone
from vidseek_training.data import PairSet, load_pairs
from vidseek_training.embedding import embed_pairs
from vidseek_training.judging import judge
from vidseek_training.metrics import Ranks, bootstrap
from vidseek_training.train import gallery_hash

BASE = "base"
"""The name of the champion that is no adapter."""


@dataclass(frozen=True)
class Challenge:
    """One challenger against the champion of its moment."""

    challenger: str
    champion: str
    gain: float
    """In mean reciprocal rank, paired by query."""
    low: float
    high: float
    won: bool


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
    num_queries: int
    mrr: float
    challenges: tuple[Challenge, ...]
    notes: tuple[str, ...]
    """Settings that could not take part, and why."""


@dataclass(frozen=True)
class _Candidate:
    setting: str
    adapter: Path | None
    ranks: Ranks
    run_id: str
    sha256: str


def select(
    adapters: Path, settings: Sequence[str], *, backbone: str, pairs: Path, frames: Path, champion: Path, out: Path,
    resamples: int, seed: int,
) -> Selected:
    """Let every trained setting challenge the champion in turn, best first; write the winner.

    The champion is the one that an earlier run left in `champion`, its ranks measured again on today's gallery; at first,
    or where there is no validation pair to prove anything by, it is the base. A challenger wins if the lower end of the
    paired bootstrap interval of its gain in mean reciprocal rank is above 0.

    Args:
        adapters: A folder for each setting, as the train stage wrote them.
        settings: Those that take part; the folders of settings that are no more are left alone.
        backbone: The base.
        pairs: The pairs table.
        frames: The frames stage's folder.
        champion: Is read, and gets the winner: selected.json and, unless the base won, adapter/.
        out: Gets a copy of selected.json.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ArtifactError: an outcome is missing or broken, or was measured on another gallery.
    """
    notes: list[str] = []
    model = backbones.load(backbone)
    validation = load_pairs(pairs, frames, model.spec, split="validation")
    gallery = gallery_hash(validation)
    challengers = _challengers([adapters / name for name in sorted(settings)], backbone, gallery, notes)
    holder = _holder(champion, challengers, model, validation, notes)
    if len(validation):
        best_first = sorted(challengers, key=lambda each: (-_mrr(each.ranks), each.setting))
    else:
        best_first = []
        notes.append("no validation pair: nothing can be proven, the base stays")
    challenges = []
    for challenger in best_first:
        if challenger.sha256 == holder.sha256:
            continue
        gain = bootstrap(1 / challenger.ranks - 1 / holder.ranks, resamples=resamples, seed=seed)
        won = gain.low > 0
        challenges.append(Challenge(
            challenger.setting, holder.setting, round(gain.value, 4), round(gain.low, 4), round(gain.high, 4), won
        ))
        holder = challenger if won else holder
    selected = Selected(
        holder.setting, backbone, holder.sha256, holder.run_id, gallery, len(validation), round(_mrr(holder.ranks), 4),
        tuple(challenges), tuple(notes),
    )
    _write(selected, holder, champion, out)
    return selected


def crown(selected: Selected, receipt: Path, *, alias: str) -> None:
    """Register the winner in MLflow's registry and move `alias` there; leave a receipt.

    Where the base won, no registered adapter is the champion, and the alias is taken away.

    Raises:
        ServiceError: the registry does not answer.
    """
    version = None
    if selected.run_id:
        tags = {"setting": selected.setting, "backbone": selected.backbone, "adapter_sha256": selected.adapter_sha256}
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
        content["challenges"] = tuple(Challenge(**each) for each in content["challenges"])
        return _checked(Selected(**content | {"notes": tuple(content["notes"])}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", remedy="Run `dvc repro select`") from error


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


def _mrr(ranks: Ranks) -> float:
    return float((1 / ranks).mean()) if len(ranks) else 0.0


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
                f"today's are {backbone} and {gallery}", remedy="Run `dvc repro train`",
            )
        sha256 = file_sha256(folder / "adapter" / "adapter_model.safetensors")
        adapted = np.array(ranks["adapted"], np.int64)
        found.append(_Candidate(folder.name, folder / "adapter", adapted, outcome["run_id"], sha256))
    if not found:
        notes.append("no setting was trained")
    return found


def _read_outcome(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        outcome = read_json(folder / "outcome.json")
        ranks = read_json(folder / "validation.json") if outcome["trained"] else {}
        _check_outcome(outcome, ranks)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder} holds no outcome of a training: {error}", remedy="Run `dvc repro train`") from error
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
    champion: Path, challengers: list[_Candidate], model: Backbone, validation: PairSet, notes: list[str]
) -> _Candidate:
    """The champion to beat, its ranks on today's validation gallery; `model` is the base."""
    before = _earlier(champion, model.spec.name, notes) if len(validation) else None
    adapter, setting, run_id, sha256 = None, BASE, "", ""
    if before is not None:
        for same in challengers:
            if same.sha256 == before.adapter_sha256:
                return same
        adapter, setting, run_id, sha256 = champion / "adapter", before.setting, before.run_id, before.adapter_sha256
    vectors = embed_pairs(lora.merged(model, adapter), validation)
    return _Candidate(setting, adapter, judge(vectors, validation.table).text_ranks, run_id, sha256)


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
            raise ArtifactError(f"its adapter has the sha256 {found[:12]}, {before.adapter_sha256[:12]} was chosen")
        lora.load_into(backbones.load(backbone), champion / "adapter")
    except (OSError, ArtifactError) as error:
        notes.append(f"the earlier champion cannot be used ({error}): the base begins again")
        return None
    return before


def _write(selected: Selected, holder: _Candidate, champion: Path, out: Path) -> None:
    content = json.dumps(asdict(selected), indent=2) + "\n"
    with whole_folder(champion) as folder:
        if holder.adapter is not None:
            shutil.copytree(holder.adapter, folder / "adapter")
        (folder / "selected.json").write_text(content, encoding="utf-8")
    out.write_text(content, encoding="utf-8")
