"""Make pairs of clips and captions, and split them by video."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, DECISIONS, FRAMES, INGEST, PAIRS, run_stage
from vidseek_media.ingest import read_videos
from vidseek_retrieval.duplicates import read_duplicates, same_videos
from vidseek_training.pairs import make_pairs
from vidseek_training.proof import why_no_proof


def main() -> str:
    """The pairs stage."""
    params = load_params().pairs
    decided = same_videos(
        read_duplicates(DECISIONS / "duplicates.parquet"), read_videos(INGEST), min_share=params.near_duplicate_share
    )
    report = make_pairs(INGEST, CAPTION, FRAMES, out=PAIRS, decided=decided, **params.model_dump())
    warning = why_no_proof(report.num_validation_groups) if report.num_out else ""
    return (
        f"{report.num_out} pairs: {report.num_train} train, {report.num_validation} validation, "
        f"{report.num_test} test; {report.num_rejected} rejected; {report.num_groups} groups of videos, the largest of "
        f"{report.num_in_largest_group}; also in training: {report.num_captions_on_both_sides} captions and "
        f"{report.num_clips_on_both_sides} clips of validation and test"
        + (f". No adapter will be {warning.removeprefix('not ')}" if warning else "")
    )


if __name__ == "__main__":
    run_stage(main)
