"""Fit what a score says of how likely a hit is right, and measure it."""

from pipelines.stage import PATHS, run_stage
from vidseek.actions.feedback import TABLE, read_frozen
from vidseek.params import load_params
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.confidence.calibrate import Said, calibrate, write_report
from vidseek_retrieval.search.moment_recall import PublishedWindows


def main() -> str:
    """The calibrate stage."""
    params = load_params()
    windows = PublishedWindows.load(PATHS.embed, PATHS.cut, cut=params.publish.cut)
    report = calibrate(
        PATHS.embed, PATHS.cut, PATHS.pairs_table,
        Encoder.load(PATHS.encoder, variant=params.search.variant, towers=["text"]),
        cut=params.publish.cut, margin=params.search.margin(windows.score_spread),
        max_queries=params.calibrate.max_queries, prior=params.calibrate.prior,
        general_pairs=PATHS.general.pairs_table if params.general.source else None,
        feedback=[Said(each.query, each.clip_id, each.relevant) for each in read_frozen(PATHS.decisions / TABLE)],
    )
    write_report(report, out=PATHS.calibrate, reports=PATHS.reports / "calibrate")
    told = {name: value for name, value in report.figures.items() if name != "of_hits"}
    return ", ".join(f"{name} {value}" for name, value in told.items())


if __name__ == "__main__":
    run_stage(main)
