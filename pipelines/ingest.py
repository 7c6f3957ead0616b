"""List the source, probe what is new, and write the tables of videos and captions."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.forgotten import read_forgotten
from vidseek_media.sources.ingest import ingest
from vidseek_media.sources.opening import open_source


def main() -> str:
    """The ingest stage."""
    params = load_params().ingest
    source = open_source(params.source, downloads=PATHS.downloads, settings=params)
    report = ingest(
        source, out=PATHS.ingest, ledger=PATHS.ledger, timeout_seconds=params.timeout_seconds, workers=params.workers,
        captions=params.captions, clip_pattern=params.clip_pattern, forgotten=read_forgotten(PATHS.decisions),
        max_gone_share=params.max_gone_share,
    )
    said = (
        f"{report.num_in} files, {report.num_out} videos, {report.num_rejected} rejected, {report.num_probed} new; "
        f"{report.num_captions_in} captions, {report.num_captions_rejected} rejected"
    )
    if report.num_away:
        said += f"; {report.num_away} cannot be read now and stay as they were"
    return with_rejected(said, PATHS.ingest)


if __name__ == "__main__":
    run_stage(main)
