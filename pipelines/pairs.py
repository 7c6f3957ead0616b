"""Make pairs of clips and captions, and split them by video."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.actions.feedback import TABLE
from vidseek.params import load_params
from vidseek_media.sources.ingest import read_videos
from vidseek_media.tables import FEEDBACK, read_table
from vidseek_retrieval.dedup.video_matches import read_duplicates, same_videos
from vidseek_training.dataset.pair_changes import changes_since
from vidseek_training.dataset.pairs import make_pairs
from vidseek_training.dataset.training_set import read_training_set
from vidseek_training.evaluation.proof import why_no_proof


def main() -> str:
    """The pairs stage."""
    params = load_params().pairs
    found = read_duplicates(PATHS.duplicates)
    decided = same_videos(
        found, read_videos(PATHS.ingest) if found else (), min_share=params.near_duplicate_share
    )
    report = make_pairs(
        PATHS.ingest, PATHS.caption, PATHS.frames, out=PATHS.pairs, settings=params, decided=decided,
        frozen=read_training_set(PATHS.training_set), memory=PATHS.pair_memory,
        feedback=read_table(said_of_hits, FEEDBACK) if (said_of_hits := PATHS.decisions / TABLE).exists() else None,
    )
    warning = why_no_proof(report.num_validation_groups) if report.num_out else ""
    frozen = f" (frozen; {report.num_waiting} new ones wait)" if PATHS.training_set.exists() else ""
    said = (
        f"{report.num_out} pairs{frozen}: {report.num_train} train, {report.num_validation} validation, "
        f"{report.num_test} test; {report.num_rejected} rejected; {report.num_groups} groups of videos, the largest of "
        f"{report.num_in_largest_group}; also in training: {report.num_captions_on_both_sides} captions and "
        f"{report.num_clips_on_both_sides} clips of validation and test"
        + (f"; of judged hits {report.judgements}" if any(vars(report.judgements).values()) else "")
        + (f". No adapter will be {warning.removeprefix('not ')}" if warning else "") + _since_adapters()
    )
    return with_rejected(said, PATHS.pairs)


def _since_adapters() -> str:
    """What is new for each adapter that is there: `train` depends on these pairs, and runs where they differ."""
    found = [
        f". Adapter {folder.name}: {changes if changes.num_all else 'its pairs are the same, nothing new to train on'}"
        for folder in sorted(PATHS.adapters.glob("[!.]*/")) if (changes := changes_since(folder, PATHS.pairs_table))
    ]
    return "".join(found)


if __name__ == "__main__":
    run_stage(main)
