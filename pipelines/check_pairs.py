"""The gate before training: the pairs, and the tables that they come from."""

from pipelines.stage import PATHS, run_stage
from vidseek.params import load_params
from vidseek_quality.gates import check_pairs


def main() -> str:
    """The check_pairs stage."""
    params = load_params()
    result = check_pairs(
        PATHS.ingest, PATHS.cut, PATHS.frames, PATHS.caption, PATHS.pairs, out=PATHS.reports / "gates" / "pairs",
        archive=params.gates.archive, thresholds=params.gates.pairs,
    )
    return f"passed; {' '.join(result.notes)}" if result.notes else "passed"


if __name__ == "__main__":
    run_stage(main)
