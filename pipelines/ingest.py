"""List the source, probe what is new, and write the tables of videos and captions."""

from pipelines.params import load_params
from pipelines.stage import INGEST, STATE, run_stage
from vidseek_media.ingest import ingest


def main() -> str:
    """The ingest stage."""
    params = load_params().ingest
    report = ingest(
        params.source, out=INGEST, ledger=STATE / "ledger", timeout_seconds=params.timeout_seconds,
        workers=params.workers, clip_pattern=params.clip_pattern,
    )
    return (
        f"{report.num_in} files, {report.num_out} videos, {report.num_rejected} rejected, {report.num_probed} new; "
        f"{report.num_captions_in} captions, {report.num_captions_rejected} rejected"
    )


if __name__ == "__main__":
    run_stage(main)
