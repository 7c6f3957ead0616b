"""Test figures without the queries whose caption or frames also occur in training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.splitting.both_sides import read_both_sides, read_hashes, said_elsewhere, shown_elsewhere
from vidseek_media.tables import PAIRS, read_table
from vidseek_training.backbones import BackboneSpec
from vidseek_training.dataset.pair_set import PairSet
from vidseek_training.evaluation.metrics import summarise
from vidseek_training.evaluation.retrieval_metrics import RetrievalMetrics

Flags = NDArray[np.bool_]


def figures_without_both_sides(
    judged: Mapping[str, RetrievalMetrics], test: PairSet, spec: BackboneSpec, *, pairs: Path, frames: Path,
    general: Path | None, max_bits: int, min_share: float,
) -> dict[str, Any]:
    """Count the test queries that also occur in training or in the general world, and compute each model's figures without
    them.

    The galleries stay whole, so that a search is as hard as with these queries.

    Args:
        judged: Retrieval metrics of each model.
        test: The test pairs.
        spec: Spec of the base; two captions are equal if it reads the same tokens.
        pairs: The pairs table; both_sides.parquet lies beside it.
        frames: Output of the stage `frames`.
        general: Folder of the general world; None if there is none.
        max_bits: Frames of the general world whose hashes differ in at most this many bits show the same.
        min_share: Share of a clip's frames that must show the same, from 0 to 1.

    Raises:
        ArtifactError: a table is broken.
    """
    seen = seen_in_training(test, spec, pairs) | _seen_in_general(
        test, spec, frames, general, max_bits=max_bits, min_share=min_share
    )
    table, anywhere = test.table, np.logical_or.reduce(list(seen.values()))
    without: dict[str, Any] = {}
    for gallery in sorted(set(table.gallery)):
        rows = (table.gallery == gallery).to_numpy() & ~anywhere
        without[gallery] = {"num_queries": int(rows.sum())}
        if rows.any():
            without[gallery] |= {name: summarise(each.text_ranks[rows]) for name, each in judged.items()}
    return {**{f"num_{name}": int(flags.sum()) for name, flags in seen.items()}, "without": without}


def seen_in_training(test: PairSet, spec: BackboneSpec, pairs: Path) -> dict[str, Flags]:
    """Return which test pairs have a caption, and which show a clip, that also occurs in training.

    Args:
        test: The test pairs.
        spec: Spec of the base; two captions are equal if it reads the same tokens.
        pairs: The pairs table; both_sides.parquet lies beside it.

    Returns:
        Boolean arrays of shape (n,), by the name of the figure.
    """
    found = read_both_sides(pairs.parent)
    keys = pd.MultiIndex.from_frame(test.table[["clip_id", "caption"]])
    flagged = {
        name: keys.isin(pd.MultiIndex.from_frame(found.loc[found[f"same_{name}"].astype(bool), ["clip_id", "caption"]]))
        for name in ("caption", "frames")
    }
    everything = read_table(pairs, PAIRS, columns=["caption", "split"])
    learned = everything["caption"][everything["split"] == "train"]
    return {
        "captions_in_training": flagged["caption"] | _same_tokens(test, spec, list(learned)),
        "clips_in_training": flagged["frames"],
    }


def _seen_in_general(
    test: PairSet, spec: BackboneSpec, frames: Path, general: Path | None, *, max_bits: int, min_share: float
) -> dict[str, Flags]:
    nothing = np.zeros(len(test), np.bool_)
    if general is None or not len(test):
        return {"captions_in_general": nothing, "clips_in_general": nothing}
    others = read_table(general / "pairs" / "pairs.parquet", PAIRS, columns=["clip_id", "caption"])
    captions = list(others["caption"])
    return {
        "captions_in_general": said_elsewhere(test.captions, captions) | _same_tokens(test, spec, captions),
        "clips_in_general": shown_elsewhere(
            test.table.clip_id, read_hashes(frames), others["clip_id"], read_hashes(general / "frames"), max_bits=max_bits,
            min_share=min_share,
        ),
    }


def _same_tokens(test: PairSet, spec: BackboneSpec, captions: list[str]) -> Flags:
    """Return which test captions have the same tokens as one of `captions`."""
    if not captions:
        return np.zeros(len(test), np.bool_)
    tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
    known = {row.tobytes() for row in tokenizer.encode(captions)}
    return np.array([row.tobytes() in known for row in test.ids], np.bool_)
