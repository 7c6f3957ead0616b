"""The gate before training."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, CUT, INGEST, PAIRS, REPORTS, run_stage
from vidseek_quality.gates import check_pairs
from vidseek_quality.thresholds import PairThresholds


def main() -> str:
    """The check_pairs stage."""
    result = check_pairs(
        PAIRS / "pairs.parquet", CUT / "clips.parquet", captions=CAPTION / "captions.parquet",
        groups=PAIRS / "groups.parquet", videos=INGEST / "videos.parquet",
        rejected=[CAPTION / "rejected.parquet", PAIRS / "rejected.parquet"], out=REPORTS / "gates" / "pairs",
        thresholds=PairThresholds(**load_params().gates.pairs.model_dump()),
    )
    return f"passed; {' '.join(result.notes)}" if result.notes else "passed"


if __name__ == "__main__":
    run_stage(main)
