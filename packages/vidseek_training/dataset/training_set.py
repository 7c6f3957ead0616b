"""The frozen training set: the pairs that are trained and measured on, whatever captions come in, until it is thawed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.names import shown
from vidseek_media.tables import CAPTIONS, PAIRS, read_table, write_table
from vidseek_training.dataset.pair_changes import PairChanges, changes_since, compare_pairs

WAITING = "waiting.parquet"
"""Beside pairs.parquet: captions that would make a pair, and came after the set was frozen."""
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TrainingSetStatus:
    """What is trained on, and what has come since, as the last run of `pairs` found it."""

    frozen: bool
    num_train: int
    num_validation: int
    num_test: int
    num_new: int
    """Pairs that wait: they came after the set was frozen."""
    num_changed: int
    """Pairs of the frozen set whose frames are others today, or that are in another split."""
    num_gone: int
    """Pairs of the frozen set that `pairs` no longer makes: the video is gone, or its clip has no frames."""
    since_adapters: dict[str, PairChanges] = field(default_factory=dict)
    """What is new for each adapter that is there."""


def read_training_set(path: Path) -> pd.DataFrame | None:
    """Return the frozen pairs, of the schema PAIRS; None where nothing is frozen.

    Raises:
        ArtifactError: the table is broken.
    """
    if not path.exists():
        return None
    table = read_table(path, PAIRS)
    missing = table[["clip_id", "video_id", "caption", "split"]].isna().any(axis=1)
    strange = table.index[missing | ~table["split"].isin(_SPLITS)]
    if len(strange):
        raise ArtifactError(
            f"{path}: row {strange[0]} has the split {shown(table['split'][strange[0]])}, wanted a clip, its video, "
            f"a caption and one of {', '.join(_SPLITS)}", code="broken-rows",
            remedy="Run `vidseek training-set thaw`, then `dvc repro pairs`, then freeze it again",
        )
    return table


def frozen_captions(captions: pd.DataFrame, frozen: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the captions that pairs are made of, and those that are not among the frozen pairs.

    The former are the frozen pairs themselves, each stated to be in its split: they stay where the caption was changed or
    taken away since, and a group of videos of several splits is told apart as it is for what the source wishes.

    Args:
        captions: Schema CAPTIONS.
        frozen: Schema PAIRS.
    """
    known = pd.MultiIndex.from_frame(frozen[["clip_id", "caption"]])
    is_known = pd.MultiIndex.from_frame(captions[["clip_id", "text"]]).isin(known)
    texts = ["caption", "split", "gallery", "contrast", "axis"]
    kept = frozen.assign(**frozen[texts].fillna("")).rename(columns={"caption": "text"})
    return kept, captions[~is_known]


def freeze(pairs: Path, out: Path) -> TrainingSetStatus:
    """Write the pairs of the last run to `out`, whole or absent.

    Args:
        pairs: The pairs table.
        out: The frozen table.

    Raises:
        InputRejected: `out` is there, or there are no pairs.
        ArtifactError: the pairs table is missing or broken.
        OSError: the disk does not take it.
    """
    if out.exists():
        raise InputRejected(
            f"the training set is frozen already ({out})", code="already-frozen",
            remedy="Run `vidseek training-set thaw`, then `dvc repro pairs`, then freeze it again",
        )
    table = read_table(pairs, PAIRS)
    if not len(table):
        raise InputRejected(f"{pairs} has no pairs to freeze", code="no-pairs", remedy="Run `dvc repro pairs` with captions")
    write_table(out, table, PAIRS, sync=True)
    return status(pairs, out)


def thaw(out: Path) -> bool:
    """Remove the frozen table; False where there is none.

    Raises:
        OSError: it cannot be removed.
    """
    was_frozen = out.exists()
    out.unlink(missing_ok=True)
    return was_frozen


def forget_pairs(out: Path, video_id: str) -> None:
    """Take the pairs of a video out of the frozen table, where there is one.

    Raises:
        ArtifactError: the table is broken.
        OSError: the disk does not take it.
    """
    table = read_training_set(out)
    if table is not None and (table["video_id"] == video_id).any():
        write_table(out, table[table["video_id"] != video_id], PAIRS, sync=True)


def status(pairs: Path, frozen: Path, adapters: Path | None = None) -> TrainingSetStatus:
    """Return what is trained on, and what has come since.

    Args:
        pairs: The pairs table.
        frozen: The frozen table, which may be absent.
        adapters: The folder of adapters; None: do not look at them.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    table, kept = read_table(pairs, PAIRS), read_training_set(frozen)
    changes = compare_pairs(table if kept is None else kept, table)
    waiting = pairs.parent / WAITING
    num_waiting = len(read_table(waiting, CAPTIONS)) if kept is not None and waiting.exists() else 0
    folders = sorted(adapters.glob("[!.]*/")) if adapters is not None else []
    counts = {f"num_{split}": int((table["split"] == split).sum()) for split in _SPLITS}
    return TrainingSetStatus(
        frozen=kept is not None, **counts, num_new=num_waiting, num_changed=changes.num_changed, num_gone=changes.num_gone,
        since_adapters={folder.name: found for folder in folders if (found := changes_since(folder, pairs)) is not None},
    )
