"""Compares base, adapted model and exported bundle on test queries that were not used to choose anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.json_files import write_json
from vidseek_quality.intervals import share_interval
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.answers import write_answers
from vidseek_training.evaluation.both_sides import figures_without_both_sides
from vidseek_training.evaluation.champion import adapter_of, read_selected
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import Ranks, paired_gain, recall_gain, recall_interval
from vidseek_training.evaluation.retrieval_metrics import RetrievalMetrics, Vectors, judge
from vidseek_training.fitting import lora, pictures
from vidseek_training.settings import NEAR_DUPLICATE_SHARE

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Evaluation:
    """The result of the stage `evaluate`; `figures` is metrics.json."""

    figures: dict[str, Any]
    test: PairSet
    exported: Vectors
    """Of the bundle, on the test pairs."""


def evaluate(
    champion: Path, bundle: Path, *, backbone: str, pairs: Path, frames: Path, general: Path | None, resamples: int,
    seed: int, variant: str, query_variant: str | None = None, near_duplicate_bits: int | None = None,
    near_duplicate_share: float = NEAR_DUPLICATE_SHARE,
) -> Evaluation:
    """Evaluate the base, the adapted model and the exported bundle on the same test pairs.

    Args:
        champion: Output of the stage `select`.
        bundle: Output of the stage `export`.
        backbone: Name, folder or hub id of the base.
        pairs: The pairs table. groups.parquet beside it has the groups of videos that intervals resample.
        frames: Output of the stage `frames`.
        general: Folder of the general world; None skips retention.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.
        variant: Precision of the bundle that embeds clips: `fp32`, `fp16` or `int8`.
        query_variant: Precision that embeds queries; None takes `variant`.
        near_duplicate_bits: Frames whose hashes differ in at most this many bits show the same; None skips the comparison
            of test clips with the general world.
        near_duplicate_share: Share of a clip's frames that must show the same, from 0 to 1.

    Raises:
        ArtifactError: an output of an earlier stage is missing or broken.
    """
    selected, base = read_selected(champion), backbones.load(backbone)
    adapted = lora.merged(base, adapter_of(champion))
    encoder = Encoder.load(bundle, variant=variant, threads=1, lanes=usable_cores())
    queries = encoder if query_variant in (None, variant) else Encoder.load(bundle, variant=query_variant, towers=["text"])
    if encoder.spec.backbone != backbone:
        raise ArtifactError(
            f"{bundle} was made from {encoder.spec.backbone}, backbone.name is {backbone}", code="other-backbone",
            remedy="Run `dvc repro export`",
        )
    test = load_pairs(pairs, frames, base.spec, split="test")
    exported = _exported_vectors(encoder, queries, test)
    judged = {
        "base": judge(embed_pairs(base, test), test.table),
        "adapted": judge(embed_pairs(adapted, test), test.table), "exported": judge(exported, test.table),
    }
    figures: dict[str, Any] = {
        "setting": selected.setting, "adapter_sha256": selected.adapter_sha256,
        "encoder_version": encoder.spec.encoder_version, "variant": encoder.variant, "query_variant": queries.variant,
        "num_test_pairs": len(test),
        "galleries": _galleries(judged, test, resamples=resamples, seed=seed),
        "num_test_groups": len(set(test.groups)),
        "two_way": {name: judgement.choice_shares(test.table) for name, judgement in judged.items()},
        "two_way_intervals": _choices(judged, test, resamples=resamples, seed=seed),
        "retention": measure_retention(base, adapted, general, resamples=resamples, seed=seed),
    }
    figures["both_sides"] = figures_without_both_sides(
        judged, test, base.spec, pairs=pairs, frames=frames, general=general, max_bits=near_duplicate_bits or 0,
        min_share=near_duplicate_share,
    )
    return Evaluation(figures, test, exported)


def _exported_vectors(encoder: Encoder, queries: Encoder, pairs: PairSet) -> Vectors:
    contrasts = [row.contrast or row.caption for row in pairs.table.itertuples()]
    first, owner = pairs.clips()
    return Vectors(
        encoder.embed_frames(np.asarray(pairs.frames[first]))[owner], queries.embed_texts(pairs.captions),
        queries.embed_texts(contrasts),
    )


def _galleries(
    judged: dict[str, RetrievalMetrics], pairs: PairSet, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """For each gallery every model's figures, recalls with intervals, and the paired gains of adapted over base."""
    result: dict[str, dict[str, Any]] = {}
    for gallery in sorted(set(pairs.table.gallery)):
        rows = (pairs.table.gallery == gallery).to_numpy()
        table = pairs.table[rows]
        entry: dict[str, Any] = {
            "num_queries": int(rows.sum()), "num_clips": int(table.clip_id.nunique()),
            "num_groups": len(set(pairs.groups[rows])),
        }
        for name, judgement in judged.items():
            entry[name] = judgement.figures(pairs.table)[gallery] | _recall_intervals(
                judgement.text_ranks[rows], pairs.groups[rows], resamples=resamples, seed=seed
            )
        entry["gain"] = judged["adapted"].gain_over(
            judged["base"], pairs.table, gallery, pairs.groups, resamples=resamples, seed=seed
        )
        result[gallery] = entry
    return result


