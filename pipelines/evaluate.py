"""Prove it: base against adapted against exported, retention, and moments over the published windows."""

from typing import Any

from pipelines.stage import PATHS, run_stage
from vidseek.params import Params, load_params
from vidseek_media.cutting.cut import read_clips
from vidseek_retrieval.search.moment_recall import PublishedWindows, Truth, moment_recalls
from vidseek_training.evaluation.evaluate import Evaluation, evaluate, write_evaluation
from vidseek_training.hub import pinned


def main() -> str:
    """The evaluate stage."""
    params = load_params()
    evaluation = evaluate(
        PATHS.champion, PATHS.encoder, backbone=pinned(params.backbone.name), pairs=PATHS.pairs_table, frames=PATHS.frames,
        general=PATHS.general.data if params.general.source else None, resamples=params.evaluate.resamples,
        seed=params.evaluate.seed, variant=params.embed.variant, query_variant=params.search.variant,
        near_duplicate_bits=params.pairs.near_duplicate_bits, near_duplicate_share=params.pairs.near_duplicate_share,
    )
    evaluation.figures["moments"] = _moments(evaluation, params)
    write_evaluation(evaluation, PATHS.reports / "evaluate")
    told = [
        f"{name}: R@1 {entry['base']['r1']:.3f} to {entry['adapted']['r1']:.3f}"
        for name, entry in evaluation.figures["galleries"].items()
    ]
    return "; ".join(told) or "no test pair: nothing was measured"


def _moments(evaluation: Evaluation, params: Params) -> dict[str, dict[str, Any]]:
    windows = PublishedWindows.load(PATHS.embed, PATHS.cut, cut=params.publish.cut)
    found = windows.search(evaluation.exported.texts, margin=params.search.margin(windows.score_spread))
    spans = {str(clip.clip_id): clip for clip in read_clips(PATHS.cut)}
    table = evaluation.test.table
    truths = [
        Truth(row.video_id, spans[row.clip_id].start_ms, spans[row.clip_id].end_ms) for row in table.itertuples()
    ]
    groups, result = list(evaluation.test.groups), {}
    for gallery in sorted(set(table.gallery)):
        rows = [row for row, name in enumerate(table.gallery) if name == gallery]
        result[gallery] = moment_recalls(
            [found[row] for row in rows], [truths[row] for row in rows], [groups[row] for row in rows],
            resamples=params.evaluate.resamples, seed=params.evaluate.seed,
        )
    return result


if __name__ == "__main__":
    run_stage(main)
