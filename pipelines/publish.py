"""Build the new collection beside the live one, verify it, and only then move the alias."""

from pipelines.stage import PATHS, alias_of, run_stage
from vidseek.archive import ALIAS
from vidseek.params import load_params
from vidseek_retrieval.confidence.calibrate import read_calibration
from vidseek_retrieval.dedup.video_matches import read_duplicates
from vidseek_retrieval.index.open_backend import open_home
from vidseek_retrieval.index.publish import publish


def main() -> str:
    """The publish stage. From an experiment it moves the experiment's own alias, never the live one."""
    params = load_params().publish
    alias = alias_of(ALIAS)
    report = publish(
        PATHS.embed, PATHS.cut, PATHS.ingest, PATHS.caption, PATHS.segment_dirs,
        index=open_home(PATHS.index, params.server), alias=alias, cut=params.cut,
        keep_previous=params.keep_previous, min_recall=params.min_recall,
        compact_share=params.compact_share, settings=params.index, calibration=read_calibration(PATHS.calibrate),
        duplicates=read_duplicates(PATHS.duplicates), fields_dir=PATHS.fields, receipt=PATHS.receipts / "publish.json",
    )
    done = "is live" if report.moved else "was live already"
    return (
        f"{report.num_points} clips ({report.num_captions} with captions) in {report.collection}: {report.num_written} "
        f"written, {report.num_deleted} deleted; recall@10 {report.verification.recall_at_10:.3f}; it {done} as {alias!r}"
    )


if __name__ == "__main__":
    run_stage(main)
