"""List the source, probe what is new, and write the tables of videos and captions."""

from pipelines.stage import PATHS, run_stage, with_rejected
from vidseek.params import load_params
from vidseek_media.fields.statements import undeclared_told
from vidseek_media.files.folders import sweep, sweep_below
from vidseek_media.forgotten import read_forgotten
from vidseek_media.sources.ingest import FieldsOut, ingest
from vidseek_media.sources.opening import open_source
from vidseek_media.text.written_captions import read_written


def sweep_left() -> None:
    """Remove what stages that were killed left half-written: each run of the pipeline begins with this stage."""
    sweep(PATHS.root)
    for folder in PATHS.written:
        sweep_below(folder)


def main() -> str:
    """The ingest stage."""
    sweep_left()
    settings = load_params()
    params = settings.ingest
    source = open_source(params.source, downloads=PATHS.downloads, settings=params)
    report = ingest(
        source, out=PATHS.ingest, ledger=PATHS.ledger, timeout_seconds=params.timeout_seconds, workers=params.workers,
        captions=params.captions, clip_pattern=params.clip_pattern, forgotten=read_forgotten(PATHS.decisions),
        max_gone_share=params.max_gone_share, fields=FieldsOut(settings.fields.declared, PATHS.fields, PATHS.decisions),
        written=read_written(PATHS.decisions),
    )
    said = (
        f"{report.num_in} files, {report.num_out} videos, {report.num_rejected} rejected, {report.num_probed} new; "
        f"{report.num_captions_in} captions, {report.num_captions_rejected} rejected"
    )
    if report.num_written:
        said += f"; {report.num_written} captions that people wrote here"
    if report.num_away:
        said += f"; {report.num_away} cannot be read now and stay as they were"
    if report.num_values or report.num_values_rejected:
        said += f"; {report.num_values} values of fields, {report.num_values_rejected} rejected"
    said = with_rejected(said, PATHS.ingest)
    if report.num_values_rejected:
        said = with_rejected(said, PATHS.fields)
    return ". ".join([said, *undeclared_told(report.undeclared)])


if __name__ == "__main__":
    run_stage(main)