def _recall_intervals(
    ranks: Ranks, groups: NDArray[np.str_], *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    return {
        f"r{k}_interval": recall_interval(ranks, k, groups, resamples=resamples, seed=seed).to_json() for k in (1, 5, 10)
    }


def _choices(judged: dict[str, RetrievalMetrics], pairs: PairSet, *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """For each axis the share of right two-way choices of base and adapted, and the paired gain, with intervals."""
    base, adapted = judged["base"].choices, judged["adapted"].choices
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    found = {}
    for axis in judged["base"].choice_shares(pairs.table):
        rows = (pairs.table.axis == axis).to_numpy() & ~np.isnan(base)
        groups = pairs.groups[rows]
        found[axis] = {
            "base": share_interval(base[rows], groups, **options).to_json(),
            "adapted": share_interval(adapted[rows], groups, **options).to_json(),
            "gain": paired_gain(base[rows], adapted[rows], groups, **options).to_json(),
        }
    return found


def measure_retention(
    base: Backbone, adapted: Backbone, general: Path | None, *, resamples: int, seed: int
) -> dict[str, Any] | str:
    """Measure what the adapted model retains of the general world: recalls before and after, and the paired change.

    Args:
        base: The base model.
        adapted: The adapted model.
        general: Folder of the general world; None if there is none.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the bootstrap.

    Returns:
        The figures, or why there are none.
    """
    if general is None:
        return NOT_MEASURED
    pairs = load_pairs(general / "pairs" / "pairs.parquet", general / "frames", base.spec, split="test")
    if not len(pairs):
        return NOT_MEASURED
    judged = {
        name: judge(embed_pairs(model, pairs), pairs.table) for name, model in (("base", base), ("adapted", adapted))
    }
    before, after = judged["base"].text_ranks, judged["adapted"].text_ranks
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    return {
        "num_queries": len(pairs), "num_groups": len(set(pairs.groups)),
        **{name: judgement.text.figures() | _recall_intervals(judgement.text_ranks, pairs.groups, **options)
           for name, judgement in judged.items()},
        "two_way": {name: judgement.choice_shares(pairs.table) for name, judgement in judged.items()},
        "two_way_intervals": _choices(judged, pairs, **options),
        "change": {f"r{k}": recall_gain(before, after, k, pairs.groups, **options).to_json() for k in (1, 5, 10)},
    }


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write metrics.json, recalls.csv (for `dvc plots`) and pictures/ with the results of test queries.

    Args:
        evaluation: The result.
        out: The folder to write.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", evaluation.figures)
    write_csv(out / "recalls.csv", ["gallery", "model", "k", "recall"], (
        [gallery, model, k, entry[model][f"r{k}"]]
        for gallery, entry in evaluation.figures["galleries"].items() for model in ("base", "adapted") for k in (1, 5, 10)
    ))
    if len(evaluation.test):
        pictures.draw_retrieval(
            evaluation.test, evaluation.exported.texts, evaluation.exported.videos, out / "pictures" / "retrieval.png"
        )
        write_answers(evaluation.test, evaluation.exported, out / "pictures")
