"""The champion: the adapter (or base) that is exported, and how it was proven."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json
from vidseek_media.names import plain_name, shown
from vidseek_training.evaluation.proof import ALPHA, Challenge

BASE = "base"
"""The setting of a champion without an adapter."""


@dataclass(frozen=True)
class ProofRows:
    """The proof half of validation, and how often it was used."""

    rows: str
    """The hash of its clips, captions and groups of videos."""
    num_queries: int
    """Captions of the proof half."""
    num_groups: int
    """Groups of videos in the proof half."""
    num_choosing_groups: int
    """Groups of videos in the choosing half."""
    times_used: float
    """Uses before this run, for another challenger or champion. A use that shared part of the groups counts as that part."""
    alpha: float | None
    """The significance level of all tests of this run together; None if nothing new was tested."""
    alpha_of_all: float = ALPHA
    """The significance level of all uses of these rows together."""


@dataclass(frozen=True)
class Selected:
    """The champion, which is exported: the content of selected.json."""

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
    """On the choosing half. Biased upwards, because that half also chose the checkpoint."""
    challenges: tuple[Challenge, ...]
    notes: tuple[str, ...]
    """Why settings could not take part, or why nothing could be tested."""
    proof: ProofRows
    proven: Challenge | None = None
    """The challenge that the champion won, in this run or an earlier one; None for the base."""


def read_selected(champion: Path) -> Selected:
    """Read the champion.

    Args:
        champion: The folder that the select stage writes.

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


def adapter_of(champion: Path) -> Path | None:
    """Return the champion's adapter folder; None if the base is the champion.

    Args:
        champion: The folder that the select stage writes.

    Raises:
        ArtifactError: selected.json is missing or broken.
    """
    return champion / "adapter" if read_selected(champion).adapter_sha256 else None


def _checked(selected: Selected) -> Selected:
    """Return the record with its names checked.

    Raises:
        ValueError: a field is not a valid name.
    """
    plain_name(selected.setting, what="setting")
    if not isinstance(selected.backbone, str) or len(selected.backbone) > 1024 or not selected.backbone.isprintable():
        raise ValueError(f"backbone is {shown(selected.backbone)}, wanted a name")
    for name in ("run_id", "adapter_sha256", "gallery"):
        if getattr(selected, name) != "":
            plain_name(getattr(selected, name), what=name)
    return selected
