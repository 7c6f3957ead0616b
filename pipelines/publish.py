"""Build the new collection beside the live one, verify it, and only then move the alias."""

from pathlib import Path

from pipelines.stage import PATHS, alias_of, run_stage, say
from vidseek.archive import ALIAS, Archive
from vidseek.params import load_params
from vidseek.saved.after_publish import after_publish
from vidseek_encoder.encoder import Encoder
from vidseek_retrieval.confidence.calibrate import read_calibration
from vidseek_retrieval.confidence.prompt_tags import open_prompts, why_unapplied
from vidseek_retrieval.dedup.video_matches import read_duplicates
from vidseek_retrieval.index.open_backend import open_backend
from vidseek_retrieval.index.publish import publish


def main() -> str:
    """The publish stage. From an experiment it moves the experiment's own alias, never the live one."""
    settings = load_params()
    params, tags = settings.publish, settings.tags
    alias, calibration = alias_of(ALIAS), read_calibration(PATHS.calibrate)
    unapplied = why_unapplied(tags, calibration)
    prompts = open_prompts(
        tags, Encoder.load(PATHS.encoder, variant=settings.search.variant, towers=["text"]), calibration,
        kept=PATHS.prompt_vectors,
    ) if tags.prompts and not unapplied else None
    report = publish(
        PATHS.embed, PATHS.cut, PATHS.ingest, PATHS.caption, PATHS.segment_dirs,
        index=open_backend(PATHS.index, params.server), alias=alias, settings=params,
        calibration=calibration, duplicates=read_duplicates(PATHS.duplicates), fields_dir=PATHS.fields, prompts=prompts,
        receipt=PATHS.receipts / "publish.json",
    )
    if alias == ALIAS:
        for line in after_publish(Archive(Path.cwd())):
            say(line)
    done = "is live" if report.moved else "was live already"
    said = (
        f"{report.num_points} clips ({report.num_captions} with captions) in {report.collection}: {report.num_written} "
        f"written, {report.num_deleted} deleted; recall@10 {report.verification.recall_at_10:.3f}; it {done} as {alias!r}"
    )
    by_prompts = ", ".join(f"{each.tag} {each.num_clips}" for each in report.auto_tags)
    said += f"; clips with tags by prompts: {by_prompts}" if by_prompts else ""
    return f"{said}. Tags: {unapplied}" if unapplied else said


if __name__ == "__main__":
    run_stage(main)
