"""The gate before training: the pairs, and the tables that they come from."""

from pipelines.params import load_params
from pipelines.stage import CAPTION, CUT, FRAMES, INGEST, PAIRS, REPORTS, run_stage
from vidseek_quality.gates import check_pairs
from vidseek_quality.thresholds import ArchiveThresholds, PairThresholds


def main() -> str:
    """The check_pairs stage."""
    params = load_params()
    result = check_pairs(
        INGEST, CUT, FRAMES, CAPTION, PAIRS, out=REPORTS / "gates" / "pairs",
        archive=ArchiveThresholds(**params.gates.archive.model_dump()),
        thresholds=PairThresholds(**params.gates.pairs.model_dump()),
    )
    return f"passed; {' '.join(result.notes)}" if result.notes else "passed"


if __name__ == "__main__":
    run_stage(main)
