"""The frozen training set: status, freeze, thaw."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vidseek import printing

if TYPE_CHECKING:
    from vidseek_training.dataset.training_set import TrainingSetStatus

_NEXT = "Run `dvc repro`: its line for the stage `pairs` says what is new since each adapter."


def training_set_status(as_json: printing.AsJson = False) -> None:
    """Whether the training set is frozen, and how many pairs are new since."""
    from vidseek.archive import Archive
    from vidseek_training.dataset.training_set import status

    archive = Archive.here()
    _show(status(archive.pairs_table, archive.training_set, archive.adapters), as_json=as_json)


def training_set_freeze(as_json: printing.AsJson = False) -> None:
    """Train and measure on the pairs that are there now, until `thaw`: captions may come in without a new model."""
    from vidseek.archive import Archive
    from vidseek_retrieval.dedup.decisions import deciding
    from vidseek_training.dataset.training_set import freeze

    archive = Archive.here()
    with deciding(archive.decisions):
        found = freeze(archive.pairs_table, archive.training_set)
    _show(found, as_json=as_json)


def training_set_thaw(as_json: printing.AsJson = False) -> None:
    """Take the pairs that came since into the training set: the next `dvc repro` trains where there are any."""
    from vidseek.archive import Archive
    from vidseek_retrieval.dedup.decisions import deciding
    from vidseek_training.dataset.training_set import thaw

    archive = Archive.here()
    with deciding(archive.decisions):
        was_frozen = thaw(archive.training_set)
    words = f"The training set is no longer frozen. {_NEXT}" if was_frozen else "The training set was not frozen."
    printing.tell({"was_frozen": was_frozen}, words, as_json=as_json)


def _show(found: TrainingSetStatus, *, as_json: bool) -> None:
    content = asdict(found)
    if as_json:
        printing.print_json(content)
        return
    del content["since_adapters"]
    adapters = {f"since adapter {name}": str(changes) for name, changes in found.since_adapters.items()}
    printing.report(content | adapters, as_json=False)
