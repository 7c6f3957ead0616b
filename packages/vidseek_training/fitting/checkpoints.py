"""Saves the state of a training, so that a stopped run continues with the same result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.folders import sweep, whole_file
from vidseek_media.names import plain_name
from vidseek_training.torch_files import read_torch

REMEDY = "Delete it to begin the training again"


def fingerprint(**about: object) -> str:
    """16 hex digits of all that decides a training's result: a checkpoint of another one is not gone on from."""
    canonical = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class Checkpoint:
    """The one checkpoint of a setting, in a file that names setting and fingerprint."""

    def __init__(self, folder: Path, setting: str, mark: str) -> None:
        self.path = folder / f"{setting}-{mark}.pt"
        self._others = f"{setting}-" + "[0-9a-f]" * 16

    def save(self, state: dict[str, Any]) -> None:
        """Write `state`, tensors and plain values, in the place of the one before; whole, or the one before stays.

        Raises:
            ArtifactError: the disk does not take it.
        """
        with foreign(
            ArtifactError, f"checkpoint {self.path} cannot be written", code="not-writable",
            remedy="Make room or mend the rights, then run it again: it goes on from the last one that is whole",
            errors=(OSError, RuntimeError),  # torch's writer raises RuntimeError on a full disk
        ), whole_file(self.path) as beside:
            torch.save(state, beside)

    def load(self) -> dict[str, Any] | None:
        """Load the last saved state; None if there is none.

        Raises:
            ArtifactError: it cannot be read.
        """
        if not self.path.is_file():
            return None
        try:
            state = read_torch(self.path)
            if state.get("run_id"):
                plain_name(state["run_id"], what="run_id")  # MLflow is asked for it
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"checkpoint {self.path} cannot be read: {error}", code="checkpoint-broken", remedy=REMEDY,
            ) from error
        return state

    def remove(self) -> None:
        """Delete it, and those that earlier trainings of the setting left, half-written ones too."""
        for path in self.path.parent.glob(f"{self._others}.pt"):
            path.unlink(missing_ok=True)
        sweep(self.path.parent, f"{self._others}.pt")
