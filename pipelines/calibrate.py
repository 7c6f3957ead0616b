"""Fit what a score says of how likely a hit is right, and measure it."""

from pipelines.params import load_params
from pipelines.stage import CALIBRATE, CUT, DECISIONS, EMBED, ENCODER, GENERAL, PAIRS, REPORTS, run_stage
from vidseek.feedback import TABLE, read_frozen
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.calibrate import Said, calibrate, write_report
from vidseek_retrieval.moment_recall import PublishedWindows


def main() -> str:
    """The calibrate stage."""
    params = load_params()
    windows = PublishedWindows.load(EMBED, CUT, cut=params.publish.cut)
    report = calibrate(
        EMBED, CUT, PAIRS / "pairs.parquet", Encoder.load(ENCODER, variant=params.search.variant, towers=["text"]),
        cut=params.publish.cut, margin=params.search.margin(windows.score_spread),
        max_queries=params.calibrate.max_queries, prior=params.calibrate.prior,
        general_pairs=GENERAL / "pairs" / "pairs.parquet" if params.general.source else None,
        feedback=[Said(each.query, each.clip_id, each.relevant) for each in read_frozen(DECISIONS / TABLE)],
    )
    write_report(report, out=CALIBRATE, reports=REPORTS / "calibrate")
    told = {name: value for name, value in report.figures.items() if name != "of_hits"}
    return ", ".join(f"{name} {value}" for name, value in told.items())


if __name__ == "__main__":
    run_stage(main)
