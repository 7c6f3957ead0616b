"""List the source, probe what is new, and write the tables of videos and captions."""

from pipelines.params import load_params
from pipelines.stage import DECISIONS, DOWNLOADS, INGEST, STATE, run_stage
from vidseek_media.forgotten import read_forgotten
from vidseek_media.ingest import ingest
from vidseek_media.sources import open_source
from vidseek_media.youtube import DownloadSettings


def main() -> str:
    """The ingest stage."""
    params = load_params().ingest
    settings = DownloadSettings(**params.youtube.model_dump())
    report = ingest(
        open_source(params.source, downloads=DOWNLOADS, settings=settings), out=INGEST, ledger=STATE / "ledger",
        timeout_seconds=params.timeout_seconds, workers=params.workers, clip_pattern=params.clip_pattern,
        forgotten=read_forgotten(DECISIONS),
    )
    return (
        f"{report.num_in} files, {report.num_out} videos, {report.num_rejected} rejected, {report.num_probed} new; "
        f"{report.num_captions_in} captions, {report.num_captions_rejected} rejected"
    )


if __name__ == "__main__":
    run_stage(main)
