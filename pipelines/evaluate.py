"""Prove it: base against adapted against exported on test queries, and retention."""

from pipelines.stage import PATHS, run_stage
from vidseek.params import load_params
from vidseek_training.evaluation.evaluate import evaluate, write_evaluation
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
    write_evaluation(evaluation, PATHS.reports / "evaluate")
    told = [
        f"{name}: R@1 {entry['base']['r1']:.3f} to {entry['adapted']['r1']:.3f}"
        for name, entry in evaluation.figures["galleries"].items()
    ]
    return "; ".join(told) or "no test pair: nothing was measured"


if __name__ == "__main__":
    run_stage(main)
